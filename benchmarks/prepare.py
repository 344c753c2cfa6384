"""How fast stores are built, against decoding the same PNG files on all cores; and the memory that takes.

python benchmarks/prepare.py                     speed, then memory at 2,000 and 20,000 pairs
python benchmarks/prepare.py --speed --pairs 600

Speed: 512x512 photographs with synthetic rain, saved as PNG by Pillow (zlib level 6). Decoding reads every file and
decodes it, in one process per core; preparing is the whole of `drsformer prepare`: pairing, decoding, hashes, encoding,
writing, reading back, searching duplicates. Both run one after the other in several rounds; medians. Memory: small
pictures, the largest sum over all processes of what is not page cache.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from arguments import positive
from common import memory_of, photographs
from PIL import Image

from drsformer_arch.rain.rain_synthesis import add_rain


def make_pairs(root: Path, count: int, size: int, different: int) -> None:
    """Write folders input and target; after `different` pictures they repeat in other files."""
    for part in ("input", "target"):
        (root / part).mkdir(parents=True)
    for index, clean in zip(range(min(count, different)), photographs(size, size), strict=False):
        for part, picture in (("target", clean), ("input", add_rain(clean, np.random.default_rng(index)))):
            Image.fromarray(picture).save(root / part / f"{index:06d}.png")
    for index in range(different, count):
        for part in ("input", "target"):
            shutil.copyfile(root / part / f"{index % different:06d}.png", root / part / f"{index:06d}.png")


def decode(paths: list[Path]) -> int:
    cv2.setNumThreads(1)
    for path in paths:
        cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    return len(paths)


def seconds_of_decoding(root: Path) -> float:
    """Time the decoding of all pictures on all cores, without the start of the processes."""
    paths, cores = sorted(root.rglob("*.png")), len(os.sched_getaffinity(0))
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        pool.map(decode, [paths[:1]] * cores)
        start = time.perf_counter()
        pool.map(decode, [paths[first::cores] for first in range(cores)])
        return time.perf_counter() - start


def command(root: Path, target: Path, form: str) -> list[str]:
    sources = [str(root / "input"), str(root / "target")]
    return [sys.executable, "-m", "drsformer_arch.cli", "prepare", "pairs", *sources, "-o", str(target), "--lmdb", form]


def seconds_of_preparing(root: Path, form: str) -> float:
    """Time the whole command, its start included."""
    target = root.with_name(form)
    start = time.perf_counter()
    subprocess.run(command(root, target, form), check=True, capture_output=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def peak_memory(root: Path) -> float:
    """Measure the peak in MiB of the command and its workers together."""
    target = root.with_name("memory")
    process = subprocess.Popen(
        command(root, target, "compressed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.02)
    shutil.rmtree(target)
    return peak


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=positive, default=3000, help="of 512x512 pictures for the speed (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, help="(%(default)s)")
    parser.add_argument("--speed", action="store_true", help="only the speed")
    parser.add_argument("--memory", action="store_true", help="only the memory")
    parser.add_argument("--folder", type=Path, help="for the data (a temporary folder)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if not arguments.memory:
            root = Path(folder, "speed/source")
            make_pairs(root, arguments.pairs, 512, different=100)
            times: dict[str, list[float]] = {"decoding PNG": [], "raw store": [], "compressed store": []}
            for _ in range(arguments.rounds):
                times["decoding PNG"].append(seconds_of_decoding(root))
                for form in ("raw", "compressed"):
                    times[f"{form} store"].append(seconds_of_preparing(root, form))
            print("| | pictures per second | speed against decoding |\n|---|---|---|")
            medians = {name: statistics.median(seconds) for name, seconds in times.items()}
            for name, seconds in medians.items():
                speed = 2 * arguments.pairs / seconds
                print(f"| {name} | {speed:.0f} | {medians['decoding PNG'] / seconds:.2f} |", flush=True)
            shutil.rmtree(root)
        if not arguments.speed:
            print("\n| pairs | peak memory, MiB |\n|---|---|")
            for count in (2_000, 20_000):
                root = Path(folder, f"memory{count}/source")
                make_pairs(root, count, 96, different=500)
                print(f"| {count:,} | {peak_memory(root):.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
