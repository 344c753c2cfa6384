"""Try the arguments of a network out: its keys, shapes and declarations without memory for its weights.

Arguments come from files of strangers. What they ask for is bounded before anything is allocated or counted to.
"""

import inspect
import re
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_type_hints

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from drsformer_arch.archs import NETWORKS
from drsformer_arch.archs.contract import contract_of
from drsformer_arch.restore.arguments import problem_of_argument
from drsformer_arch.system import processor
from drsformer_arch.system.errors import UserError, did_you_mean

LARGEST_NUMBER = 2**16  # among the arguments of a network: channels, blocks, heads, sides in pixels
BLOCKS = re.compile(r"blocks|^depth$")  # names of arguments that may be 0: a level without blocks passes its input on
LONGEST_LIST = 100
LONGEST_SHOWN = 80  # characters of a message
MOST_TENSORS = 5_000  # five times those of the largest network here
BYTES_OF_A_WEIGHT = 4
# What Python and torch raise for arguments that do not fit together.
UNUSABLE = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, MemoryError)


def outline(
    kind: type[nn.Module], arguments: Mapping[str, Any], where: str, *, most_tensors: int = MOST_TENSORS
) -> nn.Module:
    """Build a network on the device meta, which has shapes and no values: it costs no memory, however large it is.

    One from outside that cannot be built there, as it asks for values, is built on the CPU.

    Args:
        kind: its class.
        arguments: of the class, from wherever.
        where: they come from, a section's name in messages.
        most_tensors: more than so many belong to no network that is meant, such as those of a file.

    Raises:
        UserError: arguments that are unknown, of a wrong kind, too large or do not fit together; a network or a
            picture of it that this machine's memory cannot hold.
    """
    _check(kind, arguments, where)
    try:
        net = _built(kind, arguments, most_tensors)
    except UNUSABLE as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(f"{where}: these arguments of {kind.__name__} do not work: {reason}") from error
    memory = processor.whole_memory()
    size = BYTES_OF_A_WEIGHT * sum(value.numel() for value in net.parameters())
    if size > memory:
        raise UserError(f"{where}: this {kind.__name__} takes {_gib(size)} for its weights alone, {_has(memory)}")
    side = contract_of(net).patch_size
    if side and side**2 * contract_of(net).bytes_per_pixel > memory:
        raise UserError(f"{where}: pictures of {side}x{side} for this {kind.__name__} do not fit: {_has(memory)}")
    return net


def _built(kind: type[nn.Module], arguments: Mapping[str, Any], most_tensors: int) -> nn.Module:
    try:
        with torch.device("meta"), _at_most(most_tensors):
            return kind(**arguments)
    except UNUSABLE:
        if kind in NETWORKS:
            raise
    with torch.device("cpu"), _at_most(most_tensors):
        return kind(**arguments)


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


def _has(memory: int) -> str:
    return f"this machine has {_gib(memory)} of memory"


def _check(kind: type[nn.Module], arguments: Mapping[str, Any], where: str) -> None:
    known = inspect.signature(kind).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    ours = kind in NETWORKS
    hints = get_type_hints(kind.__init__) if ours else {}
    for key, value in arguments.items():
        if key not in known and not takes_any:
            name = str(key)[:LONGEST_SHOWN]
            raise UserError(f"{where}: {kind.__name__} has no argument {name}{did_you_mean(name, known)}")
        if not ours:  # what values mean, only its author knows
            continue
        parts = value if isinstance(value, list | tuple) else [value]
        if len(parts) > LONGEST_LIST or not all(isinstance(part, bool | int | float | str | None) for part in parts):
            raise UserError(f"{where}.{key} must be a plain value or a short list, not {_shown(value)}")
        if not all(abs(part) <= LARGEST_NUMBER for part in parts if isinstance(part, int | float)):  # nor is NaN
            raise UserError(f"{where}.{key} must be at most {LARGEST_NUMBER:,}, not {_shown(value)}")
        problem = problem_of_argument(value, hints.get(key, Any), least=0 if BLOCKS.search(key) else 1)
        if problem:
            raise UserError(f"{where}.{key} {problem}, not {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)[:LONGEST_SHOWN]
    except ValueError:  # a number of more digits than Python writes
        return "a number of thousands of digits"


class _TooManyTensorsError(ValueError):
    """A network gets more parts than the one that is meant can have."""


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stop the construction of a network, also one in endless loops, that gets more parameters than so many."""
    left = count

    def stop(_module: nn.Module, _name: str, _parameter: nn.Parameter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooManyTensorsError(f"the network gets more than {count:,} tensors")

    hook = register_module_parameter_registration_hook(stop)
    try:
        yield
    finally:
        hook.remove()
