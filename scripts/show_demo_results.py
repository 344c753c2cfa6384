"""Score the demo's results, print a table, and draw rainy | DRSformer-S | trained in the demo | clean.

Exit code 1 where a result does not beat the rainy input by 2 dB on average (unless --do-not-judge).
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from drsformer_arch.metrics import calculate_psnr_rain200, calculate_ssim_rain200

DATA = Path("datasets/quickstart/test")
RESULTS = {
    "DRSformer-S": "results/quickstart_DRSformer-S/{}.png",
    "trained here": "results/quickstart_test/visualization/quickstart-test/{}_quickstart_test.png",
}
PICTURE = Path("results/quickstart_test/rainy_derained_clean.png")
WANTED_GAIN_DB = 2.0
SCORES = (calculate_psnr_rain200, calculate_ssim_rain200)


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        sys.exit(f"error: cannot read {path}; run scripts/demo.sh first")
    return picture


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with a caption bar above it."""
    bar = np.full((28, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack((bar, picture))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--do-not-judge", action="store_true", help="exit 0 whatever the gain")
    parser.add_argument("--draw", nargs="+", metavar="NAME", help="draw these pictures instead of all")
    args = parser.parse_args()
    rows, strips = [], []
    for target_path in sorted((DATA / "target").glob("*.png")):
        name = target_path.stem
        target = read(target_path)
        shown = {"rainy": read(DATA / "input" / target_path.name)}
        shown |= {label: read(Path(path.format(name))) for label, path in RESULTS.items()}
        rows.append((name, [[score(one, target) for score in SCORES] for one in shown.values()]))
        if args.draw and name not in args.draw:
            continue
        captions = [f"{label} {psnr:.2f} dB" for label, (psnr, _) in zip(shown, rows[-1][1], strict=True)]
        parts = [labelled(one, text) for one, text in zip(shown.values(), captions, strict=True)]
        strips.append(np.hstack([*parts, labelled(target, "clean")]))
    if not rows:
        sys.exit(f"error: no pictures in {DATA}; run scripts/make_demo_data.py first")
    mean = np.mean([scores for _, scores in rows], axis=0)

    print("PSNR in dB and SSIM, rain200 protocol (Y of BT.601, rounded to 8 bits)")
    print(f"{'picture':12}" + "".join(f"{label:>18}" for label in shown))
    for name, scores in (*rows, ("mean", mean)):
        print(f"{name:12}" + "".join(f"{psnr:9.2f} / {ssim:.4f}" for psnr, ssim in scores))

    width = max(strip.shape[1] for strip in strips)
    sheet = [cv2.copyMakeBorder(s, 0, 6, 0, width - s.shape[1], cv2.BORDER_CONSTANT, value=(255,) * 3) for s in strips]
    if not cv2.imwrite(str(PICTURE), np.vstack(sheet)):
        sys.exit(f"error: cannot write {PICTURE}")
    print(f"Picture: {PICTURE}")
    if not args.do_not_judge and min(mean[1:, 0]) - mean[0, 0] < WANTED_GAIN_DB:
        print(f"error: the mean gain is below {WANTED_GAIN_DB} dB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
