"""Depth-wise convolution whose weight gradient is right and fast on CPUs, too.

Replaces `F.conv2d` inside the other fast forms, and in training its weight gradient only, for kernels wider than 3
pixels or dilated. Equal, because the columns of a kernel do not see each other: the gradient of a few columns is that
of a kernel of their own. oneDNN, which torch uses on CPUs, computes weight gradients of depth-wise kernels wider than 3
pixels 10 to 30 times as slowly as of narrow ones, and for dilated kernels in bfloat16 and channels-last memory it
returns garbage (torch 2.14). Without it all others together are 0.86 times as fast in training.
(docs/how_it_is_fast.md)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDEST_FAST_COLUMNS = 3


def moved(x: Tensor, shift: int, width: int) -> Tensor:
    """(N, C, H, W) → (N, C, H, width): `shift` columns further right, with zeros where nothing comes from.

    F.pad does the same, but writes all of its result twice.
    """
    result = torch.empty((*x.shape[:3], width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    first = min(max(shift, 0), width)
    end = max(min(shift + x.shape[3], width), first)
    result[..., :first] = 0
    result[..., first:end] = x[..., first - shift : end - shift]
    result[..., end:] = 0
    return result


class DepthwiseConvolution(torch.autograd.Function):
    """`F.conv2d` with one filter per channel; the weight gradient is computed for a few kernel columns at a time."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
        """x: (N, C, H, W), weight: (C, 1, k, k) → (N, C, H, W) for "same" padding."""
        return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=weight.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:  # noqa: ARG004
        """Keep what `backward` needs."""
        x, weight, ctx.padding, ctx.dilation = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Gradients of x and weight, where they are needed, from that of the output, (N, C, H, W)."""
        x, weight = ctx.saved_tensors
        padding, dilation = ctx.padding, ctx.dilation
        groups = weight.shape[0]

        def convolution_backward(x: Tensor, weight: Tensor, padding: list[int], dilation: int, wanted: int) -> Tensor:
            mask = [place == wanted for place in range(3)]
            return torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [1, 1], padding, [dilation] * 2, False, [0, 0], groups, mask
            )[wanted]

        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = convolution_backward(x, weight, [padding, padding], dilation, wanted=0)
        if ctx.needs_input_grad[1]:
            kernel = weight.shape[-1]
            per_call = (WIDEST_FAST_COLUMNS - 1) // dilation + 1
            parts = []
            for first in range(0, kernel, per_call):
                width = (min(per_call, kernel - first) - 1) * dilation + 1
                # What these columns see of x, as if they were a kernel of their own without padding. The gradient of
                # a dilated kernel is part of that of the dense one of the same extent.
                seen = moved(x, padding - first * dilation, x.shape[-1] + width - 1)
                dense = weight.new_empty(groups, 1, dilation * (kernel - 1) + 1, width)
                gradients = convolution_backward(seen, dense, [padding, 0], 1, wanted=1)
                parts.append(gradients[:, :, ::dilation, ::dilation])
            of_weight = torch.cat(parts, dim=-1)
        return of_x, of_weight, None, None


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Depth-wise convolution with "same" zero padding.

    Args:
        x: (N, C, H, W), best in channels-last memory.
        weight: (C, 1, k, k), k odd.
        bias: (C,).
        dilation: distance of the kernel's points in pixels.

    Returns:
        (N, C, H, W).
    """
    kernel = weight.shape[-1]
    padding = dilation * (kernel // 2)
    if weight.device.type == "cpu" and weight.requires_grad and dilation * kernel > WIDEST_FAST_COLUMNS:
        if torch.is_autocast_enabled("cpu"):
            half = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(half), weight.to(half), None if bias is None else bias.to(half)
        y = DepthwiseConvolution.apply(x, weight, padding, dilation)
        return y if bias is None else y + bias[:, None, None]
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=weight.shape[0])
