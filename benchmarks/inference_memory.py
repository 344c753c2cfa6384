"""Peak memory and seconds of one square picture, whole and in tiles, as `drsformer derain` computes it.

    python benchmarks/inference_memory.py                        # the published DRSformer, random weights
    python benchmarks/inference_memory.py -w net_g_latest.pth --sizes 512 1024 --tiles 0 256

Every cell is measured in a process of its own: the peak of its resident memory (of the device on a GPU) over what it
held with network and picture before, and the time of that first call, on Linux. Prints a table in Markdown.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from arguments import positive

from drsformer_arch import DRSformer, Restorer
from drsformer_arch.system import processor


def measure(weights: str, size: int, tile: int, precision: str, device: str | None) -> tuple[int, float]:
    """Measure the peak in bytes over the weights, and seconds, of one picture of size x size."""
    restorer = Restorer(weights, tile=tile, precision=precision, device=device)
    if restorer.device.type == "cpu":
        processor.tune()
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    if restorer.device.type == "cuda":
        restorer(picture[:64, :64])  # the first call prepares the device
    before = processor.memory_held(restorer.device)
    processor.reset_peak_memory(restorer.device)
    start = time.perf_counter()
    restorer(picture)
    return processor.peak_memory(restorer.device) - before, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--weights", help="default: the published DRSformer's size, random weights")
    parser.add_argument("--sizes", nargs="+", type=positive, default=[256, 512, 1024, 2048], metavar="PIXELS")
    parser.add_argument("--tiles", nargs="+", type=int, default=[0, 512], metavar="PIXELS", help="0: whole pictures")
    parser.add_argument("--precisions", nargs="+", choices=["float32", "bf16"], default=["float32", "bf16"])
    parser.add_argument("--device", help="cpu, cuda, ...; default: the GPU where there is one")
    args = parser.parse_args()
    print(f"{processor.model_name()}, {os.cpu_count()} cores, torch {torch.__version__}")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        if args.weights is None:
            args.weights = str(Path(folder, "random.pth"))
            torch.save(DRSformer().state_dict(), args.weights)
        heads = [f"{size}x{size}" for size in args.sizes]
        print("| |", " | ".join(heads), "|\n|---|", "|".join("---" for _ in heads), "|", flush=True)
        for precision in args.precisions:
            for tile in args.tiles:
                cells = []
                for size in args.sizes:
                    if tile >= size:
                        cells.append("as whole")
                        continue
                    with ProcessPoolExecutor(1, context) as pool:
                        task = pool.submit(measure, args.weights, size, tile, precision, args.device)
                        memory, seconds = task.result()
                    cells.append(f"{memory / 2**30:.2f} GiB, {seconds:.1f} s")
                print(f"| {f'tiles of {tile}' if tile else 'whole'}, {precision} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
