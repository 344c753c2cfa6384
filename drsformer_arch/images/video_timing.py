"""When the frames of a video are shown."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

LARGEST_DENOMINATOR = 1001  # of frame rates such as 30000/1001
ROUNDED = 0.0011  # s; containers such as .mkv round times to 1 ms, first and current one
FASTEST = 240  # frames per second; more is what files claim that know nothing of a rate
USUAL = Fraction(25)


class Timing(NamedTuple):
    """The frames of a video in the order in which they are shown."""

    times: tuple[float, ...]  # of every frame in s, increasing
    rate: Fraction  # frames per second; the mean where it varies
    steady: bool  # whether it is constant

    @property
    def start(self) -> float:
        """The time of the first frame in s: sound may begin before."""
        return self.times[0]


def timing(times: Sequence[float | None], nominal: Iterable[Fraction]) -> Timing:
    """Recognise a constant rate, also in rounded times.

    Args:
        times: of the frames in s, at least one; None, or one that is not later than the one before, where the file does
            not say.
        nominal: rates that the file claims, the most trusted first; those that do not fit are passed over.
    """
    claimed = [rate for rate in nominal if 0 < rate <= FASTEST]
    known = _increasing(times, 1 / float(claimed[0] if claimed else USUAL))
    length = known[-1] - known[0]
    measured = Fraction((len(known) - 1) / length) if length else (claimed or [USUAL])[0]
    # A rate of 0 frames per second has no time base: such a pause lasts a quarter of an hour.
    mean = measured.limit_denominator(LARGEST_DENOMINATOR) or Fraction(1, LARGEST_DENOMINATOR)
    for rate in (*claimed, mean):
        if all(abs(time - known[0] - index / rate) < ROUNDED for index, time in enumerate(known)):
            return Timing(known, rate, True)
    return Timing(known, mean, False)


def _increasing(times: Sequence[float | None], step: float) -> tuple[float, ...]:
    """Spread frames without a later time than all before evenly up to the next that has one, the last by `step`."""
    indices, anchors = [0], [times[0] or 0.0]
    for index, time in enumerate(times):
        if time is not None and time > anchors[-1]:
            indices.append(index)
            anchors.append(time)
    spread = np.interp(range(len(times)), indices, anchors)
    spread[indices[-1] :] += step * np.arange(len(times) - indices[-1])
    return tuple(spread.tolist())
