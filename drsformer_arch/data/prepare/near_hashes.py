"""The search for near perceptual hashes."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from drsformer_arch.data.prepare.perceptual_hash import NEAR

BLOCK = (256, 4096)  # hashes of two lists compared at once
WINDOW = 4096  # hashes compared with each one whose band is equal
_BAND_BITS = 63 // (NEAR + 1)  # the lowest bit is the same in all hashes


def nearest(
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


def nearest_by_bands(
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
