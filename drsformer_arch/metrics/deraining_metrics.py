"""PSNR and SSIM of the two protocols in which deraining results are published.

Both compare the luma Y (ITU-R BT.601, 16..235) of a result and its target over the whole picture.

==========  ==============================  =======================================================================
protocol    data sets                       Y and SSIM
==========  ==============================  =======================================================================
rain200     Rain200L, Rain200H, SPA-Data    Y rounded to 8 bits; SSIM at full resolution
ddn         DID-Data, DDN-Data              Y not rounded; SSIM after averaging down to about 256 pixels (short side)
==========  ==============================  =======================================================================

BasicSR's own ``calculate_psnr`` and ``calculate_ssim`` with ``test_y_channel=True`` are neither of the two.
SSIM: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE Transactions on Image Processing 13(4), 2004, in the arithmetic of the authors' MATLAB function.
"""

from collections.abc import Callable
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Plane = NDArray[np.float64]

# Y of 194 of the 2^24 colors lies exactly half-way between two whole numbers. The last bit of this arithmetic decides
# how rain200 rounds those, which is worth up to 4e-4 dB in a picture. Reference values were computed by the MATLAB
# functions under GNU Octave, and so this follows its rgb2ycbcr: green is the remainder 1 - 0.299 - 0.114, one bit above
# 0.587, and products are added in the order R, G, B (by hand: the order and rounding inside a matrix product vary).
_RED, _BLUE = 0.299, 0.114
_GREEN = 1 - _RED - _BLUE

_PEAK = 255.0
_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * _PEAK) ** 2
_C2 = (0.03 * _PEAK) ** 2


class Metric(Protocol):
    """A score of two pictures; `protocol` names the protocol it belongs to, for logs."""

    __name__: str
    protocol: str

    def __call__(
        self,
        img: Picture,
        img2: Picture,
        crop_border: int = 0,
        *,
        input_order: str = "HWC",
        channel_order: str = "bgr",
    ) -> float: ...


def _of_protocol(name: str) -> Callable[[Callable[..., float]], Metric]:
    def mark(function: Callable[..., float]) -> Metric:
        metric = cast(Metric, function)
        metric.protocol = name
        return metric

    return mark


@_of_protocol("rain200")
def calculate_psnr_rain200(
    img: Picture,
    img2: Picture,
    crop_border: int = 0,
    *,
    input_order: str = "HWC",
    channel_order: str = "bgr",
) -> float:
    """PSNR in dB of Rain200L, Rain200H and SPA-Data: 10 log10(255² / mean((Y − Y2)²)), Y rounded to 8 bits.

    Source: the MATLAB evaluation published with the Rain200 results (``rgb2ycbcr`` of a uint8 picture, then PSNR).

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
    """
    luma, luma2 = _luma_pair(img, img2, crop_border, input_order, channel_order)
    return _psnr(_round_half_up(luma), _round_half_up(luma2))


@_of_protocol("rain200")
def calculate_ssim_rain200(
    img: Picture,
    img2: Picture,
    crop_border: int = 0,
    *,
    input_order: str = "HWC",
    channel_order: str = "bgr",
) -> float:
    """SSIM of Rain200L, Rain200H and SPA-Data, Y rounded to 8 bits, at full resolution.

    The mean, over all positions at which an 11x11 Gaussian window (σ = 1.5) lies inside the picture, of
    (2 μ μ2 + C1)(2 σ12 + C2) / ((μ² + μ2² + C1)(σ² + σ2² + C2)) with C1 = (0.01 · 255)², C2 = (0.03 · 255)².
    Source: Wang et al. 2004 (see above), applied by the MATLAB evaluation published with the Rain200 results.

    Args: those of :func:`calculate_psnr_rain200`.

    Returns:
        A float in [-1, 1]; exactly 1 where both Y are equal.

    Raises:
        ValueError: as :func:`calculate_psnr_rain200`, and where a side is shorter than the window of 11 pixels.
    """
    luma, luma2 = _luma_pair(img, img2, crop_border, input_order, channel_order)
    return _ssim(_round_half_up(luma), _round_half_up(luma2))


@_of_protocol("ddn")
def calculate_psnr_ddn(
    img: Picture,
    img2: Picture,
    crop_border: int = 0,
    *,
    input_order: str = "HWC",
    channel_order: str = "bgr",
) -> float:
    """PSNR in dB of DID-Data and DDN-Data: 10 log10(255² / mean((Y − Y2)²)), Y in double precision.

    Source: the MATLAB evaluation published with the DDN results (``rgb2ycbcr`` of an ``im2double`` picture, times 255).
    Arguments, returned value and errors are those of :func:`calculate_psnr_rain200`.
    """
    return _psnr(*_luma_pair(img, img2, crop_border, input_order, channel_order))


@_of_protocol("ddn")
def calculate_ssim_ddn(
    img: Picture,
    img2: Picture,
    crop_border: int = 0,
    *,
    input_order: str = "HWC",
    channel_order: str = "bgr",
) -> float:
    """SSIM of DID-Data and DDN-Data, Y in double precision, after automatic down-sampling.

    With f = max(1, floor(min(H, W) / 256 + 0.5)), both Y are averaged over f x f pixels and every f-th one is kept, so
    that 512x512 pictures are compared at 256x256. The formula is that of :func:`calculate_ssim_rain200`, and so are
    arguments, returned value and errors. Source: Wang's MATLAB ``ssim.m`` with automatic down-sampling.
    """
    luma, luma2 = _luma_pair(img, img2, crop_border, input_order, channel_order)
    factor = max(1, int(min(luma.shape) / 256 + 0.5))
    return _ssim(_downsample(luma, factor), _downsample(luma2, factor))


PROTOCOLS: dict[str, dict[str, Metric]] = {
    "rain200": {"psnr": calculate_psnr_rain200, "ssim": calculate_ssim_rain200},
    "ddn": {"psnr": calculate_psnr_ddn, "ssim": calculate_ssim_ddn},
}
PROTOCOL_DESCRIPTIONS: dict[str, str] = {
    "rain200": "Rain200L, Rain200H, SPA-Data: Y rounded to 8 bits, SSIM at full resolution",
    "ddn": "DID-Data, DDN-Data: Y in double precision, SSIM averaged down to about 256 pixels on the short side",
}


def _luma_pair(
    img: Picture, img2: Picture, crop_border: int, input_order: str, channel_order: str
) -> tuple[Plane, Plane]:
    """Check both pictures and the options; return their cropped Y planes (H, W), float64 in 16..235."""
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
    return (
        _luma(img, crop_border, input_order, channel_order),
        _luma(img2, crop_border, input_order, channel_order),
    )


def _luma(picture: Picture, crop_border: int, input_order: str, channel_order: str) -> Plane:
    if picture.ndim == 2:
        picture = picture[:, :, None]
    elif input_order == "CHW":
        picture = picture.transpose(1, 2, 0)
    height, width, channels = picture.shape
    if min(height, width) <= 2 * crop_border:
        raise ValueError(f"crop_border {crop_border} leaves nothing of {height} x {width} pixels")
    picture = picture[crop_border : height - crop_border, crop_border : width - crop_border]
    # The modulus makes a gray picture's only channel serve as all three.
    red, green, blue = (picture[:, :, channel_order.index(name) % channels] / 255.0 for name in "rgb")
    return (_RED * red + _GREEN * green + _BLUE * blue) * 219.0 + 16.0


def _round_half_up(plane: Plane) -> Plane:
    return np.floor(plane + 0.5)  # as MATLAB; numpy.round would take halves to the even neighbor


def _psnr(plane: Plane, plane2: Plane) -> float:
    error = float(np.mean((plane - plane2) ** 2))
    return 10 * float(np.log10(_PEAK**2 / error)) if error > 0 else float("inf")


def _ssim(plane: Plane, plane2: Plane) -> float:
    if min(plane.shape) < _WINDOW:
        height, width = plane.shape
        raise ValueError(f"SSIM needs at least {_WINDOW} x {_WINDOW} pixels, these are {height} x {width}")
    kernel = cv2.getGaussianKernel(_WINDOW, _SIGMA, cv2.CV_64F)
    inside = slice(_WINDOW // 2, -(_WINDOW // 2))

    def mean(values: Plane) -> Plane:
        # Separable on purpose: cv2.filter2D computes windows of this size by Fourier transform, less exactly.
        return np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel), np.float64)[inside, inside]

    mu, mu2 = mean(plane), mean(plane2)
    variances = (mean(plane**2) - mu**2) + (mean(plane2**2) - mu2**2)
    covariance = mean(plane * plane2) - mu * mu2
    ssim = ((2 * mu * mu2 + _C1) * (2 * covariance + _C2)) / ((mu**2 + mu2**2 + _C1) * (variances + _C2))
    return float(ssim.mean())


def _downsample(plane: Plane, factor: int) -> Plane:
    """Average over factor x factor pixels (edges mirrored, edge pixel repeated) around every factor-th pixel.

    Pixel i is averaged over i − floor((factor − 1) / 2) .. i + floor(factor / 2), as MATLAB's ``imfilter`` places an
    even box. Consecutive kept boxes touch without overlap, which makes them blocks of the padded plane.
    """
    if factor == 1:
        return plane
    rows, columns = (-(-size // factor) for size in plane.shape)
    padded = np.pad(plane, ((factor - 1) // 2, factor), mode="symmetric")[: rows * factor, : columns * factor]
    return padded.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
