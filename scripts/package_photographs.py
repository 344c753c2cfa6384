"""Collect the colour photographs that installed packages carry, as clean pictures for rain synthesis; no network.

    python scripts/package_photographs.py datasets/photographs

Only photographs of everyday scenes, in colour and of at least 128 pixels: no drawings, no charts, nothing through a
microscope or telescope. Those that the demo and the README show results on (scikit-image's chelsea, coffee and camera)
are left out: nothing may train on them. What is not installed is left out and named.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from drsformer_arch.images.pictures import decode, encode_png, read_file
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import write_atomically

SMALLEST = 128  # px


class Photograph(NamedTuple):
    """Where a photograph lies, and what its package says about using it."""

    distribution: str
    package: str
    file: str
    terms: str


PHOTOGRAPHS = (
    Photograph("scikit-image", "skimage", "data/astronaut.png", "public domain, NASA"),
    Photograph("scikit-image", "skimage", "data/motorcycle_left.png", "Middlebury stereo benchmark 2014, none stated"),
    Photograph("scikit-image", "skimage", "data/motorcycle_right.png", "Middlebury stereo benchmark 2014, none stated"),
    Photograph("scikit-image", "skimage", "data/rocket.jpg", "public domain, SpaceX"),
    Photograph("matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "none stated"),
    Photograph("scikit-learn", "sklearn", "datasets/images/china.jpg", "CC BY, see its README"),
    Photograph("scikit-learn", "sklearn", "datasets/images/flower.jpg", "CC BY, see its README"),
)


def collect(folder: Path) -> list[str]:
    """Write the photographs as PNG.

    Returns:
        a line for each.

    Raises:
        UserError: a file of that name holds something else, the folder is not writable, or nothing is installed.
    """
    lines, written = [], 0
    for one in PHOTOGRAPHS:
        specification = importlib.util.find_spec(one.package)
        places = specification.submodule_search_locations if specification is not None else None
        source = Path(places[0], one.file) if places else None
        name = Path(one.file).stem
        if source is None or not source.is_file():
            lines.append(f"{name}: left out, {one.distribution} is not installed or does not carry {one.file}")
            continue
        picture = decode(read_file(source), source)
        height, width, channels = picture.shape
        if channels != 3 or min(height, width) < SMALLEST:
            raise UserError(
                f"{source} is no colour picture of at least {SMALLEST} pixels any more; take it off the list"
            )
        target, content = folder / f"{name}.png", encode_png(picture, 6)
        if target.exists() and (decode(read_file(target), target) != picture).any():
            raise UserError(f"{target} exists already and is another picture; give another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error.strerror}") from error
        version = importlib.metadata.version(one.distribution)
        lines.append(f"{name}: {width}x{height}, {one.distribution} {version} ({one.terms})")
        written += 1
    if not written:
        raise UserError("no package with photographs is installed; pip install scikit-image")
    return [*lines, f"{folder}: {written} photographs"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to write them into")
    try:
        print("\n".join(collect(parser.parse_args(argv).folder)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
