"""Pictures as a page shows them: small and large previews, and how much two pictures differ, in colours."""

import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from drsformer_arch.images.pictures import Picture

LARGEST_SIDE = 1600  # of previews in pixels; larger pictures are averaged down
QUALITY = 90  # of WebP
RESIDUAL_TOP = 32  # of 255: what the last colour of a residual map stands for


def residual_map(result: Picture, other: Picture) -> npt.NDArray[np.uint8]:
    """Show in colours where and how much two pictures of one size differ.

    Args:
        result: (H, W, C), C = 1 or 3, uint8 or uint16.
        other: of the same size; the depth may be the other one.

    Returns:
        (h, w, 3) RGB, at most LARGEST_SIDE: the mean over channels of the absolute difference, from 0 (black) to
        RESIDUAL_TOP of 255 and above, in whole levels. It is computed from all pixels, then averaged down.
    """
    if result.dtype != other.dtype:
        result, other = (
            picture.astype(np.uint16) * (65535 // np.iinfo(picture.dtype).max) for picture in (result, other)
        )
    shape = (*result.shape[:2], max(result.shape[2], other.shape[2]))
    one, two = (np.ascontiguousarray(np.broadcast_to(picture, shape)) for picture in (result, other))
    differences = cv2.absdiff(one, two).reshape(shape).mean(axis=2, dtype=np.float32)
    levels = resized(differences * np.float32(255 / np.iinfo(result.dtype).max), LARGEST_SIDE)
    return residual_colours()[np.rint(np.minimum(levels, RESIDUAL_TOP)).astype(np.uint8)]


def residual_colours() -> npt.NDArray[np.uint8]:
    """Return (RESIDUAL_TOP + 1, 3) RGB of the map "inferno", whose lightness grows evenly with the level."""
    positions = np.linspace(0, 255, RESIDUAL_TOP + 1).round().astype(np.uint8)
    bgr = cv2.applyColorMap(positions[:, None], cv2.COLORMAP_INFERNO).reshape(-1, 3)
    return bgr[:, ::-1].astype(np.uint8)


def limited(picture: Picture, side: int) -> npt.NDArray[np.uint8]:
    """Return a picture in 8 bits and at most `side` pixels wide and high, (h, w, C)."""
    small = resized(picture, side)
    if small.dtype == np.uint16:
        small = cv2.convertScaleAbs(small, alpha=1 / 257)
    return small.reshape(*small.shape[:2], picture.shape[2])


def resized(samples: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Average (H, W, ...) down to at most `side` pixels; OpenCV drops a last axis of 1."""
    height, width = samples.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return samples
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(samples, size, interpolation=cv2.INTER_AREA)


def webp(pixels: npt.NDArray[np.uint8], *, quality: int = QUALITY, lossless: bool = False) -> bytes:
    """Encode a picture, (H, W, C) RGB or gray, as WebP."""
    content = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(content, "WEBP", quality=quality, lossless=lossless, method=2)  # 4 takes twice as long for 1 %
    return content.getvalue()
