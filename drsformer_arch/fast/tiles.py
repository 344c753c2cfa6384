"""What all parts do with feature maps: their precision, their order in memory, and computing them tile by tile.

Tiles keep everything between input and output small and in the cache, and change nothing of the result.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors become float32; float32 and float64 pass through."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, H·W, C); no copy in channels-last memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def picture(x: Tensor, height: int, width: int) -> Tensor:
    """(N, H·W, C) → (N, C, H, W) in channels-last memory, without a copy."""
    return x.unflatten(1, (height, width)).permute(0, 3, 1, 2)


# Attention and experts are computed in tiles that are wider than those of a feed-forward by this factor: their
# intermediate results are smaller, and a tile's halo costs them more.
WIDER = 2


class Tiled:
    """A module that may compute in tiles."""

    tile = 0  # side in pixels, set by the network's fused form; 0 computes the whole picture at once


class Span(NamedTuple):
    """What a tile takes of an axis."""

    whole: slice  # on the axis, with the halo
    own: slice  # on the axis, without it
    inside: slice  # its own part within the whole one


def spans(length: int, tile: int, halo: int) -> Iterator[Span]:
    """Divide an axis into tiles of nearly equal size, at most `tile` long; 0 leaves it whole."""
    size = math.ceil(length / math.ceil(length / tile)) if tile else length
    for start in range(0, length, size):
        stop, first = min(start + size, length), max(start - halo, 0)
        yield Span(slice(first, min(stop + halo, length)), slice(start, stop), slice(start - first, stop - first))


def is_one_tile(x: Tensor, tile: int) -> bool:
    """Whether a map (N, C, H, W) is computed at once."""
    return not tile or max(x.shape[2:]) <= tile


def tiles(x: Tensor, halo: int, tile: int) -> Iterator[tuple[Tensor, slice, slice]]:
    """The tiles of a map (N, C, H, W) with their halos, and which rows and columns of each are its own."""
    for rows in spans(x.shape[2], tile, halo):
        for columns in spans(x.shape[3], tile, halo):
            part = x[:, :, rows.whole, columns.whole].contiguous(memory_format=torch.channels_last)
            yield part, rows.inside, columns.inside


def replace_by_tiles(function: Callable[[Tensor], Tensor], x: Tensor, halo: int, tile: int) -> Tensor:
    """function(x), computed tile by tile and in place.

    Args:
        function: maps (N, C, H, W) to the same shape; a pixel of its result depends on the pixels at most `halo` rows
            and columns away, and beyond the border it pads with what it likes.
        x: (N, C, H, W); overwritten where it is larger than a tile.
        halo: pixels around a tile that are computed and thrown away where it ends inside the picture.
        tile: side of a tile in pixels; 0 for the whole picture at once.
    """
    if is_one_tile(x, tile):
        return function(x)
    above: list[Tensor] = []  # the rows before a band as they were
    for rows in spans(x.shape[2], tile, halo):
        band = torch.cat([*above, x[:, :, rows.own.start : rows.whole.stop]], dim=2)
        above = [band[:, :, max(rows.inside.stop - halo, 0) : rows.inside.stop]]
        for columns in spans(x.shape[3], tile, halo):
            result = function(band[..., columns.whole].contiguous(memory_format=torch.channels_last))
            x[:, :, rows.own, columns.own] = result[:, :, rows.inside, columns.inside]
    return x
