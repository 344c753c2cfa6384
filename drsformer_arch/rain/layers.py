"""Layers of rain: single streaks, and curtains so dense that there are none."""

from dataclasses import dataclass, field, fields
from typing import Any


def within(low: float, high: float, default: Any) -> Any:
    """Declare a field of a layer or of a whole rain, with its legal range."""
    return field(default=default, metadata={"range": (low, high)})


def check_ranges(instance: Any) -> None:
    """Check the fields of a layer or of a whole rain.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """
    for each in fields(instance):
        value = getattr(instance, each.name)
        if not each.metadata or (value is None and each.default is None):
            continue
        low, high = each.metadata["range"]
        if not low <= value <= high:  # NaN fails too
            raise ValueError(f"rain parameter {each.name} must lie between {low:g} and {high:g}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Streaks:
    """A layer of single streaks, all at about one distance.

    Lengths are in pixels of the picture that is rained on: what suits a 481 x 321 picture is fine drizzle on one of
    24 megapixels.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    # direction of fall in degrees from the vertical, -80 to 80; positive leans to the right at the top, like `/`
    angle: float = within(-80, 80, 10.0)
    # standard deviation of the whole layer's direction around `angle`, degrees, 0 to 45
    drift: float = within(0, 45, 0.0)
    # standard deviation of one streak's direction around that of its layer, degrees, 0 to 45
    wobble: float = within(0, 45, 1.0)
    # mean length of a streak in px, 1 to 1000, measured between the middles of its fading ends
    length: float = within(1, 1000, 30.0)
    # lengths are uniform in length * (1 ± length_spread), 0 to 0.9
    length_spread: float = within(0, 0.9, 0.4)
    # mean width of a streak (full width at half maximum) in px, 0.1 to 100
    width: float = within(0.1, 100, 1.6)
    # widths are uniform in width * (1 ± width_spread), 0 to 0.9
    width_spread: float = within(0, 0.9, 0.25)
    # mean number of streaks in 100 x 100 px, 0 to 1000
    density: float = within(0, 1000, 20.0)
    # brightness of the strongest streaks, 0 (invisible) to 1 (white)
    brightness: float = within(0, 1, 0.6)
    # brightness of a streak is brightness * Beta(1.6, faintness); the larger, the rarer are strong ones, 0.1 to 100
    faintness: float = within(0.1, 100, 2.4)
    # largest depth of the beads along a streak, 0 (even) to 1 (dark gaps)
    ripple: float = within(0, 1, 0.5)
    # largest number of beads on a streak, 0.5 to 100
    ripples: float = within(0.5, 100, 2.0)
    # share of the length over which each end fades, 0 (cut off) to 1
    fade: float = within(0, 1, 1 / 3)
    # brightness at which crossing streaks of the layer stop adding up, 0 to 1; a low one makes flat lines
    ceiling: float = within(0, 1, 1.0)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Curtain:
    """A layer so dense that it has no single streaks: normal white noise blurred along a line, cut off below 0.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    # direction of fall as in `Streaks`
    angle: float = within(-80, 80, 10.0)
    # length of the blur in px, 1 to 1000
    length: float = within(1, 1000, 12.0)
    # width of the blur (full width at half maximum) in px, 0.1 to 100
    width: float = within(0.1, 100, 1.5)
    # mean brightness before the cut, -1 to 1; a negative one leaves single streaks
    mean: float = within(-1, 1, 0.1)
    # standard deviation of the brightness before the cut, 0 to 1
    contrast: float = within(0, 1, 0.1)

    def __post_init__(self) -> None:
        check_ranges(self)
