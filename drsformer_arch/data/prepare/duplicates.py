"""The same picture twice: in one split, or in train and test.

Copies of the benchmark sets share scenes with each other and within themselves, and a test picture that was trained on
makes every score wrong. Two fingerprints find them: the SHA-256 of a file (the very same file), and a perceptual hash
(the same photograph, saved again, resized or brightened; see `perceptual_hash`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from drsformer_arch.data.prepare.perceptual_hash import NEAR
from drsformer_arch.system.errors import first_few

BLOCK = (256, 4096)  # hashes of two lists compared at once
WINDOW = 4096  # hashes compared with each one whose band is equal
_BAND_BITS = 63 // (NEAR + 1)  # the lowest bit is the same in all hashes


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
                f"{self.partly_compared} {everything} have more than {WINDOW} similar ones and were "
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
    partner, distance, partly = _nearest_by_bands(values)
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
    partner, distance = _nearest(hashes[left], np.asarray(other.perceptual, dtype=np.uint64)[where])
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


def _nearest(
    hashes: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Compare all hashes with all others.

    Returns:
        per hash the index of the nearest other, and its distance, 255 where there is none.
    """
    partner = np.zeros(len(hashes), dtype=np.int64)
    distance = np.full(len(hashes), 255, dtype=np.uint8)
    height, width = BLOCK
    for left in tqdm(range(0, len(others), width), desc="comparing", delay=2, leave=False):
        block = others[left : left + width]
        for top in range(0, len(hashes), height):
            rows = slice(top, top + height)
            distances = np.bitwise_count(hashes[rows, None] ^ block)
            best = distances.argmin(axis=1)
            least = distances[np.arange(len(best)), best]
            nearer = least < distance[rows]
            distance[rows][nearer] = least[nearer]
            partner[rows][nearer] = best[nearer] + left
    return partner, distance


def _nearest_by_bands(
    values: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Find the nearest other of every hash, complete up to a distance of `NEAR`.

    Hashes are compared where one of five bands of their bits is equal, which is so for all pairs of distance up to
    `NEAR`; a band shared by more than `WINDOW` of them is searched only among the nearest in numerical order.

    Args:
        values: all different.

    Returns:
        per value the index of the nearest one, its distance (255 where none was compared), and whether it shares a
        band with more values than it was compared with.
    """
    partner = np.zeros(len(values), dtype=np.int64)
    distance = np.full(len(values), 255, dtype=np.uint8)
    partly = np.zeros(len(values), dtype=np.bool_)

    def keep(indices: npt.NDArray[np.int64], others: npt.NDArray[np.int64], between: npt.NDArray[np.uint8]) -> None:
        nearer = between < distance[indices]
        distance[indices[nearer]] = between[nearer]
        partner[indices[nearer]] = others[nearer]

    for rotated in tqdm(list(_bands(values)), desc="comparing", delay=2, leave=False):
        order = np.argsort(rotated, kind="stable").astype(np.int64)
        sorted_values = values[order]
        bands = rotated[order] >> np.uint64(64 - _BAND_BITS)
        start = np.searchsorted(bands, bands, side="left")
        end = np.searchsorted(bands, bands, side="right")
        partly[order[end - start > WINDOW + 1]] = True
        # In step s every value meets the one s places on, as long as that one is in the same band.
        active = np.arange(len(values), dtype=np.int64)
        for step in range(1, WINDOW + 1):
            active = active[active + step < end[active]]
            if not len(active):
                break
            between = np.bitwise_count(sorted_values[active] ^ sorted_values[active + step])
            close = np.flatnonzero(between <= NEAR)
            lower, upper = order[active[close]], order[active[close] + step]
            keep(lower, upper, between[close])
            keep(upper, lower, between[close])
    return partner, distance, partly


def _bands(values: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.uint64]]:
    """Rotate the values so that one band after the other stands first.

    `NEAR` different bits lie in at most as many of the `NEAR + 1` bands, so that one band is equal.
    """
    for band in range(NEAR + 1):
        shift = np.uint64(band * _BAND_BITS)
        yield values if not shift else (values << shift) | (values >> (np.uint64(64) - shift))
