"""Restoring pictures: value range, padding, tiles, weights."""

from drsformer_arch.restore.networks import (
    build_network,
    drop_unused,
    explain_mismatch,
    load_network,
    recognise,
)
from drsformer_arch.restore.tiling import forward_scaled, inference_form, pad_to_multiple, restore
from drsformer_arch.restore.weights import find_weights, read_weights, save_safetensors

__all__ = [
    "build_network",
    "drop_unused",
    "explain_mismatch",
    "find_weights",
    "forward_scaled",
    "inference_form",
    "load_network",
    "pad_to_multiple",
    "read_weights",
    "recognise",
    "restore",
    "save_safetensors",
]
