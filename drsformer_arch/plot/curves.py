"""Training curves of an experiment folder: from what our trainings record, or from the logs of other ones."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from drsformer_arch.evaluate.score_names import METRICS
from drsformer_arch.system.errors import UserError, first_few, line_of, printable
from drsformer_arch.training import training_records

LEARNING_RATE = ("learning rate", "")
ITERATIONS, SECONDS = "iteration", "seconds of training"  # over which curves are drawn
MOST_CURVES = 100  # of an experiment
LONGEST_LINE = 10_000  # characters; what follows in a line is no number that is shown

# What BasicSR's logger writes of a training, and what BasicSR and DerainModel write of a validation.
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")
_OPTION = re.compile(r" {4}(total_iter|val_freq): ([\d.e+]+)$")
_START = re.compile(r"Start training from epoch: \d+, iter: (\d+)")
_STEP = re.compile(r"\[epoch:\s*\d+, iter:\s*([\d,]+), lr:\(([^,)]+)")
_LOSS = re.compile(r"(\w+): (\S+)")
_VALIDATION = re.compile(r"INFO: Validation (\S.*)")
_SCORE = re.compile(r"\s+# (\w+)(?: \[(.+?)(?: protocol)?\])?: (\S+)")

_Series = dict[tuple[str, str], dict[int, float]]  # name and unit of a curve → iteration → value


class Curve(NamedTuple):
    """One quantity over a training; curves of one name over the same share a panel."""

    name: str
    unit: str
    run: str
    points: Sequence[tuple[float, float]]  # iteration or seconds, value
    over: str = ITERATIONS


def read_curves(folder: Path) -> list[Curve]:
    """Read scores of validations, losses and the learning rate over the iterations, and scores over the time, too.

    Args:
        folder: of an experiment, with `training.jsonl` or one or several `train_*.log`. A resumed run replaces what an
            earlier one did after the iteration from which it goes on; the pause before it counts for no time.

    Raises:
        UserError: no log in the folder, or nothing in the logs yet.
    """
    folder = Path(folder)
    recorded = _from_records(folder)
    if recorded:
        return recorded
    logs = sorted(path for path in folder.glob("train_*.log") if path.is_file())  # their names end in date and time
    if not logs:
        raise UserError(f"no training log (train_*.log) in {folder}; a folder of ./experiments is meant")
    series: _Series = {}
    times: dict[int, float] = {}
    for log in logs:
        try:
            with log.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                damaged = _read(lines, series, times)
        except OSError as error:
            _note(f"{log} is passed over: {error.strerror}")
            continue
        if damaged:
            _note(f"{log}: {damaged} lines are passed over, as their numbers cannot be read")
    curves = _in_order(series, times, folder)
    if not curves:
        raise UserError(f"the logs in {folder} tell of no iteration yet")
    return curves


def read_all(folders: Sequence[Path]) -> tuple[list[Curve], list[str]]:
    """Read the curves of several experiments; runs in folders of one name are called by their paths.

    Returns:
        The curves, and a line for every folder of several that cannot be read.

    Raises:
        UserError: none can be read.
    """
    readable: list[tuple[Path, list[Curve]]] = []
    problems = []
    for folder in folders:
        try:
            readable.append((folder, read_curves(folder)))
        except Exception as error:  # whatever reading a stranger's logs raises; the others go on
            if len(folders) == 1:
                raise
            problems.append(line_of(error, folder))
    if problems and not readable:
        raise UserError(f"no training can be shown: {'; '.join(problems)}")
    names = Counter(curves[0].run for _, curves in readable)
    curves = [
        curve if names[curve.run] == 1 else curve._replace(run=str(folder))
        for folder, curves in readable
        for curve in curves
    ]
    return curves, problems


def only(curves: Sequence[Curve], words: Sequence[str]) -> list[Curve]:
    """Return the curves whose names hold one of the words, in any case.

    Raises:
        UserError: none does; names those that there are.
    """
    if not all(words):
        raise UserError("--only: a word is empty; leave the option out to draw everything")
    chosen = [curve for curve in curves if any(word.lower() in curve.name.lower() for word in words)]
    if not chosen:
        names = first_few(list(dict.fromkeys(curve.name for curve in curves)))
        raise UserError(f"--only {' '.join(words)}: no quantity is called so; there are {names}")
    return chosen


def _note(line: str) -> None:
    print(f"note: {printable(line)}", file=sys.stderr)


def _from_records(folder: Path) -> list[Curve]:
    series: _Series = {}
    records = training_records.read(folder, _note)
    for record in records:
        at = record["iter"]
        if "data_set" in record:
            for metric in record.keys() - {"iter", "data_set"}:
                name, unit, _ = METRICS.get(metric, (metric, "", 0))
                series.setdefault((f"{name} of {record['data_set']}", unit), {})[at] = float(record[metric])
            continue
        named = {LEARNING_RATE: record["lr"]} if "lr" in record else {}
        named |= {(f"loss {key}", ""): value for key, value in record.items() if key.startswith("l_")}
        if "grad_norm" in record:
            named["gradient norm", ""] = record["grad_norm"]
        for curve, value in named.items():
            series.setdefault(curve, {})[at] = float(value)
    return _in_order(series, training_records.clock(records), folder)


def _in_order(series: _Series, times: dict[int, float], folder: Path) -> list[Curve]:
    """Return the curves in the order scores, each over the time, too, where that is known, losses, the rest."""
    curves = [Curve(*name, folder.resolve().name, sorted(series[name].items())) for name in series if series[name]]
    if len(curves) > MOST_CURVES:
        _note(f"{folder} has {len(curves):,} kinds of numbers in its log; the first {MOST_CURVES} are shown")
        del curves[MOST_CURVES:]
    rank = [0 if " of " in name else 1 if name.startswith("loss") else 2 for name, *_ in curves]
    ordered = []
    for is_no_score, curve in sorted(zip(rank, curves, strict=True), key=lambda pair: pair[0]):
        ordered.append(curve)
        if times and not is_no_score:
            points = [(training_records.seconds_until(times, int(at)), value) for at, value in curve.points]
            ordered.append(curve._replace(points=points, over=SECONDS))
    return ordered


def _read(lines: Iterable[str], series: _Series, times: dict[int, float]) -> int:
    """Add the points and times of one log; returns how many lines hold other numbers than a training writes."""
    log, damaged = _Log(series, times), 0
    for line in lines:
        try:
            log.read(line.rstrip()[:LONGEST_LINE])
        except (ValueError, OverflowError):
            damaged += 1
    return damaged


class _Log:
    """A log, as far as it was read."""

    def __init__(self, series: _Series, times: dict[int, float]) -> None:
        self.series = series
        self.times = times  # seconds of training by iteration
        self.began: datetime | None = None
        self.seconds_before = 0.0  # of the runs that this one goes on
        self.options: dict[str, int] = {}
        self.start = self.iteration = 0
        self.ended, self.data_set = False, ""
        self.validations: Counter[str] = Counter()  # since the start, per data set

    def read(self, line: str) -> None:
        """Take in the next line.

        Raises:
            ValueError, OverflowError: there is a word where a number should be, or one that no training reaches.
        """
        if match := _OPTION.match(line):
            self.options[match[1]] = _iteration(float(match[2]))
        elif match := _START.search(line):
            self.start = self.iteration = _iteration(match[1])
            for points in self.series.values():
                for later in [at for at in points if at > self.start]:
                    del points[later]
            self.seconds_before = training_records.seconds_until(self.times, self.start)
            for later in [at for at in self.times if at > self.start]:
                del self.times[later]
            self.times[self.start] = self.seconds_before
            self.began = _time(line)
        elif match := _STEP.search(line):
            self.iteration = _iteration(match[1].replace(",", ""))
            self._add(*LEARNING_RATE, self.iteration, match[2])
            for loss, value in _LOSS.findall(line.rpartition("] ")[2]):
                self._add(f"loss {loss}", "", self.iteration, value)
            now = _time(line)
            if now and self.began and now >= self.began:
                self.times[self.iteration] = self.seconds_before + (now - self.began).total_seconds()
        elif "INFO: End of training" in line:
            self.ended = True
        elif match := _VALIDATION.search(line):
            self.data_set = match[1]
            self.validations[self.data_set] += 1
        elif self.data_set and (match := _SCORE.match(line)):
            self._add_score(match)

    def _add(self, name: str, unit: str, at: int, value: str) -> None:
        self.series.setdefault((name, unit), {})[at] = float(value)

    def _add_score(self, match: re.Match[str]) -> None:
        # A validation's log does not say when it was; the log of steps may be sparser than validations are.
        frequency = self.options.get("val_freq", 0)
        passed = self.start // frequency + self.validations[self.data_set] if frequency else 0
        at = passed * frequency if frequency else self.iteration
        name, unit, _ = METRICS.get(match[1], (match[1], METRICS["psnr"][1] * match[1].startswith("psnr"), 0))
        protocol = f" ({match[2]})" if match[2] else ""
        at = self.options.get("total_iter", at) if self.ended else at
        self._add(f"{name} of {self.data_set}{protocol}", unit, at, match[3])


def _time(line: str) -> datetime | None:
    match = _TIME.match(line)
    return datetime.strptime(match[0], "%Y-%m-%d %H:%M:%S,%f") if match else None


def _iteration(number: str | float) -> int:
    iteration = int(number)
    if not training_records.is_iteration(iteration):
        raise ValueError(f"there is no iteration {number}")
    return iteration
