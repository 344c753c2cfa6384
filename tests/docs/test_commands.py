"""Every command and every piece of code in README.md, docs/ and the other documents runs, or says why it does not.

Blocks of bash, console, python and yaml are taken page by page and in their order. They run in a folder that looks like
the repository's, with small pictures, stores, weights and experiments under the names that the pages use: commands in
bash, Python in one namespace per page, and a piece of an option file is laid over `quickstart` and read as `drsformer
train` reads it. A comment in the line before a block says what else happens to it:

    <!-- needs: data -->      it is not run, for want of a benchmark set; also `gpu`, `cluster`, `network`, `time`
    <!-- run by: FILE -->     it is not run here but by that script or test
    <!-- run with: ARGS -->   it is run, and each `drsformer train` in it gets these arguments, too

What is not run is parsed: each `drsformer ...`, in sentences, too, by the command's own parser, Python and YAML by
theirs. That files which a page names exist, tests/test_documents.py looks after.
"""

import ast
import contextlib
import dataclasses
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
import yaml
from skimage import data

from drsformer_arch import DRSformer
from drsformer_arch.cli import _parse, main
from drsformer_arch.options.reading import read_options
from drsformer_arch.rain.rain_synthesis import add_rain
from tests.runs import ENVIRONMENT, PROCESSES, drsformer

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")}
    | {ROOT / "datasets/README.md", ROOT / "drsformer_arch/weights/README.md"}
)
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+): (?P<value>.*?) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
RUN = ("bash", "console", "python", "yaml")
SHOWN = ("", "text", "diff", "toml", "bibtex")  # nothing that could run
NEEDS = ("data", "gpu", "cluster", "network", "time")
PARTS = ("options", "scripts", "examples", "benchmarks", "hubconf.py")  # of the repository, that commands name
# What is there for pages that read it, and not for those that make it: a command, and what it makes.
MADE = {r"-o derained\s": "derained", "prepare rain200h": "datasets/Rain200H/*.lmdb"}

# In bash, `drsformer` asks this process for a fork that has imported everything; importing it anew takes seconds.
PRELUDE = """
drsformer() {
    local said code
    said=$(mktemp -d)
    printf '%s\\n' "$said" "$PWD" "$@" > "$said/request"
    echo "$said" > "$REQUESTS"
    read -r code < "$ANSWERS"
    cat "$said/out"; cat "$said/err" >&2; rm -r "$said"
    return "$code"
}
set -euo pipefail
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A piece of code of a page, and the comment before it."""

    line: int
    mark: str | None
    value: str
    language: str
    text: str

    @property
    def runs(self) -> bool:
        return self.mark in (None, "run with")


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, match.start("language")) + 1, match["mark"], match["value"] or "", *match.group(3, 4))
        for match in BLOCK.finditer(text)
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_understood(page):
    text = page.read_text(encoding="utf-8")
    assert len(blocks(page)) * 2 == len(re.findall(r"^\s*```", text, re.MULTILINE)), "a block that is indented or open"
    for block in blocks(page):
        assert block.language in RUN + SHOWN, block
        assert block.mark in (None, "needs", "run by", "run with"), block
        if block.mark == "needs":
            assert block.value in NEEDS, block
        if block.mark == "run by":
            assert (ROOT / block.value).is_file(), block
        if block.language in ("bash", "console"):
            for words in commands(block):
                _parse(words)
        elif block.language == "python":
            ast.parse(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_within_sentences_are_right(page):
    sentences = BLOCK.sub("", page.read_text(encoding="utf-8"))
    sentences = re.sub(r"^#.*", "", sentences, flags=re.MULTILINE)  # on the page of trouble they are messages
    for code in re.findall(r"`(?:[A-Z_]+=\S+ )*drsformer\s([^`]+)`", sentences):
        command, *arguments = without_redirection(shlex.split(code.replace("...", "")))
        if arguments and arguments != ["--help"]:
            _parse([command, *arguments])
            continue
        with pytest.raises(SystemExit) as end:  # the name of a command
            _parse([command, "--help"])
        assert end.value.code == 0, code


def commands(block: Block) -> Iterator[list[str]]:
    """Arguments of each `drsformer` in a block."""
    for line in re.sub(r"\\\n", " ", block.text).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["drsformer"]:
            yield without_redirection(words[1:])


def without_redirection(words: list[str]) -> list[str]:
    """Leave out what follows a command."""
    return list(itertools.takewhile(lambda word: word not in (">", "|", "&", "&&", ";"), words))


def write_pair(folder: Path, names: Sequence[str], size: tuple[int, int], *, seed: int, parts: Sequence[str]) -> None:
    """Write rainy and clean pictures of equal names, into the folders `parts`."""
    height, width = size
    for index, name in enumerate(names):
        top = 10 * index
        clean = np.ascontiguousarray(data.chelsea()[top : top + height, 60 : 60 + width, ::-1])
        rainy = add_rain(clean, np.random.default_rng(seed + index))
        for part, picture in zip(parts, (rainy, clean), strict=True):
            path = folder / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), picture)


def zipped(folder: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder.parent))


@pytest.fixture(scope="module")
def small_world(tmp_path_factory) -> Path:
    """Make the folder in which pages are read: what they name, as small as commands take it."""
    world = tmp_path_factory.mktemp("world")
    for part in PARTS:
        (world / part).symlink_to(ROOT / part)
    # Pictures.
    names = ("a.png", "b.png")
    write_pair(world, names, (104, 100), seed=1, parts=("photographs", "clean"))
    shutil.copytree(world / "photographs", world / "rainy")
    shutil.copy(world / "photographs/a.png", world / "rainy.png")
    cv2.imwrite(str(world / "rainy.jpg"), cv2.imread(str(world / "rainy.png")))
    video = cv2.VideoWriter(str(world / "street.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (48, 32))
    for shade in (60, 120):
        video.write(np.full((32, 48, 3), shade, np.uint8))
    video.release()
    write_pair(world / "photos", names, (64, 72), seed=5, parts=("rainy", "clean"))
    for name, number in zip(names, (1, 2), strict=True):
        for copy, part in ((f"rain/{number}x2.png", "rainy"), (f"norain/{number}.png", "clean")):
            (world / "photos" / copy).parent.mkdir(exist_ok=True)
            shutil.copy(world / "photos" / part / name, world / "photos" / copy)
    # Pairs to train and test with.
    for split in ("train", "test"):
        write_pair(world / f"mine/{split}", names, (64, 72), seed=9, parts=("input", "target"))
        for name in ("Rain200H", "Rain100L", "Rain800"):
            write_pair(world / f"datasets/{name}/{split}", names, (232, 184), seed=3, parts=("input", "target"))
    (world / "Downloads").mkdir()
    zipped(world / "datasets/Rain200H", world / "Downloads/Rain200H.zip")
    drsformer(world, "prepare", "rain200h", "Downloads/Rain200H.zip", "-o", "datasets/Rain200H", "--lmdb")
    shutil.copytree(world / "mine", world / "datasets/quickstart")
    drsformer(world, "prepare", "pairs", "mine", "-o", "datasets/quickstart", "--lmdb")
    # Weights and experiments.
    torch.manual_seed(0)
    arguments = {"dim": 8, "num_blocks": (1, 1, 1, 1), "heads": (1, 2, 4, 8), "with_mefc": False}
    torch.save({"params": DRSformer(**arguments).state_dict()}, world / "net_g_latest.pth")
    (world / "weights").mkdir()
    shutil.copy(world / "net_g_latest.pth", world / "weights/deraining.pth")
    drsformer(
        world, "train", "-opt", "options/quickstart.yml", "--force_yml", "name=small", "network_g:dim=8", "num_gpu=0",
        "datasets:train:dataroot=mine/train", "datasets:val:dataroot=mine/test", "train:total_iter=4", "val:val_freq=4",
        "datasets:train:num_worker_per_gpu=0", "logger:print_freq=1",
    )  # fmt: skip
    shutil.copytree(world / "experiments/small", world / "experiments/large")
    # Results.
    shutil.copytree(world / "datasets/Rain200H/test/target", world / "results/Rain200H")
    for path in (world / "results/Rain200H").iterdir():
        cv2.imwrite(str(path), cv2.blur(cv2.imread(str(path)), (3, 3)))
    shutil.copytree(world / "clean", world / "derained")
    return world


@pytest.fixture
def world(small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the folder: what one page makes is not there for the next."""
    folder = tmp_path / "repository"
    shutil.copytree(small_world, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks(page))], ids=name_of)
def test_page_runs(page, world, monkeypatch):
    for command, results in MADE.items():
        if re.search(command, "".join(block.text for block in blocks(page) if block.runs)):
            for path in world.glob(results):
                shutil.rmtree(path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    namespace: dict[str, object] = {"__name__": "page"}
    with commands_served(world) as shell:
        for block in blocks(page):
            if not block.runs:
                continue
            where = f"{name_of(page)}:{block.line}"
            if block.language in ("bash", "console"):
                run_in_bash(block, shell, where)
            elif block.language == "python":
                exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)
            elif block.language == "yaml":
                check_options(block, world)


def run_in_bash(block: Block, shell: dict[str, str], where: str) -> None:
    text = re.sub(r"^\$ ", "", block.text, flags=re.MULTILINE) if block.language == "console" else block.text
    if block.mark == "run with":
        text = re.sub(r"^(drsformer train (?:[^#\n\\]|\\\n)*[^#\s\\])", rf"\1 {block.value}", text, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-c", PRELUDE + text], env=shell, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{where}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def check_options(block: Block, world: Path) -> None:
    """Read a piece of an option file as a part of `quickstart`."""
    options = yaml.safe_load((ROOT / "options/quickstart.yml").read_text(encoding="utf-8"))
    for name, section in yaml.safe_load(block.text).items():
        if name == "datasets":
            for split, dataset in section.items():
                common = {"gt_size": 48, "batch_size_per_gpu": 8} if split == "train" else {}
                options["datasets"][split] = common | dataset
        elif isinstance(section, dict):
            options[name] = (options.get(name) or {}) | section
        else:
            options[name] = section
    file = world / "piece.yml"
    file.write_text(yaml.safe_dump(options), encoding="utf-8")
    read_options(file, is_train=True)


@contextlib.contextmanager
def commands_served(folder: Path) -> Iterator[dict[str, str]]:
    """Serve `drsformer` of bash by forks; yields the environment for bash."""
    requests, answers = folder.parent / "requests", folder.parent / "answers"
    os.mkfifo(requests)
    os.mkfifo(answers)

    def serve() -> None:
        while said := requests.read_text().strip():
            place, where, *arguments = (Path(said) / "request").read_text().splitlines()
            process = PROCESSES.Process(target=_command, args=(place, where, arguments))
            process.start()
            process.join()
            answers.write_text(f"{process.exitcode}\n")

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    yield {**ENVIRONMENT, "PATH": path, "REQUESTS": str(requests), "ANSWERS": str(answers), "PYTHONPATH": str(ROOT)}
    requests.write_text("\n")
    server.join(10)


def _command(place: str, where: str, arguments: Sequence[str]) -> None:
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    os.chdir(where)
    sys.modules["__main__"] = ModuleType("__main__")  # processes that it starts need not import pytest
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{place}/{name}", os.O_WRONLY | os.O_CREAT), number)
    sys.exit(main(arguments))
