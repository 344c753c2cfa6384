"""Folded experts: what ends an expert, its gate and its share of the fusing convolution become one matrix.

Replaces the forward of a step of MEFC. Equal, because all of it is linear after the expert's depth-wise convolution:
the trailing 1x1 convolution, the gate, and the expert's part of the 1x1 convolution over all experts. A step costs one
small product of weights and one matrix product per expert, and the eight results are never held together. Without it
all others together are 0.91 times as fast, in training 0.85 times. (docs/how_it_is_fast.md)
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs.drsformer_arch import Expert, ExpertStep
from drsformer_arch.archs.precision import at_least_float32
from drsformer_arch.fast.channels_last import picture, pixels
from drsformer_arch.fast.depthwise import depthwise_conv
from drsformer_arch.fast.forms import FastForm

HALO = 6  # rows and columns around a pixel that its result of a step depends on: 7x7 twice, or once with gaps


def without_last(expert: nn.Module, x: Tensor, fusing: Tensor) -> tuple[Tensor, Tensor]:
    """Compute all of an expert but its trailing 1x1 convolution, which goes into the weights that fuse the experts.

    Args:
        expert: one of the table `EXPERTS`, or what was put in its place; also its layers may have been exchanged.
        x: (N, C, H, W).
        fusing: (C, C), from this expert's channels to the step's.

    Returns:
        features (N, C, H, W) and weights (C, C); their product is this expert's share of the step.
    """
    layers = [*expert.op] if type(expert) is Expert and type(expert.op) is nn.Sequential else []
    if not layers or type(last := layers.pop()) is not nn.Conv2d:  # pooling ends with no convolution
        return expert(x), fusing
    for layer in layers:
        if type(layer) is nn.Conv2d and layer.groups > 1:
            x = depthwise_conv(x, layer.weight, dilation=layer.dilation[0])
        else:
            x = layer(x)
    return x, at_least_float32(fusing) @ at_least_float32(last.weight.flatten(1))


class FoldedExpertStep(FastForm, ExpertStep):
    """Step of MEFC whose experts end in one product of matrices."""

    replaces = ExpertStep

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return ExpertStep(module._out[0].out_channels)

    def layers_in_dtype(self) -> Iterable[nn.Module]:
        """Name all layers."""
        return (self,)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (N, C, H, W), gates: (N, experts) → (N, C, H, W)."""
        if type(self._out[0]) is not nn.Conv2d:  # exchanged later
            return super().forward(x, gates)
        x = self.enter(x)
        channels, height, width = x.shape[1:]
        fused = torch.zeros_like(pixels(x))
        shares = self._out[0].weight.flatten(1).split(channels, dim=1)
        for expert, fusing, gate in zip(self._ops, shares, gates.unbind(1), strict=True):
            features, weights = without_last(expert, x, fusing)
            fused.baddbmm_(pixels(features), (gate[:, None, None] * weights.t()).to(x.dtype))
        return F.relu(F.relu(picture(fused, height, width), inplace=True) + x, inplace=True)
