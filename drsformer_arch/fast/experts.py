"""MEFC, the mixture of experts that DRSformer applies before its encoder and after its decoder (paper, section 3.4).

The 1x1 convolution that ends an expert, the expert's gate and the expert's share of the 1x1 convolution that fuses all
experts are one matrix, so a step costs one small product of weights and one matrix product per expert, and the eight
results are never held together.
"""

from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs.u_shape import Checkpointed

from .depthwise import DepthwiseConv2d
from .tiles import WIDER, Tiled, at_least_float32, picture, pixels, replace_by_tiles

SEPARABLE, DILATED, POOL = "separable", "dilated", "pool"
EXPERTS = (  # kind and kernel size, in the order of the checkpoint
    (SEPARABLE, 1),
    (SEPARABLE, 3),
    (SEPARABLE, 5),
    (SEPARABLE, 7),
    (DILATED, 3),
    (DILATED, 5),
    (DILATED, 7),
    (POOL, 3),
)
STEPS = 4
HALO = 6  # rows and columns around a pixel that its result of a step depends on: 7x7 twice, or once with gaps


class ExpertGate(nn.Module):
    """Weights of the experts in every step, from the globally pooled input: softmax over the experts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca_fc = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, STEPS * len(EXPERTS)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → (N, steps, experts), float32 or better."""
        with torch.autocast(x.device.type, enabled=False):
            pooled = x.mean(dim=(-2, -1), dtype=torch.promote_types(x.dtype, torch.float32))
            pooled = pooled.to(next(self.parameters()).dtype)
            return at_least_float32(self.ca_fc(pooled)).unflatten(1, (STEPS, len(EXPERTS))).softmax(dim=-1)


class Expert(nn.Module):
    """One operation of MEFC's `EXPERTS` table, always with "same" padding and without bias."""

    def __init__(self, channels: int, kind: str, kernel: int) -> None:
        super().__init__()

        def depthwise_then_pointwise(dilation: int = 1) -> list[nn.Module]:
            return [DepthwiseConv2d(channels, kernel, dilation), nn.Conv2d(channels, channels, 1, bias=False)]

        self.op: nn.Module
        if kind == SEPARABLE:
            self.op = nn.Sequential(*depthwise_then_pointwise(), nn.ReLU(inplace=True), *depthwise_then_pointwise())
        elif kind == DILATED:
            self.op = nn.Sequential(*depthwise_then_pointwise(dilation=2))
        else:
            self.op = nn.AvgPool2d(kernel, stride=1, padding=kernel // 2, count_include_pad=False)

    def forward(self, x: Tensor, fusing: Tensor) -> tuple[Tensor, Tensor]:
        """All but the trailing 1x1 convolution, which goes into the weights that fuse the experts.

        Args:
            x: (N, C, H, W).
            fusing: (C, C), from this expert's channels to the step's.

        Returns:
            features (N, C, H, W) and weights (C, C); their product is this expert's share of the step.
        """
        if not isinstance(self.op, nn.Sequential):  # pooling ends with no convolution
            return self.op(x), fusing
        pointwise = cast(nn.Conv2d, self.op[-1])
        return self.op[:-1](x), at_least_float32(fusing) @ at_least_float32(pointwise.weight.flatten(1))


class ExpertStep(nn.Module):
    """All experts side by side, each scaled by its gate, fused by a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList(Expert(channels, kind, kernel) for kind, kernel in EXPERTS)
        self._out = nn.Sequential(nn.Conv2d(len(EXPERTS) * channels, channels, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (N, C, H, W), gates: (N, experts) → (N, C, H, W)."""
        channels, height, width = x.shape[1:]
        fused = torch.zeros_like(pixels(x))
        shares = cast(nn.Conv2d, self._out[0]).weight.flatten(1).split(channels, dim=1)
        for expert, fusing, gate in zip(self._ops, shares, gates.unbind(1), strict=True):
            features, weights = expert(x, fusing)
            fused.baddbmm_(pixels(features), (gate[:, None, None] * weights.t()).to(x.dtype))
        return F.relu(F.relu(picture(fused, height, width), inplace=True) + x, inplace=True)


class PointwiseReLU(nn.Module):
    """1x1 convolution and ReLU under the key `op`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return self.op(x)


class ExpertSteps(Tiled, Checkpointed):
    """The body of MEFC: a 1x1 convolution, then the steps one after the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preprocess = PointwiseReLU(channels)
        self._ops = nn.ModuleList(ExpertStep(channels) for _ in range(STEPS))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (N, C, H, W), overwritten where it is computed in tiles; gates: (N, steps, experts) → (N, C, H, W)."""
        x = replace_by_tiles(self.preprocess, x, 0, WIDER * self.tile)
        for step, step_gates in zip(self._ops, gates.unbind(1), strict=True):
            x = replace_by_tiles(partial(self.run, step, gates=step_gates), x, HALO, WIDER * self.tile)
        return x


class MixtureOfExpertsFeatureCompensator(nn.Module):
    """MEFC: gates from the input, then the gated experts (paper, section 3.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((ExpertGate(channels), ExpertSteps(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        gate, steps = self.layers
        return steps(x, gate(x))
