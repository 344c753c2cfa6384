"""Groups of photographs that are near each other by their scene hashes."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from drsformer_arch.data.prepare.perceptual_hash import SCENE_BITS, SCENE_NEAR, SceneHash

_BLOCK = 1024  # hashes compared with all others at once


def near_scenes(hashes: Sequence[SceneHash]) -> Iterator[tuple[int, int]]:
    """Yield the indices of all that are near each other; every pair in both orders, and everything with itself."""
    signs = np.where(np.stack([scene.orientations for scene in hashes]), np.float32(1), np.float32(-1))
    for start in range(0, len(signs), _BLOCK):
        block = signs[start : start + _BLOCK, 0]
        # Every equal bit adds 1 to the product, every other takes 1 away.
        alike = np.max([block @ signs[:, turned].T for turned in range(signs.shape[1])], axis=0)
        rows, columns = np.nonzero(alike >= SCENE_BITS - 2 * SCENE_NEAR)
        yield from zip((rows + start).tolist(), columns.tolist(), strict=True)


def linked_groups(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Group the indices below `count`: what is linked, and what is linked with a linked one.

    Returns:
        the groups by their first indices, each in order.
    """
    rows, columns = np.array(list(links), dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows), np.bool_), (rows, columns)), shape=(count, count))
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(connected_components(graph, directed=False)[1].tolist()):
        groups.setdefault(group, []).append(index)
    return list(groups.values())
