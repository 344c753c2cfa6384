"""Rain drawn on clean photographs, from a seed: single streaks, dense curtains of rain, veil, levels and JPEG.

A falling drop is smeared by the exposure into a bright, half-transparent streak whose brightness varies along its
length, because the drop oscillates while it falls (K. Garg and S. K. Nayar, "Vision and Rain", IJCV 2007). Rain ``S``
joins the scene ``J``, both in [0, 1], layer by layer from far to near, by

    R = J + S * (1 - screen * J), clipped at 1,

which with ``screen = 0`` is the additive model of Rain100, Rain200L and Rain200H (W. Yang et al., "Deep Joint Rain
Detection and Removal from a Single Image", CVPR 2017) and with ``screen = 1`` the screen blend of Rain800 (H. Zhang et
al., "Image De-raining Using a Conditional Generative Adversarial Network", TCSVT 2019): a drop refracts the light of
the whole sky, so it stands out on dark ground and almost disappears on bright ground.

Presets are mixtures of recipes in one table, `_PRESETS`. Three of them imitate benchmark sets:

========  =============================================================================================================
preset    rain
========  =============================================================================================================
rain200l  gray streaks in one direction, with beads along them and specks between; added; about 27 dB PSNR
rain200h  hard parallel lines of one brightness, and soft streaks along and across them; added, clipped; about 14 dB
rain800   white noise blurred along one line and cut off at black; screened, then levels over the whole picture (which
          may come out darker than it went in), then JPEG of quality 75; about 24 dB
light     drawn after no set: three depths of streaks in one direction, blended between adding and screening
medium    the same, stronger
heavy     the same, stronger still
========  =============================================================================================================

`scripts/compare_rain.py` measures how near the first three come. The values of their recipes were fitted to training
pairs of Rain100L (the same rain as Rain200L), Rain200H and Rain800: autocorrelation along and across the streaks and
brightness of the residuals, and for Rain800 the rainy picture's gray values as a function of the clean one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import cv2
import numpy as np
import numpy.typing as npt

from drsformer_arch.errors import did_you_mean

Preset = Literal["light", "medium", "heavy", "rain200l", "rain200h", "rain800"]
Strength = Literal["light", "medium", "heavy"]
Plane = npt.NDArray[np.float32]
Pixel = TypeVar("Pixel", np.uint8, np.uint16)

PRESETS: tuple[Preset, ...] = get_args(Preset)

_KERNELS_PER_LAYER = 16  # enough that no two neighbouring streaks look like copies, few enough to cost nothing
_AIRLIGHT = 0.85  # brightness of the veil: an overcast sky
_SIGMA_PER_WIDTH = 1 / 2.355  # of a normal curve, whose full width at half maximum is 2 sqrt(2 ln 2) sigma
_JPEG_UNIT = 16  # px, the grid of JPEG with halved chroma
_JPEG_LARGEST = 65500  # px, of libjpeg

# Legal range of every field of the classes below; the unit of each is given there.
_LEGAL: dict[str, tuple[float, float]] = {
    "angle": (-80, 80),
    "drift": (0, 45),
    "wobble": (0, 45),
    "length": (1, 1000),
    "length_spread": (0, 0.9),
    "width": (0.1, 100),
    "width_spread": (0, 0.9),
    "density": (0, 1000),
    "brightness": (0, 1),
    "faintness": (0.1, 100),
    "ripple": (0, 1),
    "ripples": (0.5, 100),
    "fade": (0, 1),
    "ceiling": (0, 1),
    "mean": (-1, 1),
    "contrast": (0, 1),
    "screen": (0, 1),
    "veil": (0, 1),
    "black": (0, 0.9),
    "white": (0.1, 2),
    "gamma": (0.1, 10),
    "jpeg_quality": (1, 100),
}


def _check_ranges(instance: Any) -> None:
    for field in fields(instance):
        value = getattr(instance, field.name)
        if field.name not in _LEGAL or (field.name == "jpeg_quality" and value is None):
            continue
        low, high = _LEGAL[field.name]
        if not low <= value <= high:  # NaN fails too
            raise ValueError(f"rain parameter {field.name} must lie between {low:g} and {high:g}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Streaks:
    """A layer of single streaks, all at about one distance.

    Lengths are in pixels of the picture that is rained on: what suits a 481 x 321 picture is fine drizzle on one of
    24 megapixels.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    #: direction of fall in degrees from the vertical, -80 to 80; positive leans to the right at the top, like ``/``
    angle: float = 10.0
    #: standard deviation of the whole layer's direction around ``angle``, degrees, 0 to 45
    drift: float = 0.0
    #: standard deviation of one streak's direction around that of its layer, degrees, 0 to 45
    wobble: float = 1.0
    #: mean length of a streak in px, 1 to 1000, measured between the middles of its fading ends
    length: float = 30.0
    #: lengths are uniform in length * (1 ± length_spread), 0 to 0.9
    length_spread: float = 0.4
    #: mean width of a streak (full width at half maximum) in px, 0.1 to 100
    width: float = 1.6
    #: widths are uniform in width * (1 ± width_spread), 0 to 0.9
    width_spread: float = 0.25
    #: mean number of streaks in 100 x 100 px, 0 to 1000
    density: float = 20.0
    #: brightness of the strongest streaks, 0 (invisible) to 1 (white)
    brightness: float = 0.6
    #: brightness of a streak is brightness * Beta(1.6, faintness); the larger, the rarer are strong ones, 0.1 to 100
    faintness: float = 2.4
    #: largest depth of the beads along a streak, 0 (even) to 1 (dark gaps)
    ripple: float = 0.5
    #: largest number of beads on a streak, 0.5 to 100
    ripples: float = 2.0
    #: share of the length over which each end fades, 0 (cut off) to 1
    fade: float = 1 / 3
    #: brightness at which crossing streaks of the layer stop adding up, 0 to 1; a low one makes flat lines
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Curtain:
    """A layer so dense that it has no single streaks: normal white noise blurred along a line, cut off below 0.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    #: direction of fall as in :class:`Streaks`
    angle: float = 10.0
    #: length of the blur in px, 1 to 1000
    length: float = 12.0
    #: width of the blur (full width at half maximum) in px, 0.1 to 100
    width: float = 1.5
    #: mean brightness before the cut, -1 to 1; a negative one leaves single streaks
    mean: float = 0.1
    #: standard deviation of the brightness before the cut, 0 to 1
    contrast: float = 0.1

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class RainParameters:
    """How the rain of one picture looks, and what happens to the picture after it rained.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    #: from far to near
    layers: tuple[Streaks | Curtain, ...] = ()
    #: how layers are blended, 0 (added and clipped, as in Rain200L and Rain200H) to 1 (screen, as in Rain800)
    screen: float = 0.0
    #: loss of contrast through rain too far away to be seen as streaks, 0 (none) to 1 (nothing darker than sky left)
    veil: float = 0.0
    #: levels of the finished picture: ((R - black) / (white - black)) ** gamma, clipped; black 0 to 0.9
    black: float = 0.0
    #: 0.1 to 2, above black
    white: float = 1.0
    #: 0.1 (bright) to 10 (dark)
    gamma: float = 1.0
    #: compression of the finished picture, 1 to 100; None leaves it out
    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.white <= self.black:
            raise ValueError(f"rain parameter white must lie above black, but {self.white!r} does not, {self.black!r}")

    @classmethod
    def sample(cls, rng: np.random.Generator, preset: Preset | None = None) -> RainParameters:
        """Draw rain of a kind.

        Args:
            rng: source of all randomness; it is advanced.
            preset: one of :data:`PRESETS`; None draws "light", "medium" or "heavy" with equal chances.

        Raises:
            ValueError: unknown preset.
        """
        if preset is None:
            strengths = get_args(Strength)
            preset = strengths[rng.integers(len(strengths))]
        if preset not in _PRESETS:
            raise ValueError(f"unknown kind of rain {preset!r}{did_you_mean(preset, PRESETS)}")
        recipes = _PRESETS[preset]
        recipe = recipes[0]
        if len(recipes) > 1:
            weights = np.array([one.weight for one in recipes])
            recipe = recipes[rng.choice(len(recipes), p=weights / weights.sum())]

        groups = [
            (group, {name: _draw(value, rng) for name, value in group.values.items()})
            for group in recipe.groups
            for _ in range(int(rng.integers(group.copies[0], group.copies[1] + 1)) if group.copies else 1)
        ]
        veil = _draw(recipe.veil, rng)
        # Wind is as often from the left as from the right, mostly weak, sometimes strong.
        angle = float(np.clip(rng.normal(0, recipe.lean), -recipe.steepest, recipe.steepest))
        finish = {name: _draw(value, rng) for name, value in recipe.finish.items()}
        layers: list[Streaks | Curtain] = []
        for group, drawn in groups:
            turned = angle + _draw(group.turn, rng)
            if group.depths is None:
                layers.append(Curtain(angle=turned, **drawn))
            else:
                layers.extend(_streaks_of(depth, turned, drawn) for depth in group.depths)
        return cls(layers=tuple(layers), veil=veil, jpeg_quality=recipe.jpeg_quality, **finish)


# A number stands for itself; a pair is the range of a uniform draw, made once per picture.
_Value = float | tuple[float, float]


class _Depth(NamedTuple):
    """One distance within a group; the factors multiply the values drawn for the group."""

    share: float  # of all streaks
    length: float
    width: float
    brightness: float
    ripples: float = 1.0
    drift: float = 0.0  # degrees
    wobble: float = 0.0  # degrees


class _Group(NamedTuple):
    """Layers that share a direction and one draw of their values."""

    values: Mapping[str, _Value]  # fields of Streaks or Curtain; "density" is that of all depths together
    depths: tuple[_Depth, ...] | None  # None makes a Curtain
    turn: _Value = 0.0  # from the picture's direction, degrees
    copies: tuple[int, int] | None = None  # fewest and most groups of this kind, each with its own draw; None is one


class _Recipe(NamedTuple):
    groups: tuple[_Group, ...]
    lean: float  # standard deviation of the picture's direction, degrees
    steepest: float  # its largest deviation from the vertical, degrees
    weight: float = 1.0  # of this recipe among those of its preset
    veil: _Value = 0.0
    finish: Mapping[str, _Value] = MappingProxyType({})  # other fields of RainParameters
    jpeg_quality: int | None = None


def _draw(value: _Value, rng: np.random.Generator) -> float:
    return float(rng.uniform(*value)) if isinstance(value, tuple) else value


def _streaks_of(depth: _Depth, angle: float, drawn: Mapping[str, float]) -> Streaks:
    values: dict[str, float] = dict(drawn)
    for name, factor in zip(("density", "length", "width", "brightness", "ripples"), depth[:5], strict=True):
        values[name] *= factor
    return Streaks(angle=angle, drift=depth.drift, wobble=depth.wobble, **values)


def _strength(length: _Value, width: _Value, density: _Value, brightness: _Value, veil: _Value) -> tuple[_Recipe, ...]:
    """Rain of three depths: near drops are few, long, thick and out of focus, far ones many, short, thin and faint."""
    depths = (
        _Depth(0.56, 0.55, 0.70, 0.55, drift=2, wobble=1.2),  # the most, as the volume seen grows with the distance
        _Depth(0.37, 1.00, 1.00, 1.00, drift=2, wobble=2.0),
        _Depth(0.07, 1.60, 1.90, 0.75, drift=2, wobble=2.6),
    )
    values = {"length": length, "width": width, "density": density, "brightness": brightness, "ripples": 2.0}
    group = _Group(values, depths)
    return (_Recipe((group,), lean=14, steepest=45, veil=veil, finish={"screen": (0.3, 0.9)}),)


class _Texture(NamedTuple):
    weight: float
    times_length: float
    times_width: float
    density: _Value
    brightness: _Value
    faintness: float


class _Shape(NamedTuple):
    weight: float
    length: tuple[float, float]
    width: tuple[float, float]
    lean: float
    steepest: float


# Rain200L: five textures, each in two shapes, as it was stretched over landscape and upright pictures.
_FINE_TEXTURES = (
    _Texture(0.38, 1.05, 1.00, (30, 37), (0.40, 0.50), 2.9),
    _Texture(0.31, 0.82, 1.00, (30, 38), (0.85, 1.00), 3.3),
    _Texture(0.16, 0.95, 0.85, (16, 22), (0.36, 0.46), 3.4),
    _Texture(0.11, 1.00, 1.00, (32, 40), (0.55, 0.75), 3.8),
    _Texture(0.04, 1.35, 1.15, (29, 37), (0.65, 0.85), 3.2),
)
_FINE_SHAPES = (
    _Shape(0.68, (36, 50), (1.65, 2.00), lean=17, steepest=30),
    _Shape(0.32, (60, 82), (1.20, 1.45), lean=8, steepest=15),
)
_FINE_DEPTHS = (
    _Depth(0.52, 0.18, 0.85, 0.75, ripples=0.25, wobble=1.2),  # specks: drops that cross the line of sight
    _Depth(0.45, 1.00, 1.00, 1.00, wobble=1.2),
    _Depth(0.03, 1.70, 1.60, 0.80, wobble=1.2),
)


def _fine_values(texture: _Texture, shape: _Shape) -> dict[str, _Value]:
    return {
        "length": (texture.times_length * shape.length[0], texture.times_length * shape.length[1]),
        "length_spread": 0.5,
        "width": (texture.times_width * shape.width[0], texture.times_width * shape.width[1]),
        "width_spread": 0.5,
        "density": texture.density,
        "brightness": texture.brightness,
        "faintness": texture.faintness,
        "ripple": 0.85,
        "ripples": 2.5,
    }


# Rain200H: lines of one brightness that never adds up, and soft streaks along and across them.
_LINES = _Group(
    {
        "length": (30, 70),
        "length_spread": 0.1,
        "width": (1.0, 1.4),
        "width_spread": 0.1,
        "density": (22, 68),
        "brightness": 1,
        "faintness": 0.5,
        "ceiling": (0.13, 0.36),
        "ripple": 0,
        "ripples": 1.0,
        "fade": 0,
    },
    (_Depth(1, 1, 1, 1, wobble=0.2),),
    turn=(-3, 3),
    copies=(1, 2),
)
_SOFT: dict[str, _Value] = {
    "length": (30, 70),
    "length_spread": 0.5,
    "width": (1.4, 2.1),
    "width_spread": 0.5,
    "density": (20, 55),
    "brightness": (0.42, 0.85),
    "faintness": 3.5,
    "ripple": 0.6,
    "ripples": 2.5,
    "fade": 0.5,
}
_ALONG = _Group(_SOFT, (_Depth(1, 1, 1, 1, wobble=2.0),), turn=(-5, 5), copies=(1, 2))
_ACROSS = _Group(_SOFT, (_Depth(0.6, 1, 1, 0.6, wobble=1.5),), turn=(-30, 30), copies=(0, 2))


def _curtain(length: _Value, width: _Value, mean: _Value, contrast: _Value) -> dict[str, _Value]:
    return {"length": length, "width": width, "mean": mean, "contrast": contrast}


# Rain800: seven ways in which its makers drew rain with a picture editor, each in a few directions.
_BLURRED: tuple[tuple[float, dict[str, _Value], dict[str, _Value]], ...] = (
    # weight, curtain, levels
    (0.37, _curtain((24, 34), 1.85, (0.08, 0.10), (0.062, 0.078)), {"black": (0.06, 0.09), "white": (0.91, 0.95)}),
    (0.20, _curtain((11, 15), 1.80, (0.025, 0.045), (0.095, 0.125)), {}),
    (0.11, _curtain((11, 15), 1.80, (0.14, 0.165), (0.185, 0.21)), {}),
    (0.08, _curtain((10, 14), 1.65, (0.145, 0.165), (0.125, 0.145)), {"black": (0.19, 0.23), "gamma": (1.03, 1.2)}),
    (0.13, _curtain((14, 32), 2.00, (0.08, 0.14), (0.07, 0.085)), {"white": (0.84, 0.9), "gamma": (1.2, 1.9)}),
    (0.07, _curtain((6.5, 8.5), 1.05, (0.20, 0.225), (0.165, 0.185)), {"gamma": (1.95, 2.05)}),
    (0.04, _curtain((19, 27), 1.95, (0.25, 0.29), (0.10, 0.12)), {}),
)

_PRESETS: dict[str, tuple[_Recipe, ...]] = {
    "light": _strength((14, 36), (1.2, 2.0), (12, 26), (0.4, 0.65), (0, 0.02)),
    "medium": _strength((20, 48), (1.3, 2.6), (22, 46), (0.45, 0.75), (0, 0.05)),
    "heavy": _strength((26, 60), (1.4, 2.8), (40, 80), (0.5, 0.8), (0.03, 0.1)),
    "rain200l": tuple(
        _Recipe(
            (_Group(_fine_values(texture, shape), _FINE_DEPTHS),),
            lean=shape.lean,
            steepest=shape.steepest,
            weight=texture.weight * shape.weight,
        )
        for texture in _FINE_TEXTURES
        for shape in _FINE_SHAPES
    ),
    "rain200h": (
        _Recipe((_LINES,), lean=6, steepest=15, weight=0.05),
        _Recipe((_ALONG, _ACROSS), lean=6, steepest=15, weight=0.15),
        _Recipe((_LINES, _ALONG, _ACROSS), lean=6, steepest=15, weight=0.8),
    ),
    "rain800": tuple(
        _Recipe(
            (_Group(curtain, None),),
            lean=13,
            steepest=30,
            weight=weight,
            finish={"screen": 1, **levels},
            jpeg_quality=75,
        )
        for weight, curtain, levels in _BLURRED
    ),
}


def add_rain(
    clean: npt.NDArray[Pixel], rng: np.random.Generator, parameters: RainParameters | None = None
) -> npt.NDArray[Pixel]:
    """Draw rain on a clean picture.

    The same picture, parameters and state of ``rng`` give the same bytes; no other randomness is used. A piece cut out
    of a photograph gets rain of the same look as the whole photograph would.

    Args:
        clean: (H, W, 3) or (H, W), uint8 in 0 to 255 or uint16 in 0 to 65535. Rain is gray, so the order of the
            channels does not matter, except to JPEG, which takes them for RGB. It is not changed.
        rng: source of all randomness; it is advanced.
        parameters: the look of the rain; None draws it with :meth:`RainParameters.sample`.

    Returns:
        the rainy picture, a new array of the shape and type of ``clean``. No pixel is darker than in ``clean``, unless
        ``black``, ``white``, ``gamma`` or ``jpeg_quality`` are set. With ``jpeg_quality`` there are 256 brightnesses
        in uint16 too.

    Raises:
        TypeError: ``clean`` is not an array of uint8 or uint16.
        ValueError: ``clean`` has another shape than those above, or no pixels, or is too large for JPEG (65500 px).
    """
    if not isinstance(clean, np.ndarray) or clean.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"rain needs an array of uint8 or uint16, not {getattr(clean, 'dtype', type(clean).__name__)}")
    if clean.size == 0 or not (clean.ndim == 2 or (clean.ndim == 3 and clean.shape[2] == 3)):
        raise ValueError(f"rain needs a picture of shape (H, W, 3) or (H, W) with pixels in it, not {clean.shape}")
    if parameters is None:
        parameters = RainParameters.sample(rng)

    largest = np.iinfo(clean.dtype).max
    scene = clean.astype(np.float32) / largest
    # Rain adds light: what is brighter than the sky keeps its brightness, so that no pixel ever becomes darker.
    scene += parameters.veil * np.maximum(_AIRLIGHT - scene, 0)
    for layer in parameters.layers:
        height, width = clean.shape[:2]
        if isinstance(layer, Streaks):
            rain = _draw_streaks(layer, height, width, rng)
        else:
            rain = _draw_curtain(layer, height, width, rng)
        rain = rain.reshape(rain.shape + (1,) * (clean.ndim - 2))
        # Near rain lies in front of far rain, hence layer on layer from far to near.
        scene = np.minimum(scene + rain * (1 - parameters.screen * scene), 1)
    scene = np.clip((scene - parameters.black) / (parameters.white - parameters.black), 0, 1) ** parameters.gamma
    if parameters.jpeg_quality is None:
        return np.rint(scene * largest).astype(clean.dtype)
    compressed = _compress(np.rint(scene * 255).astype(np.uint8), rng, parameters.jpeg_quality)
    return compressed.astype(clean.dtype) * clean.dtype.type(largest // 255)


def _draw_streaks(layer: Streaks, height: int, width: int, rng: np.random.Generator) -> Plane:
    """One layer, (height, width) float32 in [0, 1]."""
    angle = layer.angle + rng.normal(0, layer.drift)
    kernels = [
        _streak_kernel(
            rng,
            angle=angle + rng.normal(0, layer.wobble),
            length=layer.length * rng.uniform(1 - layer.length_spread, 1 + layer.length_spread),
            width=layer.width * rng.uniform(1 - layer.width_spread, 1 + layer.width_spread),
            layer=layer,
        )
        for _ in range(_KERNELS_PER_LAYER)
    ]
    pad_y, pad_x = (max(kernel.shape[axis] for kernel in kernels) // 2 for axis in (0, 1))
    # Drops also fall around the picture, so that streaks enter it across its border.
    padded_height, padded_width = height + 2 * pad_y, width + 2 * pad_x
    count = rng.poisson(layer.density * padded_height * padded_width / 1e4)
    rows = rng.integers(padded_height, size=count)
    columns = rng.integers(padded_width, size=count)
    chosen = rng.integers(len(kernels), size=count)
    # Many faint streaks and few strong ones.
    brightness = (layer.brightness * rng.beta(1.6, layer.faintness, size=count)).astype(np.float32)

    # A kernel stamped at every drop equals the convolution of sparse noise with it, at a cost that falls with the rain.
    canvas = np.zeros((padded_height + 2 * pad_y, padded_width + 2 * pad_x), np.float32)
    drops = zip(rows.tolist(), columns.tolist(), chosen.tolist(), brightness, strict=True)
    for row, column, index, bright in drops:
        kernel = kernels[index]
        top = row + pad_y - kernel.shape[0] // 2
        left = column + pad_x - kernel.shape[1] // 2
        canvas[top : top + kernel.shape[0], left : left + kernel.shape[1]] += bright * kernel
    return np.minimum(canvas[2 * pad_y : 2 * pad_y + height, 2 * pad_x : 2 * pad_x + width], layer.ceiling)


def _streak_kernel(rng: np.random.Generator, *, angle: float, length: float, width: float, layer: Streaks) -> Plane:
    """One anti-aliased streak, (odd, odd) float32 in about [0, 1], its middle within half a pixel of the kernel's.

    Args:
        rng: source of the position between pixels and of the brightness along the streak.
        angle: degrees from the vertical.
        length: px.
        width: full width at half maximum, px.
        layer: beads and ends.
    """
    # Below this deviation the grid would show as a staircase; a thinner streak becomes fainter instead.
    sigma = max(width * _SIGMA_PER_WIDTH, 0.5)
    peak = min(width * _SIGMA_PER_WIDTH / sigma, 1)
    shift_y, shift_x = rng.uniform(-0.5, 0.5, size=2)
    along, across = _line_coordinates(angle, length / 2, sigma, shift_y, shift_x)

    # Ends fade: nothing in rain starts as abruptly as a scratch does.
    ends = np.clip((length / 2 - np.abs(along)) / max(length * layer.fade, 1.0) + 0.5, 0, 1)
    ends = ends * ends * (3 - 2 * ends)
    depth = rng.uniform(0, layer.ripple)
    waves = 1 + depth * np.cos(2 * np.pi * (along / length * rng.uniform(0.5, layer.ripples) + rng.uniform()))
    kernel = peak * np.exp(-0.5 * (across / sigma) ** 2) * ends * waves / (1 + layer.ripple / 2)
    return kernel.astype(np.float32)


def _draw_curtain(layer: Curtain, height: int, width: int, rng: np.random.Generator) -> Plane:
    """One layer, (height, width) float32 in [0, 1]."""
    sigma = max(layer.width * _SIGMA_PER_WIDTH, 0.4)  # below it, leaning lines would break up
    along, across = _line_coordinates(layer.angle, layer.length / 2, sigma)
    kernel = np.exp(-0.5 * (across / sigma) ** 2) * np.clip(layer.length / 2 - np.abs(along) + 0.5, 0, 1)
    kernel = (kernel / np.sqrt(np.sum(kernel**2))).astype(np.float32)  # keeps the noise's standard deviation at 1
    pad_y, pad_x = (side // 2 for side in kernel.shape)
    noise = rng.standard_normal((height + 2 * pad_y, width + 2 * pad_x), dtype=np.float32)
    blurred = cv2.filter2D(noise, -1, kernel, borderType=cv2.BORDER_REFLECT)[pad_y:-pad_y, pad_x:-pad_x]
    return np.clip(layer.mean + layer.contrast * blurred, 0, 1).astype(np.float32)


def _line_coordinates(
    angle: float, reach: float, sigma: float, shift_y: float = 0.0, shift_x: float = 0.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distances along and across a line through the middle of a grid that holds it, (odd, odd) float64 each, in px.

    Args:
        angle: of the line, degrees from the vertical.
        reach: half the length of the line, px.
        sigma: standard deviation of its profile, px.
        shift_y: of the line's middle from the grid's, px.
        shift_x: the same.
    """
    radians = np.deg2rad(angle)
    reach += 3 * sigma
    half_height = int(np.ceil(reach * abs(np.cos(radians)) + 3 * sigma))
    half_width = int(np.ceil(reach * abs(np.sin(radians)) + 3 * sigma))
    y = np.arange(-half_height, half_height + 1, dtype=np.float64)[:, None] - shift_y
    x = np.arange(-half_width, half_width + 1, dtype=np.float64)[None, :] - shift_x
    return x * np.sin(radians) - y * np.cos(radians), x * np.cos(radians) + y * np.sin(radians)


def _compress(picture: npt.NDArray[np.uint8], rng: np.random.Generator, quality: int) -> npt.NDArray[np.uint8]:
    """The picture after JPEG (with halved chroma, OpenCV's default) on a grid of blocks that starts anywhere.

    A patch for training comes from anywhere in a photograph, so its blocks must not always start in its corner.
    """
    top, left = (int(start) for start in rng.integers(_JPEG_UNIT, size=2))
    if picture.ndim == 3:
        picture = np.ascontiguousarray(picture[:, :, ::-1])  # as OpenCV has it
    padded = cv2.copyMakeBorder(picture, top, 0, left, 0, cv2.BORDER_REPLICATE)
    if max(padded.shape) > _JPEG_LARGEST:
        raise ValueError(f"JPEG holds at most {_JPEG_LARGEST} px a side; this picture has shape {picture.shape}")
    done, code = cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    if not done:
        raise ValueError(f"OpenCV could not compress a picture of shape {picture.shape} as JPEG")
    decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_UNCHANGED), np.uint8)[top:, left:]
    return decoded[:, :, ::-1] if decoded.ndim == 3 else decoded
