"""Drawn pictures of regular lines, which rain resembles: lattices, fences, blinds, hatchings and stripes.

A network that takes off rain has to leave them alone. Training draws some of them
(`draw_training_pattern`), the yardsticks of DRSformer-S all (`scripts/yardsticks.py`). What training must never
draw, so that the yardsticks measure more than memory, is written down here: two families, a range of angles and a range
of distances between lines.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Family = Literal["lattice", "fence", "blinds", "hatching", "stripes"]
FAMILIES: tuple[Family, ...] = get_args(Family)

# Never drawn in training. Mirrored and transposed pictures are drawn there too, so angles are excluded with all their
# symmetries: those of lines 20 to 30 degrees from the vertical or from the horizontal.
HELD_OUT_FAMILIES: tuple[Family, ...] = ("fence", "blinds")
HELD_OUT_ANGLES = (20.0, 30.0)  # degrees
HELD_OUT_PERIODS = (12.0, 17.0)  # px from line to line

PERIODS = (5.0, 60.0)  # px, of all patterns
TRAINING_FAMILIES = tuple(family for family in FAMILIES if family not in HELD_OUT_FAMILIES)

Plane = npt.NDArray[np.float64]


def is_held_out(family: Family, angles: tuple[float, ...], period: float) -> bool:
    """Tell whether training must not draw such a pattern.

    Args:
        family: one of `FAMILIES`.
        angles: directions of its lines in degrees from the vertical.
        period: distance of its lines in px.
    """
    away = [abs((angle + 90) % 180 - 90) for angle in angles]  # from the vertical, 0 to 90
    low, high = HELD_OUT_ANGLES
    turned = any(low <= min(angle, 90 - angle) <= high for angle in away)
    return family in HELD_OUT_FAMILIES or turned or HELD_OUT_PERIODS[0] <= period <= HELD_OUT_PERIODS[1]


def draw_training_pattern(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Draw a pattern of any family, angle, distance and brightness but the held out ones.

    Args:
        rng: source of all randomness; it is advanced.
        height: px.
        width: px.

    Returns:
        (height, width, 3) RGB.
    """
    while True:
        family = TRAINING_FAMILIES[rng.integers(len(TRAINING_FAMILIES))]
        angle = float(rng.uniform(-90, 90))
        across = angle + (90 if rng.random() < 0.5 else float(rng.uniform(30, 150)))
        angles = (angle, across) if family == "lattice" else (angle,)
        period = float(np.exp(rng.uniform(*np.log(PERIODS))))
        if not is_held_out(family, angles, period):
            return draw_pattern(rng, family, angles, period, bright=rng.random() < 0.5, height=height, width=width)


def draw_pattern(
    rng: np.random.Generator,
    family: Family,
    angles: tuple[float, ...],
    period: float,
    *,
    bright: bool,
    height: int,
    width: int,
) -> npt.NDArray[np.uint8]:
    """Draw a pattern; what is not given is drawn from `rng`: widths, edges, colours, light, grain.

    Args:
        rng: source of all other randomness; it is advanced.
        family: one of `FAMILIES`. A lattice has two directions; a fence has rails at right angles to its
            pickets, blinds are shaded slats, a hatching has broken lines at uneven distances.
        angles: directions of the lines in degrees from the vertical, two for a lattice, otherwise one.
        period: distance between the middles of neighbouring lines in px (of a hatching: on average).
        bright: lines brighter than what is behind them, or darker.
        height: px.
        width: px.

    Returns:
        (height, width, 3) RGB, anti-aliased.
    """
    edge = float(rng.uniform(1, 2))  # px over which a line's border rises
    thickness = max(period * float(rng.uniform(0.1, 0.5)), 1.0)
    cover = np.zeros((height, width))
    shade = np.ones((height, width))
    for angle in angles:
        along, across = _coordinates(height, width, angle, rng)
        if family == "hatching":
            cover = _hatching((along, across), period, thickness, edge, rng)
            continue
        distance = _to_nearest(across, period)
        cover = np.maximum(cover, _line(np.abs(distance), thickness, edge))
        if family in ("fence", "blinds"):  # round bars and tilted slats are not evenly lit
            depth = float(rng.uniform(0.1, 0.5))
            shade *= 1 - depth * np.clip(np.abs(distance) * 2 / thickness, 0, 1) ** (2 if family == "fence" else 1)
        if family == "fence":
            rails = float(rng.uniform(3, 6)) * period
            cover = np.maximum(cover, _line(np.abs(_to_nearest(along, rails)), thickness, edge))
    if family == "blinds":
        # Slats touch: only thin gaps show what is behind them.
        cover = _line(np.abs(distance), period * float(rng.uniform(0.75, 0.92)), edge)

    dark = rng.uniform(0, 0.3) + rng.uniform(-0.04, 0.04, size=3)
    light = rng.uniform(0.55, 1) + rng.uniform(-0.08, 0.08, size=3)
    ink, paper = (light, dark) if bright else (dark, light)
    cover, shade = cover[:, :, None], shade[:, :, None]
    picture = cover * ink * shade + (1 - cover) * paper * _light(height, width, rng)
    picture += rng.standard_normal(picture.shape) * rng.uniform(0, 0.008)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _coordinates(height: int, width: int, angle: float, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Return distances along and across lines of that direction from a point near the middle, (height, width), px."""
    radians = np.deg2rad(angle)
    shift_y, shift_x = rng.uniform(-60, 60, size=2)
    y = np.arange(height, dtype=np.float64)[:, None] - height / 2 + shift_y
    x = np.arange(width, dtype=np.float64)[None, :] - width / 2 + shift_x
    return x * np.sin(radians) - y * np.cos(radians), x * np.cos(radians) + y * np.sin(radians)


def _to_nearest(position: Plane, period: float) -> Plane:
    """Return the signed distance to the nearest multiple of the period."""
    return position - period * np.floor(position / period + 0.5)


def _line(distance: Plane, thickness: float | Plane, edge: float) -> Plane:
    """Return the share of a pixel that a line covers, by the distance of their middles."""
    return np.clip((thickness / 2 - distance) / edge + 0.5, 0, 1)


def _hatching(
    position: tuple[Plane, Plane], period: float, thickness: float, edge: float, rng: np.random.Generator
) -> Plane:
    """Return the share of every pixel that broken lines at uneven distances cover.

    Args:
        position: along and across the lines, px.
        period: mean distance of the lines, px.
        thickness: of a line, px.
        edge: px over which a line's border rises.
        rng: source of distances and gaps.
    """
    along, across = position
    number = np.floor(across / period + 0.5).astype(np.int64)
    first = int(number.min())
    count = int(number.max()) - first + 1
    shifts = rng.uniform(-0.3, 0.3, size=count) * period
    stroke = float(rng.uniform(6, 20)) * period
    starts = rng.uniform(0, stroke, size=count)
    index = number - first
    distance = np.abs(across - number * period - shifts[index])
    gap = np.abs(_to_nearest(along - starts[index], stroke))
    drawn = np.clip((gap - rng.uniform(0.3, 1) * period) / edge + 0.5, 0, 1)
    return _line(distance, min(thickness, 0.35 * period), edge) * drawn


def _light(height: int, width: int, rng: np.random.Generator) -> Plane:
    """Return the brightness behind the lines, falling slowly in some direction, (height, width, 1)."""
    direction = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-0.5, 0.5, height)[:, None, None]
    x = np.linspace(-0.5, 0.5, width)[None, :, None]
    return 1 - rng.uniform(0, 0.4) * (0.5 + np.cos(direction) * y + np.sin(direction) * x)
