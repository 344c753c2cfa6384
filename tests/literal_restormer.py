"""Restormer written down literally: the reference for the network, and a measure of DRSformer's cost."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.literal_drsformer import Convolution, LayerNorm, LiteralDRSformer


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = Convolution(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = Convolution(3 * channels, 3 * channels, 3, 1, 1, groups=3 * channels, bias=bias)
        self.project_out = Convolution(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = (
            part.reshape(n, self.heads, c // self.heads, h * w) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, 1)
        )
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.project_out((scores.softmax(-1) @ v).reshape(n, c, h, w))


class FeedForward(nn.Module):
    def __init__(self, channels: int, factor: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * factor)
        self.project_in = Convolution(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = Convolution(2 * hidden, 2 * hidden, 3, 1, 1, groups=2 * hidden, bias=bias)
        self.project_out = Convolution(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(a) * b)


class Block(nn.Module):
    def __init__(self, channels: int, heads: int, factor: float, bias: bool, norm: str) -> None:
        super().__init__()
        self.norm1, self.attn = LayerNorm(channels, norm), Attention(channels, heads, bias)
        self.norm2, self.ffn = LayerNorm(channels, norm), FeedForward(channels, factor, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class LiteralRestormer(LiteralDRSformer):
    """The U shape of DRSformer, which is Restormer's, without MEFC and with blocks for refinement."""

    block = Block

    def __init__(
        self,
        *,
        dim=48,
        heads=(1, 2, 4, 8),
        num_refinement_blocks=4,
        ffn_expansion_factor=2.66,
        bias=False,
        LayerNorm_type="WithBias",
        dual_pixel_task=False,
        **others,
    ) -> None:
        assert not dual_pixel_task
        shared = (ffn_expansion_factor, bias, LayerNorm_type)
        others |= {"ffn_expansion_factor": ffn_expansion_factor, "bias": bias, "LayerNorm_type": LayerNorm_type}
        super().__init__(dim=dim, heads=heads, with_mefc=False, **others)
        self.refinement = nn.Sequential(*(Block(2 * dim, heads[0], *shared) for _ in range(num_refinement_blocks)))
