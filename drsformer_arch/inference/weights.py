"""Weight files in the forms in which they circulate: read without executing anything in them, and written whole."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from drsformer_arch import __version__
from drsformer_arch.errors import UserError, did_you_mean
from drsformer_arch.files import write_atomically

SHIPPED = Path(__file__).parents[1] / "weights"
DEFAULT = "DRSformer-S"  # the shipped weights that are taken where none are named
SAFETENSORS = ".safetensors"
# Averaged weights first: they are the ones that validation scores, and what other tools take.
PARAM_KEYS = ("params_ema", "params", "state_dict")
# Damaged pickles fail in whatever way their first wrong byte leads to.
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    safetensors.SafetensorError,
)


class Weights(NamedTuple):
    """What a file holds of a network."""

    state: dict[str, Tensor]  # on the CPU
    network: dict[str, Any] | None  # `type` and arguments, as under `network_g` of an option file, where it says so
    entry: str | None  # the one the weights were taken from; None: the bare file


def find_weights(name: Path | str) -> Path:
    """The file of weights that a user named: a path, or the name of weights that are shipped with the package.

    Raises:
        UserError: neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = {file.stem: file for file in SHIPPED.glob(f"*{SAFETENSORS}")}
    if str(name) in shipped:
        return shipped[str(name)]
    hint = did_you_mean(str(name), shipped) if shipped and not path.suffix else ""
    raise UserError(f"there is no file {name}{hint}")


def load_file(path: Path | str, **options: Any) -> Any:
    """`torch.load` on the CPU that executes nothing in the file; safetensors come as they would from a .pth file.

    Raises:
        UserError: no such file, damaged, or holding more than tensors and plain values.
    """
    try:
        if Path(path).suffix == SAFETENSORS:
            return _load_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True, **options)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except pickle.UnpicklingError as error:  # torch's message advises to execute it
        raise UserError(f"{path} is damaged or no weight file; code and objects are not loaded") from error
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is damaged or no weight file: {reason}") from error


def _load_safetensors(path: Path | str) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt", device="cpu") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
        metadata = file.metadata() or {}
    network = json.loads(metadata["network"]) if "network" in metadata else None
    return {"params": state, "network": network}


def read_weights(path: Path | str, param_key: str | None = None) -> Weights:
    """Read the weights of a network; nothing in the file is executed.

    Args:
        path: a file of BasicSR (`params`, `params_ema`), of other trainers (`state_dict`), or the bare weights, with
            or without `module.` before the keys; pickled or safetensors. Or the name of shipped weights.
        param_key: the entry wanted; where it is missing, the first of `params_ema`, `params`, `state_dict` or the
            bare file is taken.

    Raises:
        UserError: no such file, or no weights in it.
    """
    content = load_file(find_weights(path))
    named = content.get("network") if isinstance(content, Mapping) else None
    network = dict(named) if isinstance(named, Mapping) and "type" in named else None
    found = None
    for key in (param_key, *PARAM_KEYS):
        if key is not None and isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content, found = content[key], key
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{path} holds no network weights (looked for {param_key}, {', '.join(PARAM_KEYS)} or bare)")
    return Weights({key.removeprefix("module."): value for key, value in content.items()}, network, found)


def save_safetensors(path: Path, state: Mapping[str, Tensor], network: Mapping[str, Any], **notes: str) -> None:
    """Write weights with the arguments of their network; there is the old file or the new one, never a part.

    Args:
        path: ends with .safetensors.
        state: the weights.
        network: `type` and arguments, as under `network_g` of an option file.
        notes: further metadata, such as the data and the licence of the weights.

    Raises:
        OSError: the folder is not writable, the disk is full.
    """
    metadata = {"network": json.dumps(network), "drsformer_version": __version__, **notes}
    contiguous = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_atomically(path, safetensors.torch.save(contiguous, metadata))
