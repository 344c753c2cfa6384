"""Metrics of a validation: their protocols, which of them need no target, what they say when they fail, one gather."""

import inspect
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.bridge.trouble import trouble_of
from drsformer_arch.system.errors import UserError, line_of

# isort: split
from basicsr.metrics import METRIC_REGISTRY
from basicsr.metrics import calculate_metric as basicsr_calculate_metric

QUICK = ("basicsr.", "drsformer_arch.")  # packages whose losses and metrics are tried; others may load weights


class MetricError(UserError):
    """A metric cannot score a picture; the message names the metric and says why."""


def protocol_of(metric: dict[str, Any]) -> str:
    """Say in words which scores a metric's section of the options gives."""
    function = METRIC_REGISTRY.get(metric["type"])
    named = getattr(function, "protocol", None)
    if named:
        return f"{named} protocol"
    return f"{metric['type']}, {'float Y' if metric.get('test_y_channel') else 'RGB'}"


def needs_target(metric: dict[str, Any]) -> bool:
    """Tell whether a metric compares with a target, as BasicSR's NIQE does not."""
    parameters = inspect.signature(METRIC_REGISTRY.get(metric["type"])).parameters
    return "img2" in parameters and parameters["img2"].default is inspect.Parameter.empty


def is_quick(registered: Any) -> bool:
    """Tell whether a registered class or function is of a package whose losses and metrics are tried."""
    return registered.__module__.startswith(QUICK)


def calculate_metric(data: dict[str, Any], metric: dict[str, Any]) -> float:
    """Score a picture as BasicSR does, in whose place this stands for all of its models.

    There a metric fails in its own way on a picture that is too small for it, or warns about it in NumPy's words.

    Args:
        data: `img`, and `img2` where there is a target; (H, W, 3) BGR uint8.
        metric: its section of the options.

    Raises:
        MetricError: it cannot be computed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return basicsr_calculate_metric(data, metric)
    except Exception as error:  # of whatever package the metric is
        if trouble_of(error) is not None:
            raise
        height, width = data["img"].shape[:2]
        raise MetricError(line_of(error, f"metric {metric['type']} on a picture of {height}x{width}")) from error


@contextmanager
def trying(where: str) -> Iterator[None]:
    """Say in one line whatever the arguments of a file lead to.

    Args:
        where: they stand, a section's name in messages.

    Raises:
        UserError: in the place of every exception.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # somebody else's code on any values: each may fail in its own way
        raise UserError(line_of(error, where)) from error


def try_metric(metric: dict[str, Any], where: str, height: int, width: int) -> None:
    """Score random pictures of a size.

    Args:
        metric: its section of the options.
        where: its name in messages.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.

    Raises:
        UserError: the metric refuses the size or its arguments, or nothing of such a picture is left to score.
    """
    rng = np.random.default_rng(0)
    pictures = {name: rng.integers(0, 256, (height, width, 3), np.uint8) for name in ("img", "img2")}
    with trying(where):
        score = float(basicsr_calculate_metric(pictures, metric))
    if math.isnan(score):
        raise UserError(f"{where}: with these arguments nothing of a picture of {height}x{width} is left to score")


def mean_score(scores: Sequence[float]) -> float:
    """Average what pictures score: the finite ones where some equal their targets, of which PSNR is infinite.

    Args:
        scores: one at least.

    Returns:
        Infinity where all are infinite; NaN where one is NaN.
    """
    counted = [score for score in scores if not math.isinf(score)]
    return sum(counted) / len(counted) if counted else scores[0]


def infinite_scores(scores: Sequence[dict[str, float]]) -> list[str]:
    """Say of each metric that is infinite for some pictures how many that are."""
    counts = Counter(key for score in scores for key, value in score.items() if math.isinf(value))
    return [
        f"{count} of {len(scores)} pictures equal their targets, which makes {key} infinite; the mean is that of the "
        "others, if any"
        for key, count in counts.items()
    ]


def gather_scores(share: list[dict[str, float]] | MetricError) -> list[dict[str, float]]:
    """Exchange scores between processes of which each scored every n-th picture.

    Args:
        share: the scores of this process's pictures by the names of metrics, or what kept it from scoring them.

    Returns:
        Those of all pictures, in the order of the pictures.

    Raises:
        MetricError: one of the processes could not score a picture; it is raised in all of them.
    """
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, share)
    for other in shares:
        if isinstance(other, MetricError):
            raise other
    return [shares[index % len(shares)][index // len(shares)] for index in range(sum(map(len, shares)))]
