"""The contract of a network: what training, inference and export need to know of it, whichever one it is."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class InputError(ValueError):
    """A network was given pictures of a size or of channels that it does not take; the message says which it takes."""


def equal_weights(side: int) -> Tensor:
    """Weights (side, side) of 1: patches count the same everywhere."""
    return torch.ones(side, side)


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """The marks by which weights of a network are told from those of others.

    Attributes:
        keys: that all weights of the network have, and from whose shapes its arguments follow.
        arguments: the constructor's arguments of weights that have those keys, as far as keys and shapes tell.
    """

    keys: tuple[str, ...]
    arguments: Callable[[Mapping[str, Tensor]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """Pictures that a network takes, what it returns, and how its weights are known.

    A class says what holds for all of its networks, each network what depends on its arguments. The defaults are for
    networks of other packages, which say nothing.

    Attributes:
        size_multiple: height and width must be multiples of it.
        smallest_size: of height and width, in pixels.
        picture_channels: 3 for RGB, 1 for gray.
        value_range: pictures lie in [0, value_range].
        patch_size: the only height and width that it takes; larger pictures are put together from patches.
        patch_overlap: pixels that neighbouring patches share.
        patch_weights: makes of patch_size the weights, (patch_size, patch_size), of the mean of overlapping patches.
        sees_all_pixels: what in it looks at all pixels of a picture, so that tiles change its results.
        not_as_onnx: why the network cannot be exported as ONNX.
        window: side of the windows, in pixels, out of which the authors put results together for their scores.
        corners: multiple to which the authors cut pictures at each of four corners, for the mean of the results.
        output_scales: how often the sides of the pictures that it returns go into those of its input, the best first.
        bytes_per_pixel: of memory that inference in float32 takes at its peak, measured; by default a guess.
        unused_keys: matches entries of published checkpoints that no computation uses.
        recognition: of its weights.
    """

    size_multiple: int = 1
    smallest_size: int = 1
    picture_channels: int = 3
    value_range: float = 1.0
    patch_size: int | None = None
    patch_overlap: int = 0
    patch_weights: Callable[[int], Tensor] = equal_weights
    sees_all_pixels: str | None = None
    not_as_onnx: str | None = None
    window: int | None = None
    corners: int | None = None
    output_scales: tuple[int, ...] = (1,)
    bytes_per_pixel: int = 8192
    unused_keys: re.Pattern[str] | None = None
    recognition: Recognition | None = None


class RestorationNetwork(nn.Module):
    """Base of the networks: pictures in, restored pictures of the same shape out, or several, the best first."""

    contract = Contract()


def contract_of(net: object) -> Contract:
    """Get the contract of a network or of its class, also of one of another package."""
    contract = getattr(net, "contract", None)
    return contract if isinstance(contract, Contract) else Contract()


def outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Make a tuple of what a network returned, the best first."""
    return result if isinstance(result, tuple) else (result,)


def count_modules(state: Mapping[str, Tensor], prefix: str) -> int:
    """Count the modules PREFIX0, PREFIX1, ... that the keys of a state dict name."""
    found = {re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in state}
    return len({match[1] for match in found if match})
