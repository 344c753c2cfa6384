"""Learning-rate schedules that BasicSR lacks."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


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
        """The rates of all parameter groups at step `last_epoch`."""
        cycle = min(bisect_left(self.cycle_ends, self.last_epoch), len(self.periods) - 1)
        period, weight, eta_min = self.periods[cycle], self.restart_weights[cycle], self.eta_mins[cycle]
        elapsed = min(self.last_epoch - (self.cycle_ends[cycle] - period), period)
        factor = weight * 0.5 * (1 + math.cos(math.pi * elapsed / period))
        return [eta_min + factor * (base - eta_min) for base in self.base_lrs]
