"""The table of a page: its rows, its columns of scores, and what stands in them."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from drsformer_arch.evaluate.score_names import GAIN_PREFIX, INPUT_PREFIX, LOWER_IS_BETTER, METRICS


class TableRow(NamedTuple):
    """A row of the table: what stays in memory of a picture."""

    name: str
    data_set: str
    scores: dict[str, float]
    kinds: tuple[str, ...]
    size: tuple[int, int]  # width and height of the original
    thumbnail: str  # HTML


class ScoreColumn(NamedTuple):
    """One column of scores."""

    key: str
    name: str
    unit: str
    protocol: str  # in parentheses
    digits: int
    lower_is_better: bool

    @property
    def label(self) -> str:
        """Name, unit and protocol, for a header."""
        return " ".join(filter(None, (self.name, self.unit, self.protocol)))

    def text(self, value: float | None, *, unit: str = "") -> str:
        """Return a value as people read it; a dash where there is none."""
        if value is None:
            return "\N{EN DASH}"
        sign = "+" if self.key.startswith(GAIN_PREFIX) else ""
        text = f"{value:{sign}.{self.digits}f}".replace("inf", "∞").replace("-", "\N{MINUS SIGN}")
        return f"{text} {unit}".rstrip()


def columns_of(rows: Sequence[TableRow]) -> list[ScoreColumn]:
    """Return the columns of all scores in the order in which they occur, each before the input's and the gain."""
    found = dict.fromkeys(key for row in rows for key in row.scores)
    keys = [key for key in found if not key.startswith(INPUT_PREFIX)]
    with_inputs = [
        candidate
        for key in keys
        for candidate in (key, INPUT_PREFIX + key, GAIN_PREFIX + key)
        if candidate == key or INPUT_PREFIX + key in found
    ]
    return [column_named(key) for key in dict.fromkeys((*with_inputs, *found))]


def column_named(key: str) -> ScoreColumn:
    """Return the column of a score, such as "psnr_rain200", of the input's or of the gain."""
    prefix = next((candidate for candidate in (INPUT_PREFIX, GAIN_PREFIX) if key.startswith(candidate)), "")
    metric, _, protocol = key.removeprefix(prefix).partition("_")
    if metric not in METRICS:
        return ScoreColumn(key, key.replace("_", " "), "", "", 4, False)
    name, unit, digits = METRICS[metric]
    name = {INPUT_PREFIX: f"rainy {name}", GAIN_PREFIX: f"{name} gain"}.get(prefix, name)
    lower_is_better = metric in LOWER_IS_BETTER and prefix != GAIN_PREFIX
    return ScoreColumn(key, name, unit, protocol and f"({protocol})", digits, lower_is_better)


def value_in(row: TableRow, column: ScoreColumn) -> float | None:
    """Return what stands in a row's column; a positive gain is better in all columns.

    Returns:
        None where there is no value, such as a gain from infinity to infinity.
    """
    if not column.key.startswith(GAIN_PREFIX):
        return row.scores.get(column.key)
    key = column.key.removeprefix(GAIN_PREFIX)
    ours, rainy = row.scores.get(key), row.scores.get(INPUT_PREFIX + key)
    if ours is None or rainy is None or (math.isinf(ours) and ours == rainy):
        return None
    return rainy - ours if column_named(key).lower_is_better else ours - rainy


def mean_in(rows: Sequence[TableRow], column: ScoreColumn) -> tuple[float | None, int, int]:
    """Average a column.

    Returns:
        mean of the finite values, infinite where all are, None where there are none; number of finite and infinite.
    """
    values = [value for row in rows if (value := value_in(row, column)) is not None]
    finite = [value for value in values if math.isfinite(value)]
    mean = fmean(finite) if finite else math.inf if values else None
    return mean, len(finite), len(values) - len(finite)
