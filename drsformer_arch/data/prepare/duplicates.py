"""The same picture twice: in one split, or in train and test.

Copies of the benchmark sets share scenes with each other and within themselves, and a test picture that was trained on
makes every score wrong. Two fingerprints find them: the SHA-256 of a file (the very same file), and a perceptual hash
(the same photograph, saved again, resized or brightened; see `perceptual_hash`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drsformer_arch.data.prepare import near_hashes
from drsformer_arch.data.prepare.perceptual_hash import NEAR
from drsformer_arch.system.errors import first_few


@dataclass(frozen=True)
class Fingerprints:
    """The pictures of one split.

    Args:
        split: its name, for the report.
        names: one per picture.
        digests: of the files, such as SHA-256 (all as bytes or all as text).
        perceptual: from `perceptual_hash`, 0 where there is none.

    Raises:
        ValueError: the three have different lengths.
    """

    split: str
    names: Sequence[str]
    digests: Sequence[str | bytes]
    perceptual: npt.NDArray[np.uint64]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.digests) == len(self.perceptual):
            raise ValueError(
                f"{len(self.names)} names, {len(self.digests)} digests and {len(self.perceptual)} perceptual hashes"
            )


class Near(NamedTuple):
    """A picture and the one that looks most like it."""

    name: str
    other: str
    distance: int


@dataclass(frozen=True)
class Duplicates:
    """Pictures of a split that are also elsewhere, as `find_duplicates` returns them.

    Attributes:
        split: name of the split.
        other_split: the split it was compared with; "" where it was searched in itself.
        pictures: number of pictures in `split`.
        exact: in one split: names of identical files, per group. Between two: a name of `split`, then all of the other
            split.
        near: pictures that have no identical file but look like another one, each with the nearest that was found. In
            one split a group of identical files stands here once, under its first name.
        flat: pictures of `split` without perceptual hash; only identical files are found for them.
        partly_compared: pictures of `split` with so many similar ones that not all were compared; some near ones may be
            missing.
    """

    split: str
    other_split: str
    pictures: int
    exact: list[tuple[str, ...]] = field(default_factory=list)
    near: list[Near] = field(default_factory=list)
    flat: int = 0
    partly_compared: int = 0

    @property
    def exact_pictures(self) -> int:
        """Number of pictures of `split` that have an identical file."""
        return len(self.exact) if self.other_split else sum(map(len, self.exact))

    def describe(self) -> list[str]:
        """Return lines for the user; the last ones say what could not be searched."""
        lines = []
        everything = f"of {self.pictures} {self.split} pictures"
        elsewhere = f"are also in {self.other_split}" if self.other_split else "occur more than once"
        if self.exact:
            examples = first_few([" = ".join(names[:2]) for names in self.exact])
            lines.append(f"{self.exact_pictures} {everything} {elsewhere} (exact): {examples}")
        if self.near:
            examples = first_few([f"{near.name} ~ {near.other}" for near in self.near])
            lines.append(f"{len(self.near)} {everything} {elsewhere} (the same photograph in another file): {examples}")
        if not lines:
            lines.append(f"none {everything} {elsewhere}")
        if self.flat:
            lines.append(f"{self.flat} {everything} are too flat to be recognised in another file")
        if self.partly_compared:
            lines.append(
                f"{self.partly_compared} {everything} have more than {near_hashes.WINDOW} similar ones and were "
                "compared with so many only: there may be more"
            )
        return lines


def find_duplicates(split: Fingerprints, other: Fingerprints | None = None) -> Duplicates:
    """Find the pictures of a split that occur in another split, or more than once in their own.

    Between two splits every pair is compared. Within one, perceptual hashes are compared where one of five bands of
    their bits is equal, which is so for all pairs of distance up to `NEAR`; a band shared by more than 4096 pictures is
    searched only among the nearest of them in numerical order, and the report says so.

    Args:
        split: the pictures to look for, such as those of the test split.
        other: where to look, such as the train split; None for the split itself.

    Returns:
        what was found, in the order of `split`.
    """
    if other is None:
        return _within(split)
    return _between(split, other)


def _within(split: Fingerprints) -> Duplicates:
    groups = _by_digest(split.digests)
    exact = [tuple(split.names[index] for index in group) for group in groups.values() if len(group) > 1]
    first = np.array([group[0] for group in groups.values()], dtype=np.int64)
    hashes = np.asarray(split.perceptual, dtype=np.uint64)[first]
    first, hashes = first[hashes != 0], hashes[hashes != 0]

    # Equal hashes are near each other without any search, which is for the different ones.
    values, member, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    members = np.argsort(member, kind="stable")
    start = np.cumsum(counts) - counts
    partner, distance, partly = near_hashes.nearest_by_bands(values)
    near = []
    for position, value in enumerate(member):
        if counts[value] > 1:
            head = members[start[value]]
            nearest, bits = (head if head != position else members[start[value] + 1]), 0
        elif distance[value] <= NEAR:
            nearest, bits = members[start[partner[value]]], int(distance[value])
        else:
            continue
        near.append(Near(split.names[first[position]], split.names[first[nearest]], bits))
    flat = int(np.count_nonzero(np.asarray(split.perceptual) == 0))
    return Duplicates(split.split, "", len(split.names), exact, near, flat, int(np.count_nonzero(partly[member])))


def _between(split: Fingerprints, other: Fingerprints) -> Duplicates:
    others = _by_digest(other.digests)
    identical = [others.get(digest, []) for digest in split.digests]
    exact = [
        (split.names[index], *(other.names[equal] for equal in equals))
        for index, equals in enumerate(identical)
        if equals
    ]
    hashes = np.asarray(split.perceptual, dtype=np.uint64)
    left = np.array([index for index, equals in enumerate(identical) if not equals and hashes[index]], dtype=np.int64)
    where = np.flatnonzero(np.asarray(other.perceptual))
    partner, distance = near_hashes.nearest(hashes[left], np.asarray(other.perceptual, dtype=np.uint64)[where])
    near = [
        Near(split.names[left[position]], other.names[where[partner[position]]], int(distance[position]))
        for position in np.flatnonzero(distance <= NEAR)
    ]
    return Duplicates(split.split, other.split, len(split.names), exact, near, flat=int(np.count_nonzero(hashes == 0)))


def _by_digest(digests: Sequence[str | bytes]) -> dict[str | bytes, list[int]]:
    groups: dict[str | bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        groups.setdefault(digest, []).append(index)
    return groups
