"""DRSformer with other shares of the attention scores kept: an example for docs/change_the_network.md.

A copy of `drsformer_arch/archs/drsformer_arch.py`, without what is imported from there because it stays as it is.
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from drsformer_arch.archs.drsformer_arch import MixedScaleFeedForward, MixtureOfExpertsFeatureCompensator, top_k
from drsformer_arch.archs.precision import in_full_precision
from drsformer_arch.archs.u_shape import LayerNorm, NormType, UShape
from drsformer_arch.fast.builders import NetworkBuilder
from drsformer_arch.plugin import ARCH_REGISTRY

__all__ = ["DRSformerQuarters"]

TOP_K_SHARES = ((1, 4), (1, 2), (3, 4), (1, 1))  # k of the four sparse maps as fractions of the channels per head


class TopKSparseAttention(nn.Module):
    """TKSA: attention between the channels of a head that keeps the k largest scores of each row (section 3.2).

    Four sparse maps with growing k attend to the values, and their results are mixed with learned weights.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        if channels % heads or channels // heads < 4:
            raise ValueError(f"{channels} channels do not split into {heads} heads of at least 4 channels each")
        per_head = channels // heads
        self.heads = heads
        self.top_k = tuple(per_head * numerator // denominator for numerator, denominator in TOP_K_SHARES)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)
        self.attn1 = nn.Parameter(torch.tensor([0.2]))
        self.attn2 = nn.Parameter(torch.tensor([0.2]))
        self.attn3 = nn.Parameter(torch.tensor([0.2]))
        self.attn4 = nn.Parameter(torch.tensor([0.2]))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        q, k, v = (
            rearrange(part, "n (head c) h w -> n head c (h w)", head=self.heads)
            for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        scores = self.scores(q, k)
        mixed = torch.zeros_like(v)
        for kept, weight in zip(self.top_k, (self.attn1, self.attn2, self.attn3, self.attn4), strict=True):
            sparse = top_k(scores, kept).softmax(dim=-1)  # equation 2
            mixed = mixed + (sparse * weight).to(v.dtype) @ v
        return self.project_out(rearrange(mixed, "n head c (h w) -> n (head c) h w", h=x.shape[2]))

    @in_full_precision
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Cosines of the channels of queries and keys (N, heads, C/h, H·W), scaled: (N, heads, C/h, C/h)."""
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return q @ rearrange(k, "n head c hw -> n head hw c") * self.temperature


class SparseTransformerBlock(nn.Module):
    """STB: TKSA, then MSFN, each after a norm and beside the identity."""

    def __init__(self, channels: int, heads: int, hidden: int, bias: bool, norm_type: NormType) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, norm_type)
        self.attn = TopKSparseAttention(channels, heads, bias)
        self.norm2 = LayerNorm(channels, norm_type)
        self.ffn = MixedScaleFeedForward(channels, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape (equation 1)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class DRSformerQuarters(UShape):
    """Deraining transformer whose sparse attention keeps a quarter up to all scores; arguments as DRSformer's."""

    def __init__(
        self,
        *,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",
        with_mefc: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        if inp_channels != out_channels:
            raise ValueError(f"inp_channels ({inp_channels}) and out_channels ({out_channels}) must be equal")

        def block(channels: int, heads: int) -> SparseTransformerBlock:
            hidden = int(channels * ffn_expansion_factor)
            return SparseTransformerBlock(channels, heads, hidden, bias, LayerNorm_type)

        super().__init__(
            inp_channels=inp_channels,
            out_channels=out_channels,
            dim=dim,
            num_blocks=num_blocks,
            heads=heads,
            bias=bias,
            make_block=block,
            encoder_level0=MixtureOfExpertsFeatureCompensator(dim) if with_mefc else nn.Identity(),
            refinement=MixtureOfExpertsFeatureCompensator(2 * dim) if with_mefc else nn.Identity(),
            use_checkpoint=use_checkpoint,
        )
        self.contract = dataclasses.replace(self.contract, bytes_per_pixel=340 * dim)


ARCH_REGISTRY.register(NetworkBuilder(DRSformerQuarters))
