"""Differences of every two networks on the same pictures, and how sure they are."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from drsformer_arch.compare.groups import Group
from drsformer_arch.system import escapes

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
FEWEST = 10  # pictures from which on an interval is trusted: those of a handful are much too narrow
AT_ONCE = 500  # resamples, so that thousands of pictures fit the memory
DIGITS = {"psnr": 2, "ssim": 4}
DRAWN = f"{RESAMPLES:,} resamples, percentiles, seed {SEED}"
INTERVALS = f"{100 * CONFIDENCE:g} % intervals of a paired bootstrap over pictures ({DRAWN})"
METHOD = (
    f"Mean over the pictures that both networks have, in brackets {INTERVALS}. Better, equal, worse: on so many "
    "pictures; equal is less than half of the last digit. Several trainings count with the mean of their scores. "
    "Intervals tell of other pictures of the kind, not of other trainings; by chance one in 20 leaves out 0 where "
    "there is no difference, and of few pictures they are too narrow."
)
NOTE = f"Differences: {METHOD} Bold: the interval, of {FEWEST} pictures or more, leaves out 0."  # below tables


class Interval(NamedTuple):
    """The ends of a confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """A score of one network less that of another on the same pictures."""

    mean: float
    interval: Interval | None  # None: of one picture
    better: int  # pictures on which the first network has the higher score
    equal: int
    worse: int
    digits: int
    pictures: int  # with finite scores, of which mean and interval are

    @property
    def is_clear(self) -> bool:
        """True where the interval leaves out 0, of enough pictures, and the mean is not 0 as it is shown."""
        outside = self.interval is not None and not self.interval.low <= 0 <= self.interval.high
        return outside and self.pictures >= FEWEST and abs(self.mean) >= 0.5 * 10**-self.digits

    @property
    def counts(self) -> str:
        """Pictures on which the first network is better, equal, worse."""
        return f"{self.better} / {self.equal} / {self.worse}"

    def __str__(self) -> str:
        """Return the mean and, in brackets, the interval."""
        numbers = [f"{number:+.{self.digits}f}" for number in (self.mean, *(self.interval or ()))]
        return numbers[0] + (f" [{numbers[1]}, {numbers[2]}]" if self.interval else "")


class Pair(NamedTuple):
    """Two networks on a data set."""

    one: Group
    other: Group
    data_set: str
    pictures: int  # that both have
    left_out: int  # that only one of them or none has
    of: dict[str, Difference | None]  # by the name of the score; None: no picture has a finite difference

    @property
    def label(self) -> str:
        """Which is subtracted from which."""
        return f"{self.one.label} \N{MINUS SIGN} {self.other.label}"


def interval_of_mean(values: Sequence[float]) -> Interval | None:
    """Estimate how far the mean of other pictures of the kind may lie: bootstrap, percentiles.

    Args:
        values: of pictures, finite. The same number of them is always resampled in the same way.

    Returns:
        The interval, or None for fewer than two values.
    """
    if len(values) < 2:
        return None
    drawn = bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=AT_ONCE,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return Interval(float(drawn.confidence_interval.low), float(drawn.confidence_interval.high))


def difference(one: dict[str, float], other: dict[str, float], digits: int) -> Difference | None:
    """Compare two networks on the pictures that both have.

    Args:
        one: scores by picture.
        other: likewise.
        digits: with which the score is shown; what differs by less than half of the last one is equal.

    Returns:
        The mean of the finite differences, their interval, and the counts; where both scores of a picture are infinite,
            it is equal, and in no mean. None where no difference is finite.
    """
    both = [(one[name], other[name]) for name in one if name in other]
    differences = [0.0 if a == b else a - b for a, b in both]  # two infinities are equal
    finite = [a - b for a, b in both if math.isfinite(a) and math.isfinite(b)]
    if not finite:
        return None
    least = 0.5 * 10**-digits
    better, worse = sum(value >= least for value in differences), sum(value <= -least for value in differences)
    equal = len(differences) - better - worse
    return Difference(sum(finite) / len(finite), interval_of_mean(finite), better, equal, worse, digits, len(finite))


def pairs_of(groups: Sequence[Group], data_sets: Sequence[str]) -> list[Pair]:
    """Compare every two networks on every data set that both have."""
    found = []
    for data_set in data_sets:
        every = {name for group in groups for name in group.of_pictures(data_set, "psnr")}
        for one, other in combinations([group for group in groups if group.network], 2):
            names = one.of_pictures(data_set, "psnr").keys() & other.of_pictures(data_set, "psnr").keys()
            if names:
                of = {
                    what: difference(one.of_pictures(data_set, what), other.of_pictures(data_set, what), digits)
                    for what, digits in DIGITS.items()
                }
                found.append(Pair(one, other, data_set, len(names), len(every) - len(names), of))
    return found


TITLES = (
    "difference",
    "data set",
    "pictures",
    "PSNR in dB",
    "better / equal / worse",
    "SSIM",
    "better / equal / worse",
)


def markdown(pairs: Sequence[Pair]) -> str:
    """Write one row per pair of networks and data set; empty where there is no pair."""
    if not pairs:
        return ""
    rows = [list(TITLES), ["---"] * len(TITLES)]
    for pair in pairs:
        cells = [escapes.markdown(pair.label), escapes.markdown(pair.data_set), _counted(pair)]
        for found in pair.of.values():
            text = str(found or "")
            cells += [f"**{text}**" if found and found.is_clear else text, found.counts if found else ""]
        rows.append(cells)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", escapes.markdown(NOTE), ""])


def _counted(pair: Pair) -> str:
    return f"{pair.pictures}" + (f" ({pair.left_out} left out)" if pair.left_out else "")


def csv(pairs: Sequence[Pair]) -> bytes:
    """Write a CSV file with one line per pair of networks, data set and score."""
    titles = "method,other,data_set,score,pictures,left_out,difference,low,high,better,equal,worse"
    lines = [escapes.csv_line(titles.split(","))]
    for pair in pairs:
        for what, found in pair.of.items():
            if found:
                low, high = (f"{end:.6f}" for end in found.interval) if found.interval else ("", "")
                numbers = (f"{found.mean:.6f}", low, high, found.better, found.equal, found.worse)
                start = (pair.one.label, pair.other.label, pair.data_set, what, pair.pictures, pair.left_out)
                lines.append(escapes.csv_line((*start, *numbers)))
    return b"".join(lines)


def latex(pairs: Sequence[Pair]) -> str:
    """Write a tabular for the booktabs package."""
    lines = [r"\begin{tabular}{llrrrrr}", r"\toprule", " & ".join(map(escapes.latex, TITLES)) + r" \\", r"\midrule"]
    for pair in pairs:
        label = f"{escapes.latex(pair.one.label)} $-$ {escapes.latex(pair.other.label)}"
        cells = [label, escapes.latex(pair.data_set), _counted(pair)]
        for found in pair.of.values():
            text = f"${found}$" if found else "--"
            cells += [rf"\boldmath{text}" if found and found.is_clear else text, found.counts if found else "--"]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", f"% {NOTE}", ""])


def facts(pairs: Sequence[Pair]) -> Iterator[tuple[str, str]]:
    """Yield labels and texts for a page."""
    for pair in pairs:
        said = [
            f"{what.upper()} {found}{' dB' * (what == 'psnr')}, {found.counts} better / equal / worse"
            for what, found in pair.of.items()
            if found
        ]
        yield f"{pair.label} on {pair.data_set}", f"{_counted(pair)} pictures: {'; '.join(said)}"
