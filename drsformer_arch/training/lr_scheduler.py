"""Learning-rate schedules that BasicSR lacks, and building optimizer and schedule from an option file."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.options.run_sections import problem_of_cycles
from drsformer_arch.system.errors import UserError, did_you_mean

# isort: split
from basicsr.models.lr_scheduler import CosineAnnealingRestartLR, MultiStepRestartLR

UNSUITABLE_OPTIMIZERS = ("Optimizer", "LBFGS", "SparseAdam")  # need closures or sparse gradients


class CosineAnnealingRestartCyclicLR(LRScheduler):
    """Cosine annealing with restarts, every cycle with its own minimum (Restormer's and DRSformer's recipe).

    With t steps since the cycle began and its period P:
    rate = eta_min + weight · 0.5 · (base − eta_min) · (1 + cos(πt/P)).
    The step equal to a cumulative period still belongs to the earlier cycle; after the last one the rate stays at
    its end. With `eta_mins[i]` equal to the base rate a cycle is constant.

    Args:
        optimizer: whose rates are set.
        periods: length of each cycle in steps.
        restart_weights: scale of each cycle.
        eta_mins: the rate at the end of each cycle.
        last_epoch: the last step done, -1 to start.

    Raises:
        ValueError: lists of different lengths.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        periods: Sequence[int],
        restart_weights: Sequence[float] = (1,),
        eta_mins: Sequence[float] = (0,),
        last_epoch: int = -1,
    ) -> None:
        if not len(periods) == len(restart_weights) == len(eta_mins):
            raise ValueError(
                f"periods, restart_weights and eta_mins need equal lengths, not "
                f"{len(periods)}, {len(restart_weights)} and {len(eta_mins)}"
            )
        self.periods = tuple(periods)
        self.restart_weights = tuple(restart_weights)
        self.eta_mins = tuple(eta_mins)
        self.cycle_ends = tuple(accumulate(periods))
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Compute the rates of all parameter groups at step `last_epoch`."""
        cycle = min(bisect_left(self.cycle_ends, self.last_epoch), len(self.periods) - 1)
        period, weight, eta_min = self.periods[cycle], self.restart_weights[cycle], self.eta_mins[cycle]
        elapsed = min(self.last_epoch - (self.cycle_ends[cycle] - period), period)
        factor = weight * 0.5 * (1 + math.cos(math.pi * elapsed / period))
        return [eta_min + factor * (base - eta_min) for base in self.base_lrs]


SCHEDULES: dict[str, Any] = {
    "CosineAnnealingRestartCyclicLR": CosineAnnealingRestartCyclicLR,
    "CosineAnnealingRestartLR": CosineAnnealingRestartLR,
    "MultiStepLR": MultiStepRestartLR,
    "MultiStepRestartLR": MultiStepRestartLR,
}


def optimizer_names() -> list[str]:
    """List the optimizers of torch.optim that take steps by gradients alone."""
    kinds = [name for name, value in vars(torch.optim).items() if isinstance(value, type)]
    return [name for name in kinds if name not in UNSUITABLE_OPTIMIZERS]


def build_optimizer(kind: str, parameters: Sequence[nn.Parameter], options: dict[str, Any]) -> Optimizer:
    """Build any optimizer of torch.optim by its name.

    Raises:
        UserError: an unknown name, arguments it does not take.
    """
    known = optimizer_names()
    if kind not in known:
        raise UserError(f"train.optim_g.type: there is no optimizer {kind}{did_you_mean(kind, known)}")
    try:
        return getattr(torch.optim, kind)(parameters, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"train.optim_g: {error}") from error


def build_schedule(optimizer: Optimizer, options: dict[str, Any], total_iter: int) -> LRScheduler:
    """Build the schedule of `train.scheduler`; cycles must cover the training.

    Raises:
        UserError: an unknown type, arguments it does not take, cycles shorter than the training.
    """
    arguments = {key: value for key, value in options.items() if key != "type"}
    kind = options["type"]
    if kind not in SCHEDULES:
        raise UserError(f"train.scheduler.type: there is no schedule {kind}{did_you_mean(kind, SCHEDULES)}")
    try:
        problem = problem_of_cycles(arguments.get("periods"), total_iter)
        if problem:
            raise UserError(f"train.scheduler.periods{problem}")
        return SCHEDULES[kind](optimizer, **arguments)
    except UserError:
        raise
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"train.scheduler: {error}") from error
