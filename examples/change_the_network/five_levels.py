"""DRSformer with five levels instead of four: an example for docs/change_the_network.md.

A copy of `drsformer_arch/archs/drsformer_arch.py`, without what is imported from there because it stays as it is.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from drsformer_arch.archs import u_shape
from drsformer_arch.archs.drsformer_arch import MixtureOfExpertsFeatureCompensator, SparseTransformerBlock
from drsformer_arch.archs.u_shape import NormType, UShape
from drsformer_arch.fast.builders import NetworkBuilder
from drsformer_arch.plugin import ARCH_REGISTRY

__all__ = ["DRSformerFiveLevels"]


class InnerLevel(nn.Module):
    """One more level in the place of the innermost one: encoder, half the size, what is inside, back again, decoder."""

    def __init__(self, channels: int, encoder: nn.Module, inside: nn.Module, decoder: nn.Module, bias: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.inside = nn.Sequential(u_shape.Downsample(channels), inside, u_shape.Upsample(2 * channels))
        self.reduce_chan = u_shape.ChannelReduction(2 * channels, bias)
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = self.encoder(x)
        return self.decoder(self.reduce_chan(torch.cat((self.inside(x), x), dim=1)))


class DRSformerFiveLevels(UShape):
    """Deraining transformer with sparse channel attention; arguments as DRSformer's, of the levels 1-5."""

    contract = dataclasses.replace(UShape.contract, size_multiple=16)  # four halvings

    def __init__(
        self,
        *,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8, 8),
        heads: Sequence[int] = (1, 2, 4, 8, 16),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",
        with_mefc: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        if inp_channels != out_channels:
            raise ValueError(f"inp_channels ({inp_channels}) and out_channels ({out_channels}) must be equal")
        if len(num_blocks) != 5 or len(heads) != 5:
            raise ValueError(f"num_blocks and heads need five entries each, not {num_blocks} and {heads}")

        def block(channels: int, heads: int) -> SparseTransformerBlock:
            hidden = int(channels * ffn_expansion_factor)
            return SparseTransformerBlock(channels, heads, hidden, bias, LayerNorm_type)

        super().__init__(
            inp_channels=inp_channels,
            out_channels=out_channels,
            dim=dim,
            num_blocks=num_blocks[:-1],
            heads=heads[:-1],
            bias=bias,
            make_block=block,
            encoder_level0=MixtureOfExpertsFeatureCompensator(dim) if with_mefc else nn.Identity(),
            refinement=MixtureOfExpertsFeatureCompensator(2 * dim) if with_mefc else nn.Identity(),
            use_checkpoint=use_checkpoint,
        )
        self.contract = dataclasses.replace(self.contract, bytes_per_pixel=340 * dim)

        def level(channels: int, index: int) -> u_shape.Level:
            return u_shape.Level(*(block(channels, heads[index]) for _ in range(num_blocks[index])))

        self.latent = InnerLevel(8 * dim, self.latent, level(16 * dim, 4), level(8 * dim, 3), bias)
        self.checkpoint_blocks(use_checkpoint)


ARCH_REGISTRY.register(NetworkBuilder(DRSformerFiveLevels))
