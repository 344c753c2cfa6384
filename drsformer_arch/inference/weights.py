"""Read checkpoints in the forms in which they circulate, and say in one line why one does not fit a network."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drsformer_arch.errors import UserError

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
    content = load_file(path)
    found = None
    for key in (param_key, *PARAM_KEYS):
        if key is not None and isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content, found = content[key], key
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{path} holds no network weights (looked for {param_key}, {', '.join(PARAM_KEYS)} or bare)")
    return {key.removeprefix("module."): value for key, value in content.items()}, found


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
