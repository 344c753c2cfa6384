"""Depth-wise convolution against autograd's own gradients in double precision."""

import pytest
import torch
import torch.nn.functional as F

from drsformer_arch.fast.depthwise import depthwise_conv

# Processors without AVX-512 round bfloat16 more often: 1.7e-2 there, of 49 products.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 1), (7, 1), (3, 2), (5, 2), (7, 2), (5, 3)])
def test_outputs_and_gradients(kernel, dilation, dtype):
    """Also pictures smaller than the kernel, and channels that fill no vector register."""
    torch.manual_seed(0)
    for channels, height, width in ((16, 24, 17), (5, 3, 40), (3, 2, 1)):
        x, direction = torch.randn(2, 2, channels, height, width)
        weight, bias = torch.randn(channels, 1, kernel, kernel), torch.randn(channels)

        def gradients(function, to, direction=direction, given=(x, weight, bias)):
            inputs = [one.to(to).requires_grad_() for one in given]
            inputs[0].data = inputs[0].data.contiguous(memory_format=torch.channels_last)
            y = function(*inputs)
            return y.detach(), *torch.autograd.grad(y, inputs, direction.to(to))

        def reference(x, weight, bias, channels=channels):
            padding = dilation * (kernel // 2)
            return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=channels)

        def ours(x, weight, bias):
            return depthwise_conv(x, weight, bias, dilation)

        for actual, expected in zip(gradients(ours, dtype), gradients(reference, torch.float64), strict=True):
            error = (actual.double() - expected).abs().max() / expected.abs().max()
            assert error <= TOLERANCE[dtype], (channels, height, width)


def test_gradients_of_gradients():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(depthwise_conv, (x, weight))


def test_autocast_computes_in_its_own_type():
    x = torch.randn(1, 4, 8, 8)
    weight = torch.randn(4, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = depthwise_conv(x, weight, torch.zeros(4))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert weight.grad.dtype == torch.float32
