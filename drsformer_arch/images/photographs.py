"""Picture files as people have them: everything but the rain stays as it was.

A photograph is read upright and in its own depth, with what does not take part in deraining beside it: transparency,
colour profile, notes of the camera.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from drsformer_arch.images.picture_headers import PictureError, max_pixels
from drsformer_arch.images.pictures import (
    ORIENTATION,
    Picture,
    decode_with_samples,
    eight_bits,
    encode_png,
    read_file,
    upright,
)
from drsformer_arch.system.errors import UserError, is_out_of_memory, show_traceback
from drsformer_arch.system.files import write_atomically

if TYPE_CHECKING:
    from PIL import Image

    from drsformer_arch.images.tiff_samples import TiffSamples

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
MARKS_OF_TIFF = (b"II", b"MM")  # that its files start with
_PROFILES_OF_PICTURES = (b"mntr", b"scnr", b"prtr", b"spac")  # classes: displays, inputs, outputs, colour spaces


class Photograph(NamedTuple):
    """A picture and what belongs to it."""

    pixels: Picture  # (H, W, C) RGB or gray, uint8 or uint16
    alpha: npt.NDArray[Any] | None = None  # (H, W), of the same type
    icc_profile: bytes | None = None  # of the colour space of the pixels
    exif: bytes | None = None  # orientation: upright
    notes: tuple[str, ...] = ()  # what of the file could not be kept, and why


def read_photograph(path: Path) -> Photograph:
    """Read a picture file.

    What beside the pixels cannot be read is left out with a note. Of a JPEG with a second picture inside (stereo, or
    what brightens it on bright screens) the first one counts.

    Raises:
        UserError: it cannot be read, is damaged, of an unknown kind, or an animation.
    """
    content = read_file(path)
    pixels, tiff = decode_with_samples(content, path)
    notes: list[str] = []
    if content.startswith(MARKS_OF_TIFF):
        from drsformer_arch.images.tiff_tags import read_tags  # noqa: PLC0415 - needs tifffile

        icc_profile, exif, is_single = read_tags(content, notes)
        alpha = _alpha_of_tiff(tiff, notes)
    else:
        icc_profile, exif, is_single, alpha = _beside(content, pixels, notes)
    if not is_single:
        raise PictureError(f"picture {path} is an animation or has several pages; convert it to single pictures")
    if icc_profile is not None and not _is_profile_of(icc_profile, pixels):
        notes.append("its colour profile is damaged or one of another colour space and is left out")
        icc_profile = None
    return Photograph(pixels, alpha, icc_profile, exif, tuple(notes))


def _beside(
    content: bytes, pixels: Picture, notes: list[str]
) -> tuple[bytes | None, bytes | None, bool, npt.NDArray[Any] | None]:
    """Return colour profile and EXIF block of all but TIFF, whether it is a single picture, and the upright alpha."""
    from PIL import Image  # noqa: PLC0415 - pixels alone are read without

    try:
        with _limit_of_pillow(), Image.open(io.BytesIO(content)) as header:
            # Pillow's name for a JPEG with several pictures is MPO.
            several, is_jpeg = getattr(header, "n_frames", 1) > 1, header.format in ("JPEG", "MPO")
            exif, orientation = _exif(header, notes)
            icc_profile, has_alpha = header.info.get("icc_profile"), header.has_transparency_data
    except Exception as error:  # Pillow trips in many ways over what beside the pixels is damaged, or unknown to it
        show_traceback(error)
        notes.append("its colour profile, EXIF block and transparency cannot be read and are left out")
        return None, None, True, None
    if several and is_jpeg:
        notes.append("the second picture inside it is left out")
    alpha = _alpha(content, orientation) if has_alpha else None
    if has_alpha and (alpha is None or (alpha.shape, alpha.dtype) != (pixels.shape[:2], pixels.dtype)):
        notes.append("its transparency cannot be read and is left out")
        alpha = None
    return icc_profile, exif, is_jpeg or not several, alpha


@contextmanager
def _limit_of_pillow() -> Iterator[None]:
    """Lift Pillow's limit, a sixth of ours, to which `decode` has kept."""
    from PIL import Image  # noqa: PLC0415

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels()
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _exif(header: "Image.Image", notes: list[str]) -> tuple[bytes | None, int]:
    """Return the EXIF block of an upright picture, and the orientation that it had."""
    orientation = 1
    try:
        exif = header.getexif()
        stored = exif.get(ORIENTATION, 1)
        orientation = stored if isinstance(stored, int) else 1
        if ORIENTATION in exif:
            exif[ORIENTATION] = 1
        return exif.tobytes() if len(exif) else None, orientation
    except Exception as error:  # Pillow trips in many ways over values of wrong types
        show_traceback(error)
        notes.append("its EXIF block is damaged and is left out")
        return None, orientation


def _is_profile_of(icc_profile: bytes, pixels: Picture) -> bool:
    """Tell whether it is a colour profile, of RGB or gray as the pixels are: others would make nonsense of colours."""
    kind, space, mark = icc_profile[12:16], icc_profile[16:20], icc_profile[36:40]
    is_whole = mark == b"acsp" and int.from_bytes(icc_profile[:4], "big") <= len(icc_profile)
    return is_whole and kind in _PROFILES_OF_PICTURES and space == (b"RGB " if pixels.shape[2] == 3 else b"GRAY")


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _alpha(content: bytes, orientation: int) -> npt.NDArray[Any] | None:
    """Return the transparency, upright."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
        return None
    return upright(pixels[..., 3], orientation)


def _alpha_of_tiff(samples: "TiffSamples | None", notes: list[str]) -> npt.NDArray[Any] | None:
    """Return the transparency of a TIFF, upright."""
    if samples is not None and samples.left_out:
        notes.append(f"{samples.left_out} of its channels are neither colour nor transparency and are left out")
    return None if samples is None or samples.alpha is None else upright(samples.alpha, samples.orientation)


def write_photograph(path: Path, photograph: Photograph, suffix: str | None = None) -> tuple[str, ...]:
    """Write a picture file; there is the old file or the new one, never a part.

    What the format cannot hold is left out or rounded: 16 bits and transparency in JPEG, all but the pixels in BMP. So
    is a profile of another colour space.

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
    notes: tuple[str, ...] = ()
    if photograph.pixels.dtype != pixels.dtype:
        notes += (f"its 16 bits are rounded to 8, which are all that {WRITTEN[suffix]} can hold",)
    if photograph.alpha is not None and alpha is None:
        notes += (f"its transparency is left out, which {WRITTEN[suffix]} cannot hold",)
    photograph = photograph._replace(pixels=pixels, alpha=alpha)
    if photograph.icc_profile is not None and not _is_profile_of(photograph.icc_profile, pixels):
        photograph = photograph._replace(icc_profile=None)  # a network for gray pictures, or for colour, made others
        notes += ("its colour profile is one of another colour space and is left out",)
    if suffix == ".bmp":
        beside = {"EXIF notes": photograph.exif, "colour profile": photograph.icc_profile}
        notes += tuple(f"its {name} cannot be kept in BMP" for name, block in beside.items() if block is not None)
        photograph = photograph._replace(exif=None, icc_profile=None)
    content, others = _encoded(path, photograph, WRITTEN[suffix])
    write_atomically(path, content)
    return notes + others


def _encoded(path: Path, photograph: Photograph, kind: str) -> tuple[bytes, tuple[str, ...]]:
    """Return the content of a file, and notes on what could not be kept."""
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


def _with_alpha(photograph: Photograph) -> npt.NDArray[Any]:
    """Return (H, W, C) with the alpha as last channel; (H, W) for gray without."""
    pixels, alpha = photograph.pixels, photograph.alpha
    if alpha is not None:
        return np.concatenate((pixels, alpha[..., None]), axis=2)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _by_pillow(photograph: Photograph, kind: str) -> bytes:
    from PIL import Image  # noqa: PLC0415

    # What a kind does not know, such as a quality, its encoder passes over.
    beside = {"icc_profile": photograph.icc_profile, "exif": photograph.exif or b""}
    content = io.BytesIO()
    Image.fromarray(_with_alpha(photograph)).save(content, kind, quality=JPEG_QUALITY, subsampling=0, **beside)
    return content.getvalue()


def _tiff(photograph: Photograph) -> bytes:
    import tifffile  # noqa: PLC0415

    from drsformer_arch.images.tiff_tags import with_exif  # noqa: PLC0415 - needs tifffile, too

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
        software=False,
        byteorder="<",
    )
    return content.getvalue() if photograph.exif is None else with_exif(content.getvalue(), photograph.exif)


def _png_of_16_bits(photograph: Photograph) -> bytes:
    """Write a PNG of 16 bits; OpenCV, which can, writes no profile: it is put in after the header."""
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
