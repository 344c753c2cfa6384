"""The looks of rain: parameters of the synthesis, and presets that draw them.

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
none      none at all: pairs of equal halves, from which a network learns to leave clean pictures as they are
scaled    light, medium, heavy, rain200l and rain200h with streaks of half to three times their size, half of it JPEG
thick     long and wide streaks of near drops, out of focus, before some of the usual ones, half of it JPEG
dense     one to three curtains of fine to coarse rain with streaks before them and a veil behind, half of it JPEG
crossed   streaks of two to four directions and several sizes, half of it JPEG
levels    as rain800, wider: rain of two sizes, levels that it does not explain, JPEG of any quality
========  =============================================================================================================

`benchmarks/rain.py` measures how near the first three come. The values of their recipes were fitted to training
pairs of Rain100L (the same rain as Rain200L), Rain200H and Rain800: autocorrelation along and across the streaks and
brightness of the residuals, and for Rain800 the rainy picture's gray values as a function of the clean one's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from drsformer_arch.system.errors import did_you_mean

Strength = Literal["light", "medium", "heavy"]
Wide = Literal["scaled", "thick", "dense", "crossed", "levels"]
Preset = Literal[Strength, "rain200l", "rain200h", "rain800", "none", Wide]

PRESETS: tuple[Preset, ...] = get_args(Preset)
# presets of rain as at one scale and in good order; what a data set draws if nothing is said
RAINS: tuple[Preset, ...] = ("light", "medium", "heavy", "rain200l", "rain200h", "rain800")
# presets of rain at all scales and in the disorder of real photographs
WIDE_RAINS: tuple[Preset, ...] = get_args(Wide)

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

    # direction of fall in degrees from the vertical, -80 to 80; positive leans to the right at the top, like `/`
    angle: float = 10.0
    # standard deviation of the whole layer's direction around `angle`, degrees, 0 to 45
    drift: float = 0.0
    # standard deviation of one streak's direction around that of its layer, degrees, 0 to 45
    wobble: float = 1.0
    # mean length of a streak in px, 1 to 1000, measured between the middles of its fading ends
    length: float = 30.0
    # lengths are uniform in length * (1 ± length_spread), 0 to 0.9
    length_spread: float = 0.4
    # mean width of a streak (full width at half maximum) in px, 0.1 to 100
    width: float = 1.6
    # widths are uniform in width * (1 ± width_spread), 0 to 0.9
    width_spread: float = 0.25
    # mean number of streaks in 100 x 100 px, 0 to 1000
    density: float = 20.0
    # brightness of the strongest streaks, 0 (invisible) to 1 (white)
    brightness: float = 0.6
    # brightness of a streak is brightness * Beta(1.6, faintness); the larger, the rarer are strong ones, 0.1 to 100
    faintness: float = 2.4
    # largest depth of the beads along a streak, 0 (even) to 1 (dark gaps)
    ripple: float = 0.5
    # largest number of beads on a streak, 0.5 to 100
    ripples: float = 2.0
    # share of the length over which each end fades, 0 (cut off) to 1
    fade: float = 1 / 3
    # brightness at which crossing streaks of the layer stop adding up, 0 to 1; a low one makes flat lines
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Curtain:
    """A layer so dense that it has no single streaks: normal white noise blurred along a line, cut off below 0.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    # direction of fall as in `Streaks`
    angle: float = 10.0
    # length of the blur in px, 1 to 1000
    length: float = 12.0
    # width of the blur (full width at half maximum) in px, 0.1 to 100
    width: float = 1.5
    # mean brightness before the cut, -1 to 1; a negative one leaves single streaks
    mean: float = 0.1
    # standard deviation of the brightness before the cut, 0 to 1
    contrast: float = 0.1

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class RainParameters:
    """How the rain of one picture looks, and what happens to the picture after it rained.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    # from far to near
    layers: tuple[Streaks | Curtain, ...] = ()
    # how layers are blended, 0 (added and clipped, as in Rain200L and Rain200H) to 1 (screen, as in Rain800)
    screen: float = 0.0
    # loss of contrast through rain too far away to be seen as streaks, 0 (none) to 1 (nothing darker than sky left)
    veil: float = 0.0
    # levels of the finished picture: ((R - black) / (white - black)) ** gamma, clipped; black 0 to 0.9
    black: float = 0.0
    # 0.1 to 2, above black
    white: float = 1.0
    # 0.1 (bright) to 10 (dark)
    gamma: float = 1.0
    # compression of the finished picture, 1 to 100; None leaves it out
    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.white <= self.black:
            raise ValueError(f"rain parameter white must lie above black, but {self.white!r} does not, {self.black!r}")

    @classmethod
    def sample(cls, rng: np.random.Generator, preset: Preset | None = None) -> "RainParameters":
        """Draw rain of a kind.

        Args:
            rng: source of all randomness; it is advanced.
            preset: one of `PRESETS`; None draws "light", "medium" or "heavy" with equal chances.

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
        jpeg_quality = recipe.jpeg_quality
        if isinstance(jpeg_quality, tuple):
            jpeg_quality = int(rng.integers(*jpeg_quality)) if rng.random() < recipe.jpeg_share else None
        layers: list[Streaks | Curtain] = []
        for group, drawn in groups:
            turned = angle + _draw(group.turn, rng)
            if group.depths is None:
                layers.append(Curtain(angle=turned, **drawn))
            else:
                layers.extend(_streaks_of(depth, turned, drawn) for depth in group.depths)
        if recipe.sizes is not None:
            size = float(np.exp(rng.uniform(*np.log(recipe.sizes))))
            layers = [_resized(layer, size) for layer in layers]
        return cls(layers=tuple(layers), veil=veil, jpeg_quality=jpeg_quality, **finish)


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
    jpeg_quality: int | tuple[int, int] | None = None  # a pair is a range, drawn for a part of the pictures
    jpeg_share: float = 0.5  # that part
    sizes: tuple[float, float] | None = None  # range of a factor of all lengths and widths, uniform in its logarithm


def _draw(value: _Value, rng: np.random.Generator) -> float:
    return float(rng.uniform(*value)) if isinstance(value, tuple) else value


def _streaks_of(depth: _Depth, angle: float, drawn: Mapping[str, float]) -> Streaks:
    values: dict[str, float] = dict(drawn)
    for name, factor in zip(("density", "length", "width", "brightness", "ripples"), depth[:5], strict=True):
        values[name] *= factor
    return Streaks(angle=angle, drift=depth.drift, wobble=depth.wobble, **values)


def _resized(layer: Streaks | Curtain, size: float) -> Streaks | Curtain:
    """The layer as in a picture enlarged by that factor."""
    if isinstance(layer, Curtain):
        return replace(layer, length=layer.length * size, width=layer.width * size)
    length, width, density = layer.length * size, layer.width * size, layer.density / size**2
    return replace(layer, length=length, width=width, density=density)


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
    "none": (_Recipe((), lean=0, steepest=0),),
}

# What real photographs have and the sets above have not. Drawn after no set.
_COMPRESSED = (35, 96)  # JPEG quality
_ALL_SIZES = (0.5, 3.0)
_PRESETS["scaled"] = tuple(
    recipe._replace(weight=recipe.weight * weight, jpeg_quality=_COMPRESSED, sizes=_ALL_SIZES)
    for name, weight in {"light": 1, "medium": 1, "heavy": 1, "rain200l": 1.5, "rain200h": 1.5}.items()
    for recipe in _PRESETS[name]
)
# Drops near the lens: few, much longer than a patch of training at their longest, with soft borders.
_NEAR: dict[str, _Value] = {
    "length": (50, 260),
    "length_spread": 0.6,
    "width": (3, 13),
    "width_spread": 0.6,
    "density": (0.15, 2.5),
    "brightness": (0.3, 0.9),
    "faintness": (1, 2.5),
    "ripple": (0, 0.5),
    "ripples": 1.5,
    "fade": (0.1, 0.6),
}
_COMMON: dict[str, _Value] = {
    "length": (14, 60),
    "length_spread": 0.5,
    "width": (1.2, 2.8),
    "width_spread": 0.5,
    "density": (5, 50),
    "brightness": (0.3, 0.8),
    "faintness": (1.5, 3.5),
    "ripple": (0, 0.8),
    "ripples": 2.0,
    "fade": (0.1, 0.5),
}
_ONE_DEPTH = (_Depth(1, 1, 1, 1, drift=2, wobble=2.0),)
_PRESETS["thick"] = (
    _Recipe(
        (_Group(_COMMON, _ONE_DEPTH, copies=(0, 1)), _Group(_NEAR, _ONE_DEPTH, turn=(-4, 4))),
        lean=12,
        steepest=45,
        veil=(0, 0.05),
        finish={"screen": (0.2, 1)},
        jpeg_quality=_COMPRESSED,
    ),
)
_PRESETS["dense"] = (
    _Recipe(
        (
            _Group(_curtain((8, 40), (1.0, 3.0), (-0.05, 0.15), (0.05, 0.2)), None, turn=(-4, 4), copies=(1, 3)),
            _Group(_COMMON, _ONE_DEPTH, turn=(-4, 4), copies=(0, 2)),
        ),
        lean=12,
        steepest=45,
        veil=(0, 0.15),
        finish={"screen": (0.3, 1)},
        jpeg_quality=_COMPRESSED,
        sizes=(0.6, 2.0),
    ),
)
_PRESETS["crossed"] = (
    _Recipe(
        (_Group({**_COMMON, "density": (5, 30)}, _ONE_DEPTH, turn=(-45, 45), copies=(2, 4)),),
        lean=8,
        steepest=30,
        veil=(0, 0.05),
        finish={"screen": (0, 1)},
        jpeg_quality=_COMPRESSED,
        sizes=(0.6, 2.0),
    ),
)
_PRESETS["levels"] = tuple(
    recipe._replace(
        finish={"screen": 1, "black": (0, 0.2), "white": (0.84, 1.1), "gamma": (0.7, 1.8)},
        jpeg_quality=(50, 96),
        jpeg_share=0.8,
        sizes=(0.7, 1.8),
    )
    for recipe in _PRESETS["rain800"]
)
