"""The claims of a picture file, compared with what it holds, before a decoder allocates anything.

A file of 3 KB can claim billions of pixels, or a chunk of 4 GiB, and decoders believe it. And most of them fill what
a file lacks with black or gray, without a word. So a file is walked from its first to its last part: all parts must be
there, and large enough for the pixels that its compression can make of them at most.
"""

import os
import re
import struct
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from drsformer_arch.system import packages
from drsformer_arch.system.errors import UserError

LIMIT = "DRSFORMER_MAX_PIXELS"  # environment variable; drsformer_arch/__init__.py hands it on to OpenCV
USUAL_LIMIT = 2**30  # pixels, OpenCV's own
LONGEST_SIDE_OF_WEBP = 16383

# Most bytes (of PNG), or pixels, that a byte of a file can become.
_DEFLATE = 1032
_GIF = 4096  # 12 bits name the longest string
_RUNS = 255  # two bytes of a BMP

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")  # length, kind
_SAMPLES_OF_PNG = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Not 0, which stands for 0xFF, and not a restart. Any number of 0xFF may come before it; a pattern that takes them in
# is ten times as slow, and on many of them it takes the square of their number.
_JPEG_MARKER = re.compile(b"\xff([\x01-\xcf\xd8-\xfe])")
# By frame. Huffman codes (baseline, extended, progressive, lossless) have a bit or more per block of 64, coarser
# channels a part of that; arithmetic ones have no bound, this is far beyond what pictures need.
_MOST_OF_JPEG = {**dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC3), 2048), **dict.fromkeys((0xC9, 0xCA, 0xCB), 2**16)}
_USUAL_JPEG = frozenset({0xC0, 0xC1, 0xC2})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_LOSSLESS = frozenset({0xC3, 0xCB})


class PictureError(UserError):
    """A picture that was read but cannot be used: damaged, or of an unknown kind."""


class PictureHeader(NamedTuple):
    """The (first) picture as a whole file describes it; `chunks` are those of a PNG.

    A JPEG in CMYK, of arithmetic codes or without loss is an "unusual JPEG".
    """

    kind: str
    width: int
    height: int
    chunks: frozenset[bytes] = frozenset()


def max_pixels() -> int:
    """Return the most pixels that a picture may have: `DRSFORMER_MAX_PIXELS`, or 2^30.

    Raises:
        UserError: the variable is no positive number.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return USUAL_LIMIT
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text, re.ASCII):
        raise UserError(f"the environment variable {LIMIT} must be a number of pixels, not {text!r}")
    return int(text)


def read_picture_header(content: bytes, name: object) -> PictureHeader:
    """Look through a file of a kind that is read: PNG, JPEG, BMP, TIFF, WebP, GIF.

    Args:
        content: what the file holds.
        name: of the picture, for error messages.

    Raises:
        PictureError: it is of another kind, a part of it is missing, it claims more than its size can hold, or more
            pixels than `max_pixels`.
    """
    limit = max_pixels()
    read = next((read for marks, read in _KINDS.items() if content.startswith(marks)), None)
    try:
        if read is None:
            raise ValueError("damaged or of an unknown kind")
        header = read(content)
        if header.width < 1 or header.height < 1:
            raise ValueError(f"empty, {header.width}x{header.height}")
    except Exception as error:  # of all kinds, where a part ends within its own first bytes
        if lacking := packages.missing(error):  # of those that only pictures of its kind need
            raise PictureError(f"picture {name} cannot be read: {lacking}") from error
        reason = str(error) if type(error) is ValueError else "damaged, it is cut short"
        raise PictureError(f"picture {name} cannot be read: it is {reason} ({len(content):,} bytes)") from error
    if header.width * header.height > limit:
        raise PictureError(
            f"picture {name} is too large: {header.width}x{header.height} pixels; the environment variable {LIMIT} "
            f"allows more than {limit:,}"
        )
    return header


def _refuse_claim(width: int, height: int, needed: float, held: float) -> None:
    """Refuse a file that cannot hold what it claims."""
    if needed > held:
        raise ValueError(f"damaged: it claims {width}x{height} pixels, which a file of this size cannot hold")


def _png(content: bytes) -> PictureHeader:
    length, kind = _CHUNK.unpack_from(content, len(_PNG))
    if (length, kind) != (13, b"IHDR"):
        raise ValueError("damaged, its header is missing")
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    if colour not in _SAMPLES_OF_PNG or depth not in (1, 2, 4, 8, 16):
        raise ValueError("damaged, its header makes no sense")
    position, data, chunks = len(_PNG), 0, set()
    while kind != b"IEND":
        length, kind = _CHUNK.unpack_from(content, position)
        position += length + 12
        if position > len(content):
            raise ValueError(f"damaged: a part claims {length:,} bytes, which the file does not hold")
        data += length if kind == b"IDAT" else 0
        chunks.add(kind)
    bits, passes = depth * _SAMPLES_OF_PNG[colour], _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - left) // right), -(-(height - top) // down)) for left, top, right, down in passes]
    needed = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    _refuse_claim(width, height, needed, data * _DEFLATE)
    return PictureHeader("PNG", width, height, frozenset(chunks))


class _Scans:
    """The bits of the coefficients of a JPEG that its scans have given."""

    def __init__(self) -> None:
        self._lowest_bit: dict[int, list[int | None]] = defaultdict(lambda: [None] * 64)

    def add(self, segment: bytes, frame: int) -> None:
        """Take a scan's header, from the number of components on."""
        first, last, bits = segment[1 + 2 * segment[0] : 4 + 2 * segment[0]]
        if frame not in _PROGRESSIVE:
            first, last, bits = 0, 63, 0
        for component in segment[1 : 1 + 2 * segment[0] : 2]:
            for coefficient in range(first, min(last, 63) + 1):
                self._lowest_bit[component][coefficient] = bits & 15

    def complete(self, components: bytes) -> bool:
        """Tell whether all bits of these components have been given."""
        return all(not any(bit != 0 for bit in self._lowest_bit[component]) for component in components)


def _jpeg(content: bytes) -> PictureHeader:
    """Read to the end of the first picture; a second one may follow."""
    position, frame, scans = 2, 0, _Scans()
    width, height, components = 0, 0, b""
    while marker := _JPEG_MARKER.search(content, position):
        kind, position = marker[1][0], marker.end()
        if kind == 0xD9:
            break
        if kind in (0x01, 0xD8):
            continue
        (length,) = struct.unpack_from(">H", content, position)
        segment = content[position + 2 : position + length]
        position += length
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            if frame:
                raise ValueError("damaged, it has two frames")
            frame, (height, width) = kind, struct.unpack_from(">HH", segment, 1)
            components = segment[6 : 6 + 3 * segment[5] : 3]
            if frame not in _MOST_OF_JPEG:
                raise ValueError("of an unknown kind of JPEG")
            _refuse_claim(width, height, width * height, len(content) * _MOST_OF_JPEG[frame])
        elif kind == 0xDA:
            scans.add(segment, frame)
    else:
        raise ValueError("damaged, its end is missing")
    if not components or not (frame in _LOSSLESS or scans.complete(components)):
        raise ValueError("damaged, a part of its data is missing")
    is_usual = frame in _USUAL_JPEG and len(components) < 4
    return PictureHeader("JPEG" if is_usual else "unusual JPEG", width, height)


def _webp(content: bytes) -> PictureHeader:
    if content[8:12] != b"WEBP":
        raise ValueError("damaged or of an unknown kind")
    (length,) = struct.unpack_from("<I", content, 4)
    if length + 8 > len(content):
        raise ValueError(f"damaged: it claims {length + 8:,} bytes")
    position, sizes = 12, []
    while position + 8 <= length + 8:
        kind, (size,) = content[position : position + 4], struct.unpack_from("<I", content, position + 4)
        start, position = position + 8, position + 8 + size + size % 2
        if start + size > len(content):
            raise ValueError(f"damaged: a part claims {size:,} bytes, which the file does not hold")
        if kind == b"VP8X":
            sizes.append(tuple(1 + int.from_bytes(content[start + at : start + at + 3], "little") for at in (4, 7)))
        elif kind == b"VP8L":
            bits = int.from_bytes(content[start + 1 : start + 5], "little")
            sizes.append((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
        elif kind == b"VP8 ":
            sizes.append(tuple(side & 0x3FFF for side in struct.unpack_from("<HH", content, start + 6)))
    if not sizes:
        raise ValueError("damaged, its picture is missing")
    width, height = sizes[0]
    if max(width, height) > LONGEST_SIDE_OF_WEBP:
        raise ValueError(f"damaged: it claims {width}x{height} pixels, which WebP cannot hold")
    return PictureHeader("WebP", width, height)


def _gif(content: bytes) -> PictureHeader:
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    _refuse_claim(width, height, width * height, len(content) * _GIF)
    position, pictures = 13 + _palette_of_gif(flags), 0
    while content[position] != 0x3B:
        if content[position] == 0x2C:
            position += 10 + _palette_of_gif(content[position + 9]) + 1
            pictures += 1
        elif content[position] == 0x21:
            position += 2
        elif content[position] == 0:  # an empty block too many
            position += 1
            continue
        else:
            raise ValueError("damaged, what follows a part is none")
        while content[position]:  # blocks of data, the last one is empty
            position += content[position] + 1
        position += 1
    if not pictures:
        raise ValueError("damaged, its picture is missing")
    return PictureHeader("GIF", width, height)


def _palette_of_gif(flags: int) -> int:
    return 3 * 2 ** (1 + (flags & 7)) if flags & 0x80 else 0


def _bmp(content: bytes) -> PictureHeader:
    start, size = struct.unpack_from("<II", content, 10)
    if size == 12:  # of OS/2
        width, height, _, depth = struct.unpack_from("<HHHH", content, 18)
        compression = 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", content, 18)
    height = abs(height)  # below 0: the first row comes first
    if width > 0 and height:
        if compression in (1, 2):
            _refuse_claim(width, height, width * height, len(content) * _RUNS)
        elif start + -(-width * depth // 32) * 4 * height > len(content):
            raise ValueError(f"damaged: it claims {width}x{height} pixels, which the file does not hold")
    return PictureHeader("BMP", width, height)


def _tiff(content: bytes) -> PictureHeader:
    from drsformer_arch.images import tiff_segments  # noqa: PLC0415 - needs tifffile and imagecodecs

    return PictureHeader("TIFF", *tiff_segments.check(content))


_KINDS: dict[bytes | tuple[bytes, ...], Callable[[bytes], PictureHeader]] = {
    _PNG: _png,
    b"\xff\xd8\xff": _jpeg,
    b"RIFF": _webp,
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"): _tiff,
    b"BM": _bmp,
    (b"GIF87a", b"GIF89a"): _gif,
}
