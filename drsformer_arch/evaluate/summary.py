"""The summary that `drsformer evaluate` prints: means, worst pictures, gains, and what has to be known of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from drsformer_arch.data.pairing.result_pairs import ResultPair
from drsformer_arch.evaluate.score_names import DESCRIPTIONS, INPUT_PREFIX, LOWER_IS_BETTER, NIQE_BLOCK
from drsformer_arch.system.errors import FEW, first_few, printable


class PictureScores(NamedTuple):
    """Scores of one result, or why it has none."""

    pair: ResultPair
    scores: dict[str, float]  # column to value, without `niqe` where there is none; empty where the picture failed
    problem: str | None  # why it failed
    sixteen_bits: bool = False  # one of the pictures was rounded to 8 bits


class ScoreStatistics:
    """Mean and worst value of one column, while its values come in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sign = -1 if name.removeprefix(INPUT_PREFIX) in LOWER_IS_BETTER else 1
        self.count, self.sum, self.infinite = 0, 0.0, 0
        self.worst: tuple[float, str] | None = None  # with the name of its picture
        self.missing, self.names_missing = 0, list[str]()  # pictures without a value; of these only the first names

    def add(self, value: float | None, picture: str) -> None:
        """Take the value of one picture."""
        if value is None:
            self.missing += 1
            if self.missing <= FEW + 1:
                self.names_missing.append(picture)
            return
        if self.worst is None or self.sign * value < self.sign * self.worst[0]:
            self.worst = value, picture
        if value == math.inf:
            self.infinite += 1
        else:
            self.count += 1
            self.sum += value

    @property
    def mean(self) -> float:
        """Mean of the finite values; infinite where all are, NaN where there are none."""
        return self.sum / self.count if self.count else math.inf if self.infinite else math.nan


class Summary:
    """Statistics of all pictures, in memory that does not grow with their number.

    Args:
        names: of the columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.columns = {name: ScoreStatistics(name) for name in names}
        self.gains = {
            name: ScoreStatistics(name) for name in names if INPUT_PREFIX + name in self.columns
        }  # over the same picture
        self.scored = self.failed = self.sixteen_bits = 0
        self.unwritten: OSError | None = None  # why the scores of every picture are in no file

    def add(self, row: PictureScores) -> None:
        """Take the scores of one picture; those of one that failed count nowhere."""
        if row.problem is not None:
            self.failed += 1
            return
        self.scored += 1
        self.sixteen_bits += row.sixteen_bits
        for name, column in self.columns.items():
            column.add(row.scores.get(name), row.pair.name)
        for name, gain in self.gains.items():
            difference = row.scores.get(name, math.nan) - row.scores.get(INPUT_PREFIX + name, math.nan)
            gain.add(self.columns[name].sign * difference if math.isfinite(difference) else None, row.pair.name)

    def __str__(self) -> str:
        """Return a table of the means, and what has to be known of them."""
        lines = [f"{self.scored:,} of {self.scored + self.failed:,} pictures scored"]
        if self.scored:
            lines += ["", *_aligned(self._rows()), "", *self._notes()]
        return "\n".join(lines)

    def _rows(self) -> list[list[str]]:
        rows = [["", "mean", "worst", "of picture", *(["input", "gain"] if self.gains else [])]]
        for name, column in self.columns.items():
            if name.startswith(INPUT_PREFIX):
                continue
            form = ".6f" if name.startswith("ssim") else ".4f"
            worst, picture = column.worst or (math.nan, "")
            row = [_title(name), f"{column.mean:{form}}", f"{worst:{form}}", printable(picture)]
            if self.gains:
                gain = self.gains[name]
                row += [
                    f"{self.columns[INPUT_PREFIX + name].mean:{form}}",
                    f"{gain.mean:+{form}}" if gain.count else "-",
                ]
            rows.append(row)
        return rows

    def _notes(self) -> list[str]:
        groups = dict.fromkeys(name.removeprefix(INPUT_PREFIX).rpartition("_")[2] for name in self.columns)
        notes = [f"{group}: {DESCRIPTIONS[group]}" for group in groups]
        for name, column in self.columns.items():
            if column.infinite:
                notes.append(
                    f"{_title(name)}: {column.infinite:,} of {self.scored:,} pictures equal their targets, which makes "
                    "it infinite; the mean is that of the others (of all it is infinite, as in the papers' programs)"
                )
            if column.missing:
                notes.append(
                    f"{_title(name)}: {column.missing:,} of {self.scored:,} pictures have none, smaller than two "
                    f"blocks of {NIQE_BLOCK}x{NIQE_BLOCK} pixels or flat ({first_few(column.names_missing)})"
                )
        for name, gain in self.gains.items():
            if gain.missing:
                notes.append(
                    f"{_title(name)}: the gain is the mean over the {gain.count:,} pictures of which result and input "
                    "have one that is finite"
                )
        if self.sixteen_bits:
            notes.append(
                f"16 bits: {self.sixteen_bits:,} of {self.scored:,} pictures were rounded to 8, of which published "
                "scores are"
            )
        return notes


def _title(name: str) -> str:
    """Return the title of a column: `input_psnr_ddn` → `PSNR in dB, ddn, input`."""
    what, _, group = name.removeprefix(INPUT_PREFIX).partition("_")
    words = [
        f"{what.upper()} in dB" if what == "psnr" else what.upper(),
        group,
        "input" * name.startswith(INPUT_PREFIX),
    ]
    return ", ".join(word for word in words if word)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Make lines of rows of cells; numbers stand at the right, names at the left."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in (0, 3) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
