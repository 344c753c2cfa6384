"""The look of rain in numbers: brightness, direction, length and width of streaks from a rainy and a clean picture.

All but PSNR is estimated from the residual, the difference of luma `D = Y(rainy) - Y(clean)` (ITU-R BT.601, full
range, gray values 0 to 255), so that real and synthetic pairs are measured alike. Where rain is clipped or blended, the
residual depends on the scene too; compare sets over the same clean pictures.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from drsformer_arch.metrics import calculate_psnr_rain200

Picture = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float64]

_LUMA_RGB = (0.299, 0.587, 0.114)
_FINE_SIGMA = 1.0  # px, blur before the gradient: below it the pixel grid would pass for a direction
_COARSE_SIGMA = 12.0  # px, what is coarser is veil, tone or scene, and no streak
_LARGEST_SIDE = 1024  # px, the middle of larger pictures is enough for structure
_LAG_STEP = 0.25  # px
_TURN_STEP = 0.5  # degrees
_TURN_TOLERANCE = 3.0  # degrees
_LARGEST_LAG = 150  # px


@dataclass(frozen=True)
class RainStatistics:
    """Rain of one pair of pictures. Direction, coherence, length and width are NaN where there is no rain."""

    # mean of |D|, gray values 0 to 255
    intensity: float
    # 99th percentile of |D|, gray values 0 to 255
    strongest: float
    # dominant direction of the streaks, degrees from the vertical, -90 to 90; positive leans to the right at the top
    direction: float
    # how much of the structure has the dominant direction: 0 (all directions alike) to 1 (only one)
    coherence: float
    # px, see `streak_extent`
    length: float
    # px, the same across the streaks
    width: float
    # of the rainy picture against the clean one, dB (protocol rain200, luma); infinite where they are equal
    psnr: float

    @property
    def lean(self) -> float:
        """|direction|, degrees, 0 (upright) to 90: rain sets lean to both sides alike, so the sign averages out."""
        return abs(self.direction)


def rain_statistics(rainy: Picture, clean: Picture) -> RainStatistics:
    """Measure the rain of one pair.

    Args:
        rainy: (H, W, 3) RGB or (H, W), uint8 in [0, 255].
        clean: the same picture without rain, of the same shape.

    Raises:
        ValueError: the shapes differ, or are not those of pictures, or a picture is not uint8.
    """
    psnr = calculate_psnr_rain200(rainy, clean, channel_order="rgb")  # checks both pictures
    residual = _luma(rainy) - _luma(clean)
    strength = np.abs(residual)
    rows, columns = (slice(max(0, (side - _LARGEST_SIDE) // 2), None) for side in residual.shape)
    middle = residual[rows, columns][:_LARGEST_SIDE, :_LARGEST_SIDE]
    direction, coherence = dominant_direction(middle)
    return RainStatistics(
        intensity=float(strength.mean()),
        strongest=float(np.percentile(strength, 99)),
        direction=direction,
        coherence=coherence,
        length=streak_extent(middle, direction, _TURN_TOLERANCE),
        width=streak_extent(middle, direction + 90),
        psnr=psnr,
    )


def dominant_direction(residual: Plane) -> tuple[float, float]:
    """Return direction of streaks and how dominant it is, from the structure tensor averaged over the picture.

    With the gradient (gx, gy) of the blurred residual and J = mean of (gx², gx gy, gy²), brightness changes most along
    the angle atan2(2 Jxy, Jxx - Jyy) / 2, which is across the streaks; the mean is taken over doubled angles, so that
    opposite directions are the same. Coherence is (l1 - l2) / (l1 + l2) of the eigenvalues of J: streaks that cross
    lower it. Source: J. Bigun and G. H. Granlund, "Optimal Orientation Detection of Linear Symmetry", ICCV 1987.

    Args:
        residual: (H, W) gray values.

    Returns:
        direction in degrees from the vertical, -90 to 90, positive leaning to the right at the top; coherence, 0 to 1.
        NaN, NaN where the residual is flat.
    """
    blurred = cv2.GaussianBlur(residual, (0, 0), _FINE_SIGMA)
    gx, gy = cv2.Scharr(blurred, cv2.CV_64F, 1, 0), cv2.Scharr(blurred, cv2.CV_64F, 0, 1)
    xx, xy, yy = (float(np.mean(product)) for product in (gx * gx, gx * gy, gy * gy))
    if xx + yy < 1e-9:
        return float("nan"), float("nan")
    return float(np.rad2deg(0.5 * np.arctan2(2 * xy, xx - yy))), float(np.hypot(xx - yy, 2 * xy) / (xx + yy))


def streak_extent(residual: Plane, direction: float, tolerance: float = 0.0) -> float:
    """Return twice the lag at which the residual's autocorrelation along a direction has fallen to one half, in px.

    For bars of one length along their direction, whose autocorrelation is 1 - lag / length, this is their length; for
    streaks of many lengths a mean in which long and bright ones count more; for a normal curve 1.4 times its full width
    at half maximum. What varies more slowly than about 12 px in all directions (veil, tone) is subtracted first.

    Args:
        residual: (H, W) gray values.
        direction: degrees from the vertical, as `dominant_direction` gives it.
        tolerance: degrees; the largest extent along any direction this near is taken. Along a thin streak, an error of
            one degree in the direction would shorten it.

    Returns:
        px, at most 300 or the shorter side of the picture (a longer one cannot be told); NaN where the residual or the
        direction is none.
    """
    fine = residual - cv2.GaussianBlur(residual, (0, 0), _COARSE_SIGMA)
    largest = min(_LARGEST_LAG, min(residual.shape) // 2)
    if not np.isfinite(direction) or float(np.abs(fine).max()) < 1e-9 or largest < 2:
        return float("nan")
    correlation = _autocorrelation(fine, largest).astype(np.float32)
    lags = np.arange(0, largest, _LAG_STEP)
    steps = int(np.ceil(tolerance / _TURN_STEP))
    radians = np.deg2rad(direction + _TURN_STEP * np.arange(-steps, steps + 1))[:, None]
    x, y = largest + lags * np.sin(radians), largest - lags * np.cos(radians)
    along = cv2.remap(correlation, x.astype(np.float32), y.astype(np.float32), cv2.INTER_CUBIC)
    return max(2 * _half_lag(profile / correlation[largest, largest]) for profile in along)


def _half_lag(correlation: npt.NDArray[np.float32]) -> float:
    """Return where values that start at 1 first fall below one half, px; all of the range where they do not."""
    below = np.flatnonzero(correlation < 0.5)
    if below.size == 0:
        return _LAG_STEP * correlation.size
    after = int(below[0])
    before, there = float(correlation[after - 1]), float(correlation[after])
    return _LAG_STEP * (after - 1 + (before - 0.5) / (before - there))


def _autocorrelation(plane: Plane, largest: int) -> Plane:
    """(2 * largest + 1, 2 * largest + 1) with lag 0 in the middle: the mean product of all pairs at each distance."""
    rows, columns = (cv2.getOptimalDFTSize(side + largest) for side in plane.shape)  # no lag wraps around

    def products(values: Plane) -> Plane:
        whole = np.fft.fftshift(np.fft.irfft2(np.abs(np.fft.rfft2(values, (rows, columns))) ** 2, (rows, columns)))
        middle_y, middle_x = rows // 2, columns // 2
        return whole[middle_y - largest : middle_y + largest + 1, middle_x - largest : middle_x + largest + 1]

    return products(plane) / products(np.ones_like(plane))


def _luma(picture: Picture) -> Plane:
    return picture.astype(np.float64) if picture.ndim == 2 else picture @ np.array(_LUMA_RGB)
