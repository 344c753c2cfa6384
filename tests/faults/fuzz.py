"""Feeds the commands spoiled files in a process of its own and prints what happened, as JSON.

    python -m tests.faults.fuzz FAMILY --seed 1 --count 300 --folder EMPTY

A case survives where the command ends with its result, or with one short line that names the file; where of many files
each has its result or its line and a sound one beside them has its result; and where nothing takes more memory than the
pictures that a file of its size can hold. A crash of the process is seen by who started it.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import safetensors.torch
import tifffile
import torch
from PIL import Image
from skimage import data

from drsformer_arch.archs import DRSformer
from drsformer_arch.cli import main
from drsformer_arch.data.store.store import Store
from tests.faults.mutation import spoiled, spoiled_values
from tests.golden_weights import load_golden_weights

LONGEST_LINE = 600  # characters
MOST_MEMORY = 2**30  # bytes more than at the beginning
NETWORK = {"dim": 8, "num_blocks": [1, 1, 1, 1], "with_mefc": False}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Said(NamedTuple):
    """How a command ended: exit code and output."""

    code: int
    errors: list[str]  # lines that begin with "error: "
    problem: str | None  # why this is no end that a user should see


def run(*arguments: object) -> Said:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
    except SystemExit as error:
        return Said(-1, [], f"left by SystemExit: {error}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Said(-1, [], f"{type(error).__name__}: {error}"[:LONGEST_LINE])
    return Said(code, *_judged(code, err.getvalue(), out.getvalue()))


def _judged(code: int, err: str, out: str) -> tuple[list[str], str | None]:
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    too_long = [line for line in errors if len(line) > LONGEST_LINE]
    problem = None
    if "Traceback" in err + out:
        problem = f"a traceback: {err[-LONGEST_LINE:]}"
    elif code not in (0, 1, 2):
        problem = f"exit code {code}"
    elif (code == 0) != (not errors):
        problem = f"exit code {code} and {len(errors)} errors: {err[-LONGEST_LINE:]}"
    elif too_long:
        problem = f"a line of {len(too_long[0])} characters: {too_long[0][:200]}"
    elif CONTROL.search(err + out):
        problem = f"control characters: {CONTROL.findall(err + out)[:9]}"
    return errors, problem


class Count:
    """The files that were tried, and those that were not survived."""

    def __init__(self) -> None:
        self.tried = 0
        self.problems: list[str] = []

    def add(self, files: int, problems: list[str]) -> None:
        """Count files of one run of a command."""
        self.tried += files
        self.problems += problems


def one_by_one(said: Said, name: str, count: Count) -> None:
    """Judge a command that was given one spoiled file: it works, or there is one line."""
    problems = [said.problem] if said.problem else []
    if said.code == 2 and len(said.errors) != 1:
        problems.append(f"{len(said.errors)} lines: {said.errors[:3]}")
    count.add(1, [f"{name}: {problem}" for problem in problems])


def each_has_its_result_or_its_line(said: Said, names: list[str], there: Callable[[str], bool], count: Count) -> None:
    """Judge a command that was given many spoiled files and a sound one, `sound`."""
    problems = [said.problem] if said.problem else []
    for name in (*names, "sound"):
        lines = [line for line in said.errors if re.search(rf"\b{re.escape(name)}\b", line)]
        if there(name) == bool(lines) or len(lines) > 1 or (name == "sound" and lines):
            problems.append(f"{name}: result {'there' if there(name) else 'missing'}, lines {lines}")
    count.add(len(names), problems)


# ---- sound files -----------------------------------------------------------------------------------------------------


def photograph(height: int = 24, width: int = 32) -> np.ndarray:
    return cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA)


def small_weights(folder: Path) -> Path:
    path = folder / "small.safetensors"
    state = load_golden_weights(DRSformer(**NETWORK)).state_dict()
    contiguous = {key: value.contiguous() for key, value in state.items()}
    path.write_bytes(safetensors.torch.save(contiguous, {"network": json.dumps({"type": "DRSformer", **NETWORK})}))
    return path


def sound_pictures() -> list[tuple[str, bytes]]:
    """Make small pictures of every kind that is read: suffix and content."""
    rgb = photograph()
    colour, alpha = Image.fromarray(rgb), Image.fromarray(np.dstack((rgb, rgb[..., 0])))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    wide = rgb.astype(np.uint16) * 257
    forms: list[tuple[str, Image.Image, dict]] = [
        (".png", colour, {}),
        (".png", alpha, {"exif": exif}),
        (".png", colour.convert("P"), {}),
        (".png", colour.convert("L"), {}),
        (".jpg", colour, {"exif": exif}),
        (".jpg", colour, {"progressive": True}),
        (".jpg", colour.convert("CMYK"), {}),
        (".jpg", colour.convert("L"), {}),
        (".webp", colour, {}),
        (".webp", alpha, {"lossless": True}),
        (".bmp", colour, {}),
        (".bmp", colour.convert("P"), {}),
        (".gif", colour, {}),
        (".tif", colour, {"compression": "tiff_lzw"}),
        (".tif", colour, {"compression": "jpeg"}),
    ]
    pictures = []
    for suffix, picture, options in forms:
        content = io.BytesIO()
        picture.save(content, Image.registered_extensions()[suffix], **options)
        pictures.append((suffix, content.getvalue()))
    for samples, options in (
        (rgb, {"rowsperstrip": 5}),
        (np.dstack((rgb, rgb[..., 0])), {"extrasamples": ["unassalpha"], "rowsperstrip": 5}),
        (np.dstack((rgb, rgb[..., 0])), {"extrasamples": ["unassalpha"], "compression": "zlib", "byteorder": ">"}),
        (wide, {"compression": "zlib", "predictor": True}),
        (rgb, {"tile": (16, 16)}),
    ):
        content = io.BytesIO()
        tifffile.imwrite(content, samples, photometric="rgb", metadata=None, **options)
        pictures.append((".tif", content.getvalue()))
    pictures.append((".png", cv2.imencode(".png", wide)[1].tobytes()))
    return pictures


# ---- families --------------------------------------------------------------------------------------------------------


def pictures(folder: Path, number: int, rng: random.Random, count: Count) -> None:
    """Derain and evaluate folders of spoiled pictures."""
    weights, sound = small_weights(folder), sound_pictures()
    contents = [content for _, content in sound]
    for batch in batches(folder, number, 25):
        spoilt, targets, names = batch / "spoilt", batch / "targets", []
        spoilt.mkdir(), targets.mkdir()
        cv2.imwrite(str(spoilt / "sound.png"), photograph())
        for index in range(min(25, number)):
            suffix, content = rng.choice(sound)
            names.append(f"n{index:02}")
            (spoilt / f"{names[-1]}{suffix}").write_bytes(spoiled(content, contents, rng))
        said = run("derain", spoilt, "-o", batch / "out", "-w", weights, "--tile", 0)
        results = {path.stem for path in (batch / "out").glob("*")}
        each_has_its_result_or_its_line(said, names, results.__contains__, count)
        for path in spoilt.glob("*.gif"):  # which is no format of results
            names.remove(path.stem)
            path.unlink()
        for name in (*names, "sound"):
            cv2.imwrite(str(targets / f"{name}.png"), photograph())
        said = run("evaluate", spoilt, targets, "-o", batch / "scores.csv", "--workers", 1)
        lines = (batch / "scores.csv").read_text().splitlines() if (batch / "scores.csv").is_file() else []
        scored = {line.split(",")[0] for line in lines[1:] if line.endswith(",")}
        each_has_its_result_or_its_line(said, names, scored.__contains__, count)


def videos(folder: Path, number: int, rng: random.Random, count: Count) -> None:
    """Derain folders of spoiled videos, with ffmpeg where it is installed, then without."""
    weights, sound = small_weights(folder), []
    for suffix, codec in ((".avi", "MJPG"), (".mp4", "mp4v"), (".webm", "VP80")):
        path = folder / f"sound{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, (32, 24))
        for _ in range(5):
            writer.write(photograph())
        writer.release()
        sound.append((suffix, path.read_bytes()))
    contents = [content for _, content in sound]
    where = os.environ["PATH"]
    for batch in batches(folder, number, 8):
        (batch / "spoilt").mkdir()
        shutil.copy(folder / "sound.avi", batch / "spoilt")
        names = [f"n{index}" for index in range(min(8, number))]
        for name in names:
            suffix, content = rng.choice(sound)
            (batch / "spoilt" / f"{name}{suffix}").write_bytes(spoiled(content, contents, rng))
        os.environ["PATH"] = where if rng.random() < 0.5 else ""
        said = run("derain", batch / "spoilt", "-o", batch / "out", "-w", weights)
        os.environ["PATH"] = where
        results = {path.stem for path in (batch / "out").glob("*")}
        each_has_its_result_or_its_line(said, names, results.__contains__, count)


def weights(folder: Path, number: int, rng: random.Random, count: Count) -> None:
    """Derain with spoiled weight files: their bytes, the arguments of the network that they name, their tensors."""
    state = load_golden_weights(DRSformer(**NETWORK)).state_dict()
    network = {"type": "DRSformer", **NETWORK, "heads": [1, 2, 4, 8], "ffn_expansion_factor": 2.66}
    sound = [(".safetensors", small_weights(folder).read_bytes())]
    for new in (True, False):
        content = io.BytesIO()
        torch.save({"params": state, "network": network}, content, _use_new_zipfile_serialization=new)
        sound.append((".pth", content.getvalue()))
    contents = [content for _, content in sound]
    cv2.imwrite(str(folder / "rainy.png"), photograph())
    for index in range(number):
        kind = rng.choice(("bytes", "network", "tensors"))
        suffix, content = rng.choice(sound)
        path = folder / f"n{index}{suffix}"
        if kind == "bytes":
            path.write_bytes(spoiled(content, contents, rng))
        else:
            arguments = spoiled_values(network, rng) if kind == "network" else network
            tensors = dict(state) if kind == "network" else spoiled_tensors(state, rng)
            if suffix == ".pth":
                torch.save({"params": tensors, "network": arguments}, path)
            else:
                contiguous = {str(k): v.contiguous() for k, v in tensors.items() if v.layout == torch.strided}
                text = json.dumps(arguments)
                path.write_bytes(safetensors.torch.save(contiguous, {"network": text}))
        said = run("derain", folder / "rainy.png", "-o", folder / "out.png", "-w", path, "--overwrite")
        one_by_one(said, f"{kind} of {path.name}", count)


def spoiled_tensors(state: dict, rng: random.Random) -> dict:
    """Spoil weights: one to three tensors are of another kind, shape or name, or hold numbers that are none."""
    tensors = dict(state)
    for key in rng.sample(sorted(tensors), k=rng.randint(1, 3)):
        value = tensors[key]
        kind = rng.randrange(8)
        if kind == 0:
            del tensors[key]
        elif kind == 1:
            tensors[rng.choice(("", "a.b.c", key + ".x", "module." + key, "\x1b[31m"))] = tensors.pop(key)
        elif kind == 2:
            tensors[key] = value.flatten()
        elif kind == 3:
            tensors[key] = torch.full_like(value, rng.choice((float("nan"), float("inf"), 3e38)))
        elif kind == 4:
            tensors[key] = value.to(rng.choice((torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8)))
        elif kind == 5:
            tensors[key] = torch.zeros(rng.choice(((), (0,), (1,), (0, 3), (2, 3, 4, 5, 6))))
        elif kind == 6:
            tensors[key] = value.to_sparse()
        else:
            tensors[key] = torch.cat((value, value))
    return tensors


def logs(folder: Path, number: int, rng: random.Random, count: Count) -> None:
    """Draw trainings with spoiled logs beside a sound one."""
    steps = [
        {"iter": i, "epoch": 0, "lr": 1e-3, "l_pix": 1 / i, "grad_norm": 0.5, "seconds_per_iter": 1.0, "batch": 8}
        for i in range(1, 9)
    ]
    scores = {"iter": 4, "data_set": "val", "psnr": 30.0, "ssim": 0.9}
    lines = [json.dumps(record) for record in (*steps, scores)]
    content = "".join(f"{line}\n" for line in lines).encode()
    for batch in batches(folder, number, 20):
        experiments = [batch / "sound"]
        for index in range(min(20, number)):
            experiments.append(batch / f"n{index}")
        for experiment in experiments:
            experiment.mkdir()
            log = experiment / "training.jsonl"
            if experiment.name == "sound":
                log.write_bytes(content)
            elif rng.random() < 0.5:
                log.write_bytes(spoiled(content, [content], rng))
            else:
                records = [spoiled_values(record, rng) for record in (*steps, scores)]
                log.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        said = run("plot", *experiments, "-o", batch / "training.png")
        problems = [said.problem] if said.problem else []
        if said.code == 2 or not (batch / "training.png").is_file():
            problems.append(f"no figure of the sound one: {said.errors}")
        count.add(len(experiments) - 1, problems)


def stores(folder: Path, number: int, rng: random.Random, count: Count) -> None:
    """Verify spoiled stores; one that is said to be in order holds the pictures that it held."""
    for part in ("input", "target"):
        (folder / part).mkdir()
        for index in range(3):
            cv2.imwrite(str(folder / part / f"{index}.png"), photograph(24, 32 + index))
    with contextlib.redirect_stdout(io.StringIO()):
        main(["prepare", "pairs", str(folder / "input"), str(folder / "target"), "-o", str(folder / "sets"), "--lmdb"])
    (sound,) = (folder / "sets").glob("*.lmdb")
    files = {path.name: path.read_bytes() for path in sound.iterdir() if path.is_file()}
    known = pixels(sound)
    description = json.loads(files["store.json"])
    for index in range(number):
        store = folder / f"n{index}.lmdb"
        store.mkdir()
        name, kind = rng.choice(sorted(files)), rng.random()
        contents = dict(files)
        if kind < 0.5:
            contents["store.json"] = described(spoiled_values(description, rng))
        else:
            contents[name] = spoiled(files[name], list(files.values()), rng)
        for file, content in contents.items():
            (store / file).write_bytes(content)
        said = run("prepare", "--verify", store)
        one_by_one(said, store.name, count)
        if said.code == 0 and pixels(store) != known:
            count.problems.append(f"{store.name}: verified, but its pictures are others")
        shutil.rmtree(store)


def described(tree: object) -> bytes:
    """Give a description of a store its right checksum, as an attacker would."""
    from drsformer_arch.data.store import store  # noqa: PLC0415

    if isinstance(tree, dict):
        tree["crc32"] = store._checksum(tree)
    return json.dumps(tree).encode()


def pixels(store: Path) -> list[tuple[str, bytes]]:
    return [(key, picture.tobytes()) for key, picture in Store(store).items()]


def archives(folder: Path, number: int, rng: random.Random, count: Count) -> None:
    """Prepare pairs from spoiled archives."""
    sound = []
    for suffix in (".zip", ".tar.gz"):
        path = folder / f"sound{suffix}"
        picture = cv2.imencode(".png", photograph())[1].tobytes()
        names = ("input/1.png", "target/1.png")
        if suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name in names:
                    archive.writestr(name, picture)
        else:
            with tarfile.open(path, "w:gz") as archive:
                for name in names:
                    member = tarfile.TarInfo(name)
                    member.size = len(picture)
                    archive.addfile(member, io.BytesIO(picture))
        sound.append((suffix, path.read_bytes()))
    contents = [content for _, content in sound]
    for index in range(number):
        suffix, content = rng.choice(sound)
        path = folder / f"n{index}{suffix}"
        path.write_bytes(spoiled(content, contents, rng))
        said = run("prepare", "pairs", path, "-o", folder / f"out{index}", "--workers", 1)
        one_by_one(said, path.name, count)


FAMILIES: dict[str, Callable[[Path, int, random.Random, Count], None]] = {
    family.__name__: family for family in (pictures, videos, weights, logs, stores, archives)
}


def batches(folder: Path, number: int, size: int) -> Iterator[Path]:
    """Yield empty folders, one for so many cases; what is in them goes when the next one is asked for."""
    for start in range(0, number, size):
        batch = folder / f"batch{start}"
        batch.mkdir()
        yield batch
        shutil.rmtree(batch)


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_family(family: str, seed: int, number: int, folder: Path) -> dict:
    """Run a family; memory is counted from the second case on, when all libraries are loaded."""
    FAMILIES[family](made(folder / "warm"), 1, random.Random(0), Count())
    before, count = peak_memory(), Count()
    FAMILIES[family](made(folder / "cases"), number, random.Random(seed), count)
    if (more := peak_memory() - before) > MOST_MEMORY:
        count.problems.append(f"memory grew by {more / 2**30:.1f} GiB")
    return {"tried": count.tried, "problems": count.problems}


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    answer = run_family(asked.family, asked.seed, asked.count, asked.folder.resolve())
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
