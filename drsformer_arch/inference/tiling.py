"""Run a network on pictures of any size: padding to its size multiple, feathered tiles where memory is short.

Tiles never equal the whole picture: DRSformer's attention and gates pool over all pixels they are given. Benchmarks
are run without tiles.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

Restore = Callable[[Tensor], Tensor]


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad below and to the right so that both sides are multiples.

    The padding reflects the picture; where the picture is too small for that, its border is repeated.

    Args:
        image: (N, C, H, W).
        multiple: of the padded height and width.

    Returns:
        (N, C, H', W'), the picture in its upper left corner.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return image
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, bottom), mode=mode)


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start on one side so that they cover it, each overlapping the next by at least `overlap`."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def feather(length: int, overlap: int) -> Tensor:
    """Weights of one side of a tile: a linear ramp over the overlap at both ends, above 0 everywhere."""
    ramp = torch.arange(1, length + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0)).clamp(max=overlap + 1)


def tiles(height: int, width: int, tile: int, overlap: int) -> Iterator[tuple[slice, slice]]:
    """Row and column slices of all tiles."""
    for top in tile_starts(height, tile, overlap):
        for left in tile_starts(width, tile, overlap):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def restore(net: Restore, image: Tensor, *, multiple: int = 1, tile: int = 0, overlap: int = 32) -> Tensor:
    """Apply a network to pictures of any size.

    Args:
        net: maps (N, C, h, w) to the same shape for sides that are multiples of `multiple`.
        image: (N, C, H, W) in the network's value range.
        multiple: the network's size multiple.
        tile: side of square tiles in pixels; 0 runs the whole picture at once.
        overlap: pixels that neighbouring tiles share and blend over.

    Returns:
        The restored pictures, shape of `image`.

    Raises:
        ValueError: an overlap that leaves tiles no own pixels.
    """
    height, width = image.shape[-2:]
    if not tile or (height <= tile and width <= tile):
        return net(pad_to_multiple(image, multiple))[..., :height, :width]
    if not 0 <= overlap < tile:
        raise ValueError(f"tile_overlap ({overlap}) must be smaller than tile ({tile})")
    total = torch.zeros_like(image)
    weight = torch.zeros_like(image[:1, :1])
    for rows, columns in tiles(height, width, tile, overlap):
        part = image[..., rows, columns]
        result = net(pad_to_multiple(part, multiple))[..., : part.shape[-2], : part.shape[-1]]
        blend = torch.outer(feather(part.shape[-2], overlap), feather(part.shape[-1], overlap)).to(image)
        total[..., rows, columns] += result * blend
        weight[..., rows, columns] += blend
    return total / weight
