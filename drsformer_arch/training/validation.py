"""What validation needs beside BasicSR's loop: names of protocols, metrics without target, a share per process."""

import contextlib
import inspect
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from drsformer_arch.bridge import basicsr_fixes  # noqa: F401 - makes BasicSR importable
from drsformer_arch.system.errors import UserError, line_of
from drsformer_arch.training.loaders import CheckedDataset

# isort: split
from basicsr.metrics import METRIC_REGISTRY, calculate_metric


def protocol_of(metric: dict[str, Any]) -> str:
    """Which scores a metric's options give, in words."""
    function = METRIC_REGISTRY.get(metric["type"])
    named = getattr(function, "protocol", None)
    if named:
        return f"{named} protocol"
    return f"{metric['type']}, {'float Y' if metric.get('test_y_channel') else 'RGB'}"


def needs_target(metric: dict[str, Any]) -> bool:
    """Whether a metric compares with a target, as BasicSR's NIQE does not."""
    parameters = inspect.signature(METRIC_REGISTRY.get(metric["type"])).parameters
    return "img2" in parameters and parameters["img2"].default is inspect.Parameter.empty


QUICK = ("basicsr.", "drsformer_arch.")  # packages whose losses and metrics are tried; others may load weights


class MetricError(UserError):
    """A metric cannot score a picture of a validation.

    Args:
        message: names metric, data set and picture, and says why.
        shared: all processes that share the validation know of it.
    """

    def __init__(self, message: str, *, shared: bool = False) -> None:
        super().__init__(message)
        self.shared = shared


def try_metric(metric: dict[str, Any], where: str, height: int, width: int) -> None:
    """Score random pictures of a size.

    Raises:
        UserError: the metric refuses the size or its arguments, or nothing of such a picture is left to score.
    """
    rng = np.random.default_rng(0)
    pictures = {name: rng.integers(0, 256, (height, width, 3), np.uint8) for name in ("img", "img2")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score = float(calculate_metric(pictures, metric))
    except Exception as error:  # somebody else's code on any values: each may fail in its own way
        raise UserError(line_of(error, where)) from error
    if math.isnan(score):
        raise UserError(f"{where}: with these arguments nothing of a picture of {height}x{width} is left to score")


def is_quick(thing: Any) -> bool:
    """Whether a registered class or function is of a package whose things are tried."""
    return thing.__module__.startswith(QUICK)


class Share(CheckedDataset):
    """Every n-th picture of a data set, for one of n processes.

    A process that gets none takes the first picture, for which another one answers: all must take part to the end.
    """

    def __init__(self, dataset: Any, rank: int, processes: int) -> None:
        super().__init__(dataset)
        own = range(rank, len(dataset), processes)
        self.own = len(own)
        self.indices = own or range(1)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[self.indices[index]]


class Scores:
    """The scores of one metric, as BasicSR's loop sums them up and divides by their number.

    The sum runs over the pictures in their order, also where processes share them: the mean is the same to the bit.

    Args:
        own: how many of them count here, where processes share the pictures.
    """

    def __init__(self, own: int | None) -> None:
        self.own = own
        self.values: list[float] = []

    def __iadd__(self, score: float) -> "Scores":
        self.values.append(float(score))
        return self

    def __itruediv__(self, count: int) -> float:
        if self.own is None:
            return sum(self.values) / count
        shares = _gathered(self.values[: self.own])
        in_order = [shares[index % len(shares)][index // len(shares)] for index in range(sum(map(len, shares)))]
        return sum(in_order) / len(in_order)


def _gathered(share: list[float] | MetricError) -> list[list[float]]:
    """The scores of all processes.

    Raises:
        MetricError: a metric failed in one of them, which handed on that instead.
    """
    shares: list[Any] = [[]] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, str(share) if isinstance(share, MetricError) else share)
    for other in shares:
        if isinstance(other, str):
            raise MetricError(other, shared=True)
    return shares


def tell_others(failure: MetricError) -> None:
    """Hand on that a metric failed to the processes that wait for this one's scores; it is raised in all of them."""
    _gathered(failure)


@contextlib.contextmanager
def replaced(section: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    """Set an option for a while."""
    before = section.get(key)
    section[key] = value
    try:
        yield
    finally:
        section[key] = before
