"""Trainings of one network that differ in their seeds, as one entry of a comparison."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from drsformer_arch.compare.measurement import Measurement, mean_of_finite


class Group(NamedTuple):
    """One network of a comparison, with one training or several."""

    label: str
    members: tuple[Measurement, ...]

    @property
    def title(self) -> str:
        """The label, with the number of trainings where there are several."""
        return self.label if len(self.members) == 1 else f"{self.label}, {len(self.members)} trainings"

    @property
    def network(self) -> str | None:
        """The type of the network; None for the rainy input."""
        return self.members[0].network

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return self.members[0].parameters

    @property
    def macs(self) -> int:
        """Multiplications with their additions, for `MACS_AT` x `MACS_AT` pixels."""
        return self.members[0].macs

    @property
    def memory(self) -> int:
        """Bytes at the peak, the most of all trainings."""
        return max(member.memory for member in self.members)

    @property
    def seconds(self) -> float:
        """The mean time of a picture over all data sets and trainings."""
        return fmean(
            second for member in self.members for scores in member.scores.values() for second in scores.seconds
        )

    def mean(self, data_set: str, what: str) -> float | None:
        """Average a score over pictures that all trainings have, then over these; None where there is none."""
        means = self._means(data_set, what)
        return fmean(means) if means else None

    def spread(self, data_set: str, what: str) -> float | None:
        """Return the standard deviation of the trainings' means; None where there are not two, or infinite ones."""
        means = self._means(data_set, what)
        return stdev(means) if len(means) > 1 and all(map(math.isfinite, means)) else None

    def _means(self, data_set: str, what: str) -> list[float]:
        return [mean_of_finite(list(table.values())) for table in self._by_picture(data_set, what) if table]

    def of_pictures(self, data_set: str, what: str) -> dict[str, float]:
        """Return a score by the names of the pictures that every training has: the mean over the trainings."""
        tables = self._by_picture(data_set, what)
        return {name: fmean(table[name] for table in tables) for name in (tables[0] if tables else ())}

    def _by_picture(self, data_set: str, what: str) -> list[dict[str, float]]:
        """Return each training's scores of the pictures that all have: lacking a hard one is no better seed."""
        tables = [
            dict(zip(scores.names, getattr(scores, what), strict=True))
            for member in self.members
            if (scores := member.scores.get(data_set))
        ]
        return [{name: table[name] for name in tables[0] if all(name in each for each in tables)} for table in tables]


def groups_of(results: Sequence[Measurement]) -> list[Group]:
    """Put trainings of one network together, in the order in which they first occur."""
    found: dict[str, list[Measurement]] = {}
    for result in results:
        found.setdefault(result.group or result.label, []).append(result)
    return [Group(label, tuple(members)) for label, members in found.items()]
