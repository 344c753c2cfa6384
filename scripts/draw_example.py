"""Draw docs/derained.jpg: photographs with drawn rain, what DRSformer-S makes of them, and the originals.

The photographs come with scikit-image and are in no part of what DRSformer-S was trained on.

python scripts/draw_example.py           write docs/derained.jpg
python scripts/draw_example.py -o PICTURE
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import skimage
from show_demo_results import labelled, read

from drsformer_arch import Restorer
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.rain.rain_presets import RainParameters
from drsformer_arch.rain.rain_synthesis import add_rain

SIZE = (280, 380)  # height and width
# File, top left corner of what is shown, kind of rain, seed of the rain.
EXAMPLES = (("chelsea.png", (10, 60), "medium", 1), ("coffee.png", (40, 100), "heavy", 2))
DOCUMENTATION = Path(__file__).resolve().parent.parent / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=DOCUMENTATION / "derained.jpg", metavar="PICTURE")
    args = parser.parse_args()
    restorer = Restorer()
    rows = []
    for name, (top, left), kind, seed in EXAMPLES:
        rng = np.random.default_rng(seed)
        photograph = read(Path(skimage.__file__).parent / "data" / name)
        clean = photograph[top : top + SIZE[0], left : left + SIZE[1]]
        rainy = add_rain(clean, rng, RainParameters.sample(rng, kind))
        derained = restorer(rainy[..., ::-1])[..., ::-1]
        rainy_db, derained_db = (calculate_psnr_rain200(one, clean) for one in (rainy, derained))
        parts = {f"rainy {rainy_db:.2f} dB": rainy, f"DRSformer-S {derained_db:.2f} dB": derained, "clean": clean}
        rows.append(np.hstack([labelled(part, text) for text, part in parts.items()]))
    if not cv2.imwrite(str(args.output), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 92]):
        sys.exit(f"error: cannot write {args.output}")
    print(f"Picture: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
