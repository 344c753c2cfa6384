"""Go on from a training state under this run's options: what a file says is applied, what was learned is kept."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from drsformer_arch.system.errors import UserError

OF_A_SCHEDULE = "initial_lr"  # what a schedule adds to an optimizer's hyperparameters


def catch_up(schedule: LRScheduler, iteration: int) -> None:
    """Take a new schedule through its past up to a finished iteration, step by step.

    Its rates are those of a run that had these options from the start, to the bit.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step", category=UserWarning)  # without an optimizer's
        for _ in range(iteration - 1):
            schedule.step()


def memory_of(optimizer: Optimizer) -> dict[str, bool]:
    """Find out what an optimizer remembers of a parameter: names, and whether each has the parameter's shape.

    Another one of the same arguments takes a step to find out.
    """
    parameter = nn.Parameter(torch.ones(2, 3, device=optimizer.param_groups[0]["params"][0].device))
    parameter.grad = torch.zeros_like(parameter)
    known = inspect.signature(type(optimizer)).parameters
    arguments = {key: value for key, value in optimizer.param_groups[0].items() if key in known and key != "params"}
    trial = type(optimizer)([parameter], **arguments)
    trial.step()
    return {
        name: isinstance(value, Tensor) and value.shape == parameter.shape
        for name, value in trial.state[parameter].items()
        if value is not None
    }


def taken_over(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Put a saved optimizer's memory under the hyperparameters of this one, as a state to load.

    Args:
        optimizer: of this run, with the rates of the iteration from which it goes on.
        saved: another run's `state_dict`.

    Raises:
        UserError: it is the memory of another kind of optimizer, or of a network of other shapes.
    """
    own, groups, memory = optimizer.state_dict(), saved["param_groups"], memory_of(optimizer)
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in own["param_groups"]]:
        raise UserError("it is of a network with another number of parameters")
    for group, own_group in zip(groups, own["param_groups"], strict=True):
        theirs, ours = (set(keys) - {OF_A_SCHEDULE} for keys in (group, own_group))
        if theirs - ours and ours - theirs:  # torch's versions only add some to a kind of optimizer
            difference = f"{', '.join(sorted(theirs - ours))} instead of {', '.join(sorted(ours - theirs))}"
            raise UserError(f"it is of another optimizer than {type(optimizer).__name__} (it has {difference})")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in saved["state"].items():
        missing = sorted(name for name in memory if values.get(name) is None)
        if missing:
            raise UserError(
                f"it is of another optimizer than {type(optimizer).__name__}, or of other arguments: it has "
                f"no {', '.join(missing)}"
            )
        if any(values[name].shape != parameters[number].shape for name, of_its_shape in memory.items() if of_its_shape):
            raise UserError("it is of a network of other shapes")
    hyperparameters = [
        {**own_group, "params": group["params"]} for group, own_group in zip(groups, own["param_groups"], strict=True)
    ]
    return {"state": saved["state"], "param_groups": hyperparameters}
