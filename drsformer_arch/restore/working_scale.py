"""Derain large photographs at a smaller size: the rain that is found there is taken from the picture at its own.

Networks know rain of the size that it had in training, in pictures of about 500 pixels. Streaks in a photograph of many
megapixels are ten times as long and as wide, and pass for things of the scene. Smaller, they look as they should.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from drsformer_arch.system.errors import UserError

Scale = float | Literal["auto"]
LARGEST_PIXELS = 2_500_000  # of a picture that the shipped network derains as it is: full HD still is


def parse_scale(value: str | float) -> Scale:
    """Read a scale that a user gave: "auto", or a number above 0 and at most 1.

    Raises:
        UserError: anything else.
    """
    if value == "auto":
        return "auto"
    try:
        scale = float(value)
    except ValueError:
        scale = math.nan
    if not 0 < scale <= 1:
        raise UserError(f"the scale must be auto, or a number above 0 and at most 1 such as 0.5, not {value}")
    return scale


def automatic_scale(height: int, width: int) -> float:
    """Choose the scale for a picture: halved until no more than `LARGEST_PIXELS` are left.

    >>> automatic_scale(1080, 1920), automatic_scale(3000, 4000)
    (1.0, 0.25)
    """
    scale = 1.0
    while height * width * scale**2 > LARGEST_PIXELS:
        scale /= 2
    return scale


def at_scale(run: Callable[[Tensor], Tensor], image: Tensor, scale: float) -> Tensor:
    """Derain pictures at a smaller size, and take the rain that is found, enlarged, from the pictures themselves.

    Args:
        run: derains (N, C, h, w), values in [0, 1], and returns the same shape.
        image: (N, C, H, W), values in [0, 1].
        scale: of the sides, above 0 and at most 1; at 1 the pictures are derained as they are.

    Returns:
        The shape of `image`; detail that is finer than the smaller pictures stays as it was. Not clamped.
    """
    if scale == 1:
        return run(image)
    height, width = image.shape[-2:]
    size = [max(math.floor(side * scale + 0.5), 1) for side in (height, width)]
    small = F.interpolate(image, size, mode="area")
    rain = small - run(small)
    return image - F.interpolate(rain, (height, width), mode="bilinear", align_corners=False)
