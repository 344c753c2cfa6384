"""Draw docs/trained.jpg: what came of the tutorial, docs/train.md, in the folder where it was gone through.

python scripts/draw_tutorial.py FOLDER    which holds samples/ and folders of results
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from show_demo_results import labelled, read

from drsformer_arch.metrics import calculate_psnr_rain200

NAMES = ("coffee_3", "coffee_0")  # of one size
RESULTS = {"520 iterations": "by_mine", "DRSformer-S": "by_drsformer_s", "fine-tuned": "by_finetuned"}
PICTURE = Path(__file__).resolve().parent.parent / "docs/trained.jpg"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rows = []
    for name in NAMES:
        clean = read(folder / f"samples/test/target/{name}.png")
        places = {"rainy": "samples/test/input"} | RESULTS
        shown = {label: read(folder / place / f"{name}.png") for label, place in places.items()}
        parts = [
            labelled(picture, f"{label} {calculate_psnr_rain200(picture, clean):.2f} dB")
            for label, picture in shown.items()
        ]
        rows.append(np.hstack([*parts, labelled(clean, "clean")]))
    if not cv2.imwrite(str(PICTURE), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 80]):
        sys.exit(f"error: cannot write {PICTURE}")
    print(f"Picture: {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
