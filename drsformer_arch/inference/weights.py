"""Read checkpoints in the forms in which they circulate, and say in one line why one does not fit a network."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drsformer_arch.archs import NETWORKS
from drsformer_arch.archs.restoration_network import RestorationNetwork, declared
from drsformer_arch.errors import UserError, did_you_mean

PARAM_KEYS = ("params", "params_ema", "state_dict")
# Damaged pickles fail in whatever way their first wrong byte leads to.
UNREADABLE = (
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)
MEFC_PREFIXES = ("encoder_level0.", "refinement.layers.")


def load_file(path: Path | str, **options: Any) -> Any:
    """`torch.load` on the CPU that executes nothing in the file.

    Raises:
        UserError: no such file, damaged, or holding more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, **options)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is damaged or no weight file: {reason}") from error


def read_state_dict(path: Path | str, param_key: str | None = "params") -> tuple[dict[str, Tensor], str | None]:
    """Read the weights of a network; nothing in the file is executed.

    Args:
        path: a file of BasicSR (`params`, `params_ema`), of other trainers (`state_dict`), or the bare weights, with
            or without `module.` before the keys.
        param_key: the entry wanted; where it is missing, the first of `params`, `params_ema`, `state_dict` or the
            bare file is taken.

    Returns:
        The weights on the CPU, and the entry they were taken from (None: the bare file).

    Raises:
        UserError: no such file, or no weights in it.
    """
    return entry(load_file(path), path, param_key)


def entry(content: Any, path: Path | str, param_key: str | None) -> tuple[dict[str, Tensor], str | None]:
    """The weights within what a file holds, as `read_state_dict` returns them."""
    found = None
    for key in (param_key, *PARAM_KEYS):
        if key is not None and isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content, found = content[key], key
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{path} holds no network weights (looked for {param_key}, {', '.join(PARAM_KEYS)} or bare)")
    return {key.removeprefix("module."): value for key, value in content.items()}, found


def drop_unused(net: nn.Module | type, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without what published files hold and no computation uses, as the network declares."""
    unused = declared(net, "unused_keys")
    return {key: value for key, value in state.items() if not (unused and unused.search(key))}


def recognise(state: Mapping[str, Tensor]) -> tuple[type[RestorationNetwork], dict[str, Any]] | None:
    """Which of our networks weights belong to, and the arguments to build it with; None where it is none of them.

    Only what keys and shapes tell is found. Arguments that leave no trace in them have their default.
    """
    for kind in NETWORKS:
        try:
            arguments = kind.arguments_of(state)
            with torch.device("meta"):
                net = kind(**arguments)
        except (LookupError, ValueError, ZeroDivisionError):
            continue
        if explain_mismatch(net, drop_unused(kind, state)) is None:
            return kind, arguments
    return None


def load_network(path: Path | str, param_key: str | None = "params") -> RestorationNetwork:
    """The network of a checkpoint with its weights, ready for inference.

    Files that we wrote name their network and its arguments; others are recognised from keys and shapes.

    Raises:
        UserError: no such file, no weights in it, or weights of a network that is not ours.
    """
    content = load_file(path)
    state, _ = entry(content, path, param_key)
    named = content.get("network") if isinstance(content, Mapping) else None
    if isinstance(named, Mapping) and "type" in named:
        return build_network(named, state, path)
    recognised = recognise(state)
    if recognised is None:
        names = ", ".join(kind.__name__ for kind in NETWORKS)
        raise UserError(f"{path}: these weights are of none of the networks {names}, or of changed ones")
    kind, arguments = recognised
    return build_network({"type": kind.__name__, **arguments}, state, path)


def build_network(section: Mapping[str, Any], state: Mapping[str, Tensor], path: Path | str) -> RestorationNetwork:
    """One of our networks with its weights, ready for inference.

    Args:
        section: `type` and arguments, as under `network_g` of an option file.
        state: the weights; what no computation uses may be there.
        path: where they come from, for messages.

    Raises:
        UserError: an unknown network, wrong arguments, weights that do not fit.
    """
    kinds = {kind.__name__: kind for kind in NETWORKS}
    arguments = {key: value for key, value in section.items() if key != "type"}
    kind = kinds.get(section["type"])
    if kind is None:
        raise UserError(f"{path}: its network is not ours{did_you_mean(section['type'], kinds)}")
    try:
        net = kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: these arguments of {kind.__name__} do not work: {error}") from error
    state = drop_unused(net, state)
    problem = explain_mismatch(net, state)
    if problem:
        raise UserError(f"{path} does not fit {kind.__name__}: {problem}")
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def explain_mismatch(net: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """One line that says why weights do not fit a network and what to change; None where they fit."""
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    missing, unexpected = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    if missing and not unexpected and all(key.startswith(MEFC_PREFIXES) for key in missing):
        return "the weights have no MEFC but the network has: set network_g.with_mefc: false"
    if unexpected and not missing and all(key.startswith(MEFC_PREFIXES) for key in unexpected):
        return "the weights have MEFC but the network has none: set network_g.with_mefc: true"
    if missing or unexpected:
        example = min(missing or unexpected)
        return (
            f"these are weights of another network or of other arguments: {len(missing)} of {len(wanted)} tensors "
            f"are missing and {len(unexpected)} are unknown (for example {example})"
        )
    different = [key for key in sorted(wanted) if wanted[key] != given[key]]
    if different:
        key = different[0]
        return (
            f"{len(different)} tensors have another shape (for example {key}: {given[key]} in the file, {wanted[key]} "
            f"in the network): the arguments under network_g differ from those the weights were trained with"
        )
    return None
