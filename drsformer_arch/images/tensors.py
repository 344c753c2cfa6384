"""Pictures in memory as tensors of networks, and back; needs numpy and torch only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from drsformer_arch.images.pictures import Picture


def to_tensor(picture: Picture) -> torch.Tensor:
    """(H, W, 3) RGB or (H, W, 1) gray of 8 or 16 bits → (3, H, W) float32 RGB in [0, 1]."""
    planes = np.broadcast_to(picture, (*picture.shape[:2], 3)).transpose(2, 0, 1)
    # First in order, as bytes, then converted: mirrored and transposed views are slow to read twice.
    samples = np.ascontiguousarray(planes).astype(np.float32)
    samples /= np.float32(np.iinfo(picture.dtype).max)
    return torch.from_numpy(samples)


def to_picture(image: torch.Tensor, dtype: npt.DTypeLike = np.uint8) -> Picture:
    """(C, H, W) in [0, 1] → (H, W, C) of 8 or 16 bits, clamped and rounded."""
    samples = image.clamp(0, 1).cpu().numpy() * np.float32(np.iinfo(np.dtype(dtype)).max)
    return np.ascontiguousarray(np.rint(samples).astype(dtype).transpose(1, 2, 0))
