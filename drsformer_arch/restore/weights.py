"""Read weight files in the forms in which they circulate, executing nothing in them, and write them whole."""

import json
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from drsformer_arch import __version__
from drsformer_arch.restore.file_kinds import SAFETENSORS, kind_of_weights
from drsformer_arch.system.errors import UserError, did_you_mean, first_few, is_out_of_memory
from drsformer_arch.system.files import expanded, refuse_no_file, write_atomically
from drsformer_arch.system.json_files import parse_json

SHIPPED = Path(__file__).parents[1] / "weights"
DEFAULT = "DRSformer-S"  # the shipped weights that are taken where none are named
# Averaged weights first: they are the ones that validation scores, and what other tools take.
PARAM_KEYS = ("params_ema", "params", "state_dict")
AVERAGES = ("state_dict_ema", "model_ema", "ema", "g_ema")  # of other trainers
OTHERS = ("model_state_dict", "model", "net", "network", "net_g", "netG", "generator")
WRAPPERS = ("module.", "_orig_mod.")  # before all keys: of DataParallel and AveragedModel, of torch.compile
MOST_WRAPPERS = 3  # of a kind around one network
# Numbers that torch.optim.swa_utils and thop write down in a network: how many were averaged, what was counted.
BY_PRODUCTS = re.compile(r"(^|\.)(n_averaged|total_ops|total_params)$")
LONGEST_NETWORK = 10_000  # characters of a network's arguments in metadata
SHARING = 2  # tensors of a file may lie on each other, but not stand for more than so many times its size


class Habits(NamedTuple):
    """Settings of inference that belong to weights, for all runs in which nobody names others."""

    upright: bool = False  # they know rain only as it falls, so a mean of symmetries lays no picture on its side
    tile: int = 0  # longest side of tiles in px, near what the network had in training; 0: whole pictures
    overlap: int = 32  # px that neighbouring tiles share


# Heads attend over all pixels that they see. Trained on patches of up to 160 px, they do a little better on parts of a
# large picture than on the whole, most of all in heavy rain (Chu et al., ECCV 2022, say why: docs/drsformer_s.md).
SHIPPED_HABITS = Habits(upright=True, tile=320, overlap=64)


class Weights(NamedTuple):
    """Weights of a network, and what their file says of it."""

    state: dict[str, Tensor]  # on the CPU
    network: dict[str, Any] | None  # `type` and arguments, as under `network_g` of an option file, where it says so
    entry: str | None  # the one the weights were taken from; None: the bare file


def find_weights(name: Path | str) -> Path:
    """Find the file of weights that a user named: a path, or the name of weights that are shipped with the package.

    Raises:
        UserError: neither.
    """
    path = expanded(name)
    refuse_no_file(path, "weights")
    if path.is_file():
        return path
    shipped = {file.stem: file for file in SHIPPED.glob(f"*{SAFETENSORS}")}
    if str(name) in shipped:
        return shipped[str(name)]
    hint = did_you_mean(str(name), shipped) if shipped and not path.suffix else ""
    raise UserError(f"there is no file {name}{hint}")


def is_shipped(path: Path) -> bool:
    """Tell whether a file of weights is one that comes with the package."""
    return path.parent == SHIPPED


def habits_of(weights: Path | str | None) -> Habits:
    """Return the habits of weights, as a user names them: the shipped ones have their own."""
    return SHIPPED_HABITS if weights is not None and is_shipped(find_weights(weights)) else Habits()


def load_file(path: Path | str, *, mmap: bool = False) -> Any:
    """Load a file on the CPU as `torch.load` does, executing nothing; safetensors come as from a .pth file.

    Args:
        path: of whatever name: what is in the file decides how it is read.
        mmap: leave tensors in the file until they are used, where its form allows that (not before torch 1.6).

    Raises:
        UserError: no such file, another kind of file, a damaged one, or one that holds more than tensors and plain
            values.
    """
    path = Path(path)
    try:
        kind = kind_of_weights(path)
        if kind == "safetensors":
            return _load_safetensors(path)
        if mmap and kind == "zip":
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with path.open("rb") as file:  # of a path, torch looks at the name
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except Exception as error:  # a damaged pickle fails in whatever way its first wrong byte leads to
        raise UserError(f"{path} {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, pickle.UnpicklingError):  # torch's message advises to execute it
        names = re.findall(r"GLOBAL ([\w.]+)|<(?:class|built-in function|function) '?([\w.]+)", str(error))
        if names:
            return (
                f"holds Python objects ({''.join(names[0])}), and code and objects are not loaded; "
                "whoever made it saves the tensors alone: torch.save(net.state_dict(), FILE)"
            )
        return "is damaged: its list of contents cannot be read"
    message = str(error).strip()
    return f"is damaged: {message.splitlines()[0][:200] if message else type(error).__name__}"


def _load_safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt", device="cpu") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
        metadata = file.metadata() or {}
    return {"params": state, "network": parse_network(metadata["network"], path) if "network" in metadata else None}


def parse_network(text: str, path: Path | str) -> dict[str, Any]:
    """Read what the metadata of a file say of its network: `type` and arguments, which are still to be tried.

    Raises:
        UserError: they say nothing that can be read.
    """
    try:
        if len(text) > LONGEST_NETWORK:
            raise ValueError("it is too long")
        network = parse_json(text)
        if not isinstance(network, dict) or not isinstance(network.get("type"), str):
            raise ValueError("there is no type")
    except ValueError as error:
        raise UserError(f"{path}: what its metadata say about the network cannot be read: {error}") from error
    return network


def read_weights(path: Path | str, param_key: str | None = None, *, finite: bool = True, mmap: bool = False) -> Weights:
    """Read the weights of a network; nothing in the file is executed.

    Args:
        path: a file of BasicSR (`params`, `params_ema`), of other trainers (`state_dict`, `model`, ...), or the bare
            weights, with or without `module.` before the keys; pickled or safetensors. Or the name of shipped weights.
        param_key: the entry wanted; where it is missing, the first of the known ones, the only one, or the bare file
            is taken.
        finite: refuse weights that are NaN or infinite.
        mmap: see `load_file`.

    Raises:
        UserError: no such file, no weights in it, or weights that nothing can be computed with.
    """
    path = find_weights(path)
    content = load_file(path, mmap=mmap)
    named = content.get("network") if isinstance(content, Mapping) else None
    network = dict(named) if isinstance(named, Mapping) and isinstance(named.get("type"), str) else None
    state, entry = _choose(content, param_key, path)
    state = without_by_products(state)
    for wrapper in WRAPPERS * MOST_WRAPPERS:  # an average of what is distributed has two of a kind
        if all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    _check_tensors(state, path, finite=finite)
    return Weights(state, network, entry)


def _choose(content: Any, param_key: str | None, path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Choose the weights in a file, and name the entry that they are in."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not the weights of a network by their names")
    if not content:
        raise UserError(f"{path} holds nothing: an empty dictionary")
    if _are_weights(content):
        return dict(content), None
    candidates = {key: value for key, value in content.items() if isinstance(key, str) and _are_weights(value)}
    only = tuple(candidates) if len(candidates) == 1 else ()
    for key in (param_key, *PARAM_KEYS[:2], *AVERAGES, *PARAM_KEYS[2:], *OTHERS, *only):
        if key is not None and key in candidates:
            return dict(candidates[key]), key
    if candidates:
        names = first_few(sorted(candidates))
        raise UserError(f"{path} holds several weights: {names}; choose with --param-key (path.param_key_g)")
    if {"param_groups", "state"} <= content.keys() or {"optimizers", "schedulers"} <= content.keys():
        raise UserError(f"{path} holds the state of an optimizer, no weights; BasicSR's are models/net_g_ITERATION.pth")
    entries = first_few([f"{str(key)[:40]} ({_describe(value)})" for key, value in content.items()])
    raise UserError(f"{path} holds no network weights; its entries: {entries}")


def without_by_products(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop single numbers that tools leave in a network, if there is anything else."""
    kept = {key: value for key, value in state.items() if not (BY_PRODUCTS.search(key) and value.numel() == 1)}
    return kept or dict(state)


def _are_weights(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _describe(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _check_tensors(state: Mapping[str, Tensor], path: Path, *, finite: bool) -> None:
    """Refuse tensors that are no plain numbers, or stand for more numbers than the file can hold.

    Raises:
        UserError: the first one.
    """
    claimed = 0
    for key, value in state.items():
        problem = _problem_of(value)
        if problem:
            raise UserError(f"{path}: {key[:80]} {problem}; weights are dense tensors of real numbers")
        claimed += math.prod(value.shape) * value.element_size()
    if claimed > SHARING * path.stat().st_size:
        raise UserError(f"{path} says that it holds {claimed:,} bytes of weights, more than its size")
    for key, value in state.items() if finite else ():
        numbers = value if value.element_size() > 1 or not value.is_floating_point() else value.float()
        if not numbers.isfinite().all():
            raise UserError(
                f"{path}: {key[:80]} holds values that are NaN or infinite, as after a training that failed; "
                "take an earlier checkpoint"
            )


def _problem_of(value: Tensor) -> str | None:
    if value.is_nested or value.layout is not torch.strided:
        return "is sparse or nested"
    if value.is_quantized:
        return "is quantized"
    if value.device.type == "meta":
        return "is without values (device meta)"
    if value.is_complex():
        return "is complex"
    return None


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
