"""Find the network of weights: recognise which one they belong to, build it, or say in one line why they do not fit."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from drsformer_arch.archs import NETWORKS
from drsformer_arch.archs.contract import Recognition, contract_of
from drsformer_arch.restore.outline import outline
from drsformer_arch.restore.outside import outside_networks
from drsformer_arch.restore.weights import read_weights
from drsformer_arch.system.errors import UserError, did_you_mean

MEFC_PREFIXES = ("encoder_level0.", "refinement.layers.")
A_LITTLE = 10  # one tensor of so many may differ in weights that are said to be nearly of a network
FEWEST_TENSORS = 50  # that are compared with the usual ones of our networks, which takes a second or two
SPARE_TENSORS = 200  # that an outline may have beyond twice those of the file, so that its message can compare them


def drop_unused(net: nn.Module | type, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what published files hold and no computation uses, as the network declares."""
    unused = contract_of(net).unused_keys
    return {key: value for key, value in state.items() if not (unused and unused.search(key))}


def recognise(state: Mapping[str, Tensor]) -> tuple[type[nn.Module], dict[str, Any]] | None:
    """Tell which network weights belong to, and the arguments to build it with; None where it is none that is known.

    Only what keys and shapes tell is found. Arguments that leave no trace in them have their default. Networks from
    outside whose contract has a `Recognition` are tried after ours.
    """
    for kind, arguments, net in _candidates(state):
        if explain_mismatch(net, drop_unused(kind, state)) is None:
            return kind, arguments
    return None


def _candidates(state: Mapping[str, Tensor]) -> Iterator[tuple[type[nn.Module], dict[str, Any], nn.Module]]:
    """Yield networks with the arguments that weights seem to have, and what those build, on the device meta."""
    for kind, recognition in _recognitions():
        if not all(key in state for key in recognition.keys):
            continue
        try:
            arguments = recognition.arguments(state)
            net = outline(kind, arguments, kind.__name__, most_tensors=_most_tensors(state))
        except (LookupError, ValueError, ArithmeticError, TypeError):  # of shapes that are no weights'
            continue
        yield kind, arguments, net


def _networks() -> Iterator[tuple[str, type[nn.Module]]]:
    """Yield networks with their names: ours, then those from outside, which are looked for where ours do not do."""
    own: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in NETWORKS}
    yield from own.items()
    yield from ((name, kind) for name, kind in outside_networks().items() if name not in own)


def _recognitions() -> Iterator[tuple[type[nn.Module], Recognition]]:
    """Yield networks whose weights can be recognised."""
    for _, kind in _networks():
        if (recognition := contract_of(kind).recognition) is not None:
            yield kind, recognition


def _explain_nearest(state: Mapping[str, Tensor]) -> str | None:
    """Say what keeps weights from being of a known network, where that is little; else None."""
    for kind, _, net in _candidates(state):
        used = drop_unused(kind, state)
        missing, unexpected = _differences(net.state_dict(), used)
        if len(missing) + len(unexpected) <= len(used) // A_LITTLE:
            return f"they are nearly those of {kind.__name__}, but {explain_mismatch(net, used)}"
    return _explain_missing(state) if len(state) > FEWEST_TENSORS else None


def _explain_missing(state: Mapping[str, Tensor]) -> str | None:
    """Name the missing tensor that tells the arguments of the network whose usual keys nearly all weights have."""
    lacking = []
    for kind, recognition in _recognitions():
        if missing := [key for key in recognition.keys if key not in state]:
            with contextlib.suppress(UserError):
                usual = outline(kind, {}, kind.__name__).state_dict()
                lacking.append((len(state.keys() - usual.keys()), kind.__name__, missing[0]))
    nearest = min(lacking, key=lambda entry: entry[0], default=(len(state), "", ""))  # the first of equals: ours
    unusual, name, key = nearest
    return f"they are nearly those of {name}, but {key} is missing" if unusual <= len(state) // A_LITTLE else None


def _differences(wanted: Mapping[str, object], given: Mapping[str, object]) -> tuple[set[str], set[str]]:
    """Compare keys: those that are missing, and those that are unknown."""
    return wanted.keys() - given.keys(), given.keys() - wanted.keys()


def _most_tensors(state: Mapping[str, Tensor]) -> int:
    return 2 * len(state) + SPARE_TENSORS


def load_network(path: Path | str, param_key: str | None = None) -> nn.Module:
    """Build the network of a checkpoint with its weights, ready for inference.

    Raises:
        UserError: no such file, no weights in it, or weights of a network that is not known.
    """
    section, state = network_of(path, param_key)
    return build_network(section, state, path)


def network_of(path: Path | str, param_key: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read `type` and arguments of a checkpoint's network, as under `network_g` of an option file, and its weights.

    Files that we wrote name their network and its arguments; others are recognised from keys and shapes.

    Raises:
        UserError: no such file, no weights in it, or weights of a network that is not known.
    """
    state, named, _ = read_weights(path, param_key)
    if named is not None:
        return named, state
    recognised = recognise(state)
    if recognised is None:
        state = _without_common_prefix(state)
        recognised = recognise(state)
    if recognised is None:
        names = ", ".join(kind.__name__ for kind, _ in _recognitions())
        nearest = _explain_nearest(state)
        reason = f"; {nearest}" if nearest else ", or of changed ones"
        raise UserError(f"{path}: these weights are of none of the networks {names}{reason}")
    kind, arguments = recognised
    return {"type": kind.__name__, **arguments}, state


def _without_common_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip what stands before all keys, as where a trainer keeps its network under a name of its own."""
    prefixes = {key.partition(".")[0] for key in state}
    if len(prefixes) > 1:
        return dict(state)
    return {key.partition(".")[2]: value for key, value in state.items()}


def build_network(
    section: Mapping[str, Any], state: Mapping[str, Tensor], path: Path | str, named_by: str = "its metadata"
) -> nn.Module:
    """Build a network with its weights, ready for inference.

    Args:
        section: `type` and arguments, as under `network_g` of an option file.
        state: the weights; what no computation uses may be there.
        path: where they come from, for messages.
        named_by: where the section comes from, in the plural, for messages.

    Raises:
        UserError: an unknown network, wrong arguments, weights that do not fit.
    """
    kind, arguments = kind_of(section, path)
    state = drop_unused(kind, state)
    # Everything is compared before anything is allocated: a file of a few bytes can name any size.
    planned = outline(kind, arguments, f"{path}: network", most_tensors=_most_tensors(state))
    problem = explain_mismatch(planned, state)
    if problem:
        actual = recognise(state)
        hint = f"; its weights are of {actual[0].__name__}" if actual and actual[0] is not kind else ""
        raise UserError(f"{path} does not fit {kind.__name__}, which {named_by} name: {problem}{hint}")
    net = kind(**arguments)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def kind_of(section: Mapping[str, Any], path: Path | str) -> tuple[type[nn.Module], dict[str, Any]]:
    """Look up the class of a network, and its arguments, which are still to be tried.

    Args:
        section: `type` and arguments, as under `network_g` of an option file.
        path: where it comes from, for messages.

    Raises:
        UserError: an unknown network.
    """
    for name, kind in _networks():
        if name == section["type"]:
            return kind, {key: value for key, value in section.items() if key != "type"}
    name = str(section["type"])[:80]
    hint = did_you_mean(name, (known for known, _ in _networks()))
    raise UserError(
        f"{path}: its network {name!r} is not ours, nor one from outside that was imported (--import FILE){hint}"
    )


def explain_mismatch(net: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """Say in one line why weights do not fit a network and what to change; None where they fit."""
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    missing, unexpected = _differences(wanted, given)
    if missing and not unexpected and all(key.startswith(MEFC_PREFIXES) for key in missing):
        return "the weights have no MEFC but the network has: set network_g.with_mefc: false"
    if unexpected and not missing and all(key.startswith(MEFC_PREFIXES) for key in unexpected):
        return "the weights have MEFC but the network has none: set network_g.with_mefc: true"
    if missing or unexpected:
        return (
            f"these are weights of another network or of other arguments: {len(missing)} of {len(wanted)} tensors "
            f"are missing{_example(missing)} and {len(unexpected)} are unknown{_example(unexpected)}"
        )
    different = [key for key in sorted(wanted) if wanted[key] != given[key]]
    if different:
        key = different[0]
        return (
            f"{len(different)} tensors have another shape (for example {key}: {given[key]} in the file, {wanted[key]} "
            f"in the network): the arguments under network_g differ from those the weights were trained with"
        )
    return None


def _example(keys: Collection[str]) -> str:
    return f" (for example {min(keys)[:80]})" if keys else ""
