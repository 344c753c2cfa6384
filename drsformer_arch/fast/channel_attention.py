"""Folded attention: the maps of all heads and the output projection become one matrix before they meet the values.

Replaces the forward of TKSA and MDTA. Equal, because everything after the softmax is linear: the four sparse maps may
be summed, and multiplied with the 1x1 convolution that follows, while they are small. As the k largest scores are among
the k+1 largest, one descending order of each row serves all four maps. Norms of queries and keys are divided out of
their products instead of out of the maps. Query, key and value are computed one after the other, in channels-last
memory, where the products need no copies. Without it all others together are 0.9 times as fast.
(docs/how_it_is_fast.md)
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs import nerdrain_arch
from drsformer_arch.archs.drsformer_arch import TopKSparseAttention
from drsformer_arch.archs.precision import at_least_float32
from drsformer_arch.archs.restormer_arch import TransposedAttention
from drsformer_arch.fast.channels_last import picture, pixels
from drsformer_arch.fast.depthwise import depthwise_conv
from drsformer_arch.fast.forms import FastForm


class Correlations(NamedTuple):
    """Sums over pixels from which attention scores follow, float32 or better."""

    products: Tensor  # (N, heads, C/heads, C/heads), of each query channel with each key channel of its head
    query: Tensor  # (N, heads, C/heads), of the squares
    key: Tensor  # likewise


def correlations(query: Tensor, key: Tensor, heads: int) -> Correlations:
    """Correlate the channels of two maps (N, C, H, W) within heads, groups of channels."""
    query, key = (at_least_float32(pixels(part)) for part in (query, key))
    # Head by head, as one product over all heads would copy query and key.
    by_head = zip(query.unflatten(2, (heads, -1)).unbind(2), key.unflatten(2, (heads, -1)).unbind(2), strict=True)
    products = torch.stack([q.transpose(1, 2) @ k for q, k in by_head], dim=1)
    return Correlations(products, *(part.square().sum(dim=1).unflatten(1, (heads, -1)) for part in (query, key)))


class FoldedAttention(FastForm):
    """Attention between channels as one product of the values with a (C, C) matrix."""

    halo = 1  # rows and columns around a pixel that its query, key and value depend on
    heads: int
    temperature: nn.Parameter
    qkv: nn.Conv2d
    qkv_dwconv: nn.Conv2d
    project_out: nn.Conv2d

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return cls.replaces(module.qkv.in_channels, module.heads, module.qkv.bias is not None)

    def maps(self, scores: Tensor) -> Tensor:
        """Make the maps of the heads from scores: (N, heads, C/h, C/h), attends along the last axis."""
        raise NotImplementedError

    def layers_in_dtype(self) -> Iterable[nn.Module]:
        """Name the convolutions; scores and their scale keep their type."""
        return self.qkv, self.qkv_dwconv, self.project_out

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = self.enter(x)
        return self.apply_weights(x, self.weights([self.correlations(x)]))

    def correlations(self, x: Tensor, rows: slice = slice(None), columns: slice = slice(None)) -> Correlations:
        """Compute what a part of the picture, (N, C, H, W), adds to the scores by rows and columns of its own."""
        query, key = (self.projection(x, index)[:, :, rows, columns] for index in (0, 1))
        with torch.autocast(x.device.type, enabled=False):
            return correlations(query, key, self.heads)

    def weights(self, parts: Iterable[Correlations]) -> Tensor:
        """Fold the maps of all heads, from the correlations of all parts of the picture, and the output projection.

        Returns:
            (N, C, C), from the channels of the values to those of the result.
        """
        products, query, key = (sum(part[1:], start=part[0]) for part in zip(*parts, strict=True))
        # Softmax and the choice of the largest scores need float32, also inside torch.autocast.
        with torch.autocast(self.temperature.device.type, enabled=False):
            # The smallest norm is that of F.normalize. The root of the clamped sum has a gradient at zero.
            query, key = (squares.clamp_min(1e-24).sqrt() for squares in (query, key))
            scores = products / (query[..., :, None] * key[..., None, :]) * self.temperature
            projection = at_least_float32(self.project_out.weight).flatten(1).unflatten(1, (self.heads, -1))
            return torch.einsum("ohc,nhcd->nhdo", projection, self.maps(scores)).flatten(1, 2)

    def apply_weights(self, x: Tensor, weights: Tensor) -> Tensor:
        """The attention's result for a part of the picture, (N, C, H, W) → the same shape."""
        value = self.projection(x, 2)
        mixed = pixels(value) @ weights.to(value.dtype)
        if self.project_out.bias is not None:
            mixed = mixed + self.project_out.bias
        return picture(mixed, *x.shape[2:])

    def projection(self, x: Tensor, index: int) -> Tensor:
        """Query (0), key (1) or value (2), (N, C, H, W): one after the other, as they are not needed together."""

        def part(layer: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
            return layer.weight.chunk(3)[index], None if layer.bias is None else layer.bias.chunk(3)[index]

        return depthwise_conv(F.conv2d(x, *part(self.qkv)), *part(self.qkv_dwconv))


class FoldedTopKAttention(FoldedAttention, TopKSparseAttention):
    """Folded form of TKSA."""

    replaces = TopKSparseAttention

    def maps(self, scores: Tensor) -> Tensor:
        """Weighted sum of the four sparse softmax maps."""
        largest, where = scores.topk(max(self.top_k), dim=-1)
        ranks = torch.arange(largest.shape[-1], device=scores.device)
        dropped = torch.stack([ranks >= k for k in self.top_k])
        maps = largest.unsqueeze(-2).masked_fill(dropped, float("-inf")).softmax(dim=-1)
        mixture = torch.cat((self.attn1, self.attn2, self.attn3, self.attn4)).to(maps.dtype) @ maps
        return torch.zeros_like(scores).scatter(-1, where, mixture)


class FoldedTransposedAttention(FoldedAttention, TransposedAttention):
    """Folded form of MDTA."""

    replaces = TransposedAttention

    def maps(self, scores: Tensor) -> Tensor:
        """Softmax over each row."""
        return scores.softmax(dim=-1)


class FoldedNeRDRainAttention(FoldedTransposedAttention, nerdrain_arch.TransposedAttention):
    """Folded form of NeRD-Rain's MDTA, which is Restormer's with another key."""

    replaces = nerdrain_arch.TransposedAttention
