"""What bf16 costs in quality: derain pictures in float32 and in bf16 with the same weights.

    python scripts/compare_precision.py experiments/quickstart/models/net_g_latest.pth RAINY [CLEAN]

RAINY and CLEAN are folders with equal names. Prints the PSNR (rain200 protocol) of each result against the clean
pictures, and of the two results against each other.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

import drsformer_arch.archs
from drsformer_arch.data.pictures import decode, read_file
from drsformer_arch.inference import read_state_dict, restore
from drsformer_arch.inference.weights import load_file
from drsformer_arch.metrics import calculate_psnr_rain200

psnr = calculate_psnr_rain200


def derain(net: torch.nn.Module, picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) BGR uint8 → the same."""
    image = torch.from_numpy(picture[:, :, ::-1].astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        result = restore(net, image, multiple=net.size_multiple)[0].clamp(0, 1)
    return np.rint(result.permute(1, 2, 0).numpy()[:, :, ::-1] * 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="file of a training with DerainModel")
    parser.add_argument("rainy", type=Path)
    parser.add_argument("clean", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=20, help="of pictures, the first by name (%(default)s)")
    args = parser.parse_args()
    options = dict(load_file(args.weights)["network"])
    net = getattr(drsformer_arch.archs, options.pop("type"))(**options)
    net.load_state_dict(read_state_dict(args.weights)[0])
    precise, half = net.fused(), net.fused(torch.bfloat16)
    rows = []
    for path in sorted(args.rainy.iterdir())[: args.count]:
        rainy = decode(read_file(path), path)
        results = derain(precise, rainy), derain(half, rainy)
        clean = decode(read_file(args.clean / path.name), path) if args.clean else None
        scores = [psnr(one, clean) for one in results] if clean is not None else []
        rows.append([*scores, psnr(results[1], results[0])])
        print(path.name, " ".join(f"{value:.3f}" for value in rows[-1]), flush=True)
    names = ["float32", "bf16"] if args.clean else []
    for name, values in zip([*names, "bf16 against float32"], zip(*rows, strict=True), strict=True):
        print(f"{name}: mean {statistics.mean(values):.3f} dB, least {min(values):.3f} dB")


if __name__ == "__main__":
    main()
