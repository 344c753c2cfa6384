"""DRSformer with Restormer's GDFN in the place of MSFN: an example for docs/change_the_network.md.

A copy of `drsformer_arch/archs/drsformer_arch.py`, without what is imported from there because it stays as it is.
"""

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from drsformer_arch.archs.drsformer_arch import MixtureOfExpertsFeatureCompensator, TopKSparseAttention
from drsformer_arch.archs.restormer_arch import GatedFeedForward
from drsformer_arch.archs.u_shape import LayerNorm, NormType, UShape
from drsformer_arch.fast.builders import NetworkBuilder
from drsformer_arch.plugin import ARCH_REGISTRY

__all__ = ["DRSformerGDFN"]


class SparseTransformerBlock(nn.Module):
    """STB: TKSA, then GDFN, each after a norm and beside the identity."""

    def __init__(self, channels: int, heads: int, hidden: int, bias: bool, norm_type: NormType) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, norm_type)
        self.attn = TopKSparseAttention(channels, heads, bias)
        self.norm2 = LayerNorm(channels, norm_type)
        self.ffn = GatedFeedForward(channels, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape (equation 1)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class DRSformerGDFN(UShape):
    """Deraining transformer with sparse channel attention and gated feed-forwards; arguments as DRSformer's."""

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


ARCH_REGISTRY.register(NetworkBuilder(DRSformerGDFN))
