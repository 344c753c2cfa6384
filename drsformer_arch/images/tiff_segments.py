"""A check that all strips or tiles of a TIFF are whole: libtiff and tifffile make black rows of the others."""

import io
import logging
import math
import zlib
from typing import Any, NamedTuple

import imagecodecs
import tifffile

from drsformer_arch.system.errors import first_few

# Directories of strangers are full of oddities; tifffile would print them.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_NONE, _LZW, _PACKBITS = 1, 5, 32773
_CCITT = (2, 3, 4)
_DEFLATE = (8, 32946)
_JPEG = 7
# Most bytes that one byte can become: 12 bits name the longest string of LZW. A row of a fax may be a single bit: far
# beyond what pictures need.
_MOST = {
    **dict.fromkeys(_CCITT, 2**14),
    _NONE: 1,
    _LZW: 4096,
    _PACKBITS: 128,
    **dict.fromkeys(_DEFLATE, 1032),
    _JPEG: 3 * 2048,
}
_ONLY_ONCE = ("ImageWidth", "ImageLength", "StripOffsets", "StripByteCounts", "TileOffsets", "TileByteCounts")


def check(content: bytes) -> tuple[int, int]:
    """Look at the first page of a TIFF.

    Returns:
        width and height.

    Raises:
        ValueError: a strip or tile is missing, cut short or damaged, it claims more than the file can hold, or it is
            compressed in a way that is not read. The message goes on from "it is".
    """
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page: Any = file.pages.first
            width, height = int(page.imagewidth), int(page.imagelength)
            if width < 1 or height < 1:
                return width, height
            twice = [name for name in _ONLY_ONCE if len(page.tags.getall(name, default=())) > 1]
            compression, expected = int(page.compression), _expected(page)
            segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))[: expected.total]
    except Exception as error:  # tifffile trips over damage in many ways
        raise ValueError("damaged, its directory makes no sense") from error
    if twice:
        raise ValueError(f"damaged: {first_few(twice)} occurs twice")
    if compression not in _MOST:
        raise ValueError(f"compressed in a way that is not read (number {compression})")
    missing = expected.total - sum(start > 0 and size > 0 for start, size in segments)
    if missing:
        raise ValueError(f"damaged: {missing:,} of its {expected.total:,} strips or tiles are missing")
    if any(start + size > len(content) for start, size in segments) or sum(size for _, size in segments) > len(content):
        raise ValueError("damaged: its strips or tiles claim more bytes than the file holds")
    if any(expected.bytes_of(number) > size * _MOST[compression] for number, (_, size) in enumerate(segments)):
        raise ValueError(f"damaged: it claims {width}x{height} pixels, which its strips or tiles cannot hold")
    for number, (start, size) in enumerate(segments):
        if not _is_whole(content[start : start + size], compression, expected.bytes_of(number), expected.bytes_of(0)):
            raise ValueError(f"damaged: strip or tile {number + 1:,} of {expected.total:,} is cut short or damaged")
    if compression in _CCITT or compression == _JPEG:
        try:
            imagecodecs.tiff_decode(content)
        except Exception as error:  # every codec has its own kind
            raise ValueError("damaged or of an unknown kind, a strip or tile cannot be decoded") from error
    return width, height


class _Expected(NamedTuple):
    """The strips or tiles that there must be: how many, in how many planes, and how many rows of how many bytes."""

    total: int
    planes: int
    rows: int
    row_bytes: int
    height: int  # rows that the last one of a plane need not go beyond

    def bytes_of(self, number: int) -> int:
        """Return the number of bytes that a strip or tile holds without compression."""
        above = number % (self.total // self.planes) * self.rows
        return min(self.rows, max(self.height - above, 0)) * self.row_bytes


def _expected(page: Any) -> _Expected:
    width, height, samples, bits = page.imagewidth, page.imagelength, page.samplesperpixel, page.bitspersample
    planes = 1 if page.planarconfig == tifffile.PLANARCONFIG.CONTIG else samples  # as tifffile takes unknown numbers
    pixel = (bits * samples if isinstance(bits, int) else sum(bits)) / planes
    if page.is_subsampled and int(page.compression) != _JPEG:  # two coarse channels of three
        across, down = page.subsampling
        pixel *= (1 + 2 / (across * down)) / 3
    if page.is_tiled:
        of_plane = math.ceil(width / page.tilewidth) * math.ceil(height / page.tilelength)
        rows, row_bytes = page.tilelength, math.ceil(page.tilewidth * pixel / 8)
        return _Expected(planes * of_plane, planes, rows, row_bytes, of_plane * rows)  # the lowest ones are whole
    rows = min(page.rowsperstrip, max(height, 1))
    return _Expected(planes * math.ceil(height / rows), planes, rows, math.ceil(width * pixel / 8), height)


def _is_whole(data: bytes, compression: int, needed: int, most: int) -> bool:
    """Tell whether a strip or tile becomes at least `needed` bytes; of more than `most` no more is decoded."""
    try:
        if compression in _DEFLATE:
            decompressor = zlib.decompressobj()
            return len(decompressor.decompress(data, most + 1)) >= needed and decompressor.eof
        if compression == _LZW:
            return len(imagecodecs.lzw_decode(data, out=needed)) >= needed
        if compression == _PACKBITS:
            return len(imagecodecs.packbits_decode(data)) >= needed
    except (zlib.error, ValueError, RuntimeError):  # those of imagecodecs are kinds of the last one
        return False
    return compression != _JPEG or data.rstrip(b"\0").endswith(b"\xff\xd9")
