"""A cure for dilated convolutions whose weights get no right gradient in 16 bits on a processor."""

import torch
from torch import Tensor, nn


def order_for_16_bits(net: nn.Module) -> None:
    """Let dilated convolutions compute with the rows of each channel together in memory.

    Where the channels of a pixel lie together instead, the gradient of their weights in bfloat16 or float16 is what
    happened to be in memory: on processors, seen in torch 2.11 and 2.14, for depth-wise convolutions and for others
    whose number of channels is no multiple of 16. Convolutions of other classes, such as those of fast forms, stay as
    they are.
    """
    for module in net.modules():
        if type(module) is nn.Conv2d and max(module.dilation) > 1:
            weight = module.weight.data
            # Not contiguous(): where one side is 1 it sees no difference, and convolutions do.
            module.weight.data = torch.empty_like(weight, memory_format=torch.contiguous_format).copy_(weight)
            module.register_forward_pre_hook(_reordered)


def _reordered(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].contiguous(),)
