"""The frozen pictures on which every generation of DRSformer-S is measured, and which nothing trains on.

`options/DRSformer-S/yardsticks.json` holds their SHA-256 (of the pixels, of real photographs of the files), so that
nobody measures on others by mistake; no picture of others is in the repository. `scripts/score_yardsticks.py` scores a
network on them. These are

    validation    pairs of the 38 scenes that `scripts/prepare_drsformer_s.sh` puts aside for validation
    drawn         rain like Rain200H's (preset rain200h) on the clean halves of Rain100L's
    clean         the clean halves of Rain800's, to be left as they are
    photographs   of installed packages; likewise
    patterns      50 drawn pictures of lattices, fences, blinds, hatchings and stripes, without and with rain. Of what
                  `drsformer_arch.rain.line_patterns` holds out of training they have two families whole, and of the
                  other three families 3 of 10 by their angle and 3 by the distance of their lines
    large         4000x3000 pixels made of scikit-image's photograph of a cup of coffee, with rain at that scale
    real          20 photographs of real rain, with the regions in which the first generation leaves thick streaks

    python scripts/yardsticks.py --data datasets/DRSformer-S --real photographs/real   check all against the file
    python scripts/yardsticks.py -o FOLDER   also write the drawn pairs, as FOLDER/{patterns,large}/{input,target}/*.png
"""

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from drsformer_arch.data.datasets.rain_synthesis_dataset import RainSynthesisDataset
from drsformer_arch.data.datasets.samples import WHOLE
from drsformer_arch.data.datasets.sources import open_pairs
from drsformer_arch.images.pictures import Picture, decode, encode_png, pictures_in_folder, read_file
from drsformer_arch.images.tensors import to_picture
from drsformer_arch.rain.layers import Streaks
from drsformer_arch.rain.line_patterns import FAMILIES, PERIODS, Family, draw_pattern, is_held_out
from drsformer_arch.rain.rain_presets import Preset, RainParameters
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import write_atomically

FROZEN = Path(__file__).resolve().parent.parent / "options/DRSformer-S/yardsticks.json"
SETS = ("rain100l", "rain800", "rain200h")
# Package and file of photographs that no generation trains on. The three that scripts/package_photographs.py collects
# and training took are not among them: astronaut, grace_hopper, motorcycle.
PHOTOGRAPHS = tuple(
    ("skimage", f"data/{name}")
    for name in (
        *("chelsea.png", "coffee.png", "camera.png", "rocket.jpg", "brick.png", "grass.png"),
        *("gravel.png", "coins.png", "page.png", "text.png", "clock_motion.png"),
    )
)
PATTERN_SIZE = (240, 320)  # height and width in px
PATTERNS_PER_FAMILY = 10
PATTERN_SEED = 25
PATTERN_RAIN: tuple[Preset, ...] = ("light", "medium", "heavy", "rain200l", "rain200h")
LARGE_SIZE = (3000, 4000)  # height and width in px
LARGE_SEED = 12


class Yardstick(NamedTuple):
    """A yardstick: what goes in, and what should come out, (H, W, C) each; the same picture where there is no rain."""

    name: str
    rainy: Picture
    clean: Picture


class PatternLook(NamedTuple):
    """The arguments from which a pattern is drawn."""

    family: Family
    angles: tuple[float, ...]  # degrees from the vertical
    period: float  # px
    bright: bool  # lines brighter than what is behind them


def digest(picture: npt.NDArray[Any]) -> str:
    """Hash the shape and the pixels of a picture by SHA-256."""
    return hashlib.sha256(f"{picture.shape} {picture.dtype}".encode() + picture.tobytes()).hexdigest()


def validation(data: Path, name: str) -> Iterator[Yardstick]:
    """Read the validation pairs of one of `SETS`."""
    pairs = open_pairs(str(data / name / "test.lmdb"))
    for index in range(len(pairs)):
        rainy, clean = (np.ascontiguousarray(picture[WHOLE]) for picture in pairs.pair(index))
        yield Yardstick(Path(pairs.names(index)[1]).stem, rainy, clean)


def drawn(data: Path) -> Iterator[Yardstick]:
    """Draw rain like Rain200H's, as `options/DRSformer-S/test.yml` draws it."""
    store = str(data / "rain100l/test.lmdb")
    options = {"name": "drawn", "phase": "test", "scale": 1, "dataroot_gt": store, "presets": "rain200h"}
    samples = RainSynthesisDataset(options)
    for index in range(len(samples)):
        sample = samples[index]
        yield Yardstick(Path(sample["gt_path"]).stem, to_picture(sample["lq"]), to_picture(sample["gt"]))


def photographs() -> Iterator[Yardstick]:
    """Read clean photographs of installed packages.

    Raises:
        UserError: a package is not installed, or does not carry the photograph.
    """
    for package, file in PHOTOGRAPHS:
        clean = decode(read_file(Path(_folder_of(package), file)), file)
        yield Yardstick(Path(file).stem, clean, clean)


def pattern_looks() -> list[PatternLook]:
    """List the 50 patterns: half of each family bright on dark; training draws 4 of 10, none of a held out family."""
    rng = np.random.default_rng(PATTERN_SEED)
    looks = []
    for family in FAMILIES:
        # Held out by the angle, by the distance of the lines, or neither; a family that is held out anyway has all too.
        for number in range(PATTERNS_PER_FAMILY):
            odd_angle, odd_period = number in (1, 4, 7), number in (2, 5, 8)
            while True:
                angle = float(rng.uniform(-90, 90))
                across = angle + (90 if number % 2 else float(rng.uniform(40, 140)))
                angles = (angle, across) if family == "lattice" else (angle,)
                period = float(np.exp(rng.uniform(*np.log(PERIODS))))
                turned = is_held_out("stripes", angles, PERIODS[1])
                spaced = is_held_out("stripes", (0.0,), period)
                if (turned, spaced) == (odd_angle, odd_period):
                    looks.append(PatternLook(family, angles, period, bright=number % 2 == 0))
                    break
    return looks


def pattern(number: int) -> tuple[Yardstick, Yardstick]:
    """Draw a pattern to be left as it is, and the same with rain."""
    look = pattern_looks()[number]
    height, width = PATTERN_SIZE
    rng = np.random.default_rng([PATTERN_SEED, number])
    clean = draw_pattern(rng, look.family, look.angles, look.period, bright=look.bright, height=height, width=width)
    preset = PATTERN_RAIN[number % len(PATTERN_RAIN)]
    rainy = add_rain(clean, rng, RainParameters.sample(rng, preset))
    name = f"{number:02d}_{look.family}"
    return Yardstick(name, clean, clean), Yardstick(name, rainy, clean)


def large_rain(size: float = 1) -> RainParameters:
    """Three layers of streaks, at size 1 as long and as wide as rain in a picture of 12 megapixels has."""
    layers = (
        Streaks(angle=-9, drift=0, wobble=1.2, length=90 * size, width=5.0 * size, density=1.3, brightness=0.34),
        Streaks(angle=-9, drift=0, wobble=2.0, length=190 * size, width=9.0 * size, density=0.7, brightness=0.6),
        Streaks(angle=-9, drift=0, wobble=2.6, length=420 * size, width=20.0 * size, density=0.08, brightness=0.45),
    )
    return RainParameters(layers=layers, screen=0.6)


def large() -> Yardstick:
    """Make a photograph of 12 megapixels with streaks as long and as wide as rain of that size has."""
    clean = _enlarged(decode(read_file(Path(_folder_of("skimage"), "data/coffee.png")), "coffee"), LARGE_SIZE)
    rng = np.random.default_rng(LARGE_SEED)
    return Yardstick("coffee_12_megapixels", add_rain(clean, rng, large_rain()), clean)


def real(folder: Path) -> Iterator[tuple[str, bytes, Picture]]:
    """Read name, content and pixels of the photographs of real rain."""
    for path in sorted(pictures_in_folder(folder).values()):
        content = read_file(path)
        yield path.name, content, decode(content, path)


def _folder_of(package: str) -> str:
    specification = importlib.util.find_spec(package)
    if specification is None or not specification.submodule_search_locations:
        raise UserError(f"{package} is not installed; a photograph of it is among the yardsticks")
    return specification.submodule_search_locations[0]


def _enlarged(photograph: Picture, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A photograph cut to the shape of the size, enlarged, with detail at the finer scales.

    What the finer octaves lack is taken from the grain of the wood in the photograph at their scale, laid side by side
    and mirrored, as strong as the place is rich in contrast. In float64 and matrix products alone, so that all machines
    make the same bytes.
    """
    height, width = size
    factor = max(height / photograph.shape[0], width / photograph.shape[1])
    whole = photograph.astype(np.float64)
    picture = _resized(whole, round(photograph.shape[0] * factor), round(photograph.shape[1] * factor))
    picture = picture[:height, :width]
    smooth = _resized(_resized(whole, 40, 60), photograph.shape[0], photograph.shape[1])
    contrast = np.abs(whole - smooth).mean(axis=2, keepdims=True)
    contrast = _resized(_resized(contrast, 40, 60), height, width)
    contrast = contrast / contrast.mean()
    wood = whole[210:390, :90]
    for octave in (2, 4, 7):
        small = _resized(wood, round(wood.shape[0] * factor / octave), round(wood.shape[1] * factor / octave))
        coarse = _resized(small, small.shape[0] // 3, small.shape[1] // 3)
        detail = (small - _resized(coarse, *small.shape[:2])).mean(axis=2, keepdims=True)
        tile = np.concatenate([detail, detail[::-1]])
        tile = np.concatenate([tile, tile[:, ::-1]], axis=1)
        copies = (-(-height // tile.shape[0]), -(-width // tile.shape[1]), 1)
        picture += 0.7 * np.clip(contrast, 0.2, 2) * np.tile(tile, copies)[:height, :width]
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def _resized(picture: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    rows, columns = _weights(picture.shape[0], height), _weights(picture.shape[1], width)
    planes = [rows @ plane @ columns.T for plane in picture.transpose(2, 0, 1)]
    return np.stack(planes, axis=2)


def _weights(length: int, new: int) -> npt.NDArray[np.float64]:
    """(new, length): cubic interpolation, over wider neighbourhoods where the picture becomes smaller."""
    reach = max(length / new, 1.0)
    middles = (np.arange(new) + 0.5) * length / new - 0.5
    away = np.abs(np.arange(length)[None] - middles[:, None]) / reach
    near = 1.5 * away**3 - 2.5 * away**2 + 1
    far = -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


# --- what is frozen --------------------------------------------------------------------------------------------------


def load() -> dict[str, Any]:
    """Read the frozen file."""
    return json.loads(FROZEN.read_text(encoding="utf-8"))


def digests(pairs: Iterator[Yardstick] | Sequence[Yardstick]) -> dict[str, dict[str, str]]:
    """Hash both pictures of every pair, by name."""
    return {pair.name: {"rainy": digest(pair.rainy), "clean": digest(pair.clean)} for pair in pairs}


def freeze(data: Path, photographs_of_rain: Path, regions: dict[str, list[list[int]]]) -> str:
    """Make the text of the frozen file, which is done once."""
    looks = pattern_looks()
    frozen: dict[str, Any] = {
        "format": 1,
        "validation": {name: digests(validation(data, name)) for name in SETS},
        "drawn": digests(drawn(data)),
        "photographs": digests(photographs()),
        "patterns": {
            rainy.name: {
                **look._asdict(),
                "held_out": is_held_out(look.family, look.angles, look.period),
                "rain": PATTERN_RAIN[number % len(PATTERN_RAIN)],
                "clean": digest(rainy.clean),
                "rainy": digest(rainy.rainy),
            }
            for number, look in enumerate(looks)
            for rainy in pattern(number)[1:]
        },
        "large": digests([large()]),
        "real": {
            name: {
                "sha256": hashlib.sha256(content).hexdigest(),
                "width": picture.shape[1],
                "height": picture.shape[0],
                "regions": regions.get(name, []),
            }
            for name, content, picture in real(photographs_of_rain)
        },
    }
    return _text(frozen, 0) + "\n"


def _text(value: Any, depth: int) -> str:
    """Write the frozen values as JSON with a line per picture."""
    flat = not isinstance(value, dict) or not any(isinstance(one, dict) for one in value.values())
    if flat:
        return json.dumps(value)
    inner = ",\n".join(f"{' ' * (depth + 1)}{json.dumps(key)}: {_text(one, depth + 1)}" for key, one in value.items())
    return "{\n" + inner + "\n" + " " * depth + "}"


def compare(part: str, name: str, expected: dict[str, Any] | None, actual: dict[str, str]) -> list[str]:
    """List complaints about a picture."""
    if expected is None:
        return [f"{part}: {name} is no yardstick"]
    return [f"{part}: {name}, {key}: is another picture" for key, value in actual.items() if expected[key] != value]


def check_pairs(
    part: str, frozen: dict[str, Any], pairs: Iterator[Yardstick] | Sequence[Yardstick]
) -> Iterator[Yardstick]:
    """Yield the pairs one by one, each after a look at its digest.

    Raises:
        UserError: a picture is missing, too many, or not the one that was frozen.
    """
    missing = dict(frozen)
    for pair in pairs:
        expected = missing.pop(pair.name, None)
        complaints = compare(part, pair.name, expected, digests([pair])[pair.name])
        if complaints:
            raise UserError(f"{complaints[0]}; the scores would not be comparable")
        yield pair
    if missing:
        raise UserError(f"{part}: {', '.join(missing)} missing; the scores would not be comparable")


def check_real(frozen: dict[str, Any], folder: Path) -> Iterator[tuple[str, Picture]]:
    """Yield name and pixels of the photographs of real rain, likewise checked.

    Raises:
        UserError: as `check_pairs`.
    """
    missing = dict(frozen)
    for name, content, picture in real(folder):
        if missing.pop(name, {}).get("sha256") != hashlib.sha256(content).hexdigest():
            raise UserError(f"real: {name} is another picture or no yardstick; the scores would not be comparable")
        yield name, picture
    if missing:
        raise UserError(f"real: {', '.join(missing)} missing; the scores would not be comparable")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="where scripts/prepare_drsformer_s.sh has put its data")
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="folder of the 20 photographs of real rain")
    parser.add_argument("-o", dest="out", type=Path, metavar="FOLDER", help="write the drawn pairs as PNG")
    args = parser.parse_args(argv)
    frozen = load()
    count = 0
    try:
        parts: list[tuple[str, dict[str, Any], Iterator[Yardstick] | Sequence[Yardstick]]] = [
            ("photographs", frozen["photographs"], photographs()),
            ("patterns", frozen["patterns"], (pattern(number)[1] for number in range(len(frozen["patterns"])))),
            ("large", frozen["large"], (large() for _ in range(1))),
        ]
        if args.data is not None:
            parts += [(name, frozen["validation"][name], validation(args.data, name)) for name in SETS]
            parts.append(("drawn", frozen["drawn"], drawn(args.data)))
        for part, expected, pairs in parts:
            for pair in check_pairs(part, expected, pairs):
                count += 1
                if args.out is not None and part in ("patterns", "large"):
                    for role, picture in (("input", pair.rainy), ("target", pair.clean)):
                        (args.out / part / role).mkdir(parents=True, exist_ok=True)
                        write_atomically(args.out / part / role / f"{pair.name}.png", encode_png(picture))
        if args.real is not None:
            count += sum(1 for _ in check_real(frozen["real"], args.real))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{count} yardsticks are what was frozen")
    return 0


if __name__ == "__main__":
    sys.exit(main())
