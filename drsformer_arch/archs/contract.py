"""What a network says about itself, so that model, inference and export need not know which one it is."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class RestorationNetwork(nn.Module):
    """Base of the networks: pictures in, restored pictures of the same shape out, or several of them, the best first.

    The attributes are read with `declared`; a network of another package that lacks one has the value given here.
    """

    size_multiple = 1  # height and width must be multiples of it
    smallest_size = 1  # of height and width
    picture_channels = 3  # 1: gray
    value_range = 1.0  # pictures lie in [0, value_range]
    patch_size: int | None = None  # the only height and width it takes; larger pictures are put together from patches
    patch_overlap = 0  # pixels that neighbouring patches share
    bytes_per_pixel = 8192  # of memory that inference in float32 takes at its peak, measured; here a guess
    unused_keys: re.Pattern[str] | None = None  # entries of published checkpoints that no computation uses

    def patch_weights(self) -> Tensor:
        """(patch_size, patch_size): the weights with which overlapping patches are averaged."""
        return torch.ones(self.patch_size or 1, self.patch_size or 1)

    @classmethod
    def arguments_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The constructor's arguments for weights of this network, as far as keys and shapes tell.

        Raises:
            KeyError: these are weights of another network.
        """
        raise NotImplementedError


def declared(net: nn.Module | type, name: str) -> Any:
    """An attribute of `RestorationNetwork`, also of networks of other packages."""
    return getattr(net, name, getattr(RestorationNetwork, name))


def outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a network returned as a tuple, the best first."""
    return result if isinstance(result, tuple) else (result,)


def count_modules(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many modules PREFIX0, PREFIX1, ... the keys of a state dict name."""
    found = {re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in state}
    return len({match[1] for match in found if match})
