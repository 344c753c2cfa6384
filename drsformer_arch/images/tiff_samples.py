"""The samples of a TIFF, whatever their layout: planes or pixels, strips or tiles, white or black as 0, with alpha.

OpenCV makes nonsense of planes, of 16 bits with alpha, and of white as 0 in 16 bits, and multiplies colours by their
alpha. So gray and RGB of 8 and 16 bits are read by tifffile. What is left to OpenCV are the layouts in which it is
right; all others are refused.
"""

import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile

from drsformer_arch.system.errors import UserError

_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_COLOURS = {tifffile.PHOTOMETRIC.MINISBLACK: 1, tifffile.PHOTOMETRIC.MINISWHITE: 1, tifffile.PHOTOMETRIC.RGB: 3}
_ASSOCIATED, _UNASSOCIATED = tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA
# Channels of the kinds that libtiff turns into RGB of 8 bits for OpenCV; CIELAB comes out with a tint.
_BY_LIBTIFF = {tifffile.PHOTOMETRIC.PALETTE: 1, tifffile.PHOTOMETRIC.SEPARATED: 4, tifffile.PHOTOMETRIC.YCBCR: 3}


class TiffSamples(NamedTuple):
    """The first page of a TIFF as it is stored, not turned yet."""

    colours: npt.NDArray[Any]  # (H, W, C), C = 1 or 3, uint8 or uint16, 0 is black; not multiplied by the alpha
    alpha: npt.NDArray[Any] | None  # (H, W), of the same type
    orientation: int  # as in EXIF
    left_out: int  # further channels


def read_samples(content: bytes) -> TiffSamples | None:
    """Decode the first page of a TIFF that `tiff_segments.check` has found whole.

    Where colours have been multiplied by their alpha, they are divided by it. A fourth channel beside RGB of which
    nothing is said is taken for alpha.

    Returns:
        the samples; None for all but gray and RGB of 8 and 16 bits: OpenCV reads it right, or finds that it is of
        another type of numbers.

    Raises:
        UserError: its layout is not known.
    """
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages.first
        photometric, bits = page.photometric, page.bitspersample
        if _PHOTOMETRIC not in page.tags or not isinstance(bits, int):
            raise UserError("its directory does not say what its samples mean")
        if page.sampleformat != tifffile.SAMPLEFORMAT.UINT or bits > 16:
            return None
        colours = _COLOURS.get(photometric, 0)
        if not colours or bits not in (8, 16) or page.is_subsampled:
            if not _is_known_to_opencv(page):
                raise UserError(f"its layout is not known: {_words(page)}")
            return None
        extras = page.samplesperpixel - colours
        if extras < 0:
            raise UserError(f"its layout is not known: {_words(page)}")
        kinds = tuple(page.extrasamples) or ((_UNASSOCIATED,) if (colours, extras) == (3, 1) else ())
        planes, depth, height, width, channels = page.shaped
        if depth != 1:
            raise UserError(f"its layout is not known: it is {depth:,} pictures deep")
        samples = page.asarray(squeeze=False).reshape(planes, height, width, channels)
        samples = samples.transpose(1, 2, 0, 3).reshape(height, width, planes * channels)
        orientation = page.tags.valueof(_ORIENTATION, 1)
    index = next((at for at, kind in enumerate(kinds[:extras]) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)
    pixels, alpha = np.ascontiguousarray(samples[..., :colours]), None
    if index is not None:
        alpha = np.ascontiguousarray(samples[..., colours + index])
        if kinds[index] == _ASSOCIATED:
            pixels = _divided(pixels, alpha)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = ~pixels
    left_out = extras - (alpha is not None)
    return TiffSamples(pixels, alpha, orientation if isinstance(orientation, int) else 1, left_out)


def _divided(pixels: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return colours before they were multiplied by the alpha, rounded; where that is 0, nothing is known of them."""
    most = np.iinfo(pixels.dtype).max
    divisor = alpha[..., None].astype(np.uint32)
    divided = (pixels * np.uint32(most) + divisor // 2) // np.maximum(divisor, 1)
    return np.where(divisor > 0, np.minimum(divided, most), pixels).astype(pixels.dtype)


def _is_known_to_opencv(page: Any) -> bool:
    photometric, bits, samples = page.photometric, page.bitspersample, page.samplesperpixel
    is_contiguous = samples == 1 or page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    if photometric in _BY_LIBTIFF:
        return bits <= 8 and samples == _BY_LIBTIFF[photometric] and is_contiguous
    if bits == 1:
        return photometric in _COLOURS and samples == 1
    is_black_zero = photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    return bits in (10, 12, 14) and is_black_zero and samples == _COLOURS[photometric] and is_contiguous


def _words(page: Any) -> str:
    name = getattr(page.photometric, "name", str(page.photometric)).lower()
    layout = "planes" if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else "pixels"
    return f"{page.samplesperpixel} channels of {page.bitspersample} bits ({name}), as {layout}; convert it to RGB"
