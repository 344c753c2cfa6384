"""Picture files as arrays: one set of rules for folders, stores and the checks before them.

Pictures are (H, W, C) in RGB order, C = 3, or 1 for gray ones; uint8 with values 0 to 255, or uint16 with 0 to 65535.
They are turned as EXIF says; alpha is dropped (colours stay as they are, whatever shines through; where a TIFF has
multiplied them by it, they are divided); palettes are resolved. Anything else, such as floating point TIFF, is refused.
"""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from drsformer_arch.images.picture_headers import PictureError, PictureHeader, read_picture_header
from drsformer_arch.system.errors import UserError, is_out_of_memory, line_of
from drsformer_arch.system.files import refuse_no_file

if TYPE_CHECKING:
    from drsformer_arch.images.tiff_samples import TiffSamples

_PLAIN_KINDS = (b"\x08\x00", b"\x08\x02", b"\x10\x00", b"\x10\x02")  # of PNG, bits and colour type: gray and RGB
_PLAIN_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"gAMA", b"cHRM", b"sRGB"})  # no say in pixels
_MIDDLE_GRAY = 128
ORIENTATION = 0x0112  # tag of EXIF and TIFF

Picture = npt.NDArray[Any]  # of uint8 or uint16


PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def pictures_in_folder(folder: Path, *, recursive: bool = True) -> dict[str, Path]:
    """Find the pictures in a folder and its subfolders.

    Args:
        folder: searched for the suffixes in `PICTURE_SUFFIXES`, in small or capital letters. Names that start with a
            dot are left out.
        recursive: look into subfolders, too.

    Returns:
        key to file, sorted by key; without subfolders by file name, as BasicSR does. The key is the path relative to
        `folder` without its extension, with "/" between folders.

    Raises:
        UserError: there is no such folder, one below it cannot be read, no picture lies in it, or two files have the
            same key (`a.png` and `a.jpg`).
    """
    return {key: Path(path) for key, path in picture_paths(Path(folder), recursive=recursive).items()}


def picture_paths(folder: Path, *, recursive: bool) -> dict[str, str]:
    """Find pictures as `pictures_in_folder` does; the paths are text, which takes half the time for a million."""
    if not folder.is_dir():
        raise UserError(f"no such folder of pictures: {folder}")

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read folder {error.filename}: {error.strerror}; make it readable") from error

    found: dict[str, str] = {}
    for at, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        # Hidden are such as the ._NAME.png that macOS puts beside NAME.png. A link may lead back.
        above = os.path.join(os.path.realpath(at), "")
        folders[:] = sorted(
            name
            for name in folders
            if recursive
            and not name.startswith(".")
            and not above.startswith(os.path.join(os.path.realpath(os.path.join(at, name)), ""))
        )
        prefix = f"{os.path.relpath(at, folder)}/".replace(os.sep, "/").removeprefix("./")
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if name.startswith(".") or suffix.lower() not in PICTURE_SUFFIXES:
                continue
            key = prefix + stem
            if key in found:
                raise UserError(f"two pictures have the same key {key!r}: {Path(found[key])} and {Path(at, name)}")
            found[key] = os.path.join(at, name)
    if not found:
        raise UserError(f"no picture ({', '.join(sorted(PICTURE_SUFFIXES))}) in {folder}")
    return dict(sorted(found.items())) if recursive else found


def read_file(path: Path) -> bytes:
    """Read the content of a picture file.

    Raises:
        UserError: it cannot be read; a pipe or device, which may never end, is not tried.
    """
    refuse_no_file(path, "picture")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"picture {path} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise UserError(f"picture {path} cannot be read: there is not enough memory") from error


def decode(content: bytes, name: object) -> Picture:
    """Decode a picture to (H, W, C), see the top of this module.

    Args:
        content: what the file holds.
        name: of the picture, for error messages.

    Raises:
        PictureError: it is damaged, of an unknown kind, or too large: for `picture_headers.max_pixels` or the memory.
    """
    return decode_with_samples(content, name)[0]


def decode_with_samples(content: bytes, name: object) -> "tuple[Picture, TiffSamples | None]":
    """Decode with the samples that `read_samples` has found in a TIFF: transparency comes from the same decoder."""
    header = read_picture_header(content, name)
    try:
        pixels, tiff = _decode(content, header)
    except Exception as error:  # decoders raise all kinds of them on damage, for which their caller is not to blame
        if is_out_of_memory(error):
            size = f"{header.width}x{header.height} pixels"
            raise PictureError(f"picture {name} cannot be read: there is not enough memory for its {size}") from error
        raise PictureError(line_of(error, f"picture {name} cannot be read")) from error
    if pixels is None or sorted(pixels.shape[:2]) != sorted((header.height, header.width)):
        raise PictureError(
            f"picture {name} cannot be read: it is damaged or of an unknown kind ({len(content):,} bytes)"
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise PictureError(f"picture {name} holds {pixels.dtype}; only 8 and 16 bits per channel are known")
    if header.kind == "JPEG" and _has_gray_block(pixels) and not _is_whole_jpeg(content):
        raise PictureError(f"picture {name} cannot be read: it is damaged, a part of its data is missing")
    return pixels, tiff


def _has_gray_block(pixels: Picture) -> bool:
    """Tell whether a JPEG has a block of middle gray, as decoders leave it without a word where data are missing."""
    # Among every fourth pixel of every fourth row, up to the last ones, a block of 8x8 is a square of 2x2; a part of a
    # block at an edge is a part of such a square. Most pictures have none, which is found in a sixth of the time.
    height, width, channels = pixels.shape
    few = pixels[(height - 1) % 4 :: 4, (width - 1) % 4 :: 4]
    is_gray = np.logical_and.reduce([few[..., channel] == _MIDDLE_GRAY for channel in range(channels)])
    if not is_gray.any() or not _has_square(is_gray.view(np.uint8), 2):
        return False
    gray = (_MIDDLE_GRAY,) * channels
    is_gray = cv2.inRange(pixels, gray, gray)
    side = 8
    return cv2.countNonZero(is_gray) >= side**2 and _has_square(is_gray, side)


def _has_square(mask: npt.NDArray[Any], side: int) -> bool:
    """Tell whether a square of the mask is nowhere 0; what lies beyond the edges of the mask counts as not 0."""
    return bool(cv2.erode(mask, np.ones((side, side), np.uint8)).any())


def _is_whole_jpeg(content: bytes) -> bool:
    """Tell whether JPEG XL can take over all its data, which it checks; it takes fifteen times as long as decoding."""
    try:
        import imagecodecs  # noqa: PLC0415 - for few files

        imagecodecs.jpegxl_encode_jpeg(content)
    except ImportError:  # not there, or built without
        return True
    except Exception:  # of its own kind
        return False
    return True


def _decode(content: bytes, header: PictureHeader) -> "tuple[Picture | None, TiffSamples | None]":
    pixels = None
    if header.chunks and header.chunks <= _PLAIN_CHUNKS and content[24:26] in _PLAIN_KINDS:
        # 1.2 to 1.4 times as fast as by OpenCV.
        import imagecodecs  # noqa: PLC0415 - for PNG and TIFF

        with contextlib.suppress(ValueError, RuntimeError):  # OpenCV knows the reason
            pixels = imagecodecs.png_decode(content)
            return pixels.reshape(*pixels.shape[:2], -1), None
    if header.kind == "TIFF":
        from drsformer_arch.images.tiff_samples import read_samples  # noqa: PLC0415 - needs tifffile

        if tiff := read_samples(content):
            return upright(tiff.colours, tiff.orientation), tiff
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return pixels, None
    return pixels[..., None] if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None


def upright(samples: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn and mirror (H, W, ...) as EXIF's orientation, 1 to 8, says."""
    turned = {
        2: lambda: samples[:, ::-1],
        3: lambda: samples[::-1, ::-1],
        4: lambda: samples[::-1],
        5: lambda: samples.swapaxes(0, 1),
        6: lambda: np.rot90(samples, -1),
        7: lambda: samples[::-1, ::-1].swapaxes(0, 1),
        8: lambda: np.rot90(samples),
    }
    return np.ascontiguousarray(turned[orientation]() if orientation in turned else samples)


def eight_bits(samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Turn 16 bits into 8, rounded."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def sixteen_bits(samples: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Turn 8 bits into 16."""
    return samples.astype(np.uint16) * np.uint16(257)


def encode_png(pixels: Picture, compress_level: int = 1) -> bytes:
    """Encode a picture of this module as PNG, lossless.

    Args:
        pixels: (H, W, C), C = 1 or 3.
        compress_level: 0 (none) to 9 (slow and small).
    """
    bgr = pixels if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, compress_level])
    if not done:
        raise ValueError(f"a picture of shape {pixels.shape} cannot be encoded as PNG")
    return encoded.tobytes()
