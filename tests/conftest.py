"""What several tests share: a small set of real pairs as folders and LMDB, and options of a small model."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

import drsformer_arch.plugin  # noqa: F401 - makes BasicSR importable before any test module imports it
from drsformer_arch.data.store.lmdb_builder import build_lmdb
from drsformer_arch.rain.rain_synthesis import add_rain

SMALL_NETWORK = {"type": "DRSformer", "dim": 8, "num_blocks": [1, 1, 1, 1], "with_mefc": False}

# What several processes begin with, see scripts/test.sh.
LONGEST_FILES = (
    "restore/test_onnx.py",
    "training/test_distributed.py",
    "training/test_derain_model.py",
    "bridge/test_own_network.py",
    "docs/test_commands.py",
    "faults/test_resume.py",
    "faults/test_surroundings.py",
    "training/test_training_check.py",
    "page/test_derain_page.py",
    "system/test_packages.py",
    "bridge/test_installation.py",
    "restore/test_export.py",
    "fast/test_fast.py",
)

# Name of a fault: how often it was tried and survived; name of a resume: what was found.
FAULTS = pytest.StashKey[dict[str, list[int]]]()
RESUMES = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="many kills, every resume: 20 minutes more")
    parser.addoption("--cluster", action="store_true", help="several hosts and Slurm, as root: 10 minutes more")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FAULTS], config.stash[RESUMES] = {}, {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a process of pytest-xdist hand on what it counted."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput |= {
            "faults": session.config.stash[FAULTS],
            "resumes": session.config.stash[RESUMES],
        }


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a process of pytest-xdist counted; one that died hands on nothing."""
    output = getattr(node, "workeroutput", {"faults": {}, "resumes": {}})
    for name, counted in output["faults"].items():
        sums = node.config.stash[FAULTS].setdefault(name, [0, 0])
        sums[:] = map(sum, zip(sums, counted, strict=True))
    node.config.stash[RESUMES] |= output["resumes"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: of several processes none shall have one left alone at the end."""
    places = {name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(f"{item.path.parent.name}/{item.path.name}", len(places)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `long_case` runs the cases of its module's SHORT, with --long those of its LONG."""
    if "long_case" in metafunc.fixturenames:
        cases = metafunc.module.LONG if metafunc.config.getoption("long") else metafunc.module.SHORT
        metafunc.parametrize("long_case", cases.values(), ids=cases.keys())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[RESUMES]:
        terminalreporter.section("resumed trainings")
        for name, found in config.stash[RESUMES].items():
            terminalreporter.line(f"{name}: {found}")
    if config.stash[FAULTS]:
        terminalreporter.section("faults")
        for name, (tried, survived) in sorted(config.stash[FAULTS].items()):
            terminalreporter.line(f"{survived:4} of {tried:4} survived: {name}")
        tried, survived = map(sum, zip(*config.stash[FAULTS].values(), strict=True))
        terminalreporter.line(f"{survived:4} of {tried:4} survived in all")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("long")


@pytest.fixture
def count_faults(request: pytest.FixtureRequest) -> Callable[[str, int, int], None]:
    """Add to the sums of a fault what was tried and survived elsewhere."""

    def add(name: str, tried: int, survived: int) -> None:
        counts = request.config.stash[FAULTS].setdefault(name, [0, 0])
        counts[0] += tried
        counts[1] += survived

    return add


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Callable[[str], contextlib.AbstractContextManager]:
    """Count each block that stands under a fault's name as survived where it ends well; pytest prints the sums."""

    @contextlib.contextmanager
    def trying(name: str) -> Iterator[None]:
        counts = request.config.stash[FAULTS].setdefault(name, [0, 0])
        counts[0] += 1
        yield
        counts[1] += 1

    return trying


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with input/ and target/ (10 PNG pairs, 75x61, no multiple of 8) and the same as LMDB."""
    root = tmp_path_factory.mktemp("pairs")
    photograph = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    rng = np.random.default_rng(0)
    pictures: dict[str, dict[str, Path]] = {"input": {}, "target": {}}
    for index in range(10):
        top, left = rng.integers(0, 400, size=2)
        clean = photograph[top : top + 61, left : left + 75]
        for part, picture in (("target", clean), ("input", add_rain(clean, np.random.default_rng(index)))):
            path = root / part / f"{index:02d}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), picture)
            pictures[part][path.stem] = path
    for part, files in pictures.items():
        build_lmdb(files, root / f"{part}.lmdb")
    return root


@pytest.fixture
def options(pairs: Path) -> dict:
    """Return options as an option file gives them: a small DRSformer on the LMDB pairs."""
    dataset = {
        "type": "PairedRainDataset",
        "dataroot_lq": str(pairs / "input.lmdb"),
        "dataroot_gt": str(pairs / "target.lmdb"),
    }
    return {
        "name": "small",
        "model_type": "DerainModel",
        "num_gpu": 0,
        "manual_seed": 3,
        "datasets": {
            "train": {**dataset, "gt_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
            "val": dict(dataset),
        },
        "network_g": copy.deepcopy(SMALL_NETWORK),
        "train": {
            "total_iter": 8,
            "optim_g": {"type": "AdamW", "lr": 3e-4, "weight_decay": 1e-4},
            "scheduler": {
                "type": "CosineAnnealingRestartCyclicLR",
                "periods": [4, 16],
                "restart_weights": [1, 1],
                "eta_mins": [3e-4, 1e-6],
            },
            "pixel_opt": {"type": "L1Loss"},
            "grad_clip": 0.01,
        },
        "val": {
            "val_freq": 4,
            "metrics": {
                "psnr": {"type": "calculate_psnr_rain200", "crop_border": 0, "better": "higher"},
                "ssim": {"type": "calculate_ssim_rain200"},
            },
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 3},
    }


@pytest.fixture
def model_options(options: dict, tmp_path: Path) -> dict:
    """Return `options` as BasicSR hands them to a model class."""
    for name in ("models", "training_states", "visualization"):
        (tmp_path / name).mkdir()
    paths = {name: str(tmp_path / name) for name in ("models", "training_states", "visualization")}
    started = {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    return {**options, **started, "path": paths}
