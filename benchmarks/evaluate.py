"""Seconds per picture of `drsformer evaluate` and of BasicSR's own functions for the same scores.

python benchmarks/evaluate.py            (about a minute; let nothing else compute)

BasicSR: both PNGs by cv2.imread, then `calculate_psnr` and `calculate_ssim`, once with `test_y_channel` and once in
RGB, on one core, which is all they use. Ours: `evaluate` on the same files, once for as many scores (ddn, rgb) and once
for all six, in one process and in one per core. All take turns; the table shows medians. The pictures are photographs
of scikit-image, 481x321, and the same with noise. Worker processes start once per call: their start is measured by
itself, on one picture per process, and stated beside the time of the pictures that follow.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from arguments import positive
from common import photographs

from drsformer_arch.data.pairing.result_pairs import ResultPair, find_result_pairs
from drsformer_arch.evaluate.evaluation import evaluate
from drsformer_arch.images.pictures import encode_png
from drsformer_arch.system import processor

SAME, ALL = ("ddn", "rgb"), ("rain200", "ddn", "rgb")
HEIGHT, WIDTH, NOISE = 321, 481, 8  # noise: standard deviation of 255
EQUAL = {"psnr_ddn": "dB", "psnr_rgb": "dB", "ssim_rgb": ""}  # BasicSR's SSIM of Y equals ddn's only for small pictures


def make_pictures(root: Path, count: int) -> None:
    """Write `count` PNG files into root/result and into root/target."""
    rng = np.random.default_rng(0)
    for index, clean in zip(range(count), photographs(HEIGHT, WIDTH), strict=False):
        noisy = np.clip(np.rint(clean + rng.normal(0, NOISE, clean.shape)), 0, 255).astype(np.uint8)
        for part, picture in (("result", noisy), ("target", clean)):
            path = root / part / f"{index:03d}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_png(picture, 6))


def by_basicsr(pairs: Sequence[ResultPair]) -> list[dict[str, float]]:
    """BasicSR's scores, under the names of ours."""
    # Not at the top: every worker process of ours loads this script, and none of them needs torch.
    from drsformer_arch.bridge import importable  # noqa: F401, PLC0415 - makes BasicSR importable

    # isort: split
    from basicsr.metrics import calculate_psnr, calculate_ssim  # noqa: PLC0415

    rows = []
    for pair in pairs:
        result, target = cv2.imread(str(pair.result)), cv2.imread(str(pair.target))
        rows.append(
            {
                f"{what}_{group}": float(function(result, target, crop_border=0, test_y_channel=group == "ddn"))
                for group in SAME
                for what, function in (("psnr", calculate_psnr), ("ssim", calculate_ssim))
            }
        )
    return rows


def by_us(pairs: Sequence[ResultPair], which: Sequence[str], workers: int) -> list[dict[str, float]]:
    return [row.scores for row in evaluate(pairs, which, workers=workers)]


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=positive, default=24, help="of pictures (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="in which all take turns (%(default)s)")
    args = parser.parse_args()
    cores = processor.usable_cores()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), args.count)
        pairs, _ = find_result_pairs(Path(folder, "result"), Path(folder, "target"), None)
        theirs, ours = by_basicsr(pairs), by_us(pairs, ALL, 1)
        for name, unit in EQUAL.items():
            difference = max(abs(one[name] - two[name]) for one, two in zip(theirs, ours, strict=True))
            print(f"largest difference from BasicSR, {name}: {difference:.1e} {unit}".rstrip())
        many = pairs * 2 * cores  # so that the processes have something to do once they run
        cases: dict[str, tuple[int, Callable[[], object]]] = {
            "BasicSR, 4 scores, one core": (len(pairs), lambda: by_basicsr(pairs)),
            "ours, 4 scores, one process": (len(pairs), lambda: by_us(pairs, SAME, 1)),
            "ours, 6 scores, one process": (len(pairs), lambda: by_us(pairs, ALL, 1)),
        }
        if cores > 1:
            cases |= {
                f"ours, 4 scores, {cores} processes": (len(many), lambda: by_us(many, SAME, cores)),
                f"ours, 6 scores, {cores} processes": (len(many), lambda: by_us(many, ALL, cores)),
            }
        times: dict[str, list[float]] = {name: [] for name in cases}
        starts: list[float] = []
        for _ in range(args.rounds):
            if cores > 1:
                starts.append(seconds(lambda: by_us(pairs[:cores], SAME, cores)))
            for name, (count, call) in cases.items():
                took = seconds(call)
                if name.endswith("processes"):
                    took, count = took - starts[-1], count - cores  # noqa: PLW2901
                times[name].append(took / count)
    medians = {name: statistics.median(values) for name, values in times.items()}
    basicsr = next(iter(medians.values()))
    print(f"\n{WIDTH}x{HEIGHT}, {args.count} pictures, {processor.model_name()}, {cores} cores\n")
    print("| | ms per picture | BasicSR's time by ours |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {1000 * value:.1f} | {basicsr / value:.1f} |")
    if starts:
        print(f"\nstart of {cores} processes with one picture each, once: {statistics.median(starts):.2f} s")


if __name__ == "__main__":
    main()
