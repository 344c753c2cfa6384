"""Attention between channels, which Restormer introduced (MDTA, arXiv 2111.09881) and DRSformer makes sparse (TKSA)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .depthwise import DepthwiseConv2d, depthwise_conv
from .transformer_parts import at_least_float32, picture, pixels


def channel_scores(query: Tensor, key: Tensor, heads: int, temperature: Tensor) -> Tensor:
    """Cosines between the channels of two feature maps, each over all pixels, times a temperature.

    Args:
        query, key: (N, C, H, W).
        heads: groups of channels; only channels of the same group are compared.
        temperature: (heads, 1, 1).

    Returns:
        (N, heads, C/heads, C/heads), float32 or better: sums over all pixels need it.
    """
    query, key = (at_least_float32(pixels(part)) for part in (query, key))

    def norms(x: Tensor) -> Tensor:
        # The smallest norm is that of F.normalize. The root of the clamped sum has a gradient at zero.
        return x.square().sum(dim=1).clamp_min(1e-24).sqrt().unflatten(1, (heads, -1))

    # Head by head, as one product over all heads would copy query and key.
    by_head = zip(query.unflatten(2, (heads, -1)).unbind(2), key.unflatten(2, (heads, -1)).unbind(2), strict=True)
    products = torch.stack([q.transpose(1, 2) @ k for q, k in by_head], dim=1)
    return products / (norms(query)[..., :, None] * norms(key)[..., None, :]) * temperature


class ChannelAttention(nn.Module):
    """Attention whose scores are a (C/h) x (C/h) map per head; its cost grows with the pixels, not their square.

    As everything after the softmax is linear, the maps and the output projection are multiplied before the one product
    with the values.
    """

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
        height, width = x.shape[-2:]
        parts = self.projections(x)
        query, key = next(parts), next(parts)
        # Softmax and the choice of the largest scores need float32, also inside torch.autocast.
        with torch.autocast(x.device.type, enabled=False):
            maps = self.attention(channel_scores(query, key, self.heads, self.temperature))
            projection = at_least_float32(self.project_out.weight).flatten(1).unflatten(1, (self.heads, -1))
            weights = torch.einsum("ohc,nhcd->nhdo", projection, maps).flatten(1, 2)
        del query, key
        value = next(parts)
        mixed = pixels(value) @ weights.to(value.dtype)
        if self.project_out.bias is not None:
            mixed = mixed + self.project_out.bias
        return picture(mixed, height, width)

    def projections(self, x: Tensor) -> Iterator[Tensor]:
        """Query, key and value, each (N, C, H, W), one after the other: they are not needed at the same time."""

        def parts(layer: nn.Conv2d) -> Iterator[tuple[Tensor, Tensor | None]]:
            return zip(layer.weight.chunk(3), (None,) * 3 if layer.bias is None else layer.bias.chunk(3), strict=True)

        for pointwise, depthwise in zip(parts(self.qkv), parts(self.qkv_dwconv), strict=True):
            yield depthwise_conv(F.conv2d(x, *pointwise), *depthwise)
