"""Restoring pictures: value range, padding, tiles, weights."""

from drsformer_arch.inference.tiling import inference_form, pad_to_multiple, restore, restored
from drsformer_arch.inference.weights import (
    build_network,
    drop_unused,
    explain_mismatch,
    load_network,
    read_state_dict,
    recognise,
)

__all__ = [
    "build_network",
    "drop_unused",
    "explain_mismatch",
    "inference_form",
    "load_network",
    "pad_to_multiple",
    "read_state_dict",
    "recognise",
    "restore",
    "restored",
]
