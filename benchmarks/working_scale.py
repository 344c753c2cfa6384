"""At which scale are large photographs derained best? PSNR at full size, a half, a quarter and an eighth of the sides.

The photograph and its rain are those of `yardsticks.large` of scripts/yardsticks.py, also smaller, with rain that
shrinks with them. Bold is what the shipped weights choose (`--scale auto`). About five minutes on 2 cores.

    python benchmarks/working_scale.py                        the shipped weights
    python benchmarks/working_scale.py -w net_g_latest.pth
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from drsformer_arch import Restorer
from drsformer_arch.images.pictures import Picture
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.restore.weights import DEFAULT
from drsformer_arch.restore.working_scale import automatic_scale
from drsformer_arch.system.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import yardsticks

SCALES = (1, 1 / 2, 1 / 4, 1 / 8)
# Sides and streaks, as parts of those of 12 megapixels.
SIZES = ((1 / 8**0.5, 1 / 8**0.5), (1 / 2, 1 / 2), (1 / 2**0.5, 1 / 2**0.5), (1, 1), (1, 1 / 3))


def pair(photograph: Picture, sides: float, streaks: float) -> tuple[Picture, Picture]:
    """Shrink a clean photograph (H, W, 3) and let it rain; returns rainy and clean."""
    height, width = photograph.shape[:2]
    clean = photograph
    if sides != 1:
        size = (round(width * sides), round(height * sides))
        clean = np.asarray(cv2.resize(photograph, size, interpolation=cv2.INTER_AREA), np.uint8)
    return add_rain(clean, np.random.default_rng(yardsticks.LARGE_SEED), yardsticks.large_rain(streaks)), clean


def row(restorers: dict[float, Restorer], rainy: Picture, clean: Picture, shown: tqdm) -> list[str]:
    """PSNR in dB of the rainy picture and of the derained ones, the one at the scale that is chosen bold."""
    cells = [f"{calculate_psnr_rain200(rainy, clean, channel_order='rgb'):.2f}"]
    for scale, restorer in restorers.items():
        score = f"{calculate_psnr_rain200(restorer(rainy), clean, channel_order='rgb'):.2f}"
        cells.append(f"**{score}**" if scale == automatic_scale(*clean.shape[:2]) else score)
        shown.update()
    return cells


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", dest="weights", default=DEFAULT, help="default: the shipped ones")
    args = parser.parse_args(argv)
    try:
        restorers = {scale: Restorer(args.weights, scale=scale) for scale in SCALES}
        photograph = yardsticks.large().clean
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("| megapixels | rainy | at full size | 1/2 | 1/4 | 1/8 |\n|---|---|---|---|---|---|")
    with tqdm(total=len(SIZES) * len(SCALES), unit="picture", disable=None) as shown:
        for sides, streaks in SIZES:
            rainy, clean = pair(photograph, sides, streaks)
            name = f"{clean.shape[0] * clean.shape[1] / 1e6:.2g}"
            if streaks != sides:
                name += f", rain {streaks / sides:.2g} times as large"
            tqdm.write(f"| {name} | {' | '.join(row(restorers, rainy, clean, shown))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
