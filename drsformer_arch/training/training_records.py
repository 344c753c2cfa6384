"""Records that a training writes beside its log, one JSON object per line: its steps and its validations.

A log is only a log: what goes on from where is for the checkpoints to say. Lines that cannot be read are passed over,
and a log that cannot be written does not stop a training.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from drsformer_arch.system.errors import printable
from drsformer_arch.system.files import write_atomically
from drsformer_arch.system.json_files import parse_json

NAME = "training.jsonl"  # in the experiment's folder
MOST_BYTES = 2**30  # 300,000 steps take a thirteenth
MOST_ITERATIONS = 10**12
MOST_SECONDS = 10**12
ELAPSED = "elapsed_seconds"  # of a step's record: since the start, pauses left out
Complain = Callable[[str], object]


class _Line(NamedTuple):
    text: bytes
    record: dict[str, Any] | None  # None: it cannot be read


def append(folder: Path | str, record: Mapping[str, Any]) -> None:
    """Add a line to the log of an experiment; where that fails, BasicSR's log says so."""
    path = Path(folder, NAME)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        logging.getLogger("basicsr").warning(f"{path} cannot be written: {error.strerror}; the training goes on")


def read(folder: Path, complain: Complain | None = None) -> list[dict[str, Any]]:
    """Read the records of an experiment: dicts with a whole number `iter`, else numbers and in `data_set` a name.

    Args:
        folder: of the experiment.
        complain: is told in one line of what is passed over, such as a last line that a kill cut.
    """
    return [line.record for line in _lines(folder / NAME, complain) if line.record is not None]


def _lines(path: Path, complain: Complain | None) -> list[_Line]:
    if not path.exists():
        return []
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise OSError(None, "it is no file, or larger than any log")
        lines = [_Line(text, _record(text)) for text in path.read_bytes().splitlines(keepends=True)]
    except OSError as error:
        if complain:
            complain(f"{printable(path)} is passed over: {error.strerror}")
        return []
    damaged = [number for number, line in enumerate(lines, 1) if line.record is None]
    if damaged and complain:
        which = "line" if len(damaged) == 1 else f"{len(damaged)} lines, the first one"
        complain(f"{printable(path)}: no record can be read from {which} {damaged[0]}; passed over")
    return lines


def _record(text: bytes) -> dict[str, Any] | None:
    try:
        record = parse_json(text)
    except ValueError:
        return None
    return record if is_record(record) else None


def is_record(content: Any) -> bool:
    """Tell whether this is what a training writes."""
    if not isinstance(content, dict) or not is_iteration(content.get("iter")):
        return False
    if not isinstance(content.get("data_set", ""), str):
        return False
    return all(is_number(value) for key, value in content.items() if key != "data_set")


def is_iteration(value: Any) -> bool:
    """Tell whether this is a number of iterations."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_ITERATIONS


def is_number(value: Any) -> bool:
    """Tell whether this is a number that fits a float, be it infinite or NaN."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000)


def clock(records: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """Say how many seconds a training had taken at its iterations, pauses before resumes left out.

    Args:
        records: of its steps; others are passed over. Those of older versions do not say the time since the start: the
            iterations since the one before count with the mean that they do say.
    """
    times: dict[int, float] = {}
    at, seconds = 0, 0.0
    for record in records:
        if "seconds_per_iter" in record:
            passed = float(record.get(ELAPSED, seconds + (record["iter"] - at) * float(record["seconds_per_iter"])))
            if 0 <= passed <= MOST_SECONDS:
                at, seconds = record["iter"], passed
                times[at] = seconds
    return times


def seconds_until(times: Mapping[int, float], iteration: int) -> float:
    """Estimate the seconds until an iteration from those of others; evenly between them and behind, from 0 on."""
    known = [(0, 0.0), *sorted(times.items())]
    for (first, begin), (second, end) in pairwise(known):
        if iteration <= second or second == known[-1][0]:
            return begin + (iteration - first) * (end - begin) / max(second - first, 1)
    return 0.0


def forget_after(folder: Path, iteration: int, complain: Complain | None = None) -> None:
    """Drop the records after the iteration from which a resumed training goes on, as it makes them again.

    Lines that cannot be read stay; the last one is ended where a kill cut it, so that the next is a line of its own.
    """
    path = folder / NAME
    lines = _lines(path, complain)
    kept = [line.text for line in lines if line.record is None or line.record["iter"] <= iteration]
    if kept and not kept[-1].endswith(b"\n"):
        kept[-1] += b"\n"
    if kept != [line.text for line in lines]:
        try:
            write_atomically(path, b"".join(kept))
        except OSError as error:
            if complain:
                complain(f"{printable(path)} cannot be written: {error.strerror}")
