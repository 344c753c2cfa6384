"""Whole commands of old and new code timed side by side: two checkouts of this repository, the same files.

    git worktree add ../old COMMIT
    python benchmarks/commands.py --old ../old                         # about twenty minutes; let nothing else compute
    python benchmarks/commands.py --old ../old --cases help evaluate --rounds 20

In every round each case runs once with each checkout, one after the other, and who is first changes from round to
round. The table gives medians of wall and CPU time, the ratio of the medians of the wall times, and the mean
difference of the rounds with its 95 % interval. Cases:

    help       `drsformer --help`
    prepare    photographs with synthetic rain, 512x512, into a compressed store
    evaluate   results against targets, all scores
    loader     a training of a tiny network on small patches: much of it is reading, augmentation and BasicSR's loop
    training   a small DRSformer, 64 px patches, with a validation and a checkpoint at the end
    derain     a folder of pictures with the shipped weights
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from arguments import positive
from commits import commit_of, mean_and_interval
from common import photographs
from PIL import Image

from drsformer_arch.rain import rain_synthesis
from drsformer_arch.system import processor

SIDES = ("old", "new")
FEW = 3  # small pictures, which are validated and derained


NETWORKS = {
    "loader": {"type": "DRSformer", "dim": 4, "num_blocks": [1] * 4, "heads": [1] * 4, "with_mefc": False},
    "training": {"type": "DRSformer", "dim": 16, "num_blocks": [1, 2, 2, 2]},
}
TRAININGS = {"loader": (50, 16, 32), "training": (20, 2, 64)}  # iterations, pictures, side of their patches


def option_file(name: str) -> dict[str, Any]:
    """Options of a training, as both checkouts read them."""
    iterations, batch, patch = TRAININGS[name]
    pairs: dict[str, Any] = {"name": "pairs", "type": "PairedRainDataset"}
    reading = {"use_hflip": True, "use_rot": True, "num_worker_per_gpu": 1, "batch_size_per_gpu": batch}
    schedule = {"type": "CosineAnnealingRestartLR", "periods": [iterations], "restart_weights": [1]}
    return {
        "name": name,
        "model_type": "DerainModel",
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {
            "train": {**pairs, "dataroot": "store/train.lmdb", "gt_size": patch, **reading},
            "val": {**pairs, "dataroot": "few"},
        },
        "network_g": NETWORKS[name],
        "path": {},
        "train": {
            "optim_g": {"type": "AdamW", "lr": 0.0003},
            "scheduler": schedule,
            "total_iter": iterations,
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": iterations, "save_img": False, "metrics": {"psnr": {"type": "calculate_psnr_rain200"}}},
        "logger": {"print_freq": 20, "save_checkpoint_freq": iterations, "use_tb_logger": False},
    }


def make_data(root: Path, pairs: int) -> None:
    """Pairs as folders, few of them in another one, small pictures, and the option files of the trainings."""
    for index, clean in zip(range(pairs), photographs(512, 512), strict=False):
        rainy = rain_synthesis.add_rain(clean, np.random.default_rng(index))
        for part, picture in (("target", clean), ("input", rainy)):
            path = root / "pairs" / part / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
            if index < FEW:
                few = root / "few" / part / path.name
                few.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture[:192, :256]).save(few)
    for name in TRAININGS:
        (root / f"{name}.yml").write_text(yaml.safe_dump(option_file(name), sort_keys=False))


def command_of(case: str, output: Path) -> list[str]:
    """The arguments of `drsformer`; the working directory is that of the data."""
    pairs = ["pairs/input", "pairs/target"]
    return {
        "help": ["--help"],
        "prepare": ["prepare", "pairs", *pairs, "-o", str(output), "--lmdb", "compressed"],
        "evaluate": ["evaluate", *pairs],
        "loader": ["train", "-opt", "loader.yml"],
        "training": ["train", "-opt", "training.yml"],
        "derain": ["derain", "few/input", "-o", str(output)],
    }[case]


def seconds_of(checkout: Path, arguments: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one command, its start included."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "drsformer_arch.cli", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise SystemExit(f"{checkout}: drsformer {' '.join(arguments)} ended with {result.returncode}: {result.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(case: str, checkouts: dict[str, Path], folder: Path, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every round, after one that warms up."""
    measured: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for number in range(-1, rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            with tempfile.TemporaryDirectory(dir=folder) as output:
                times = seconds_of(checkouts[side], command_of(case, Path(output, "out")), folder)
            if number >= 0:
                measured[side].append(times)
    return measured


def row(case: str, measured: dict[str, list[tuple[float, float]]]) -> str:
    """One line of the table."""
    medians = {side: np.median(measured[side], axis=0) for side in SIDES}
    wall = {side: np.array(measured[side])[:, 0] for side in SIDES}
    mean, half = mean_and_interval(np.log(wall["new"] / wall["old"]).tolist())
    middle, low, high = (f"{np.expm1(value):+.1%}" for value in (mean, mean - half, mean + half))
    cells = " | ".join(f"{medians[side][which]:.2f}" for which in (0, 1) for side in SIDES)
    return f"| {case} | {cells} | {medians['new'][0] / medians['old'][0]:.3f} | {middle} ({low} to {high}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ("help", "prepare", "evaluate", "loader", "training", "derain")
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the old code")
    parser.add_argument("--new", type=Path, default=Path(__file__).parents[1], help="default: this one")
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases, metavar="CASE", help=", ".join(cases))
    parser.add_argument("--rounds", type=positive, default=10)
    parser.add_argument("--pairs", type=positive, default=60, help="of pictures (%(default)s)")
    args = parser.parse_args()
    checkouts = {"old": args.old.resolve(), "new": args.new.resolve()}
    print(f"old, new: {commit_of(args.old)}, {commit_of(args.new)}; {processor.model_name()}, {args.rounds} rounds\n")
    print("| command | old, s | new, s | old, CPU s | new, CPU s | new/old | difference, 95 % interval |")
    print("|---" * 7 + "|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, args.pairs)
        store = ["prepare", "pairs", "pairs/input", "pairs/target", "-o", "store", "--split", "train", "--lmdb", "raw"]
        seconds_of(checkouts["old"], store, folder)
        for case in args.cases:
            print(row(case, measure(case, checkouts, folder, args.rounds)), flush=True)


if __name__ == "__main__":
    main()
