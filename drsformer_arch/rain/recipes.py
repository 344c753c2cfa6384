"""Recipes from which presets draw their rain.

The values of those that imitate benchmark sets were fitted to training pairs of Rain100L (the same rain as Rain200L),
Rain200H and Rain800: autocorrelation along and across the streaks and brightness of the residuals, and for Rain800 the
rainy picture's gray values as a function of the clean one's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from drsformer_arch.rain.layers import Curtain, Streaks

# A number stands for itself; a pair is the range of a uniform draw, made once per picture.
Value = float | tuple[float, float]


class Depth(NamedTuple):
    """One distance within a group; the factors multiply the values drawn for the group."""

    share: float  # of all streaks
    length: float
    width: float
    brightness: float
    ripples: float = 1.0
    drift: float = 0.0  # degrees
    wobble: float = 0.0  # degrees


class Group(NamedTuple):
    """Layers that share a direction and one draw of their values."""

    values: Mapping[str, Value]  # fields of Streaks or Curtain; "density" is that of all depths together
    depths: tuple[Depth, ...] | None  # None makes a Curtain
    turn: Value = 0.0  # from the picture's direction, degrees
    copies: tuple[int, int] | None = None  # fewest and most groups of this kind, each with its own draw; None is one


class Recipe(NamedTuple):
    """The way in which rain of one look is drawn: its layers, and what happens to the picture after it rained."""

    groups: tuple[Group, ...]
    lean: float  # standard deviation of the picture's direction, degrees
    steepest: float  # its largest deviation from the vertical, degrees
    weight: float = 1.0  # of this recipe among those of its preset
    veil: Value = 0.0
    finish: Mapping[str, Value] = MappingProxyType({})  # other fields of RainParameters
    jpeg_quality: int | tuple[int, int] | None = None  # a pair is a range, drawn for a part of the pictures
    jpeg_share: float = 0.5  # that part
    sizes: tuple[float, float] | None = None  # range of a factor of all lengths and widths, uniform in its logarithm


def draw(value: Value, rng: np.random.Generator) -> float:
    """Return a number, drawn where the value is a range."""
    return float(rng.uniform(*value)) if isinstance(value, tuple) else value


def streaks_of(depth: Depth, angle: float, drawn: Mapping[str, float]) -> Streaks:
    """Make the layer of one depth of what was drawn for its group."""
    values: dict[str, float] = dict(drawn)
    for name, factor in zip(("density", "length", "width", "brightness", "ripples"), depth[:5], strict=True):
        values[name] *= factor
    return Streaks(angle=angle, drift=depth.drift, wobble=depth.wobble, **values)


def resized(layer: Streaks | Curtain, size: float) -> Streaks | Curtain:
    """Return the layer as in a picture enlarged by that factor."""
    if isinstance(layer, Curtain):
        return replace(layer, length=layer.length * size, width=layer.width * size)
    length, width, density = layer.length * size, layer.width * size, layer.density / size**2
    return replace(layer, length=length, width=width, density=density)


def _strength(length: Value, width: Value, density: Value, brightness: Value, veil: Value) -> tuple[Recipe, ...]:
    """Describe rain of three depths: near drops are few, long, thick and blurred, far ones many, short and faint."""
    depths = (
        Depth(0.56, 0.55, 0.70, 0.55, drift=2, wobble=1.2),  # the most, as the volume seen grows with the distance
        Depth(0.37, 1.00, 1.00, 1.00, drift=2, wobble=2.0),
        Depth(0.07, 1.60, 1.90, 0.75, drift=2, wobble=2.6),
    )
    values = {"length": length, "width": width, "density": density, "brightness": brightness, "ripples": 2.0}
    group = Group(values, depths)
    return (Recipe((group,), lean=14, steepest=45, veil=veil, finish={"screen": (0.3, 0.9)}),)


# Rain200L: five textures, each in two shapes, as it was stretched over landscape and upright pictures.
_FINE_TEXTURES: tuple[tuple[float, float, float, Value, Value, float], ...] = (
    # weight, factors of length and width, density, brightness, faintness
    (0.38, 1.05, 1.00, (30, 37), (0.40, 0.50), 2.9),
    (0.31, 0.82, 1.00, (30, 38), (0.85, 1.00), 3.3),
    (0.16, 0.95, 0.85, (16, 22), (0.36, 0.46), 3.4),
    (0.11, 1.00, 1.00, (32, 40), (0.55, 0.75), 3.8),
    (0.04, 1.35, 1.15, (29, 37), (0.65, 0.85), 3.2),
)
_FINE_SHAPES = (
    # weight, length, width, lean, steepest
    (0.68, (36, 50), (1.65, 2.00), 17, 30),
    (0.32, (60, 82), (1.20, 1.45), 8, 15),
)
_FINE_DEPTHS = (
    Depth(0.52, 0.18, 0.85, 0.75, ripples=0.25, wobble=1.2),  # specks: drops that cross the line of sight
    Depth(0.45, 1.00, 1.00, 1.00, wobble=1.2),
    Depth(0.03, 1.70, 1.60, 0.80, wobble=1.2),
)


def _streaks(
    length: Value, width: Value, density: Value, brightness: Value, faintness: Value, *, spread: float, **others: Value
) -> dict[str, Value]:
    """Return values of Streaks in the order in which they are drawn; lengths and widths spread alike."""
    lengths, widths = {"length": length, "length_spread": spread}, {"width": width, "width_spread": spread}
    return {**lengths, **widths, "density": density, "brightness": brightness, "faintness": faintness, **others}


def _fine() -> Iterator[Recipe]:
    for texture_weight, times_length, times_width, *strength in _FINE_TEXTURES:
        for shape_weight, lengths, widths, lean, steepest in _FINE_SHAPES:
            length = (times_length * lengths[0], times_length * lengths[1])
            width = (times_width * widths[0], times_width * widths[1])
            values = _streaks(length, width, *strength, spread=0.5, ripple=0.85, ripples=2.5)
            yield Recipe((Group(values, _FINE_DEPTHS),), lean, steepest, texture_weight * shape_weight)


# Rain200H: lines of one brightness that never adds up, and soft streaks along and across them.
_LINES = Group(
    _streaks((30, 70), (1.0, 1.4), (22, 68), 1, 0.5, spread=0.1, ceiling=(0.13, 0.36), ripple=0, ripples=1.0, fade=0),
    (Depth(1, 1, 1, 1, wobble=0.2),),
    turn=(-3, 3),
    copies=(1, 2),
)
_SOFT = _streaks((30, 70), (1.4, 2.1), (20, 55), (0.42, 0.85), 3.5, spread=0.5, ripple=0.6, ripples=2.5, fade=0.5)
_ALONG = Group(_SOFT, (Depth(1, 1, 1, 1, wobble=2.0),), turn=(-5, 5), copies=(1, 2))
_ACROSS = Group(_SOFT, (Depth(0.6, 1, 1, 0.6, wobble=1.5),), turn=(-30, 30), copies=(0, 2))


def _curtain(length: Value, width: Value, mean: Value, contrast: Value) -> dict[str, Value]:
    return {"length": length, "width": width, "mean": mean, "contrast": contrast}


# Rain800: seven ways in which its makers drew rain with a picture editor, each in a few directions.
_BLURRED: tuple[tuple[float, dict[str, Value], dict[str, Value]], ...] = (
    # weight, curtain, levels
    (0.37, _curtain((24, 34), 1.85, (0.08, 0.10), (0.062, 0.078)), {"black": (0.06, 0.09), "white": (0.91, 0.95)}),
    (0.20, _curtain((11, 15), 1.80, (0.025, 0.045), (0.095, 0.125)), {}),
    (0.11, _curtain((11, 15), 1.80, (0.14, 0.165), (0.185, 0.21)), {}),
    (0.08, _curtain((10, 14), 1.65, (0.145, 0.165), (0.125, 0.145)), {"black": (0.19, 0.23), "gamma": (1.03, 1.2)}),
    (0.13, _curtain((14, 32), 2.00, (0.08, 0.14), (0.07, 0.085)), {"white": (0.84, 0.9), "gamma": (1.2, 1.9)}),
    (0.07, _curtain((6.5, 8.5), 1.05, (0.20, 0.225), (0.165, 0.185)), {"gamma": (1.95, 2.05)}),
    (0.04, _curtain((19, 27), 1.95, (0.25, 0.29), (0.10, 0.12)), {}),
)

RECIPES: dict[str, tuple[Recipe, ...]] = {
    "light": _strength((14, 36), (1.2, 2.0), (12, 26), (0.4, 0.65), (0, 0.02)),
    "medium": _strength((20, 48), (1.3, 2.6), (22, 46), (0.45, 0.75), (0, 0.05)),
    "heavy": _strength((26, 60), (1.4, 2.8), (40, 80), (0.5, 0.8), (0.03, 0.1)),
    "rain200l": tuple(_fine()),
    "rain200h": (
        Recipe((_LINES,), lean=6, steepest=15, weight=0.05),
        Recipe((_ALONG, _ACROSS), lean=6, steepest=15, weight=0.15),
        Recipe((_LINES, _ALONG, _ACROSS), lean=6, steepest=15, weight=0.8),
    ),
    "rain800": tuple(
        Recipe(
            (Group(curtain, None),),
            lean=13,
            steepest=30,
            weight=weight,
            finish={"screen": 1, **levels},
            jpeg_quality=75,
        )
        for weight, curtain, levels in _BLURRED
    ),
    "none": (Recipe((), lean=0, steepest=0),),
}

# What real photographs have and the sets above have not. Drawn after no set.
_COMPRESSED = (35, 96)  # JPEG quality
_ALL_SIZES = (0.5, 3.0)
RECIPES["scaled"] = tuple(
    recipe._replace(weight=recipe.weight * weight, jpeg_quality=_COMPRESSED, sizes=_ALL_SIZES)
    for name, weight in {"light": 1, "medium": 1, "heavy": 1, "rain200l": 1.5, "rain200h": 1.5}.items()
    for recipe in RECIPES[name]
)
# Drops near the lens: few, much longer than a patch of training at their longest, with soft borders.
_NEAR = _streaks(
    (50, 260), (3, 13), (0.15, 2.5), (0.3, 0.9), (1, 2.5), spread=0.6, ripple=(0, 0.5), ripples=1.5, fade=(0.1, 0.6)
)
_COMMON = _streaks(
    (14, 60), (1.2, 2.8), (5, 50), (0.3, 0.8), (1.5, 3.5), spread=0.5, ripple=(0, 0.8), ripples=2.0, fade=(0.1, 0.5)
)
_ONE_DEPTH = (Depth(1, 1, 1, 1, drift=2, wobble=2.0),)
RECIPES["thick"] = (
    Recipe(
        (Group(_COMMON, _ONE_DEPTH, copies=(0, 1)), Group(_NEAR, _ONE_DEPTH, turn=(-4, 4))),
        lean=12,
        steepest=45,
        veil=(0, 0.05),
        finish={"screen": (0.2, 1)},
        jpeg_quality=_COMPRESSED,
    ),
)
_DRIVEN = _streaks(
    (5, 22), (1.2, 3.2), (30, 160), (0.4, 1.0), (0.7, 2.5), spread=0.5, ripple=(0, 0.4), ripples=1.0, fade=(0.3, 0.7)
)
_DRIVEN_DEPTHS = (
    Depth(0.75, 0.8, 0.75, 0.8, drift=2, wobble=3.0),
    Depth(0.22, 1.0, 1.1, 1.0, drift=2, wobble=4.0),
    Depth(0.03, 1.7, 2.2, 1.0, drift=2, wobble=6.0),
)
RECIPES["dense"] = (
    Recipe(
        (
            Group(_curtain((8, 40), (1.0, 3.0), (-0.05, 0.15), (0.05, 0.2)), None, turn=(-4, 4), copies=(1, 3)),
            Group(_COMMON, _ONE_DEPTH, turn=(-4, 4), copies=(0, 2)),
        ),
        lean=12,
        steepest=45,
        veil=(0, 0.15),
        finish={"screen": (0.3, 1)},
        jpeg_quality=_COMPRESSED,
        sizes=(0.6, 2.0),
    ),
    # Driven by the wind: many short streaks, as broad as flakes, as oblique as snow, of several depths.
    Recipe(
        (
            Group(_curtain((4, 16), (1.0, 3.0), (-0.05, 0.1), (0.01, 0.2)), None, turn=(-6, 6)),
            Group(_DRIVEN, _DRIVEN_DEPTHS, turn=(-6, 6), copies=(1, 2)),
        ),
        lean=22,
        steepest=60,
        weight=0.7,
        veil=(0, 0.15),
        finish={"screen": (0, 1)},
        jpeg_quality=_COMPRESSED,
        sizes=(0.6, 2.0),
    ),
)
RECIPES["crossed"] = (
    Recipe(
        (Group({**_COMMON, "density": (5, 30)}, _ONE_DEPTH, turn=(-45, 45), copies=(2, 4)),),
        lean=8,
        steepest=30,
        veil=(0, 0.05),
        finish={"screen": (0, 1)},
        jpeg_quality=_COMPRESSED,
        sizes=(0.6, 2.0),
    ),
)
RECIPES["levels"] = tuple(
    recipe._replace(
        finish={"screen": 1, "black": (0, 0.2), "white": (0.84, 1.1), "gamma": (0.7, 1.8)},
        jpeg_quality=(50, 96),
        jpeg_share=0.8,
        sizes=(0.7, 1.8),
    )
    for recipe in RECIPES["rain800"]
)


def _delivered(weight: float, *groups: Group, lean: float, steepest: float, veil: Value) -> Recipe:
    """Describe rain in a photograph as people get it: sharpened by the camera, resized, compressed."""
    finish: dict[str, Value] = {"screen": (0.3, 1), "sharpening": (0, 2)}
    return Recipe(groups, lean, steepest, weight, veil, finish, jpeg_quality=(30, 93), jpeg_share=0.8, sizes=(0.6, 1.8))


_SLANTED = _streaks(
    (8, 45), (1.0, 2.6), (20, 150), (0.15, 0.85), (1, 3), spread=0.5, ripple=(0, 0.6), ripples=1.5, fade=(0.15, 0.5)
)
_FLAKES = _streaks(
    (3, 14), (1.8, 5), (8, 70), (0.25, 1), (0.5, 2), spread=0.6, ripple=(0, 0.3), ripples=1.0, fade=(0.3, 0.8)
)
_WIDE = _streaks(
    (20, 110), (3, 13), (0.3, 3), (0.2, 0.9), (0.7, 2), spread=0.6, ripple=(0, 0.5), ripples=1.5, fade=(0.1, 0.7)
)
_FAINT = Group(_curtain((8, 40), (1.0, 2.5), (-0.08, 0.08), (0.02, 0.12)), None, turn=(-4, 4), copies=(0, 1))
_AGAINST_LIGHT = Group(_curtain((20, 90), (1.2, 3.5), (-0.1, 0.12), (0.06, 0.3)), None, turn=(-3, 3), copies=(1, 3))
RECIPES["delivered"] = (
    _delivered(
        0.4, _FAINT, Group(_SLANTED, _DRIVEN_DEPTHS, turn=(-5, 5), copies=(1, 2)), lean=16, steepest=50, veil=(0, 0.25)
    ),
    _delivered(
        0.2,
        _AGAINST_LIGHT,
        Group(_COMMON, _ONE_DEPTH, turn=(-4, 4), copies=(0, 1)),
        lean=7,
        steepest=25,
        veil=(0, 0.15),
    ),
    _delivered(
        0.25, _FAINT, Group(_FLAKES, _DRIVEN_DEPTHS, turn=(-8, 8), copies=(1, 2)), lean=25, steepest=65, veil=(0, 0.2)
    ),
    _delivered(
        0.15,
        _FAINT,
        Group({**_SLANTED, "density": (5, 60)}, _ONE_DEPTH),
        Group(_WIDE, _ONE_DEPTH, turn=(-3, 3)),
        lean=9,
        steepest=30,
        veil=(0, 0.2),
    ),
)
