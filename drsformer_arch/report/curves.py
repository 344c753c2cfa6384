"""Training curves of an experiment folder: from what our trainings record, or from the logs of other ones."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from drsformer_arch import training_records
from drsformer_arch.errors import UserError, line_of
from drsformer_arch.report.page import METRICS, Curve

LEARNING_RATE = ("learning rate", "")

# What BasicSR's logger writes of a training, and what BasicSR and DerainModel write of a validation.
_OPTION = re.compile(r" {4}(total_iter|val_freq): ([\d.e+]+)$")
_START = re.compile(r"Start training from epoch: \d+, iter: (\d+)")
_STEP = re.compile(r"\[epoch:\s*\d+, iter:\s*([\d,]+), lr:\(([^,)]+)")
_LOSS = re.compile(r"(\w+): (\S+)")
_VALIDATION = re.compile(r"INFO: Validation (\S.*)")
_SCORE = re.compile(r"\s+# (\w+)(?: \[(.+?)(?: protocol)?\])?: (\S+)")

_Points = dict[tuple[str, str], dict[int, float]]  # name and unit of a curve → iteration → value


def read_curves(folder: Path) -> list[Curve]:
    """Scores of validations, losses and the learning rate over the iterations.

    Args:
        folder: of an experiment, with `training.jsonl` or one or several `train_*.log`. A resumed run replaces what an
            earlier one did after the iteration from which it goes on.

    Raises:
        UserError: no log in the folder, or nothing in the logs yet.
    """
    folder = Path(folder)
    recorded = _from_records(folder)
    if recorded:
        return recorded
    logs = sorted(folder.glob("train_*.log"))  # their names end in date and time
    if not logs:
        raise UserError(f"no training log (train_*.log) in {folder}; a folder of ./experiments is meant")
    found: _Points = {}
    for log in logs:
        _read(log.read_text(encoding="utf-8", errors="replace").splitlines(), found)
    curves = _in_order(found, folder)
    if not curves:
        raise UserError(f"the logs in {folder} tell of no iteration yet")
    return curves


def read_all(folders: Sequence[Path]) -> tuple[list[Curve], list[str]]:
    """Of several experiments; runs in folders of one name are called by their paths.

    Returns:
        The curves, and a line for every folder of several that cannot be read.

    Raises:
        UserError: none can be read.
    """
    found: list[tuple[Path, list[Curve]]] = []
    problems = []
    for folder in folders:
        try:
            found.append((folder, read_curves(folder)))
        except Exception as error:  # whatever reading a stranger's logs raises; the others go on
            if len(folders) == 1:
                raise
            problems.append(line_of(error, folder))
    if problems and not found:
        raise UserError(f"no training can be shown: {'; '.join(problems)}")
    names = Counter(curves[0].run for _, curves in found)
    curves = [
        curve if names[curve.run] == 1 else curve._replace(run=str(folder))
        for folder, curves in found
        for curve in curves
    ]
    return curves, problems


def _from_records(folder: Path) -> list[Curve]:
    found: _Points = {}
    for record in training_records.read(folder):
        at = record["iter"]
        if "data_set" in record:
            for metric in record.keys() - {"iter", "data_set"}:
                name, unit, _ = METRICS.get(metric, (metric, "", 0))
                found.setdefault((f"{name} of {record['data_set']}", unit), {})[at] = float(record[metric])
            continue
        named = {LEARNING_RATE: record["lr"]}
        named |= {(f"loss {key}", ""): value for key, value in record.items() if key.startswith("l_")}
        if "grad_norm" in record:
            named["gradient norm", ""] = record["grad_norm"]
        for curve, value in named.items():
            found.setdefault(curve, {})[at] = float(value)
    return _in_order(found, folder)


def _in_order(found: _Points, folder: Path) -> list[Curve]:
    """Scores, losses, the rest."""
    curves = [Curve(*name, folder.resolve().name, sorted(found[name].items())) for name in found if found[name]]
    rank = [0 if " of " in name else 1 if name.startswith("loss") else 2 for name, *_ in curves]
    return [curve for _, curve in sorted(zip(rank, curves, strict=True), key=lambda pair: pair[0])]


def _read(lines: Iterable[str], found: _Points) -> None:
    """Add the points of one log."""
    options: dict[str, int] = {}
    start = iteration = 0
    ended, data_set = False, ""
    validations: Counter[str] = Counter()  # since the start, per data set

    def add(name: str, unit: str, at: int, value: str) -> None:
        found.setdefault((name, unit), {})[at] = float(value)

    for line in lines:
        if match := _OPTION.match(line):
            options[match[1]] = int(float(match[2]))
        elif match := _START.search(line):
            start = iteration = int(match[1])
            for points in found.values():
                for later in [at for at in points if at > start]:
                    del points[later]
        elif match := _STEP.search(line):
            iteration = int(match[1].replace(",", ""))
            add(*LEARNING_RATE, iteration, match[2])
            for loss, value in _LOSS.findall(line.rpartition("] ")[2]):
                add(f"loss {loss}", "", iteration, value)
        elif "INFO: End of training" in line:
            ended = True
        elif match := _VALIDATION.search(line):
            data_set = match[1]
            validations[data_set] += 1
        elif data_set and (match := _SCORE.match(line)):
            # A validation's log does not say when it was; the log of steps may be sparser than validations are.
            frequency = options.get("val_freq", 0)
            at = (start // frequency + validations[data_set]) * frequency if frequency else iteration
            name, unit, _ = METRICS.get(match[1], (match[1], METRICS["psnr"][1] * match[1].startswith("psnr"), 0))
            protocol = match[2] and f" ({match[2]})"
            add(f"{name} of {data_set}{protocol or ''}", unit, options.get("total_iter", at) if ended else at, match[3])
