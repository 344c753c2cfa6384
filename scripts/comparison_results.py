r"""Keep what trainings of docs/comparison.md came to, and join it: they may run on several machines, weights are large.

    python scripts/comparison_results.py keep comparison_IDT_seed1 -o results/comparison
    python scripts/comparison_results.py join results/comparison -o results/comparison
    python scripts/comparison_results.py join docs/comparison -o results/ours    what docs/comparison.md shows

`keep` scores the last weights of a training of ./experiments by `drsformer compare` and writes to OUT/NAME the scores
of every picture, costs, the records of its training, and regions of package photographs, with drawn rain, that it
derained. `join` makes tables and figures of all that was kept; a folder that cannot be used is named, and the exit code
is 1. Times are those of `steps.txt` in the folder, what `benchmarks/comparison_steps.py` printed on a quiet machine;
without it those of the trainings, whatever ran beside them.
"""

import argparse
import csv
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np
import skimage
from show_demo_results import labelled

from drsformer_arch import Restorer
from drsformer_arch.commands.common import EXIT_SOME_FAILED
from drsformer_arch.compare import differences, figures, tables
from drsformer_arch.compare.comparison import compare
from drsformer_arch.compare.groups import groups_of
from drsformer_arch.compare.measurement import Measurement, MethodScores
from drsformer_arch.images.pictures import Picture
from drsformer_arch.plot.curves import ITERATIONS, Curve, only, read_curves
from drsformer_arch.plot.training_figure import draw
from drsformer_arch.rain.rain_presets import RainParameters
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.system.errors import UserError, line_of, printable
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
REGIONS = "regions.png"


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


def network_of(name: str) -> str:
    """Return the network in the name of a training: comparison_NETWORK_seedN."""
    match = re.fullmatch(r"comparison_([^_]+)_seed\d+", name)
    if match is None:
        raise UserError(f"{name} is not called comparison_NETWORK_seedN")
    return match[1]


def keep(name: str, data: Path, folder: Path) -> None:
    """Score a training's last weights, and keep that with its records; the folder is whole, or not there."""
    network, experiment = network_of(name), Path("experiments", name)
    records = experiment / training_records.NAME
    for needed in (weights := experiment / "models/net_g_latest.pth", records):
        if not needed.is_file():
            raise UserError(f"there is no file {needed}; was {name} trained here?")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        with tempfile.TemporaryDirectory() as out:
            _, problems = compare(
                [f"{network}={weights}"],
                [f"{label}={data / place / 'test.lmdb'}" for label, place in SETS.items()],
                protocol="rain200",
                out=Path(out),
            )
            if problems:
                raise UserError("not kept, as something could not be scored; the problems are named above")
            for file in ("comparison.csv", "pictures.csv"):
                shutil.copyfile(Path(out, file), new / file)
        shutil.copyfile(records, new / training_records.NAME)
        restorer = Restorer(weights, tile=0)
        derained = regions([restorer(scene(look)[0]) for look in SCENES])
        write_atomically(new / REGIONS, cv2.imencode(".png", derained[..., ::-1])[1].tobytes())
        new.chmod(0o755)  # others may read it, as any folder
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def measurement(folder: Path) -> tuple[Measurement, Measurement]:
    """Read the rainy pictures' scores and a network's out of the tables of `compare`.

    Raises:
        UserError: they are not both there, of the network that the folder is named after and of the same pictures, or
            something cannot be read.
    """
    network = network_of(folder.name)
    try:
        with (folder / "comparison.csv").open(newline="", encoding="utf-8") as file:
            means = list(csv.DictReader(file))
        with (folder / "pictures.csv").open(newline="", encoding="utf-8") as file:
            pictures = list(csv.DictReader(file))
        read = [result_of(label, means, pictures) for label in dict.fromkeys(row["method"] for row in means)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(line_of(error, folder)) from error
    if [result.network for result in read] != [None, network]:
        raise UserError(f"{folder}: its tables are not of the rainy input and {network} alone")
    rainy, own = read
    if pictures_of(own) != pictures_of(rainy):
        raise UserError(f"{folder}: {network} has not the pictures that the rainy input has, each once")
    if not any("data_set" in record for record in training_records.read(folder)):
        raise UserError(f"{folder}: {training_records.NAME} has no record of a validation")
    shown = cv2.imread(str(folder / REGIONS))
    if shown is None or shown.shape != (len(SCENES) * REGION[0], REGION[1], 3):
        raise UserError(f"{folder}: {REGIONS} is no picture of the regions")
    return rainy, own._replace(label=folder.name, group=network)


def result_of(label: str, means: Sequence[dict[str, str]], pictures: Sequence[dict[str, str]]) -> Measurement:
    """Take one method's results out of rows of both tables.

    Raises:
        ValueError: a score is no number.
    """
    facts = next(row for row in means if row["method"] == label)
    scores = {}
    for data_set in dict.fromkeys(row["data_set"] for row in means):
        rows = [row for row in pictures if (row["method"], row["data_set"]) == (label, data_set)]
        psnr, ssim, seconds = ([float(row[key]) for row in rows] for key in ("psnr_db", "ssim", "seconds"))
        if not rows or any(map(math.isnan, psnr)) or not all(map(math.isfinite, (*ssim, *seconds))):
            raise ValueError(f"{label} has no scores on {data_set}, or such as are no numbers")
        scores[data_set] = MethodScores([row["picture"] for row in rows], psnr, ssim, seconds, list(range(len(rows))))
    costs = [int(facts[key] or 0) for key in ("parameters", "macs", "peak_memory_bytes")]
    return Measurement(label, facts["network"] or None, *costs, scores, label)


def pictures_of(result: Measurement) -> dict[str, list[str]] | None:
    """Return the names of the pictures by data set; None where one occurs twice."""
    names = {data_set: scores.names for data_set, scores in result.scores.items()}
    return names if all(len(set(of_set)) == len(of_set) for of_set in names.values()) else None


def qualities(result: Measurement) -> dict[str, tuple[object, ...]]:
    """Return names, PSNR and SSIM of the pictures by data set."""
    return {data_set: scores[:3] for data_set, scores in result.scores.items()}


def read_all(kept: Path) -> tuple[list[Measurement], list[str]]:
    """Read all that was kept; the rainy pictures' scores, which all must share, come first.

    Returns:
        The results, and a line for each folder that cannot be used.

    Raises:
        UserError: none can.
    """
    results: list[Measurement] = []
    problems = []
    # A folder without regions was never whole; hidden ones are still being written, beside this.
    for folder in sorted(file.parent for file in kept.glob("[!.]*/" + REGIONS)):
        try:
            rainy, own = measurement(folder)
            results = results or [rainy]
            if qualities(rainy) != qualities(results[0]):
                raise UserError(f"{folder}: scored on other pictures than {results[1].label}")
            same = next((result for result in results if result.group == own.group), own)
            if (same.parameters, same.macs) != (own.parameters, own.macs):
                raise UserError(f"{folder}: another size of {own.group} than {same.label}")
        except UserError as error:
            problems.append(str(error))
            continue
        results.append(own)
    if len(results) < 2:
        raise UserError("; ".join(problems) or f"nothing is kept in {kept}")
    return results, problems


def median_seconds(folder: Path) -> float | None:
    """Return the median time of an iteration, from the records; None where there is none."""
    records = training_records.read(folder)
    times = [record["seconds_per_iter"] for record in records if "seconds_per_iter" in record]
    return median(times) if times else None


class Times(NamedTuple):
    """Seconds of a network, measured beside the others on a quiet machine."""

    iteration: float
    picture: float


def quiet_times(file: Path) -> dict[str, Times]:
    """Read the table that `benchmarks/comparison_steps.py` prints, by network; empty where there is no file."""
    if not file.is_file():
        return {}
    rows = re.findall(
        r"^\| (\w+) \| ([\d.]+) ± [\d.]+ \| ([\d.]+) ± [\d.]+ \|$", file.read_text("utf-8", "replace"), re.MULTILINE
    )
    if not rows:
        raise UserError(f"{file} has no line | network | seconds of an iteration | of a picture |")
    return {name: Times(float(iteration), float(picture)) for name, iteration, picture in rows}


def with_quiet_times(results: Sequence[Measurement], times: dict[str, Times]) -> list[Measurement]:
    """Replace the times of pictures, where others were measured."""
    replaced = []
    for result in results:
        of_network = times.get(result.group)
        scores = {
            name: of_set._replace(seconds=[of_network.picture] * len(of_set.names)) if of_network else of_set
            for name, of_set in result.scores.items()
        }
        replaced.append(result._replace(scores=scores))
    return replaced


def short_name(result: Measurement) -> str:
    """Name a training by its network and seed."""
    return f"{result.group}, {result.label.rpartition('_')[2]}"


def curves_of(results: Sequence[Measurement], kept: Path, times: dict[str, Times]) -> list[Curve]:
    """Return the validations of the trainings over iterations and time, each under a short name."""
    curves = []
    for result in results:
        found = [curve._replace(run=short_name(result)) for curve in only(read_curves(kept / result.label), ["PSNR"])]
        if result.group in times:
            found = [curve for curve in found if curve.over == ITERATIONS]
            seconds = times[result.group].iteration
            for curve in found[:]:
                points = [(iteration * seconds, value) for iteration, value in curve.points]
                found.append(curve._replace(points=points, over="seconds of iterations on a quiet core"))
        curves += found
    order = list(dict.fromkeys(curve.name for curve in curves))  # both curves of a data set side by side
    return sorted(curves, key=lambda curve: order.index(curve.name))


def gallery(results: Sequence[Measurement], kept: Path) -> Picture:
    """Lay the regions of the rainy pictures, of one training per network, and of the clean ones side by side."""
    rainy, clean = (regions(pictures) for pictures in zip(*map(scene, SCENES), strict=True))
    columns = {"rainy": rainy}
    for group in groups_of(results)[1:]:
        columns[group.label] = cv2.imread(str(kept / group.members[0].label / REGIONS))[..., ::-1]
    columns["clean"] = clean
    half = len(columns) // 2 + len(columns) % 2
    gap = ((0, 4), (0, 4), (0, 0))
    parts = [np.pad(labelled(picture, text), gap, constant_values=255) for text, picture in columns.items()]
    parts += [np.full_like(parts[0], 255)] * (2 * half - len(parts))
    return np.vstack([np.hstack(parts[:half]), np.hstack(parts[half:])])


def join(kept: Path, out: Path) -> tuple[str, list[str]]:
    """Write the figures; return the tables, and a line for each folder that cannot be used."""
    results, problems = read_all(kept)
    times = quiet_times(kept / "steps.txt")
    results = with_quiet_times(results, times)
    groups = groups_of(results)
    pairs = differences.pairs_of(groups, tables.data_sets(results))
    seeds = {short_name(result): result.group for result in results[1:]}
    picture = cv2.imencode(".jpg", gallery(results, kept)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    drawn = {
        "cost.png": figures.quality_against_cost(results),
        "regions.jpg": picture.tobytes(),
        "training.png": draw(curves_of(results[1:], kept, times), seeds),
    }
    if pairs:
        drawn["differences.png"] = figures.intervals(pairs)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in drawn.items():
        write_atomically(out / name, content)
    lines = ["| network | s per iteration |", "|---|---|"]
    for group in groups[1:]:
        own = [seconds for member in group.members if (seconds := median_seconds(kept / member.label)) is not None]
        if group.label in times:
            said = f"{times[group.label].iteration:.2f}"
        else:  # a training of fewer iterations than it logs says nothing
            said = f"{median(own):.2f}, of the training itself, whatever ran beside it" if own else "not known"
        lines.append(f"| {group.title} | {said} |")
    return "\n".join([tables.markdown_table(results, []), differences.markdown(pairs), *lines]), problems


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
            table, problems = join(args.kept, args.out)
            print(table)
            for problem in problems:
                print(f"error: {printable(problem)}", file=sys.stderr)
            return EXIT_SOME_FAILED if problems else 0
    except (UserError, OSError) as error:
        print(f"error: {line_of(error, args.out)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
