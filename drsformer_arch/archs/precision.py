"""Sums over many values and choices between near ones need float32, also where the rest is computed in 16 bits."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors become float32; float32 and float64 pass through."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Give a function its tensors in float32 or better, and keep torch.autocast from what it computes."""

    @wraps(function)
    def precise(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [value for value in args if isinstance(value, Tensor)]
        given = [at_least_float32(value) if isinstance(value, Tensor) else value for value in args]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*given, **kwargs)  # type: ignore[arg-type]  # of the same kinds

    return precise
