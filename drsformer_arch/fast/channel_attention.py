"""Attention between channels, which Restormer introduced (MDTA, arXiv 2111.09881) and DRSformer makes sparse (TKSA)."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .depthwise import DepthwiseConv2d, depthwise_conv
from .tiles import at_least_float32, picture, pixels


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


class ChannelAttention(nn.Module):
    """Attention whose scores are a (C/h) x (C/h) map per head; its cost grows with the pixels, not their square.

    As everything after the softmax is linear, the maps and the output projection are multiplied before the one product
    with the values.
    """

    halo = 1  # rows and columns around a pixel that its query, key and value depend on

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not split into {heads} heads")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = DepthwiseConv2d(3 * channels, 3, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def attention(self, scores: Tensor) -> Tensor:
        """Maps of the heads; scores: (N, heads, C/h, C/h), attends along the last axis."""
        return scores.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return self.apply_weights(x, self.weights([self.correlations(x)]))

    def correlations(self, x: Tensor, rows: slice = slice(None), columns: slice = slice(None)) -> Correlations:
        """What a part of the picture, (N, C, H, W), adds to the scores: of these rows and columns, the rest is halo."""
        query, key = (self.projection(x, index)[:, :, rows, columns] for index in (0, 1))
        with torch.autocast(x.device.type, enabled=False):
            return correlations(query, key, self.heads)

    def weights(self, parts: Iterable[Correlations]) -> Tensor:
        """Maps of all heads and output projection in one, from the correlations of all parts of the picture.

        Returns:
            (N, C, C), from the channels of the values to those of the result.
        """
        # Softmax and the choice of the largest scores need float32, also inside torch.autocast.
        with torch.autocast(self.temperature.device.type, enabled=False):
            products, query, key = (sum(part[1:], start=part[0]) for part in zip(*parts, strict=True))
            # The smallest norm is that of F.normalize. The root of the clamped sum has a gradient at zero.
            query, key = (squares.clamp_min(1e-24).sqrt() for squares in (query, key))
            scores = products / (query[..., :, None] * key[..., None, :]) * self.temperature
            projection = at_least_float32(self.project_out.weight).flatten(1).unflatten(1, (self.heads, -1))
            return torch.einsum("ohc,nhcd->nhdo", projection, self.attention(scores)).flatten(1, 2)

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
