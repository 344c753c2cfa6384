"""`drsformer samples`: pairs to try everything with, rain drawn on photographs that scikit-image carries; no network.

Training and test differ in photographs and in seeds of the rain.
"""

import contextlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from drsformer_arch.data.prepare.preparation import REPORT, prepare_dataset
from drsformer_arch.metrics import calculate_psnr_ddn
from drsformer_arch.rain.rain_presets import RainParameters, Strength
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.system.errors import UserError, printable
from drsformer_arch.system.files import put_in_place, work_folder

Picture = npt.NDArray[np.uint8]
Pairs = tuple[dict[str, Picture], dict[str, Picture]]  # rainy and clean pictures by key

VERSION = 1  # of the pictures below: a change of tiles, photographs or rain gets a new number
MANIFEST = "manifest.json"
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
PARTS = ("input", "target")  # rainy and clean
STORES = tuple(f"{split}.lmdb" for split in SPLITS)

# Tiles cut from every training photograph. Left and right motorcycle are one scene and stay in one split.
TRAINING_TILES = {
    "astronaut.png": 22,
    "motorcycle_left.png": 16,
    "motorcycle_right.png": 16,
    "rocket.jpg": 14,
    "grass.png": 10,
    "gravel.png": 8,
    "brick.png": 8,
    "coins.png": 6,
}
TILE = 160  # px, larger than the patches of any quick training
RAINS_PER_TILE = 2

# Height and width of the crops of every test photograph, and their top left corners. The sizes are no multiples of 8,
# because those of real benchmarks (481 x 321) are none either.
TEST_CROPS = {
    "chelsea.png": ((203, 221), ((20, 4), (90, 226))),
    "coffee.png": ((198, 253), ((0, 20), (0, 310), (202, 40), (202, 300))),
    "camera.png": ((205, 250), ((40, 90), (300, 180))),
}
# The same mixture in training and test, one after the other, so that the few test pictures are no matter of luck.
STRENGTHS: tuple[Strength, ...] = ("medium", "heavy", "medium")


class Samples(NamedTuple):
    """Facts that the manifest of a folder of samples holds."""

    version: int
    seed: int
    training_pairs: int
    test_pairs: int
    test_psnr_y: float  # of the rainy test pictures, in dB

    def describe(self, folder: Path) -> str:
        """Say in one line what lies in a folder."""
        return (
            f"{self.training_pairs} training and {self.test_pairs} test pairs in {printable(folder)} "
            f"(seed {self.seed}), rainy test pictures at {self.test_psnr_y:.2f} dB PSNR (Y)"
        )


def write_samples(
    folder: Path, seed: int = 0, *, stores: bool = False, overwrite: bool = False
) -> tuple[Samples, bool]:
    """Write rainy and clean pictures into FOLDER/{train,test}/{input,target}, the same ones for the same seed.

    Args:
        folder: new or empty, or one that holds samples.
        seed: of tiles and rain, 0 or more.
        stores: write the stores FOLDER/train.lmdb and FOLDER/test.lmdb, too.
        overwrite: replace other samples.

    Returns:
        What lies there now, and whether it did so before.

    Raises:
        UserError: the folder holds something else, or scikit-image is not installed.
        OSError: something cannot be written.
    """
    place = Path(os.path.realpath(folder))
    if place.exists() and any(place.iterdir()):
        present = read_samples(place)
        if not overwrite:
            if present is None or (present.version, present.seed) != (VERSION, seed):
                raise UserError(
                    f"{folder} holds something else than samples of version {VERSION} and seed {seed}; "
                    "give another folder, or --overwrite"
                )
            missing = stores and not all((place / store / "store.json").exists() for store in STORES)
            if missing:
                _write_stores(place)
            return present, not missing
        _refuse_foreign(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(place, "building") as around:
        unfinished = around / place.name  # which `prepare_dataset` locks as `work_folder` does its folder
        unfinished.mkdir()
        samples = _make(unfinished, seed, stores=stores)
        put_in_place(unfinished, place)
    return samples, False


def read_samples(folder: Path) -> Samples | None:
    """Read the manifest of complete samples; None where there are none."""
    if not all((folder / split / part).exists() for split in SPLITS for part in PARTS):
        return None
    try:
        return Samples(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None


def _refuse_foreign(folder: Path) -> None:
    """Refuse to overwrite, which deletes the folder, where anything but samples may lie in it."""
    names = {path.name for path in folder.iterdir()}
    # Folders train/ and test/ alone may be anybody's own pairs.
    foreign = sorted(names - {MANIFEST, REPORT, *SPLITS, *STORES} if MANIFEST in names else names)
    if foreign:
        raise UserError(f"{folder} holds other things ({', '.join(foreign[:3])}), so it is not overwritten")


def _make(folder: Path, seed: int, *, stores: bool) -> Samples:
    """Write everything into an empty folder, the manifest last."""
    pairs = {"train": _training_pairs(seed), "test": _test_pairs(seed)}
    for split, pictures_of_parts in pairs.items():
        for part, pictures in zip(PARTS, pictures_of_parts, strict=True):
            _write_folder(pictures, folder / split / part)
    if stores:
        _write_stores(folder)
    rainy, clean = pairs["test"]
    samples = Samples(
        version=VERSION,
        seed=seed,
        training_pairs=len(pairs["train"][0]),
        test_pairs=len(rainy),
        test_psnr_y=round(float(np.mean([calculate_psnr_ddn(rainy[key], clean[key]) for key in rainy])), 2),
    )
    (folder / MANIFEST).write_text(json.dumps(samples._asdict(), indent=1) + "\n", encoding="utf-8")
    return samples


def _write_folder(pictures: Mapping[str, Picture], folder: Path) -> None:
    folder.mkdir(parents=True)
    for key, picture in pictures.items():
        path = folder / f"{key}.png"
        if not cv2.imwrite(str(path), picture):
            raise OSError(f"{path} could not be written")


def _write_stores(folder: Path) -> None:
    for split in SPLITS:
        sources = [folder / split / part for part in PARTS]
        with contextlib.redirect_stdout(io.StringIO()):  # every tile is there twice, with different rain
            prepare_dataset("pairs", sources, folder, output="compressed", split=split)


def _training_pairs(seed: int) -> Pairs:
    rng = np.random.default_rng([VERSION, seed, 0])
    rainy: dict[str, Picture] = {}
    clean: dict[str, Picture] = {}
    for name in tqdm(TRAINING_TILES, desc="training pictures", unit="photograph", delay=2):
        photograph = _load_photograph(name)
        for tile in range(TRAINING_TILES[name]):
            # Other scales make other textures out of few photographs.
            smallest = (TILE + 1) / min(photograph.shape[:2])
            scale = rng.uniform(max(0.5, smallest), 1)
            scaled = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
            top, left = (int(rng.integers(side - TILE + 1)) for side in scaled.shape[:2])
            target = scaled[top : top + TILE, left : left + TILE]
            for rain in range(RAINS_PER_TILE):
                key = f"{Path(name).stem}_{tile:02d}_{rain}"
                strength = STRENGTHS[len(clean) % len(STRENGTHS)]
                rainy[key] = add_rain(target, rng, RainParameters.sample(rng, strength))
                clean[key] = target
    return rainy, clean


def _test_pairs(seed: int) -> Pairs:
    rng = np.random.default_rng([VERSION, seed, 1])
    rainy: dict[str, Picture] = {}
    clean: dict[str, Picture] = {}
    for name, ((height, width), corners) in TEST_CROPS.items():
        photograph = _load_photograph(name)
        for number, (top, left) in enumerate(corners):
            key = f"{Path(name).stem}_{number}"
            clean[key] = photograph[top : top + height, left : left + width]
            strength = STRENGTHS[len(rainy) % len(STRENGTHS)]
            rainy[key] = add_rain(clean[key], rng, RainParameters.sample(rng, strength))
    return rainy, clean


def _load_photograph(name: str) -> Picture:
    """Read a photograph as (H, W, 3) BGR uint8 from the folder of scikit-image; gray ones get three equal channels."""
    try:
        import skimage  # noqa: PLC0415 - for samples alone
    except ImportError:
        raise UserError(
            "the photographs of the samples come with scikit-image, which is not installed: pip install scikit-image"
        ) from None
    # Read as a file: skimage.data's functions would try the network where a release of scikit-image lacks one.
    path = Path(skimage.__file__).parent / "data" / name
    photograph = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photograph is None:
        raise UserError(f"the installed scikit-image does not carry {path}; install another release of it")
    return photograph.astype(np.uint8, copy=False)
