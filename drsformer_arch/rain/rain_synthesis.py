"""Rain drawn on clean photographs, from a seed: single streaks, dense curtains of rain, veil, levels and JPEG.

A falling drop is smeared by the exposure into a bright, half-transparent streak whose brightness varies along its
length, because the drop oscillates while it falls (K. Garg and S. K. Nayar, "Vision and Rain", IJCV 2007). Rain `S`
joins the scene `J`, both in [0, 1], layer by layer from far to near, by

    R = J + S * (1 - screen * J), clipped at 1,

which with `screen = 0` is the additive model of Rain100, Rain200L and Rain200H (W. Yang et al., "Deep Joint Rain
Detection and Removal from a Single Image", CVPR 2017) and with `screen = 1` the screen blend of Rain800 (H. Zhang et
al., "Image De-raining Using a Conditional Generative Adversarial Network", TCSVT 2019): a drop refracts the light of
the whole sky, so it stands out on dark ground and almost disappears on bright ground.
"""

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from drsformer_arch.rain.layers import Curtain, Streaks
from drsformer_arch.rain.rain_presets import RainParameters

Plane = npt.NDArray[np.float32]
Pixel = TypeVar("Pixel", np.uint8, np.uint16)

_KERNELS_PER_LAYER = 16  # enough that no two neighbouring streaks look like copies, few enough to cost nothing
_AIRLIGHT = 0.85  # brightness of the veil: an overcast sky
_SIGMA_PER_WIDTH = 1 / 2.355  # of a normal curve, whose full width at half maximum is 2 sqrt(2 ln 2) sigma
_SHARPENED = 1.0  # px, standard deviation of the blur whose difference sharpening adds
_JPEG_UNIT = 16  # px, the grid of JPEG with halved chroma
_JPEG_LARGEST = 65500  # px, of libjpeg


def add_rain(
    clean: npt.NDArray[Pixel], rng: np.random.Generator, parameters: RainParameters | None = None
) -> npt.NDArray[Pixel]:
    """Draw rain on a clean picture.

    The same picture, parameters and state of `rng` give the same bytes; no other randomness is used. A piece cut out
    of a photograph gets rain of the same look as the whole photograph would.

    Args:
        clean: (H, W, 3) or (H, W), uint8 in 0 to 255 or uint16 in 0 to 65535. Rain is gray, so the order of the
            channels does not matter, except to JPEG, which takes them for RGB. It is not changed.
        rng: source of all randomness; it is advanced.
        parameters: the look of the rain; None draws it with `RainParameters.sample`.

    Returns:
        the rainy picture, a new array of the shape and type of `clean`. No pixel is darker than in `clean`, unless
        `sharpening`, `black`, `white`, `gamma` or `jpeg_quality` are set. With `jpeg_quality` there are 256
        brightnesses in uint16 too.

    Raises:
        TypeError: `clean` is not an array of uint8 or uint16.
        ValueError: `clean` has another shape than those above, or no pixels, or is too large for JPEG (65500 px).
    """
    if not isinstance(clean, np.ndarray) or clean.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"rain needs an array of uint8 or uint16, not {getattr(clean, 'dtype', type(clean).__name__)}")
    if clean.size == 0 or not (clean.ndim == 2 or (clean.ndim == 3 and clean.shape[2] == 3)):
        raise ValueError(f"rain needs a picture of shape (H, W, 3) or (H, W) with pixels in it, not {clean.shape}")
    if parameters is None:
        parameters = RainParameters.sample(rng)

    largest = np.iinfo(clean.dtype).max
    before = clean.astype(np.float32) / largest
    # Rain adds light: what is brighter than the sky keeps its brightness, so that no pixel ever becomes darker.
    scene = before + parameters.veil * np.maximum(_AIRLIGHT - before, 0)
    for layer in parameters.layers:
        height, width = clean.shape[:2]
        if isinstance(layer, Streaks):
            rain = _draw_streaks(layer, height, width, rng)
        else:
            rain = _draw_curtain(layer, height, width, rng)
        rain = rain.reshape(rain.shape + (1,) * (clean.ndim - 2))
        # Near rain lies in front of far rain, hence layer on layer from far to near.
        scene = np.minimum(scene + rain * (1 - parameters.screen * scene), 1)
    if parameters.sharpening > 0:
        # A camera sharpens scene and rain alike. The clean photograph has had it, so only what rain adds gets it.
        added = scene - before
        scene = scene + parameters.sharpening * (added - cv2.GaussianBlur(added, (0, 0), _SHARPENED))
    scene = np.clip((scene - parameters.black) / (parameters.white - parameters.black), 0, 1) ** parameters.gamma
    if parameters.jpeg_quality is None:
        return np.rint(scene * largest).astype(clean.dtype)
    compressed = _compress(np.rint(scene * 255).astype(np.uint8), rng, parameters.jpeg_quality)
    return compressed.astype(clean.dtype) * clean.dtype.type(largest // 255)


def _draw_streaks(layer: Streaks, height: int, width: int, rng: np.random.Generator) -> Plane:
    """Draw one layer, (height, width) float32 in [0, 1]."""
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
    """Draw one anti-aliased streak, (odd, odd) float32 in about [0, 1], within half a pixel of the kernel's middle.

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
    """Draw one layer, (height, width) float32 in [0, 1]."""
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
    """Return distances along and across a line through the middle of a grid that holds it, (odd, odd) float64, px.

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
    """Return the picture after JPEG (with halved chroma, OpenCV's default) on a grid of blocks that starts anywhere.

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
