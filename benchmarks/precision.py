"""What bf16 costs in quality: derain pictures in float32 and in bf16 with the same weights.

    python benchmarks/precision.py experiments/quickstart/models/net_g_latest.pth RAINY [CLEAN]

RAINY and CLEAN are folders with equal names. Prints the PSNR (rain200 protocol) of each result against the clean
pictures, and of the two results against each other.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path

from arguments import positive

from drsformer_arch.images.pictures import decode, read_file
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.restore.restorer import Restorer

psnr = partial(calculate_psnr_rain200, channel_order="rgb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="own or published")
    parser.add_argument("rainy", type=Path)
    parser.add_argument("clean", type=Path, nargs="?")
    parser.add_argument("--count", type=positive, default=20, help="of pictures, the first by name (%(default)s)")
    args = parser.parse_args()
    precise, half = Restorer(args.weights, tile=0), Restorer(args.weights, tile=0, precision="bf16")
    rows = []
    for path in sorted(args.rainy.iterdir())[: args.count]:
        rainy = decode(read_file(path), path)
        results = precise(rainy), half(rainy)
        clean = decode(read_file(args.clean / path.name), path) if args.clean else None
        scores = [psnr(one, clean) for one in results] if clean is not None else []
        rows.append([*scores, psnr(results[1], results[0])])
        print(path.name, " ".join(f"{value:.3f}" for value in rows[-1]), flush=True)
    names = ["float32", "bf16"] if args.clean else []
    for name, values in zip([*names, "bf16 against float32"], zip(*rows, strict=True), strict=True):
        print(f"{name}: mean {statistics.mean(values):.3f} dB, least {min(values):.3f} dB")


if __name__ == "__main__":
    main()
