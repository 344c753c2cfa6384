"""PSNR and SSIM of the two protocols in which deraining results are published.

Both compare the luma Y (ITU-R BT.601, 16..235) of a result and its target over the whole picture.

==========  ==============================  =======================================================================
protocol    data sets                       Y and SSIM
==========  ==============================  =======================================================================
rain200     Rain200L, Rain200H, SPA-Data    Y rounded to 8 bits; SSIM at full resolution
ddn         DID-Data, DDN-Data              Y not rounded; SSIM after averaging down to about 256 pixels (short side)
==========  ==============================  =======================================================================

BasicSR's own `calculate_psnr` and `calculate_ssim` with `test_y_channel=True` are neither of the two.
SSIM: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE Transactions on Image Processing 13(4), 2004, in the arithmetic of the authors' MATLAB function.
"""

from collections.abc import Callable
from functools import cached_property, update_wrapper
from statistics import fmean
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from drsformer_arch.system.errors import UserError

Picture = NDArray[np.uint8]
Plane = NDArray[np.float64]
Score = Callable[["Planes", "Planes"], float]

# Y of 194 of the 2^24 colors lies exactly half-way between two whole numbers. The last bit of this arithmetic decides
# how rain200 rounds those, which is worth up to 4e-4 dB in a picture. Reference values were computed by the MATLAB
# functions under GNU Octave, and so this follows its rgb2ycbcr: green is the remainder 1 - 0.299 - 0.114, one bit above
# 0.587, and products are added in the order R, G, B (by hand: the order and rounding inside a matrix product vary).
_RED, _BLUE = 0.299, 0.114
_GREEN = 1 - _RED - _BLUE
_PRODUCTS = tuple(weight * (np.arange(256) / 255.0) for weight in (_RED, _GREEN, _BLUE))  # of every value of a channel

_PEAK = 255.0
_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * _PEAK) ** 2
_C2 = (0.03 * _PEAK) ** 2
_STRIP = 2**15  # pixels for which SSIM is computed at a time: all its planes together stay in the cache
_LEAST_ROWS = 32  # of a strip, as ten more are read for the windows


class Metric(Protocol):
    """A score of two pictures; `protocol` names the protocol it belongs to, for logs, `score` is that of `Planes`."""

    __name__: str
    __wrapped__: Any
    protocol: str
    score: "Score"

    def __call__(
        self, img: Picture, img2: Picture, crop_border: int = 0, *, input_order: str = "HWC", channel_order: str = "bgr"
    ) -> float:
        """Score two pictures, (H, W, C) or (C, H, W) by `input_order`, the deraining result and the clean target."""


def _metric(protocol: str) -> Callable[[Score], Metric]:
    """Make of a score of two `Planes` the metric of two pictures that has its name and its documentation."""

    def of_pictures(score: Score) -> Metric:
        def metric(
            img: Picture, img2: Picture, crop_border: int = 0, *, input_order: str = "HWC", channel_order: str = "bgr"
        ) -> float:
            return score(*_planes(img, img2, crop_border, input_order, channel_order))

        named = cast(Metric, update_wrapper(metric, score, ("__module__", "__name__", "__qualname__", "__doc__")))
        named.protocol, named.score = protocol, score
        del named.__wrapped__  # whose signature is another
        return named

    return of_pictures


@_metric("rain200")
def calculate_psnr_rain200(img: "Planes", img2: "Planes") -> float:
    """PSNR in dB of Rain200L, Rain200H and SPA-Data: 10 log10(255² / mean((Y − Y2)²)), Y rounded to 8 bits.

    Source: the MATLAB evaluation published with the Rain200 results (`rgb2ycbcr` of a uint8 picture, then PSNR).

    Args:
        img: result, uint8 in [0, 255]: (H, W, 3), or gray as (H, W, 1) or (H, W), which counts as R = G = B.
        img2: target, of the same shape.
        crop_border: pixels left out at every edge; the protocol leaves out none.
        input_order: "HWC", or "CHW" for pictures (3, H, W), (1, H, W) or (H, W).
        channel_order: "bgr" (as OpenCV and BasicSR hand them over) or "rgb".

    Returns:
        A float; infinity where both Y are equal.

    Raises:
        ValueError: the shapes differ or are not those of pictures, a dtype is not uint8, `crop_border` is negative or
            leaves nothing, or `input_order` or `channel_order` is unknown.

    Examples:
        White and black are 219 levels of Y apart, and 10 log10(255² / 219²) dB is 1.32:

        >>> white = np.full((2, 2, 3), 255, np.uint8)
        >>> round(calculate_psnr_rain200(white, np.zeros_like(white)), 2)
        1.32
    """
    return _psnr(img.rounded, img2.rounded)


@_metric("rain200")
def calculate_ssim_rain200(img: "Planes", img2: "Planes") -> float:
    """SSIM of Rain200L, Rain200H and SPA-Data, Y rounded to 8 bits, at full resolution.

    The mean, over all positions at which an 11x11 Gaussian window (σ = 1.5) lies inside the picture, of
    (2 μ μ2 + C1)(2 σ12 + C2) / ((μ² + μ2² + C1)(σ² + σ2² + C2)) with C1 = (0.01 · 255)², C2 = (0.03 · 255)².
    Source: Wang et al. 2004 (see above), applied by the MATLAB evaluation published with the Rain200 results.

    Args: those of `calculate_psnr_rain200`.

    Returns:
        A float in [-1, 1]; exactly 1 where both Y are equal.

    Raises:
        ValueError: as `calculate_psnr_rain200`, and where a side is shorter than the window of 11 pixels.
    """
    return _ssim(img.rounded, img2.rounded)


@_metric("ddn")
def calculate_psnr_ddn(img: "Planes", img2: "Planes") -> float:
    """PSNR in dB of DID-Data and DDN-Data: 10 log10(255² / mean((Y − Y2)²)), Y in double precision.

    Source: the MATLAB evaluation published with the DDN results (`rgb2ycbcr` of an `im2double` picture, times 255).
    Arguments, returned value and errors are those of `calculate_psnr_rain200`.
    """
    return _psnr(img.luma, img2.luma)


@_metric("ddn")
def calculate_ssim_ddn(img: "Planes", img2: "Planes") -> float:
    """SSIM of DID-Data and DDN-Data, Y in double precision, after automatic down-sampling.

    With f = max(1, floor(min(H, W) / 256 + 0.5)), both Y are averaged over f x f pixels and every f-th one is kept, so
    that 512x512 pictures are compared at 256x256. The formula is that of `calculate_ssim_rain200`, and so are
    arguments, returned value and errors. Source: Wang's MATLAB `ssim.m` with automatic down-sampling.
    """
    return _ssim(img.reduced, img2.reduced)


PROTOCOLS: dict[str, dict[str, Metric]] = {
    "rain200": {"psnr": calculate_psnr_rain200, "ssim": calculate_ssim_rain200},
    "ddn": {"psnr": calculate_psnr_ddn, "ssim": calculate_ssim_ddn},
}
PROTOCOL_DESCRIPTIONS: dict[str, str] = {
    "rain200": "Rain200L, Rain200H, SPA-Data: Y rounded to 8 bits, SSIM at full resolution",
    "ddn": "DID-Data, DDN-Data: Y in double precision, SSIM averaged down to about 256 pixels on the short side",
}


class Planes:
    """The planes of a picture from which scores are computed, each once however many scores need it.

    Args:
        picture: (H, W, C) uint8, C = 3, or 1 for gray, which counts as R = G = B.
        channel_order: of the picture, "rgb" or "bgr".
    """

    def __init__(self, picture: Picture, channel_order: str = "rgb") -> None:
        self.picture = picture
        self.channel_order = channel_order

    @cached_property
    def channels(self) -> tuple[Picture, ...]:
        """The channels in their order, (H, W) uint8."""
        return tuple(cast(Any, cv2.split(self.picture)))

    @cached_property
    def luma(self) -> Plane:
        """Y, (H, W) float64 in 16..235."""
        # The modulus makes a gray picture's only channel serve as all three.
        order = [self.channel_order.index(name) % len(self.channels) for name in "rgb"]
        red, green, blue = (cv2.LUT(self.channels[index], table) for index, table in zip(order, _PRODUCTS, strict=True))
        luma = np.asarray(red, np.float64)
        luma += green
        luma += blue
        luma *= 219.0
        luma += 16.0
        return luma

    @cached_property
    def rounded(self) -> Picture:
        """Y rounded to 8 bits, halves up as MATLAB does (numpy.round would take them to the even neighbor)."""
        return (self.luma + 0.5).astype(np.uint8)

    @cached_property
    def reduced(self) -> Plane:
        """Y averaged down as SSIM of the ddn protocol compares it."""
        return _downsample(self.luma, max(1, int(min(self.luma.shape) / 256 + 0.5)))


# All scores by protocol, as functions of the result and the target; both have as many channels. "rgb" is no protocol of
# the papers on deraining: PSNR over all samples of the three channels, SSIM as the mean of theirs, at full resolution.
SCORES: dict[str, dict[str, Score]] = {
    **{protocol: {what: metric.score for what, metric in of.items()} for protocol, of in PROTOCOLS.items()},
    "rgb": {
        "psnr": lambda one, two: _psnr(one.picture, two.picture),
        "ssim": lambda one, two: fmean(map(_ssim, one.channels, two.channels)),
    },
}


def _planes(
    img: Picture, img2: Picture, crop_border: int, input_order: str, channel_order: str
) -> tuple[Planes, Planes]:
    """Check both pictures and the options; return what is left of them without the border."""
    if img.shape != img2.shape:
        raise ValueError(f"the pictures differ in shape: img has {img.shape}, img2 has {img2.shape}")
    for name, picture in (("img", img), ("img2", img2)):
        if picture.dtype != np.uint8:
            raise ValueError(f"{name} must be uint8 in [0, 255], not {picture.dtype}")
    if input_order not in ("HWC", "CHW"):
        raise ValueError(f"input_order must be 'HWC' or 'CHW', not {input_order!r}")
    if channel_order not in ("bgr", "rgb"):
        raise ValueError(f"channel_order must be 'bgr' or 'rgb', not {channel_order!r}")
    if img.ndim not in (2, 3) or (img.ndim == 3 and img.shape[input_order.index("C")] not in (1, 3)):
        raise ValueError(f"a picture has 1 or 3 channels (input_order {input_order!r}), this shape is {img.shape}")
    if crop_border < 0:
        raise ValueError(f"crop_border must not be negative, it is {crop_border}")
    one, two = (_cropped(picture, crop_border, input_order) for picture in (img, img2))
    return Planes(one, channel_order), Planes(two, channel_order)


def _cropped(picture: Picture, crop_border: int, input_order: str) -> Picture:
    """A picture in any order as (H, W, C), without its border."""
    if picture.ndim == 2:
        picture = picture[:, :, None]
    elif input_order == "CHW":
        picture = picture.transpose(1, 2, 0)
    height, width, _ = picture.shape
    if min(height, width) <= 2 * crop_border:
        raise ValueError(f"crop_border {crop_border} leaves nothing of {height} x {width} pixels")
    return np.ascontiguousarray(picture[crop_border : height - crop_border, crop_border : width - crop_border])


def _psnr(samples: NDArray[Any], samples2: NDArray[Any]) -> float:
    if samples.dtype == np.uint8:
        squares = cv2.absdiff(samples, samples2).astype(np.uint16)  # at most 255², and their sum is exact
        squares *= squares
        error = int(squares.sum(dtype=np.uint64)) / samples.size
    else:
        difference = samples - samples2
        difference *= difference
        error = float(difference.mean())
    return 10 * float(np.log10(_PEAK**2 / error)) if error > 0 else float("inf")


def _ssim(plane: NDArray[Any], plane2: NDArray[Any]) -> float:
    height, width = plane.shape
    if min(height, width) < _WINDOW:
        raise UserError(f"SSIM needs at least {_WINDOW} x {_WINDOW} pixels, these are {height} x {width}")
    inside, rows = height - _WINDOW + 1, max(_STRIP // width, _LEAST_ROWS)
    strips = (slice(top, top + rows + _WINDOW - 1) for top in range(0, inside, rows))
    return sum(_sum_of_ssim(plane[strip], plane2[strip]) for strip in strips) / (inside * (width - _WINDOW + 1))


def _sum_of_ssim(plane: NDArray[Any], plane2: NDArray[Any]) -> float:
    """Sum the SSIM of all positions of the window in planes (H, W).

    By the sum s and the difference d of both planes, which needs four means instead of five: with p = mean(s)² and
    q = mean(d)², 4 μ μ2 = p − q and 2 (μ² + μ2²) = p + q; with the variances v of s and w of d, 4 σ12 = v − w and
    2 (σ² + σ2²) = v + w.
    """
    kernel = cv2.getGaussianKernel(_WINDOW, _SIGMA, cv2.CV_64F)

    def mean(values: Plane) -> Plane:
        # Separable on purpose: cv2.filter2D computes windows of this size by Fourier transform, less exactly.
        means = cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel)
        return np.asarray(means, np.float64)[_WINDOW // 2 : -(_WINDOW // 2)]

    s = np.add(plane, plane2, dtype=np.float64)
    d = np.subtract(plane, plane2, dtype=np.float64)
    p, q = mean(s), mean(d)
    s *= s
    d *= d
    v, w = mean(s), mean(d)
    p *= p
    q *= q
    v -= p
    w -= q
    p += 2 * _C1
    v += 2 * _C2
    ssim = p - q
    ssim *= v - w
    p += q
    v += w
    p *= v
    ssim /= p
    return float(ssim[:, _WINDOW // 2 : -(_WINDOW // 2)].sum())


def _downsample(plane: Plane, factor: int) -> Plane:
    """Average over factor x factor pixels (edges mirrored, edge pixel repeated) around every factor-th pixel.

    Pixel i is averaged over i − floor((factor − 1) / 2) .. i + floor(factor / 2), as MATLAB's `imfilter` places an
    even box. Consecutive kept boxes touch without overlap, which makes them blocks of the padded plane.
    """
    if factor == 1:
        return plane
    rows, columns = (-(-size // factor) for size in plane.shape)
    padded = np.pad(plane, ((factor - 1) // 2, factor), mode="symmetric")[: rows * factor, : columns * factor]
    return padded.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
