"""Run a network on pictures of any size: its value range, padding to its size multiple, tiles where memory is short.

Tiles never equal the whole picture where something in a network looks at all pixels it is given, as its contract says.
Benchmarks are run without tiles.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs.contract import contract_of, outputs
from drsformer_arch.fast import OWN_NETWORKS, fuse, has_fast_form
from drsformer_arch.system.errors import UserError

PATCHES_AT_ONCE = 4  # of networks for one size: 1.5 times as fast as one by one on two cores; more gain nothing there
Network = Any  # a callable; a contract is optional


def pad(image: Tensor, bottom: int, right: int) -> Tensor:
    """Pad (N, C, H, W) below and to the right: the picture is reflected, or its border repeated where it is small."""
    if not bottom and not right:
        return image
    mode = "reflect" if bottom < image.shape[-2] and right < image.shape[-1] else "replicate"
    return F.pad(image, (0, right, 0, bottom), mode=mode)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) below and to the right so that both sides are multiples.

    >>> pad_to_multiple(torch.zeros(1, 3, 61, 75), 8).shape
    torch.Size([1, 3, 64, 80])
    """
    return pad(image, -image.shape[-2] % multiple, -image.shape[-1] % multiple)


def even_tile(length: int, largest: int, overlap: int, multiple: int) -> int:
    """Choose the side of equal tiles of which as few as possible cover a length, at most `largest`."""
    if length <= largest:
        return length
    count = math.ceil((length - overlap) / (largest - overlap))
    tile = math.ceil((length + (count - 1) * overlap) / count)
    return min(tile + -tile % multiple, largest)


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """List where tiles start on one side so that they cover it, each overlapping the next by at least `overlap`.

    >>> tile_starts(1000, 512, 32)
    [0, 480, 488]
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def feather(length: int, overlap: int) -> Tensor:
    """Make the weights of one side of a tile: a linear ramp over the overlap at both ends, above 0 everywhere."""
    ramp = torch.arange(1, length + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0)).clamp(max=overlap + 1)


def tiles(height: int, width: int, tile: tuple[int, int], overlap: int) -> Iterator[tuple[slice, slice]]:
    """Yield row and column slices of all tiles of a height and width."""
    rows, columns = tile
    for top in tile_starts(height, rows, overlap):
        for left in tile_starts(width, columns, overlap):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


def inference_form(net: nn.Module, *, bf16: bool, fast: bool = True) -> tuple[nn.Module, bool]:
    """Make the network to infer with, and tell whether bfloat16 is left to autocast, where not all has a fast form.

    Args:
        net: plain or accelerated.
        bf16: compute features in bfloat16.
        fast: in the fused form, where there is one; else as the network is.
    """
    if not fast or not has_fast_form(net):
        return net, bf16
    fused_in_bf16 = bf16 and type(net) in OWN_NETWORKS
    return fuse(net, torch.bfloat16 if fused_in_bf16 else None), bf16 and not fused_in_bf16


def forward_scaled(net: Network, image: Tensor, value_range: float) -> tuple[Tensor, ...]:
    """Run a network in its own value range.

    Args:
        net: maps (N, C, H, W) in [0, value_range] to the same shape, or to a tuple of such, the best first.
        image: (N, C, H, W) in [0, 1].
        value_range: of the network's contract.

    Returns:
        All its outputs, each (N, C, H, W) for [0, 1], not clamped.
    """
    if value_range == 1:
        return outputs(net(image))
    return tuple(output / value_range for output in outputs(net(image * value_range)))


def restore(
    net: Network,
    image: Tensor,
    *,
    multiple: int | None = None,
    tile: int = 0,
    overlap: int = 32,
    device: torch.device | None = None,
) -> Tensor:
    """Apply a network to pictures of any size.

    Args:
        net: maps (N, C, h, w) to the same shape; its `Contract` is respected.
        image: (N, C, H, W), RGB in [0, 1].
        multiple: sides must be multiples of it; default: what its contract says.
        tile: longest side of tiles in pixels, which share the picture evenly; 0 runs the whole picture at once. A
            network for one size has its own.
        overlap: pixels that neighbouring tiles share and blend over.
        device: where the network is; default: where the picture is. What is computed at once is moved there and back.

    Returns:
        The restored pictures, shape of `image`, where `image` is.

    Raises:
        UserError: an overlap that leaves tiles no own pixels.
    """
    contract = contract_of(net)
    multiple, patch = multiple or contract.size_multiple, contract.patch_size
    height, width = image.shape[-2:]

    def run(part: Tensor) -> Tensor:
        missing = (max(contract.smallest_size - length, 0) for length in part.shape[-2:])
        padded = pad_to_multiple(pad(part, *missing), multiple).to(device or part.device)
        whole = forward_scaled(net, padded, contract.value_range)[0]
        return whole[..., : part.shape[-2], : part.shape[-1]].to(part.device)

    if patch:
        padded = pad(image, max(patch - height, 0), max(patch - width, 0))
        weights = contract.patch_weights(patch).to(image)
        whole = run_tiles(run, padded, (patch, patch), contract.patch_overlap, weights, at_once=PATCHES_AT_ONCE)
        return whole[..., :height, :width]
    if not tile or (height <= tile and width <= tile):
        return run(image)
    if not 0 <= overlap < tile:
        raise UserError(f"tile_overlap ({overlap}) must be smaller than tile ({tile})")
    rows, columns = (even_tile(length, tile, overlap, multiple) for length in (height, width))
    weights = torch.outer(feather(rows, overlap), feather(columns, overlap)).to(image)
    return run_tiles(run, image, (rows, columns), overlap, weights)


def run_tiles(
    run: Callable[[Tensor], Tensor],
    image: Tensor,
    tile: tuple[int, int],
    overlap: int,
    weights: Tensor,
    *,
    at_once: int = 1,
) -> Tensor:
    """Compute the weighted mean of the results of overlapping tiles.

    Args:
        run: maps a tile (N, C, h, w) to the same shape.
        image: (N, C, H, W).
        tile: height and width in pixels.
        overlap: pixels that neighbouring tiles share.
        weights: (height, width) of a tile.
        at_once: tiles that are run together.
    """
    total, weight = torch.zeros_like(image), torch.zeros_like(image[:1, :1])
    height, width = image.shape[-2:]
    places = list(tiles(height, width, tile, overlap))
    for first in range(0, len(places), at_once):
        some = places[first : first + at_once]
        results = run(torch.cat([image[..., rows, columns] for rows, columns in some])).split(image.shape[0])
        for (rows, columns), result in zip(some, results, strict=True):
            total[..., rows, columns] += result * weights
            weight[..., rows, columns] += weights
    return total / weight
