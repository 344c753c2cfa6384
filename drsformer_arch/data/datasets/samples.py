"""Make training samples of the pictures of a source: window, padding, symmetry. Crop first, convert last."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from drsformer_arch.data.datasets.sources import Window
from drsformer_arch.images.pictures import Picture
from drsformer_arch.images.tensors import to_picture, to_tensor  # noqa: F401 - scripts have them from here

WHOLE = (slice(None), slice(None))


def random_window(shape: tuple[int, ...], size: int) -> tuple[slice, slice]:
    """Draw a square window of a picture of that shape, smaller where the picture is; draws as BasicSR does."""
    top = random.randint(0, max(shape[0] - size, 0))
    left = random.randint(0, max(shape[1] - size, 0))
    return slice(top, top + size), slice(left, left + size)


def cut(picture: Window, window: tuple[slice, slice], size: int) -> Picture:
    """A patch (size, size, C); what a smaller picture lacks below and at the right is reflected."""
    patch = picture[window]
    missing = size - patch.shape[0], size - patch.shape[1]
    if missing == (0, 0):
        return patch
    return np.pad(patch, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")


def random_scale(limits: Sequence[float]) -> float:
    """Draw a factor between the two limits, uniform in its logarithm."""
    low, high = limits
    return math.exp(random.uniform(math.log(low), math.log(high)))


def resize(patch: Picture, size: int) -> Picture:
    """A square patch (H, H, C) of another size; areas are averaged where it becomes smaller, else it is cubic."""
    if patch.shape[0] == size:
        return patch
    interpolation = cv2.INTER_AREA if patch.shape[0] > size else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(patch), (size, size), interpolation=interpolation).reshape(size, size, -1)


def random_symmetry(*, use_hflip: bool, use_rot: bool, use_vflip: bool = False) -> tuple[bool, bool, bool]:
    """Draw whether to mirror left and right, up and down, and to transpose; draws as BasicSR does."""
    hflip = use_hflip and random.random() < 0.5
    vflip = (use_rot or use_vflip) and random.random() < 0.5
    transpose = use_rot and random.random() < 0.5
    return hflip, vflip, transpose


def apply_symmetry(patch: Picture, symmetry: tuple[bool, bool, bool]) -> Picture:
    """A view of (H, W, C) under one of the 8 symmetries of the square."""
    hflip, vflip, transpose = symmetry
    if hflip:
        patch = patch[:, ::-1]
    if vflip:
        patch = patch[::-1]
    return patch.swapaxes(0, 1) if transpose else patch


def draw_patch(
    shape: tuple[int, ...], size: int, limits: Sequence[float] | None, **flips: bool
) -> Callable[[Window], Picture]:
    """Draw which square patch of pictures training takes and how, alike for both pictures of a pair.

    Args:
        shape: of the pictures, (H, W, C).
        size: of the patch, in pixels.
        limits: of the factor by which pictures are resized, or None.
        flips: see `random_symmetry`.

    Returns:
        a function that makes the patch (size, size, C) of a picture.
    """
    whole = size if limits is None else max(round(size / random_scale(limits)), 1)
    window, symmetry = random_window(shape, whole), random_symmetry(**flips)
    return lambda picture: apply_symmetry(resize(cut(picture, window, whole), size), symmetry)
