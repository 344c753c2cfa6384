r"""Keep what trainings of docs/comparison.md came to, and join it: they may run on several machines, weights are large.

    python scripts/comparison_results.py keep comparison_IDT_seed1 -o results/comparison
    python scripts/comparison_results.py join results/comparison -o results/comparison
    python scripts/comparison_results.py join docs/comparison -o results/ours    what docs/comparison.md shows

`keep` scores the last weights of a training of ./experiments by `drsformer compare` and writes to OUT/NAME the scores
of every picture, costs, the records of its training, and regions of package photographs, with drawn rain, that it
derained. `join` makes tables and figures of all that was kept.
"""

import argparse
import csv
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np
import skimage
from show_demo_results import labelled

from drsformer_arch import Restorer
from drsformer_arch.commands.plot import run as plot
from drsformer_arch.compare import differences, figures, tables
from drsformer_arch.compare.comparison import compare
from drsformer_arch.compare.groups import groups_of
from drsformer_arch.compare.measurement import Measurement, MethodScores
from drsformer_arch.images.pictures import Picture
from drsformer_arch.rain.rain_presets import RainParameters
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import write_atomically
from drsformer_arch.training import training_records

# Parts of sets: published scores are of others.
SETS = {"Rain100L part": "rain100l", "Rain800 part": "rain800", "Rain200H part": "rain200h"}


class Scene(NamedTuple):
    """A photograph of scikit-image, the rain that is drawn on it, and the region that is shown."""

    file: str
    rain: str
    seed: int
    top: int
    left: int


SCENES = (
    Scene("chelsea.png", "rain200l", 1, 70, 100),
    Scene("coffee.png", "rain800", 2, 60, 170),
    Scene("astronaut.png", "rain200h", 3, 20, 140),
)
REGION = (150, 190)  # height and width in px


def scene(look: Scene) -> tuple[Picture, Picture]:
    """Make the rainy and the clean picture, (H, W, 3) RGB each."""
    clean = cv2.imread(str(Path(skimage.__file__).parent / "data" / look.file))[..., ::-1]
    rng = np.random.default_rng(look.seed)
    return add_rain(clean, rng, RainParameters.sample(rng, look.rain)), clean


def regions(pictures: Sequence[Picture]) -> Picture:
    """Lay the regions of the scenes below each other."""
    height, width = REGION
    return np.vstack(
        [
            picture[look.top : look.top + height, look.left : look.left + width]
            for look, picture in zip(SCENES, pictures, strict=True)
        ]
    )


def keep(name: str, data: Path, folder: Path) -> None:
    """Score a training's last weights, and keep that with its records."""
    network, weights = name.split("_")[1], Path("experiments", name, "models/net_g_latest.pth")
    with tempfile.TemporaryDirectory() as out:
        _, problems = compare(
            [f"{network}={weights}"],
            [f"{label}={data / place / 'test.lmdb'}" for label, place in SETS.items()],
            protocol="rain200",
            out=Path(out),
        )
        if problems:
            raise UserError("not kept, as something could not be scored; the problems are named above")
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("comparison.csv", "pictures.csv"):
            shutil.copyfile(Path(out, file), folder / file)
    shutil.copyfile(Path("experiments", name, training_records.NAME), folder / training_records.NAME)
    restorer = Restorer(weights, tile=0)
    derained = regions([restorer(scene(look)[0]) for look in SCENES])
    # Last: what has it is whole.
    write_atomically(folder / "regions.png", cv2.imencode(".png", derained[..., ::-1])[1].tobytes())


def measurement(folder: Path) -> Iterator[Measurement]:
    """Read the rainy pictures' scores and a network's out of the tables of `compare`."""
    with (folder / "comparison.csv").open(newline="") as file:
        means = list(csv.DictReader(file))
    with (folder / "pictures.csv").open(newline="") as file:
        pictures = list(csv.DictReader(file))
    for label in dict.fromkeys(row["method"] for row in means):
        facts = next(row for row in means if row["method"] == label)
        scores = {}
        for data_set in dict.fromkeys(row["data_set"] for row in means):
            rows = [row for row in pictures if (row["method"], row["data_set"]) == (label, data_set)]
            columns = ([float(row[key]) for row in rows] for key in ("psnr_db", "ssim", "seconds"))
            scores[data_set] = MethodScores([row["picture"] for row in rows], *columns, list(range(len(rows))))
        network = facts["network"] or None
        costs = [int(facts[key] or 0) for key in ("parameters", "macs", "peak_memory_bytes")]
        yield Measurement(label if network is None else folder.name, network, *costs, scores, label)


def read_all(kept: Path) -> list[Measurement]:
    """Read all that was kept; the rainy pictures' scores, which all must share, come first.

    Raises:
        UserError: nothing was kept, or trainings were scored on other pictures.
    """
    # A folder without regions is still being written, beside this.
    measured = [list(measurement(file.parent)) for file in sorted(kept.glob("*/regions.png"))]
    if not measured:
        raise UserError(f"nothing is kept in {kept}")
    for rainy, network in measured:
        if [one[:3] for one in rainy.scores.values()] != [one[:3] for one in measured[0][0].scores.values()]:
            raise UserError(f"{kept / network.label}: scored on other pictures than {measured[0][1].label}")
    return [measured[0][0], *(network for _, network in measured)]


def iteration_seconds(folder: Path) -> float:
    """Return the median time of an iteration, from the records."""
    records = training_records.read(folder)
    return median(record["seconds_per_iter"] for record in records if "seconds_per_iter" in record)


def gallery(results: Sequence[Measurement], kept: Path) -> Picture:
    """Lay the regions of the rainy pictures, of one training per network, and of the clean ones side by side."""
    rainy, clean = (regions(pictures) for pictures in zip(*map(scene, SCENES), strict=True))
    columns = {"rainy": rainy}
    for group in groups_of(results)[1:]:
        columns[group.label] = cv2.imread(str(kept / group.members[0].label / "regions.png"))[..., ::-1]
    columns["clean"] = clean
    half = len(columns) // 2 + len(columns) % 2
    gap = ((0, 4), (0, 4), (0, 0))
    parts = [np.pad(labelled(picture, text), gap, constant_values=255) for text, picture in columns.items()]
    parts += [np.full_like(parts[0], 255)] * (2 * half - len(parts))
    return np.vstack([np.hstack(parts[:half]), np.hstack(parts[half:])])


def join(kept: Path, out: Path) -> str:
    """Write the figures; return the tables."""
    results = read_all(kept)
    groups = groups_of(results)
    pairs = differences.pairs_of(groups, tables.data_sets(results))
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "cost.png", figures.quality_against_cost(results))
    if pairs:
        write_atomically(out / "differences.png", figures.intervals(pairs))
    picture = cv2.imencode(".jpg", gallery(results, kept)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    write_atomically(out / "regions.jpg", picture.tobytes())
    folders = [kept / result.label for result in results[1:]]
    plot(argparse.Namespace(experiments=folders, only=["PSNR"], out=out / "training.png"))
    lines = ["| network | s per iteration |", "|---|---|"]
    for group in groups[1:]:
        seconds = median(iteration_seconds(kept / member.label) for member in group.members)
        lines.append(f"| {group.title} | {seconds:.2f} |")
    return "\n".join([tables.markdown_table(results, []), differences.markdown(pairs), *lines])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="what one training came to")
    keeping.add_argument("name", help="a folder of ./experiments: comparison_NETWORK_seedN")
    keeping.add_argument("--data", type=Path, default=Path("datasets/DRSformer-S"), help="%(default)s")
    joining = commands.add_parser("join", help="all that was kept")
    joining.add_argument("kept", type=Path, help="folder of what was kept")
    for command in (keeping, joining):
        command.add_argument("-o", dest="out", type=Path, default=Path("results/comparison"), help="%(default)s")
    args = parser.parse_args(argv)
    try:
        if args.command == "keep":
            keep(args.name, args.data, args.out / args.name)
            print(f"kept in {args.out / args.name}")
        else:
            print(join(args.kept, args.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
