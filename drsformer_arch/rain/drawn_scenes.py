"""Clean pictures of what looks like rain and is none, drawn: regular lines, text, grass and hair, walls, folds.

From them, with and without rain over them, a network learns to leave alone what looks alike in photographs.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from drsformer_arch.images.pictures import Picture
from drsformer_arch.rain.line_patterns import HELD_OUT_PERIODS, PERIODS, draw_training_pattern, is_held_out

Plane = npt.NDArray[np.floating[Any]]

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_LETTERS = np.array(list("aaabcdeeeefghiiijklmnnoopqrrsstttuvwxyzABCDEFGHIKLMNOPRSTW0123456789.,:!/-'|   "))
_SUBPIXEL = 4  # bits of OpenCV's coordinates behind the point


def draw_scene(rng: np.random.Generator, photograph: Picture) -> Picture:
    """Draw a scene in place of a photograph or in front of it.

    Lines are as `draw_training_pattern` draws them; nothing that is held out
    for validation.

    Args:
        rng: source of all randomness; it is advanced.
        photograph: (H, W, C), uint8 or uint16. It is not changed.

    Returns:
        (H, W, 3) of the same type.
    """
    height, width = photograph.shape[:2]
    largest = np.iinfo(photograph.dtype).max
    behind = np.broadcast_to(photograph, (height, width, 3)).astype(np.float32) / largest
    scene: Plane
    kind = rng.choice(6, p=(0.26, 0.17, 0.22, 0.10, 0.15, 0.10))
    if kind == 0:
        scene = draw_training_pattern(rng, height, width).astype(np.float32) / 255
        if rng.random() < 0.5:  # cloth, mesh, grooves: hardly brighter or darker than what is between
            scene = _colour(rng) + (scene - scene.mean()) * rng.uniform(0.08, 0.6)
    elif kind == 1:
        # A pattern's brightness as a mask: something in front of the photograph has its lines.
        mask = draw_training_pattern(rng, height, width).mean(axis=2, dtype=np.float32)
        mask = (mask - mask.min()) / max(float(np.ptp(mask)), 1.0)
        scene = _blended(behind, mask * rng.uniform(0.15, 1), _colour(rng))
    elif kind == 2:
        scene = _hair(rng, height, width)
    elif kind == 3:
        scene = _wall(rng, height, width)
    elif kind == 4:
        scene = _folds(rng, behind)
    else:
        scene = _text(rng, behind)
    return np.rint(np.clip(scene, 0, 1) * largest).astype(photograph.dtype)


def _colour(rng: np.random.Generator) -> Plane:
    return np.clip(rng.uniform(0, 1) + rng.uniform(-0.1, 0.1, size=3), 0, 1).astype(np.float32)


def _blended(behind: Plane, mask: Plane, colour: Plane) -> Plane:
    return behind + mask[:, :, None] * (colour - behind)


def _hair(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw grass, hair, fur: many thin bent strokes of about one direction; before a photograph they were rain."""
    scene = np.full((height, width, 3), _colour(rng), np.float32)
    first, second = _colour(rng), _colour(rng)
    angle, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.5)
    length, bend = float(np.exp(rng.uniform(np.log(20), np.log(120)))), rng.uniform(0, 0.6)
    thick = int(rng.integers(1, 4))
    count = int(rng.uniform(0.2, 1.5) * (height + length) * (width + length) / (length * thick * 3))
    steps = np.linspace(-0.5, 0.5, 6)
    for _ in range(min(count, 1500)):
        turned = angle + rng.normal(0, spread) + rng.normal(0, bend) * steps
        path = np.cumsum(np.stack([np.cos(turned), np.sin(turned)], axis=1) * length / len(steps), axis=0)
        path += rng.uniform(-length / 2, (width + length / 2, height + length / 2))
        mixed = first + rng.random(dtype=np.float32) * (second - first)
        points = np.rint(path * 2**_SUBPIXEL).astype(np.int32)
        stroke = np.zeros((height, width), np.uint8)
        cv2.polylines(stroke, [points], False, 255, thick, cv2.LINE_AA, _SUBPIXEL)
        ys, xs = np.nonzero(stroke)
        cover = stroke[ys, xs, None].astype(np.float32) / 255
        scene[ys, xs] += cover * (mixed - scene[ys, xs])
    return scene


def _wall(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw bricks, tiles or boards: joints in two directions, hardly tilted, between stones of uneven colour."""
    row = HELD_OUT_PERIODS[0]
    while HELD_OUT_PERIODS[0] <= row <= HELD_OUT_PERIODS[1]:
        row = float(np.exp(rng.uniform(np.log(7), np.log(80))))
    stone = row * float(np.exp(rng.uniform(np.log(1), np.log(5))))
    while HELD_OUT_PERIODS[0] <= stone <= HELD_OUT_PERIODS[1]:
        stone *= 1.1
    turn = np.deg2rad(rng.uniform(-12, 12) + 90 * rng.integers(2))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    down = (y * np.cos(turn) - x * np.sin(turn)) / row + 1000
    number = np.floor(down)
    along = (x * np.cos(turn) + y * np.sin(turn)) / stone + 1000 + number * float(rng.choice((0, 0.5, 0.31)))
    joint = max(row * float(rng.uniform(0.05, 0.2)), 1.0)
    nearest = np.minimum(np.abs(down - np.rint(down)) * row, np.abs(along - np.rint(along)) * stone)
    between = np.clip((joint / 2 - nearest) / rng.uniform(1, 2) + 0.5, 0, 1).astype(np.float32)
    tones = rng.normal(1, rng.uniform(0, 0.15), size=4096)
    uneven = tones[(number.astype(np.int64) * 61 + np.floor(along).astype(np.int64)) % len(tones)]
    grain = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), float(rng.uniform(0.5, 2)))
    uneven = uneven + grain / max(grain.std(), 1e-6) * rng.uniform(0, 0.1)
    stones = _colour(rng) * uneven[:, :, None].astype(np.float32)
    return _blended(stones, between, _colour(rng))


def _folds(rng: np.random.Generator, behind: Plane) -> Plane:
    """Draw corrugated iron, ribbed cloth, pleats: light that rises and falls across folds, without any lines."""
    height, width = behind.shape[:2]
    angle, period = 0.0, HELD_OUT_PERIODS[0]
    while is_held_out("stripes", (angle,), period):
        angle, period = float(rng.uniform(-90, 90)), float(np.exp(rng.uniform(*np.log(PERIODS))))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turn = np.deg2rad(angle)
    phase = ((x * np.cos(turn) + y * np.sin(turn)) / period + rng.uniform(0, 1)) % 1
    crest = rng.uniform(0.1, 0.9)  # 0.5 is symmetric, the ends are saw teeth
    light = np.where(phase < crest, phase / crest, (1 - phase) / (1 - crest)) ** rng.uniform(0.5, 2)
    if rng.random() < 0.5:
        light = 0.5 - 0.5 * np.cos(np.pi * light)  # round instead of sharp
    light = 1 - rng.uniform(0.1, 0.7) * light[:, :, None].astype(np.float32)
    if rng.random() < 0.7:
        behind = np.full(behind.shape, _colour(rng), np.float32)
    return behind * light + rng.standard_normal(behind.shape).astype(np.float32) * rng.uniform(0, 0.01)


def _text(rng: np.random.Generator, behind: Plane) -> Plane:
    """Draw lines of letters at any angle."""
    height, width = behind.shape[:2]
    side = int(1.5 * np.hypot(height, width))
    page = np.zeros((side, side), np.uint8)
    font = _FONTS[rng.integers(len(_FONTS))]
    scale = float(np.exp(rng.uniform(np.log(0.3), np.log(2.5))))
    thick = int(rng.integers(1, 2 + int(3 * scale)))
    step = max(int(scale * rng.uniform(22, 45)), 8)
    for bottom in range(step, side + step, step):
        letters = "".join(rng.choice(_LETTERS, size=int(side / (8 * scale)) + 1))
        cv2.putText(page, letters, (int(rng.integers(-20, 1)), bottom), font, scale, 255, thick, cv2.LINE_AA)
    middle = (side / 2, side / 2)
    turn = cv2.getRotationMatrix2D(middle, float(rng.choice((0, rng.uniform(-180, 180)))), 1)
    turned = cv2.warpAffine(page, turn, (side, side), flags=cv2.INTER_LINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    mask = turned[top : top + height, left : left + width].astype(np.float32) / 255
    if rng.random() < 0.6:
        behind = np.broadcast_to(_colour(rng), behind.shape).astype(np.float32)
    return _blended(behind, mask, _colour(rng))
