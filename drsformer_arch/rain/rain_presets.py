"""The looks of rain: parameters of the synthesis, and presets that draw them.

Presets are mixtures of recipes in one table, `recipes.RECIPES`. Three of them imitate benchmark sets:

=========  =============================================================================================================
preset     rain
=========  =============================================================================================================
rain200l   gray streaks in one direction, with beads along them and specks between; added; about 27 dB PSNR
rain200h   hard parallel lines of one brightness, and soft streaks along and across them; added, clipped; about 14 dB
rain800    white noise blurred along one line and cut off at black; screened, then levels over the whole picture (which
           may come out darker than it went in), then JPEG of quality 75; about 24 dB
light      drawn after no set: three depths of streaks in one direction, blended between adding and screening
medium     the same, stronger
heavy      the same, stronger still
none       none at all: pairs of equal halves, from which a network learns to leave clean pictures as they are
scaled     light, medium, heavy, rain200l and rain200h with streaks of half to three times their size, half of it JPEG
thick      long and wide streaks of near drops, out of focus, before some of the usual ones, half of it JPEG
dense      curtains of fine to coarse rain with streaks before them and a veil behind, or short broad streaks driven by
           the wind, as oblique as snow; half of it JPEG
crossed    streaks of two to four directions and several sizes, half of it JPEG
levels     as rain800, wider: rain of two sizes, levels that it does not explain, JPEG of any quality
delivered  as cameras and editors deliver it: dense slanted streaks, curtains against the light, flakes, wide soft
           drops, sharpened with dark seams, most of it JPEG
=========  =============================================================================================================

`benchmarks/rain.py` measures how near the first three come.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from drsformer_arch.rain.layers import Curtain, Streaks, check_ranges, within
from drsformer_arch.rain.recipes import RECIPES, draw, resized, streaks_of
from drsformer_arch.system.errors import did_you_mean

Strength = Literal["light", "medium", "heavy"]
Wide = Literal["scaled", "thick", "dense", "crossed", "levels", "delivered"]
Preset = Literal[Strength, "rain200l", "rain200h", "rain800", "none", Wide]

PRESETS: tuple[Preset, ...] = get_args(Preset)
# presets of rain as at one scale and in good order; what a data set draws if nothing is said
RAINS: tuple[Preset, ...] = ("light", "medium", "heavy", "rain200l", "rain200h", "rain800")
# presets of rain at all scales and in the disorder of real photographs
WIDE_RAINS: tuple[Preset, ...] = get_args(Wide)


@dataclass(frozen=True, kw_only=True)
class RainParameters:
    """The look of the rain of one picture, and what happens to the picture after it rained.

    The levels of the finished picture are ((R - black) / (white - black)) ** gamma, clipped.

    Attributes:
        layers: streaks and curtains, from far to near.
        screen: how layers are blended, 0 (added and clipped, as in Rain200L and Rain200H) to 1 (screen, as in Rain800).
        veil: loss of contrast through rain too far away to be seen as streaks, 0 (none) to 1 (nothing darker than sky
            left).
        sharpening: of the rain as a camera sharpens its pictures, 0 (none) to 5; dark seams along bright streaks.
        black: 0 to 0.9.
        white: 0.1 to 2, above `black`.
        gamma: 0.1 (bright) to 10 (dark).
        jpeg_quality: compression of the finished picture, 1 to 100; None leaves it out.

    Raises:
        ValueError: a value lies outside its range; the message names it.
    """

    layers: tuple[Streaks | Curtain, ...] = ()
    screen: float = within(0, 1, 0.0)
    veil: float = within(0, 1, 0.0)
    sharpening: float = within(0, 5, 0.0)
    black: float = within(0, 0.9, 0.0)
    white: float = within(0.1, 2, 1.0)
    gamma: float = within(0.1, 10, 1.0)
    jpeg_quality: int | None = within(1, 100, None)

    def __post_init__(self) -> None:
        check_ranges(self)
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
        if preset not in RECIPES:
            raise ValueError(f"unknown kind of rain {preset!r}{did_you_mean(preset, PRESETS)}")
        recipes = RECIPES[preset]
        recipe = recipes[0]
        if len(recipes) > 1:
            weights = np.array([recipe.weight for recipe in recipes])
            recipe = recipes[rng.choice(len(recipes), p=weights / weights.sum())]

        groups = [
            (group, {name: draw(value, rng) for name, value in group.values.items()})
            for group in recipe.groups
            for _ in range(int(rng.integers(group.copies[0], group.copies[1] + 1)) if group.copies else 1)
        ]
        veil = draw(recipe.veil, rng)
        # Wind is as often from the left as from the right, mostly weak, sometimes strong.
        angle = float(np.clip(rng.normal(0, recipe.lean), -recipe.steepest, recipe.steepest))
        finish = {name: draw(value, rng) for name, value in recipe.finish.items()}
        jpeg_quality = recipe.jpeg_quality
        if isinstance(jpeg_quality, tuple):
            jpeg_quality = int(rng.integers(*jpeg_quality)) if rng.random() < recipe.jpeg_share else None
        layers: list[Streaks | Curtain] = []
        for group, drawn in groups:
            turned = angle + draw(group.turn, rng)
            if group.depths is None:
                layers.append(Curtain(angle=turned, **drawn))
            else:
                layers.extend(streaks_of(depth, turned, drawn) for depth in group.depths)
        if recipe.sizes is not None:
            size = float(np.exp(rng.uniform(*np.log(recipe.sizes))))
            layers = [resized(layer, size) for layer in layers]
        return cls(layers=tuple(layers), veil=veil, jpeg_quality=jpeg_quality, **finish)
