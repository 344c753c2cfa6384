"""Restoring pictures: padding, tiles, weights."""

from drsformer_arch.inference.tiling import pad_to_multiple, restore
from drsformer_arch.inference.weights import explain_mismatch, read_state_dict

__all__ = ["explain_mismatch", "pad_to_multiple", "read_state_dict", "restore"]
