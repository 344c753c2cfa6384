"""Does a preset of the rain synthesis look like a real set of pairs? Numbers and pictures side by side.

Rain of the preset is drawn on the clean pictures of the set, and `drsformer_arch.rain.rain_statistics` measures the set
and its imitation. A statistic passes where the imitation's median over all pictures lies within the quartiles of the
set. Exit code 0 where all pass, 1 where one does not, 2 where the input is at fault.

    python benchmarks/rain.py --preset rain200l --rainy RAINY --clean CLEAN
    python benchmarks/rain.py --preset rain800 --side-by-side PICTURES --clean-half left --figure rain800.png

Rows of the figure: clean, real rainy, synthetic rainy, real residual, synthetic residual (gray is no change).
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from drsformer_arch.images.pictures import decode, pictures_in_folder, read_file
from drsformer_arch.rain.rain_presets import RAINS, RainParameters
from drsformer_arch.rain.rain_statistics import RainStatistics, rain_statistics
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.system.errors import UserError

Picture = npt.NDArray[np.uint8]

ROWS: tuple[tuple[str, str, Callable[[RainStatistics], float]], ...] = (
    ("residual intensity: mean of abs(dY)", "gray", lambda one: one.intensity),
    ("residual intensity: 99th percentile", "gray", lambda one: one.strongest),
    ("streak orientation: from the vertical", "deg", lambda one: one.lean),
    ("streak orientation: coherence", "0..1", lambda one: one.coherence),
    ("streak length", "px", lambda one: one.length),
    ("streak width", "px", lambda one: one.width),
    ("PSNR of rainy to clean", "dB", lambda one: one.psnr),
)
ENOUGH = 100  # synthetic pictures, unless told otherwise
FIGURE_COLUMNS = 6
FIGURE_SIDE = 256  # px of the crops in the figure


def read(path: Path) -> Picture:
    """Read a picture as (H, W, 3) RGB uint8.

    Raises:
        UserError: unreadable, or not of 8 bits.
    """
    picture = decode(read_file(path), path)
    if picture.dtype != np.uint8:
        raise UserError(f"picture {path} has 16 bits per channel; this comparison needs 8")
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def pairs_of_folders(rainy: Path, clean: Path) -> list[tuple[Path, Path | None]]:
    """Return the files of every pair of one name.

    Raises:
        UserError: a folder is missing or empty, or a picture lacks its partner.
    """
    rainy_files, clean_files = pictures_in_folder(rainy), pictures_in_folder(clean)
    for files, others, at in ((rainy_files, clean_files, clean), (clean_files, rainy_files, rainy)):
        lonely = sorted(files.keys() - others.keys())
        if lonely:
            raise UserError(f"{files[lonely[0]]} has no partner of that name in {at} ({len(lonely)} such pictures)")
    return [(path, clean_files[key]) for key, path in rainy_files.items()]


def read_pair(rainy: Path, clean: Path | None, clean_half: str) -> tuple[Picture, Picture]:
    """Read the rainy and the clean picture of a pair.

    Args:
        rainy: file.
        clean: file; None where the first one holds both pictures, one half each.
        clean_half: which half is clean, "left" or "right".

    Raises:
        UserError: an unreadable picture, or halves or pictures of unequal sizes.
    """
    if clean is None:
        both = read(rainy)
        if both.shape[1] % 2:
            raise UserError(f"{rainy} cannot be halved: it is {both.shape[1]} pixels wide")
        left, right = np.split(both, 2, axis=1)
        return (right, left) if clean_half == "left" else (left, right)
    pair = read(rainy), read(clean)
    if pair[0].shape != pair[1].shape:
        sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in pair)
        raise UserError(f"{rainy} and {clean} differ in size: {sizes} pixels")
    return pair


def measured(
    pairs: Sequence[tuple[Path, Path | None]], clean_half: str, preset: str, seed: int, draws: int
) -> Iterator[tuple[RainStatistics, list[RainStatistics], tuple[Picture, Picture, Picture]]]:
    """Statistics of each real pair and of its imitations, and pictures: clean, real rainy, first imitation."""
    for index, files in enumerate(tqdm(pairs, desc="pairs", unit="pair", delay=2, leave=False, disable=None)):
        rainy, clean = read_pair(*files, clean_half)
        imitations = []
        for draw in range(draws):
            rng = np.random.default_rng([seed, index, draw])
            imitations.append(add_rain(clean, rng, RainParameters.sample(rng, preset)))
        of_imitations = [rain_statistics(one, clean) for one in imitations]
        yield rain_statistics(rainy, clean), of_imitations, (clean, rainy, imitations[0])


def table(real: Sequence[RainStatistics], synthetic: Sequence[RainStatistics]) -> tuple[str, bool]:
    """The comparison as Markdown, and whether all medians lie within the quartiles.

    Raises:
        UserError: no pair of a kind shows any rain.
    """
    lines = [
        "| statistic | unit | real Q1 | median | Q3 | synthetic Q1 | median | Q3 | inside? |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    all_inside = True
    for name, unit, value in ROWS:
        finite = [np.array([value(one) for one in some if np.isfinite(value(one))]) for some in (real, synthetic)]
        if not all(values.size for values in finite):
            raise UserError("rainy and clean pictures are equal: there is no rain to compare")
        of_real, of_synthetic = (np.percentile(values, (25, 50, 75)) for values in finite)
        inside = bool(of_real[0] <= of_synthetic[1] <= of_real[2])
        all_inside &= inside
        numbers = " | ".join(f"{number:.2f}" for number in (*of_real, *of_synthetic))
        lines.append(f"| {name} | {unit} | {numbers} | {'yes' if inside else 'NO'} |")
    return "\n".join(lines), all_inside


def column(clean: Picture, rainy: Picture, synthetic: Picture) -> Picture:
    """One column of the figure, a crop from the middle of each picture."""
    top, left = (max(0, (side - FIGURE_SIDE) // 2) for side in clean.shape[:2])
    pictures = [clean, rainy, synthetic]
    pictures += [np.clip(one.astype(np.int16) - clean + 128, 0, 255).astype(np.uint8) for one in (rainy, synthetic)]
    parts = []
    for picture in pictures:
        crop = picture[top : top + FIGURE_SIDE, left : left + FIGURE_SIDE]
        below, right = (FIGURE_SIDE - side for side in crop.shape[:2])
        parts.append(np.pad(crop, ((0, below), (0, right), (0, 0)), constant_values=255))
    return np.vstack(parts)


def compare(arguments: argparse.Namespace) -> int:
    if arguments.side_by_side is not None:
        pairs = [(path, None) for path in pictures_in_folder(arguments.side_by_side).values()]
    else:
        pairs = pairs_of_folders(arguments.rainy, arguments.clean)
    # Evenly over the set, as neighbours in it are often made alike.
    chosen = np.linspace(0, len(pairs) - 1, min(arguments.limit or len(pairs), len(pairs))).astype(int)
    shown = set(np.linspace(0, len(chosen) - 1, FIGURE_COLUMNS).astype(int).tolist())
    real, synthetic, columns = [], [], []
    # The median of few draws is a matter of luck.
    draws = arguments.draws or -(-ENOUGH // len(chosen))
    results = measured(
        [pairs[index] for index in chosen], arguments.clean_half, arguments.preset, arguments.seed, draws
    )
    for index, (of_real, of_synthetic, pictures) in enumerate(results):
        real.append(of_real)
        synthetic.extend(of_synthetic)
        if arguments.figure is not None and index in shown:
            columns.append(column(*pictures))
    text, all_inside = table(real, synthetic)
    print(f"{arguments.preset} on {len(real)} pairs, {draws} x rain on each, seed {arguments.seed}\n\n{text}")
    if arguments.figure is not None:
        done, encoded = cv2.imencode(".png", np.hstack(columns)[:, :, ::-1])
        if not done:
            raise UserError("OpenCV could not encode the figure as PNG")
        try:
            arguments.figure.write_bytes(encoded.tobytes())
        except OSError as error:
            raise UserError(f"figure {arguments.figure} cannot be written: {error.strerror}") from error
        print(f"\nfigure: {arguments.figure}")
    return 0 if all_inside else 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=RAINS, required=True)
    parser.add_argument("--rainy", type=Path, metavar="DIR", help="real rainy pictures")
    parser.add_argument("--clean", type=Path, metavar="DIR", help="clean pictures of the same names")
    parser.add_argument("--side-by-side", type=Path, metavar="DIR", help="pictures with a clean and a rainy half")
    parser.add_argument("--clean-half", choices=("left", "right"), default="left", help="%(default)s")
    parser.add_argument("--limit", type=int, metavar="N", help="compare N pairs, evenly chosen, instead of all")
    parser.add_argument("--draws", type=int, metavar="N", help=f"rains on each picture (at least {ENOUGH} in all)")
    parser.add_argument("--seed", type=int, default=0, help="of the rain, 0 or more (%(default)s)")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="also draw some of the pictures")
    arguments = parser.parse_args(argv)
    if (arguments.side_by_side is None) == (arguments.rainy is None and arguments.clean is None):
        parser.error("give --rainy and --clean, or --side-by-side")
    if arguments.side_by_side is None and (arguments.rainy is None or arguments.clean is None):
        parser.error("--rainy and --clean belong together")
    if arguments.seed < 0 or any(number is not None and number < 1 for number in (arguments.limit, arguments.draws)):
        parser.error("--limit and --draws must be 1 or more, --seed 0 or more")
    try:
        return compare(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
