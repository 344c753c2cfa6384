"""Tiles: large maps are computed part by part, and the result of each part replaces its input.

Replaces, for inference, the forward of transformer blocks and of MEFC's body, and GDFN's for its halo. Equal, because
norms, depth-wise convolutions and 1x1 convolutions look no further than a few pixels: a tile is computed with as many
pixels around it as it depends on, which are thrown away. What pools over all pixels, attention's correlations and
MEFC's gates, is summed over all of them. Gains memory above all: everything between input and output of a block is
small, and stays in the processor's cache. Time is the same or less. (docs/how_it_is_fast.md)
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from drsformer_arch.archs import nerdrain_arch
from drsformer_arch.archs.drsformer_arch import ExpertSteps, SparseTransformerBlock
from drsformer_arch.archs.restormer_arch import GatedFeedForward, TransformerBlock
from drsformer_arch.archs.u_shape import LayerNorm
from drsformer_arch.fast.channel_attention import FoldedAttention
from drsformer_arch.fast.experts import HALO as EXPERTS_HALO
from drsformer_arch.fast.forms import FastForm, FeedForwardForm, has_hooks, is_as_written
from drsformer_arch.fast.slabs import ArrangedFeedForward

# Attention and experts are computed in tiles that are wider than those of a feed-forward by this factor: their
# intermediate results are smaller, and a tile's halo costs them more.
WIDER = 2


class Span(NamedTuple):
    """The part of an axis that a tile takes."""

    whole: slice  # on the axis, with the halo
    own: slice  # on the axis, without it
    inside: slice  # its own part within the whole one


def spans(length: int, tile: int, halo: int) -> Iterator[Span]:
    """Divide an axis into tiles of nearly equal size, at most `tile` long; 0 leaves it whole.

    >>> [span.whole for span in spans(100, 64, 2)]
    [slice(0, 52, None), slice(48, 100, None)]
    """
    size = math.ceil(length / math.ceil(length / tile)) if tile else length
    for start in range(0, length, size):
        stop, first = min(start + size, length), max(start - halo, 0)
        yield Span(slice(first, min(stop + halo, length)), slice(start, stop), slice(start - first, stop - first))


def is_one_tile(x: Tensor, tile: int) -> bool:
    """Tell whether a map (N, C, H, W) is computed at once."""
    return not tile or max(x.shape[2:]) <= tile


def tiles(x: Tensor, halo: int, tile: int) -> Iterator[tuple[Tensor, slice, slice]]:
    """The tiles of a map (N, C, H, W) with their halos, and which rows and columns of each are its own."""
    for rows in spans(x.shape[2], tile, halo):
        for columns in spans(x.shape[3], tile, halo):
            part = x[:, :, rows.whole, columns.whole].contiguous(memory_format=torch.channels_last)
            yield part, rows.inside, columns.inside


def replace_by_tiles(function: Callable[[Tensor], Tensor], x: Tensor, halo: int, tile: int) -> Tensor:
    """Compute function(x) tile by tile and in place.

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


class InPlace(FastForm):
    """Writes its result over its input where it is computed in tiles, and where nobody else holds that.

    Attributes:
        owns_input: nobody else does; otherwise a copy is made.
    """

    owns_input = False

    def enter(self, x: Tensor) -> Tensor:
        """Bring features that may be overwritten into the type they are computed in."""
        entered = super().enter(x)
        copies = entered is x and not self.owns_input and not is_one_tile(x, self.tile)
        return x.clone(memory_format=torch.channels_last) if copies else entered


class TiledFeedForward(FeedForwardForm, GatedFeedForward):
    """Fast form of GDFN that says how far it looks, so that tiles get the halo they need."""

    replaces = GatedFeedForward
    halo = 1  # rows and columns around a pixel that its result depends on

    def layers_in_dtype(self) -> Iterable[nn.Module]:
        """Name all layers."""
        return (self,)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return super().forward(self.enter(x))


class TiledNeRDRainFeedForward(TiledFeedForward, nerdrain_arch.GatedFeedForward):
    """Fast form of NeRD-Rain's GDFN, which is Restormer's with another key."""

    replaces = nerdrain_arch.GatedFeedForward


class TiledBlock(InPlace):
    """x + attention(LN(x)), then x + feed-forward(LN(x)); parts of other classes see the whole map."""

    norm1: LayerNorm
    attn: Any
    norm2: LayerNorm
    ffn: Any

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Attention and feed-forward may be anybody's, the norms may not: others, and hooks, may look at all pixels."""
        norms = [getattr(module, name, None) for name in ("norm1", "norm2")]
        return (
            cls._is_unchanged(module)
            and all(type(norm) is LayerNorm and all(map(is_as_written, norm.modules())) for norm in norms)
            and not any(map(has_hooks, module.children()))
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = self.attend(self.enter(x))
        ffn = self.ffn
        if isinstance(ffn, TiledFeedForward | ArrangedFeedForward):
            return replace_by_tiles(lambda part: part + ffn(self.norm2(part)), x, ffn.halo, self.tile)
        return x + ffn(self.norm2(x))

    def attend(self, x: Tensor) -> Tensor:
        """Residual attention, x + attention(LN(x)): (N, C, H, W) → (N, C, H, W)."""
        attention, tile = self.attn, WIDER * self.tile
        if is_one_tile(x, tile) or not isinstance(attention, FoldedAttention):
            return x + attention(self.norm1(x))
        # The maps need all pixels: a first round over the tiles is for them, a second one applies them.
        parts = tiles(x, attention.halo, tile)
        weights = attention.weights(attention.correlations(self.norm1(part), *inside) for part, *inside in parts)
        return replace_by_tiles(
            lambda part: part + attention.apply_weights(self.norm1(part), weights), x, attention.halo, tile
        )


class TiledSparseTransformerBlock(TiledBlock, SparseTransformerBlock):
    """Block of DRSformer, computed in tiles."""

    replaces = SparseTransformerBlock


class TiledTransformerBlock(TiledBlock, TransformerBlock):
    """Block of Restormer, computed in tiles."""

    replaces = TransformerBlock


class TiledNeRDRainBlock(TiledBlock, nerdrain_arch.TransformerBlock):
    """Block of NeRD-Rain, computed in tiles."""

    replaces = nerdrain_arch.TransformerBlock


class TiledExpertSteps(InPlace, ExpertSteps):
    """Body of MEFC, computed in tiles."""

    replaces = ExpertSteps

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return ExpertSteps(module.preprocess.op[0].in_channels)

    def layers_in_dtype(self) -> Iterable[nn.Module]:
        """Name all layers; the gates are computed outside."""
        return (self,)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (N, C, H, W), gates: (N, steps, experts) → (N, C, H, W)."""
        tile = WIDER * self.tile
        x = replace_by_tiles(self.preprocess, self.enter(x), 0, tile)
        for step, step_gates in zip(self._ops, gates.unbind(1), strict=True):
            x = replace_by_tiles(partial(step, gates=step_gates), x, EXPERTS_HALO, tile)
        return x
