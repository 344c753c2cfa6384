"""Picture files as people have them: everything but the rain stays as it was.

A photograph is read upright and in its own depth, with what does not take part in deraining beside it: transparency,
colour profile, notes of the camera.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from drsformer_arch.data.pictures import (
    ORIENTATION,
    BadPicture,
    Picture,
    decode,
    decode_rgba_tiff,
    encode_png,
    read_file,
    upright,
)
from drsformer_arch.errors import UserError, is_out_of_memory
from drsformer_arch.files import write_atomically

WRITTEN = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
SIXTEEN_BITS = (".png", ".tif", ".tiff")
TRANSPARENT = (".png", ".webp", ".tif", ".tiff")
JPEG_QUALITY = 95


class Photograph(NamedTuple):
    """A picture and what belongs to it."""

    pixels: Picture  # (H, W, C) RGB or gray, uint8 or uint16
    alpha: npt.NDArray[Any] | None = None  # (H, W), of the same type
    icc_profile: bytes | None = None
    exif: bytes | None = None  # orientation: upright
    notes: tuple[str, ...] = ()  # what of the file could not be kept, and why


def read_photograph(path: Path) -> Photograph:
    """Read a picture file.

    Raises:
        UserError: it cannot be read, is damaged, of an unknown kind, or an animation.
    """
    content = read_file(path)
    pixels = decode(content, path)
    try:
        with Image.open(io.BytesIO(content)) as header:
            if getattr(header, "n_frames", 1) > 1:
                raise BadPicture(f"picture {path} is an animation or has several pages; convert it to single pictures")
            exif, icc_profile = header.getexif(), header.info.get("icc_profile")
            orientation, has_alpha = exif.get(ORIENTATION, 1), header.has_transparency_data
    except UserError:
        raise
    except Exception:  # a kind that only OpenCV knows has no notes that could be kept
        return Photograph(pixels)
    alpha = _alpha(content, orientation) if has_alpha else None
    try:
        if ORIENTATION in exif:
            exif[ORIENTATION] = 1
        block = exif.tobytes() if len(exif) else None
    except Exception as error:  # a value of another type than its tag has fails in many ways
        return Photograph(pixels, alpha, icc_profile, notes=(f"its EXIF notes are dropped: {_reason(error)}",))
    return Photograph(pixels, alpha, icc_profile, block)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _alpha(content: bytes, orientation: int) -> npt.NDArray[Any] | None:
    """The transparency, upright."""
    pixels = decode_rgba_tiff(content)
    if pixels is not None:
        return pixels[..., 3]
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
        return None
    is_tiff = content.startswith((b"II", b"MM"))  # OpenCV turns only these by itself
    return pixels[..., 3] if is_tiff else upright(pixels[..., 3], orientation)


def write_photograph(path: Path, photograph: Photograph, suffix: str | None = None) -> tuple[str, ...]:
    """Write a picture file; there is the old file or the new one, never a part.

    What the format cannot hold is left out or rounded: 16 bits and transparency in JPEG.

    Args:
        path: of the file, which may also be a device or a pipe.
        photograph: what to write.
        suffix: of the format; default: that of `path`.

    Returns:
        notes on what could not be kept, and why.

    Raises:
        UserError: an unknown suffix, or the format cannot hold a picture of this size.
        OSError: the folder is not writable, the disk is full.
    """
    suffix = (suffix or path.suffix).lower()
    if suffix not in WRITTEN:
        raise UserError(f"{path}: pictures are written as {', '.join(sorted(WRITTEN))}")
    pixels, alpha = photograph.pixels, photograph.alpha if suffix in TRANSPARENT else None
    if pixels.dtype == np.uint16 and suffix not in SIXTEEN_BITS:
        pixels, alpha = eight_bits(pixels), None if alpha is None else eight_bits(alpha)
    photograph = photograph._replace(pixels=pixels, alpha=alpha)
    content, notes = _encoded(path, photograph, WRITTEN[suffix])
    write_atomically(path, content)
    return notes


def _encoded(path: Path, photograph: Photograph, kind: str) -> tuple[bytes, tuple[str, ...]]:
    """The content of a file, and notes on what could not be kept."""
    try:
        if kind == "TIFF":
            return _tiff(photograph), ()
        if photograph.pixels.dtype == np.uint16:
            return _png_of_16_bits(photograph), ()
        return _by_pillow(photograph, kind), ()
    except Exception as error:  # encoders fail in many ways at what comes from other programs
        if photograph.exif is not None:  # such as a block longer than JPEG can hold
            content, notes = _encoded(path, photograph._replace(exif=None), kind)
            return content, (*notes, f"its EXIF notes are dropped: {_reason(error)}")
        if photograph.icc_profile is not None:
            content, notes = _encoded(path, photograph._replace(icc_profile=None), kind)
            return content, (*notes, f"its colour profile is dropped: {_reason(error)}")
        if is_out_of_memory(error):
            raise
        height, width = photograph.pixels.shape[:2]
        raise UserError(f"{path}: {kind} cannot hold this picture of {width}x{height}: {_reason(error)}") from error


def eight_bits(samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """16 to 8 bits, rounded."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def sixteen_bits(samples: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """8 to 16 bits."""
    return samples.astype(np.uint16) * np.uint16(257)


def _with_alpha(photograph: Photograph) -> npt.NDArray[Any]:
    """(H, W, C) with the alpha as last channel; (H, W) for gray without."""
    pixels, alpha = photograph.pixels, photograph.alpha
    if alpha is not None:
        return np.concatenate((pixels, alpha[..., None]), axis=2)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _by_pillow(photograph: Photograph, kind: str) -> bytes:
    options: dict[str, Any] = {"icc_profile": photograph.icc_profile}
    if photograph.exif and kind != "BMP":
        options["exif"] = photograph.exif
    if kind in ("JPEG", "WEBP"):
        options["quality"] = JPEG_QUALITY
    if kind == "JPEG":
        options["subsampling"] = 0
    content = io.BytesIO()
    Image.fromarray(_with_alpha(photograph)).save(content, kind, **options)
    return content.getvalue()


def _tiff(photograph: Photograph) -> bytes:
    content, samples = io.BytesIO(), _with_alpha(photograph)
    tifffile.imwrite(
        content,
        samples,
        photometric="rgb" if photograph.pixels.shape[2] == 3 else "minisblack",
        planarconfig="contig" if samples.ndim == 3 else None,
        extrasamples=["unassalpha"] if photograph.alpha is not None else None,
        compression="zlib",
        predictor=True,
        iccprofile=photograph.icc_profile,
        metadata=None,
    )
    return content.getvalue()


def _png_of_16_bits(photograph: Photograph) -> bytes:
    """Pillow writes no colour PNG of 16 bits, and OpenCV no profile: it is put in after the header."""
    if photograph.alpha is None:
        content = encode_png(photograph.pixels)
    else:
        rgb = np.broadcast_to(photograph.pixels, (*photograph.pixels.shape[:2], 3))
        bgra = np.concatenate((rgb[..., ::-1], photograph.alpha[..., None]), axis=2)
        done, encoded = cv2.imencode(".png", bgra)
        if not done:
            raise ValueError(f"a picture of shape {bgra.shape} cannot be encoded as PNG")
        content = encoded.tobytes()
    chunks = b""
    if photograph.icc_profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(photograph.icc_profile))
    if photograph.exif:
        chunks += _chunk(b"eXIf", photograph.exif.removeprefix(b"Exif\0\0"))
    header = 8 + 25  # signature and IHDR
    return content[:header] + chunks + content[header:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
