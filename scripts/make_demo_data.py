"""Make a small data set for the quick start out of photographs that are installed with scikit-image, without a network.

Rain is drawn by `drsformer_arch.rain.rain_synthesis`. Training and test differ in photographs and in seeds of the rain.
"""

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import skimage
from tqdm import tqdm

from drsformer_arch.data.prepare.preparation import REPORT, prepare_dataset
from drsformer_arch.metrics import calculate_psnr_ddn
from drsformer_arch.rain.rain_presets import RainParameters, Strength
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.system.files import put_in_place, work_folder

Picture = npt.NDArray[np.uint8]

VERSION = 1  # of the pictures below: a change of tiles, photographs or rain gets a new number
MANIFEST = "manifest.json"
SPLITS = ("train", "test")
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


def load_photograph(name: str) -> Picture:
    """Read a photograph as (H, W, 3) BGR uint8 from the folder of scikit-image; gray ones get three equal channels."""
    # Read as a file: skimage.data's functions would try the network where a release of scikit-image lacks one.
    path = Path(skimage.__file__).parent / "data" / name
    photograph = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photograph is None:
        raise FileNotFoundError(f"the installed scikit-image does not carry {path}; install another release of it")
    return photograph.astype(np.uint8, copy=False)


def training_pairs(seed: int) -> tuple[dict[str, Picture], dict[str, Picture]]:
    """Draw the training pairs: rainy and clean tiles by key."""
    rng = np.random.default_rng([VERSION, seed, 0])
    rainy: dict[str, Picture] = {}
    clean: dict[str, Picture] = {}
    for name in tqdm(TRAINING_TILES, desc="training pictures", unit="photograph", delay=2):
        photograph = load_photograph(name)
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


def test_pairs(seed: int) -> tuple[dict[str, Picture], dict[str, Picture]]:
    """Draw the test pairs: rainy and clean crops by key."""
    rng = np.random.default_rng([VERSION, seed, 1])
    rainy: dict[str, Picture] = {}
    clean: dict[str, Picture] = {}
    for name, ((height, width), corners) in TEST_CROPS.items():
        photograph = load_photograph(name)
        for number, (top, left) in enumerate(corners):
            key = f"{Path(name).stem}_{number}"
            clean[key] = photograph[top : top + height, left : left + width]
            strength = STRENGTHS[len(rainy) % len(STRENGTHS)]
            rainy[key] = add_rain(clean[key], rng, RainParameters.sample(rng, strength))
    return rainy, clean


def write_folder(pictures: Mapping[str, Picture], folder: Path) -> None:
    folder.mkdir(parents=True)
    for key, picture in pictures.items():
        path = folder / f"{key}.png"
        if not cv2.imwrite(str(path), picture):
            raise OSError(f"{path} could not be written")


def make(folder: Path, seed: int) -> dict[str, object]:
    """Write everything into an empty folder, the manifest last, and return that."""
    rainy, clean = training_pairs(seed)
    test_rainy, test_clean = test_pairs(seed)
    for split, parts in zip(SPLITS, ((rainy, clean), (test_rainy, test_clean)), strict=True):
        for part, pictures in zip(("input", "target"), parts, strict=True):
            write_folder(pictures, folder / split / part)
        sources = [folder / split / "input", folder / split / "target"]
        with contextlib.redirect_stdout(io.StringIO()):  # every tile is there twice, with different rain
            prepare_dataset("pairs", sources, folder, output="compressed", split=split)
    manifest: dict[str, object] = {
        "version": VERSION,
        "seed": seed,
        "training_pairs": len(rainy),
        "test_pairs": len(test_rainy),
        "test_psnr_y": round(
            float(np.mean([calculate_psnr_ddn(test_rainy[key], test_clean[key]) for key in test_rainy])), 2
        ),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def read_demo_manifest(folder: Path) -> dict[str, object] | None:
    """Read the manifest of complete demo data, None where there is none."""
    wanted = [folder / MANIFEST, *(folder / split / part for split in SPLITS for part in ("input", "target"))]
    wanted += [folder / store / "store.json" for store in STORES]
    if not all(path.exists() for path in wanted):
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) else None


def summary(manifest: Mapping[str, object], folder: Path) -> str:
    return (
        f"{manifest['training_pairs']} training and {manifest['test_pairs']} test pairs in {folder} "
        f"(seed {manifest['seed']}), rainy test pictures at {manifest['test_psnr_y']:.2f} dB PSNR (Y)"
    )


def refuse_foreign(folder: Path) -> None:
    """Refuse to overwrite, which deletes the folder, where anything but demo data may lie in it."""
    foreign = sorted({path.name for path in folder.iterdir()} - {MANIFEST, REPORT, *SPLITS, *STORES})
    if foreign:
        raise FileExistsError(f"{folder} holds other things ({', '.join(foreign[:3])}), so it is not overwritten")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="example: python scripts/make_demo_data.py --out datasets/quickstart",
    )
    parser.add_argument("--out", type=Path, default=Path("datasets/quickstart"), help="folder to make (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of tiles and rain, 0 or more (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace demo data that is there already")
    arguments = parser.parse_args(argv)
    if arguments.seed < 0:
        parser.error("--seed must be 0 or more")
    out = Path(os.path.realpath(arguments.out))

    try:
        if out.exists() and any(out.iterdir()):
            manifest = read_demo_manifest(out)
            if not arguments.overwrite:
                if manifest is not None and (manifest.get("version"), manifest.get("seed")) == (
                    VERSION,
                    arguments.seed,
                ):
                    print(f"{summary(manifest, arguments.out)}; already there")
                    return 0
                raise FileExistsError(
                    f"{arguments.out} holds something else than demo data of version {VERSION} and seed "
                    f"{arguments.seed}; give another --out, or --overwrite"
                )
            refuse_foreign(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(out, "building") as around:
            unfinished = around / out.name  # which `prepare_dataset` locks as `work_folder` does its folder
            unfinished.mkdir()
            manifest = make(unfinished, arguments.seed)
            put_in_place(unfinished, out)
    except (OSError, ValueError) as error:
        print(f"make_demo_data: {error}", file=sys.stderr)
        return 1
    print(summary(manifest, arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
