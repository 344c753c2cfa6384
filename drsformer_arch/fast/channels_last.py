"""Channels-last memory: the channels of a pixel lie side by side.

Replaces the embedding, which puts the picture into that order, and the norms, which keep it, as every other layer does.
Equal, because only the order in memory changes. There a matrix product over the channels of all pixels needs no copy,
and on CPUs norms and depth-wise convolutions are faster. In inference the layers between embedding and output also
compute in another type here, where one is asked for; norms compute in float32 whatever it is. Alone 1.25 times as fast
in inference, 1.4 in training; without it the others give two thirds. (docs/how_it_is_fast.md)
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs.precision import at_least_float32
from drsformer_arch.archs.u_shape import ChannelReduction, Downsample, LayerNorm, PatchEmbedding, Upsample
from drsformer_arch.fast.forms import FastForm


def pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, H·W, C); no copy in channels-last memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def picture(x: Tensor, height: int, width: int) -> Tensor:
    """(N, H·W, C) → (N, C, H, W) in channels-last memory, without a copy."""
    return x.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class ChannelsLastEmbedding(FastForm, PatchEmbedding):
    """Embedding that computes in the type of the picture and hands features on in theirs."""

    replaces = PatchEmbedding

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return PatchEmbedding(module.proj.in_channels, module.proj.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, in_channels, H, W) → (N, channels, H, W)."""
        return self.enter(super().forward(x.contiguous(memory_format=torch.channels_last)))


class ChannelsLastNorm(FastForm, LayerNorm):
    """Norm that sums in float32 whatever the type of the features."""

    replaces = LayerNorm

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return LayerNorm(len(module.body.weight), "BiasFree" if module.body.bias is None else "WithBias")

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape and type."""
        weight, bias = self.body.weight, self.body.bias
        last = x.permute(0, 2, 3, 1)
        if bias is not None:  # all arguments must have one type on GPUs
            last = F.layer_norm(last, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps=1e-5)
        else:
            precise = at_least_float32(last)
            variance = precise.var(dim=-1, keepdim=True, correction=0)
            last = (precise * torch.rsqrt(variance + 1e-5) * weight).to(x.dtype)
        return last.permute(0, 3, 1, 2)


class InDtype(FastForm):
    """A layer all of which computes in the type of the features."""

    def layers_in_dtype(self) -> Iterable[nn.Module]:
        """Name all layers."""
        return (self,)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → as the plain layer."""
        result: Tensor = super().forward(self.enter(x))
        return result


class ResamplerInDtype(InDtype):
    """A convolution and a pixel shuffle that compute in the type of the features."""

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return cls.replaces(module.body[0].in_channels)


class DownsampleInDtype(ResamplerInDtype, Downsample):
    """Down-sampling in the type of the features."""

    replaces = Downsample


class UpsampleInDtype(ResamplerInDtype, Upsample):
    """Up-sampling in the type of the features."""

    replaces = Upsample


class ChannelReductionInDtype(InDtype, ChannelReduction):
    """Channel reduction after a skip, in the type of the features."""

    replaces = ChannelReduction

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return ChannelReduction(module.in_channels, module.bias is not None)
