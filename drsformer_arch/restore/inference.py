"""More than one run for a result: the inference with which authors publish their scores, and the mean of symmetries."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from drsformer_arch.archs.contract import Contract, contract_of
from drsformer_arch.restore.tiling import Network, restore
from drsformer_arch.restore.weights import Habits

Run = Callable[[Tensor], Tensor]  # (N, C, h, w), RGB in [0, 1] → the same shape


class Window(NamedTuple):
    """The part of an axis that a window sees, and the part of its result that is taken."""

    whole: slice  # on the axis
    own: slice  # likewise


def infer(
    net: Network,
    image: Tensor,
    *,
    as_published: bool = False,
    ensemble: bool = False,
    upright: bool = False,
    **options: Any,
) -> Tensor:
    """Apply a network to pictures of any size, as `restore` does, or in another way.

    Args:
        net: as for `restore`.
        image: (N, C, H, W), RGB in [0, 1].
        as_published: as the network's authors do it, where its contract says how; `options` for tiles then say nothing.
        ensemble: the mean of the results for the eight symmetries of the picture, each turned back.
        upright: of these only the four in which what stood does not lie.
        options: of `restore`.

    Returns:
        The restored pictures, shape of `image`, where `image` is.
    """
    contract = contract_of(net)

    def run(part: Tensor) -> Tensor:
        if as_published and contract.window:
            return in_windows(whole, part, contract.window)
        if as_published and contract.corners:
            return from_corners(whole, part, contract.corners, contract.smallest_size)
        return restore(net, part, **options)

    def whole(part: Tensor) -> Tensor:
        return restore(net, part, **{**options, "tile": 0})

    return mean_of_symmetries(run, image, upright=upright) if ensemble else run(image)


def inference_options(val: Mapping[str, Any], habits: Habits) -> dict[str, Any]:
    """Return the arguments of `infer` that the section `val` of an option file asks for.

    Args:
        val: tile, tile_overlap, ensemble, published_inference; any may be missing.
        habits: of the weights; they hold where `val` names no tile and no published inference.
    """
    published = bool(val.get("published_inference"))
    own = Habits() if published or "tile" in val else habits
    return {
        "as_published": published,
        "ensemble": bool(val.get("ensemble")),
        "upright": habits.upright,
        "tile": int(val.get("tile", own.tile)),
        "overlap": int(val.get("tile_overlap", own.overlap)),
    }


def in_tiles(contract: Contract, height: int, width: int, tile: int, *, as_published: bool) -> bool:
    """Tell whether `infer` puts a picture together from tiles of a side of `tile`, 0 for whole pictures."""
    has_its_own = contract.patch_size or (as_published and (contract.window or contract.corners))
    return bool(tile) and max(height, width) > tile and not has_its_own


def windows(length: int, side: int) -> Iterator[Window]:
    """Divide an axis into windows that do not overlap; of the last one only the rest of the axis is taken.

    >>> [window.whole for window in windows(600, 256)]
    [slice(0, 256, None), slice(256, 512, None), slice(344, 600, None)]
    """
    for start in range(0, length, side):
        stop = min(start + side, length)
        yield Window(slice(max(stop - side, 0), stop), slice(start, stop))


def in_windows(run: Run, image: Tensor, side: int) -> Tensor:
    """Put a result together from windows that do not overlap, as NeRD-Rain's authors do.

    Args:
        run: restores a window.
        image: (N, C, H, W); an axis shorter than a window has one of its own length.
        side: of a window, in pixels.

    Returns:
        The shape of `image`.
    """
    result = torch.empty_like(image)
    for rows, columns in itertools.product(windows(image.shape[2], side), windows(image.shape[3], side)):
        part = run(image[:, :, rows.whole, columns.whole])
        top, left = (axis.own.start - axis.whole.start for axis in (rows, columns))
        result[:, :, rows.own, columns.own] = part[:, :, top:, left:]
    return result


def from_corners(run: Run, image: Tensor, multiple: int, smallest: int) -> Tensor:
    """Average the results of four crops to a multiple, one at each corner, as FADformer's authors do.

    Args:
        run: restores a crop.
        image: (N, C, H, W).
        multiple: of the crops' sides, in pixels; a side below `smallest` is not cut.
        smallest: side that the network takes.

    Returns:
        The shape of `image`, in [0, 1].
    """
    height, width = (side - side % multiple if side >= smallest else side for side in image.shape[2:])
    total, count = torch.zeros_like(image), torch.zeros_like(image[:1, :1])
    tops, lefts = {0, image.shape[2] - height}, {0, image.shape[3] - width}
    for top, left in itertools.product(sorted(tops), sorted(lefts)):  # equal crops have equal results
        place = (..., slice(top, top + height), slice(left, left + width))
        total[place] += run(image[place]).clamp(0, 1)
        count[place] += 1
    return (total / count).clamp(0, 1)


def mean_of_symmetries(run: Run, image: Tensor, *, upright: bool = False) -> Tensor:
    """Average what comes of the eight rotations and reflections of a picture (Timofte et al., CVPR 2016).

    Args:
        run: restores a picture.
        image: (N, C, H, W).
        upright: leave out the four that lay the picture on its side, for networks that know rain only as it falls.

    Returns:
        The shape of `image`.
    """
    total = torch.zeros_like(image)
    symmetries = list(itertools.product((0, 2) if upright else range(4), (False, True)))
    for turns, mirrored in symmetries:
        seen = torch.rot90(image.flip(3) if mirrored else image, turns, (2, 3))
        turned_back = torch.rot90(run(seen), -turns, (2, 3))
        total += turned_back.flip(3) if mirrored else turned_back
    return total / len(symmetries)
