"""Rain streaks drawn on clean photographs, from a seed.

A falling drop is smeared by the exposure into a bright, half-transparent streak whose brightness varies along its
length, because the drop oscillates while it falls (K. Garg and S. K. Nayar, "Vision and Rain", IJCV 2007). As in the
usual recipe of the synthetic deraining sets, every streak is a point of sparse noise smeared by a line kernel, in
several layers (near drops: few, long, thick and out of focus; far drops: many, short, thin and faint). A layer of
streaks ``S`` joins the scene ``J``, both in [0, 1], by

    R = J + S * (1 - screen * J),

which with ``screen = 0`` is the additive model of Rain100 and Rain200 (W. Yang et al., "Deep Joint Rain Detection and
Removal from a Single Image", CVPR 2017) and with ``screen = 1`` the screen blend: a drop refracts the light of the
whole sky, so it stands out on dark ground and almost disappears on bright ground.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

Strength = Literal["light", "medium", "heavy"]


class _Layer(NamedTuple):
    """One depth of the rain; the factors multiply the values of :class:`RainParameters`."""

    share: float  # of all streaks; far drops are the most because the volume seen grows with the distance
    length: float
    width: float
    opacity: float
    wobble: float  # standard deviation in degrees of one streak's direction around that of its layer


_LAYERS = (
    _Layer(share=0.56, length=0.55, width=0.70, opacity=0.55, wobble=1.2),  # far
    _Layer(share=0.37, length=1.00, width=1.00, opacity=1.00, wobble=2.0),  # middle
    _Layer(share=0.07, length=1.60, width=1.90, opacity=0.75, wobble=2.6),  # near: out of focus, so wide and soft
)

# Ranges of a uniform draw, per strength; the unit of each is given in RainParameters.
_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "light": {
        "length": (14, 36),
        "width": (1.2, 2.0),
        "density": (12, 26),
        "opacity": (0.4, 0.65),
        "veil": (0, 0.02),
    },
    "medium": {
        "length": (20, 48),
        "width": (1.3, 2.6),
        "density": (22, 46),
        "opacity": (0.45, 0.75),
        "veil": (0, 0.05),
    },
    "heavy": {
        "length": (26, 60),
        "width": (1.4, 2.8),
        "density": (40, 80),
        "opacity": (0.5, 0.8),
        "veil": (0.03, 0.1),
    },
}

_LEGAL: dict[str, tuple[float, float]] = {
    "angle": (-80, 80),
    "length": (1, 1000),
    "width": (0.1, 100),
    "density": (0, 1000),
    "opacity": (0, 1),
    "screen": (0, 1),
    "veil": (0, 1),
}

_KERNELS_PER_LAYER = 16  # enough that no two neighbouring streaks look like copies, few enough to cost nothing
_AIRLIGHT = 0.85  # brightness of the veil: an overcast sky


@dataclass(frozen=True)
class RainParameters:
    """How the rain of one picture looks. All values are finite.

    Lengths are in pixels of the picture that is rained on: what suits a 481 x 321 picture is fine drizzle on one of
    24 megapixels.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    #: direction of fall in degrees from the vertical, -80 to 80; positive leans to the right at the top, like ``/``
    angle: float = 10.0
    #: length of a streak of the middle layer in px, 1 to 1000
    length: float = 30.0
    #: width of a streak of the middle layer (full width at half maximum) in px, 0.1 to 100
    width: float = 1.6
    #: mean number of streaks of all layers in 100 x 100 px, 0 to 1000
    density: float = 20.0
    #: brightness of the strongest streaks of the middle layer, 0 (invisible) to 1 (white)
    opacity: float = 0.6
    #: how the streaks are blended, 0 (added and clipped, as in Rain100 and Rain200) to 1 (screen)
    screen: float = 0.6
    #: loss of contrast through rain too far away to be seen as streaks, 0 (none) to 1 (only gray is left)
    veil: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), _LEGAL[field.name]
            if not low <= value <= high:  # NaN fails too
                raise ValueError(f"rain parameter {field.name} must lie between {low:g} and {high:g}, not {value!r}")

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: Strength | None = None) -> RainParameters:
        """Draw plausible rain.

        Args:
            rng: source of all randomness; it is advanced.
            strength: "light", "medium" or "heavy"; None draws one of them with equal chances.

        Raises:
            ValueError: unknown strength.
        """
        if strength is None:
            strength = get_args(Strength)[rng.integers(len(_RANGES))]
        if strength not in _RANGES:
            raise ValueError(f"unknown strength of rain {strength!r}; known are {', '.join(_RANGES)}")
        drawn = {name: float(rng.uniform(low, high)) for name, (low, high) in _RANGES[strength].items()}
        # Wind is as often from the left as from the right, mostly weak, sometimes strong.
        angle = float(np.clip(rng.normal(0, 14), -45, 45))
        return cls(angle=angle, screen=float(rng.uniform(0.3, 0.9)), **drawn)


def add_rain(
    clean: npt.NDArray[np.uint8], rng: np.random.Generator, parameters: RainParameters | None = None
) -> npt.NDArray[np.uint8]:
    """Draw rain on a clean picture.

    The same picture, parameters and state of ``rng`` give the same bytes; no other randomness is used.

    Args:
        clean: (H, W, 3) or (H, W), uint8, 0 to 255; streaks are gray, so the order of the channels does not matter.
            It is not changed.
        rng: source of all randomness; it is advanced.
        parameters: the look of the rain; None draws it with :meth:`RainParameters.sample`.

    Returns:
        the rainy picture, a new array of the shape of ``clean``, uint8, 0 to 255; no pixel is darker than in ``clean``.

    Raises:
        TypeError: ``clean`` is not an array of uint8.
        ValueError: ``clean`` has another shape than those above, or no pixels.
    """
    if not isinstance(clean, np.ndarray) or clean.dtype != np.uint8:
        raise TypeError(f"rain needs an array of uint8, not {getattr(clean, 'dtype', type(clean).__name__)}")
    if clean.size == 0 or not (clean.ndim == 2 or (clean.ndim == 3 and clean.shape[2] == 3)):
        raise ValueError(f"rain needs a picture of shape (H, W, 3) or (H, W) with pixels in it, not {clean.shape}")
    if parameters is None:
        parameters = RainParameters.sample(rng)

    scene = clean.astype(np.float32) / 255
    # Rain adds light: what is brighter than the sky keeps its brightness, so that no pixel ever becomes darker.
    scene += parameters.veil * np.maximum(_AIRLIGHT - scene, 0)
    for layer in _LAYERS:
        streaks = _draw_layer(clean.shape[:2], rng, parameters, layer)
        streaks = streaks.reshape(streaks.shape + (1,) * (clean.ndim - 2))
        # Near rain lies in front of far rain, hence layer on layer from far to near.
        scene = np.minimum(scene + streaks * (1 - parameters.screen * scene), 1)
    return np.rint(scene * 255).astype(np.uint8)


def _draw_layer(
    shape: tuple[int, ...], rng: np.random.Generator, parameters: RainParameters, layer: _Layer
) -> npt.NDArray[np.float32]:
    """Streaks of one layer, (H, W) float32 in [0, 1]."""
    height, width = shape
    angle = parameters.angle + rng.normal(0, 2)  # the wind differs a little with the distance
    kernels = [
        _streak_kernel(
            rng,
            angle=angle + rng.normal(0, layer.wobble),
            length=parameters.length * layer.length * rng.uniform(0.6, 1.4),
            width=parameters.width * layer.width * rng.uniform(0.75, 1.25),
        )
        for _ in range(_KERNELS_PER_LAYER)
    ]
    pad_y, pad_x = (max(kernel.shape[axis] for kernel in kernels) // 2 for axis in (0, 1))
    # Drops also fall around the picture, so that streaks enter it across its border.
    padded_height, padded_width = height + 2 * pad_y, width + 2 * pad_x
    count = rng.poisson(parameters.density * layer.share * padded_height * padded_width / 1e4)
    rows = rng.integers(padded_height, size=count)
    columns = rng.integers(padded_width, size=count)
    chosen = rng.integers(len(kernels), size=count)
    # Many faint streaks and few strong ones.
    brightness = (parameters.opacity * layer.opacity * rng.beta(1.6, 2.4, size=count)).astype(np.float32)

    # A kernel stamped at every drop equals the convolution of sparse noise with it, at a cost that falls with the rain.
    canvas = np.zeros((padded_height + 2 * pad_y, padded_width + 2 * pad_x), np.float32)
    for row, column, index, bright in zip(rows, columns, chosen, brightness, strict=True):
        kernel = kernels[index]
        top = row + pad_y - kernel.shape[0] // 2
        left = column + pad_x - kernel.shape[1] // 2
        canvas[top : top + kernel.shape[0], left : left + kernel.shape[1]] += bright * kernel
    return np.minimum(canvas[2 * pad_y : 2 * pad_y + height, 2 * pad_x : 2 * pad_x + width], 1)


def _streak_kernel(rng: np.random.Generator, *, angle: float, length: float, width: float) -> npt.NDArray[np.float32]:
    """One anti-aliased streak, (odd, odd) float32 in about [0, 1], its middle within half a pixel of the kernel's.

    Args:
        rng: source of the position between pixels and of the brightness along the streak.
        angle: degrees from the vertical.
        length: px.
        width: full width at half maximum, px.
    """
    radians = np.deg2rad(angle)
    # Below this deviation the grid would show as a staircase; a thinner streak becomes fainter instead.
    sigma = max(width / 2.355, 0.5)
    peak = min(width / 2.355 / sigma, 1)
    reach = length / 2 + 3 * sigma
    half_height = int(np.ceil(reach * abs(np.cos(radians)) + 3 * sigma))
    half_width = int(np.ceil(reach * abs(np.sin(radians)) + 3 * sigma))
    shift_y, shift_x = rng.uniform(-0.5, 0.5, size=2)
    y, x = np.mgrid[-half_height : half_height + 1, -half_width : half_width + 1].astype(np.float64)
    y -= shift_y
    x -= shift_x
    along = x * np.sin(radians) - y * np.cos(radians)
    across = x * np.cos(radians) + y * np.sin(radians)

    # Ends fade over a third of the length: nothing in rain starts as abruptly as a scratch does.
    fade = max(length / 3, 1.0)
    ends = np.clip((length / 2 - np.abs(along)) / fade + 0.5, 0, 1)
    ends = ends * ends * (3 - 2 * ends)
    waves = 1 + rng.uniform(0, 0.5) * np.cos(2 * np.pi * (along / length * rng.uniform(0.5, 2) + rng.uniform()))
    kernel = peak * np.exp(-0.5 * (across / sigma) ** 2) * ends * waves / 1.25
    return kernel.astype(np.float32)
