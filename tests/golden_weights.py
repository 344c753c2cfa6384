"""The recipe of tests/golden: weights follow from the key, inputs from a seed (nothing large needs storing)."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from drsformer_arch.archs import NETWORKS

GOLDEN = Path(__file__).parent / "golden"


def load_json(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def small_arguments() -> dict[str, dict]:
    """Arguments of a small network of each class by its name: those of its golden values."""
    return {kind.__name__: load_json(f"{kind.__name__.lower()}_small")["config"] for kind in NETWORKS}


def golden_tensor(key: str, shape: tuple[int, ...], gain: float = 1.0) -> Tensor:
    x = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    leaf = key.rpartition(".")[2]
    if leaf == "weight" and len(shape) >= 2:
        x = gain * x / math.sqrt(math.prod(shape[1:]))
    elif leaf == "weight":
        x = 1 + 0.1 * x
    elif leaf in ("bias", "relative_position_bias_table", "running_mean"):
        x = 0.1 * x
    elif leaf == "temperature":
        x = 2 + 0.3 * x
    elif leaf in ("beta", "gamma"):
        x = 0.5 + 0.1 * x
    elif leaf == "running_var":
        x = 1 + 0.1 * np.abs(x)
    elif leaf == "num_batches_tracked":
        return torch.tensor(0)
    elif leaf in ("attn1", "attn2", "attn3", "attn4"):
        x = 0.25 + 0.1 * x
    else:
        raise KeyError(f"the golden recipe knows no leaf {leaf!r}")
    return torch.from_numpy(x.astype(np.float32))


def golden_state(shapes: dict[str, tuple[int, ...]], gain: float = 1.0) -> dict[str, Tensor]:
    return {key: golden_tensor(key, tuple(shape), gain) for key, shape in shapes.items()}


def load_golden_weights(net: nn.Module, gain: float = 1.0) -> nn.Module:
    net.load_state_dict(golden_state({key: tuple(value.shape) for key, value in net.state_dict().items()}, gain))
    return net


def golden_input(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).rand(*shape).astype(np.float32))
