"""What validation needs beside BasicSR's loop: names of protocols, metrics without target, a share per process."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch

from drsformer_arch import basicsr_fixes  # noqa: F401 - makes BasicSR importable
from drsformer_arch.data.loaders import CheckedDataset

# isort: split
from basicsr.metrics import METRIC_REGISTRY


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
        shares: list[list[float]] = [[]] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, self.values[: self.own])
        in_order = [shares[index % len(shares)][index // len(shares)] for index in range(sum(map(len, shares)))]
        return sum(in_order) / len(in_order)


@contextlib.contextmanager
def replaced(section: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    """Set an option for a while."""
    before = section.get(key)
    section[key] = value
    try:
        yield
    finally:
        section[key] = before
