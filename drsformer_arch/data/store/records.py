"""One picture as the value of a store: read a window of it without touching the rest.

A record is a header and a payload. `raw` keeps the pixels as they are, row by row. `compressed` keeps square tiles
that are decoded one by one: green, and the differences of red and blue to it, each predicted from its left, upper and
upper left neighbours (what remains is close to 0 in photographs), in zstd frames. Both are lossless. On photographs a
compressed record is smaller than a PNG, because a PNG does not know that colours resemble each other.

    header   encoding (0 raw, 1 compressed, 2 PNG), bytes per sample, channels, 0 (each uint8);
             height, width, tile, CRC-32 of the rest (each uint32, little-endian)
    raw      (H, W, C) samples, RGB, little-endian
    compressed
             (number of tiles + 1) offsets from the end of this table (uint32), then a zstd frame per tile, row by row.
             A tile is (bytes per sample, C, tile, tile): all low bytes, then all high bytes; the right and lower
             border of the picture are repeated to fill the last ones.
    PNG      a PNG file, on its way into BasicSR's layout
"""

import math
import struct
import zlib
from typing import Literal, NamedTuple

import numpy as np
import zstandard

from drsformer_arch.images.pictures import Picture, decode, encode_png
from drsformer_arch.system.errors import UserError

Encoding = Literal["raw", "compressed", "png"]
ENCODINGS: tuple[Encoding, ...] = ("raw", "compressed", "png")

TILE = 64  # px; smaller tiles decode less around a 128 px patch, larger ones compress better and cost fewer calls
_LARGEST_TILE = 1024  # that is read
_ZSTD_LEVEL = 1  # higher ones are slower and, on predicted pixels, not smaller
_HEADER = struct.Struct("<4B4I")
_CRC = struct.Struct("<I")


class RecordHeader(NamedTuple):
    """The head of a record, which describes its picture."""

    encoding: Encoding
    dtype: np.dtype
    height: int
    width: int
    channels: int
    tile: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the whole picture."""
        return self.height, self.width, self.channels


def pack(pixels: Picture, encoding: Encoding) -> bytes:
    """Make a record of a picture (H, W, C), RGB or gray, uint8 or uint16."""
    height, width, channels = pixels.shape
    if encoding == "raw":
        payload: bytes | memoryview = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).data
    elif encoding == "compressed":
        payload = _compress(pixels)
    else:
        payload = encode_png(pixels)
    head = _HEADER.pack(ENCODINGS.index(encoding), pixels.itemsize, channels, 0, height, width, TILE, 0)[: -_CRC.size]
    return b"".join((head, _CRC.pack(zlib.crc32(payload, zlib.crc32(head))), payload))


def read_record_header(record: memoryview | bytes) -> RecordHeader:
    """Read the header of a record.

    Raises:
        UserError: it is none of this module's.
    """
    if len(record) < _HEADER.size:
        raise UserError("a record is too short")
    encoding, item, channels, zero, height, width, tile, _ = _HEADER.unpack_from(record)
    if encoding >= len(ENCODINGS) or item not in (1, 2) or channels not in (1, 3) or zero:
        raise UserError("a record has a damaged header")
    if not (height and width and 0 < tile <= _LARGEST_TILE):
        raise UserError("a record has a damaged header")
    return RecordHeader(ENCODINGS[encoding], np.dtype(f"<u{item}"), height, width, channels, tile)


def payload_of(record: memoryview | bytes) -> memoryview:
    """Return what follows the header."""
    return memoryview(record)[_HEADER.size :]


def is_intact(record: memoryview | bytes) -> bool:
    """Tell whether a record is what was written, bit for bit."""
    if len(record) < _HEADER.size:
        return False
    view = memoryview(record)
    head, (stored,) = view[: _HEADER.size - _CRC.size], _CRC.unpack_from(view, _HEADER.size - _CRC.size)
    return zlib.crc32(view[_HEADER.size :], zlib.crc32(head)) == stored


def read_window(record: memoryview | bytes, top: int, left: int, height: int, width: int) -> Picture:
    """Read a window of a picture as a new array (height, width, C); it lies within the picture.

    Raises:
        UserError: the record is damaged.
    """
    header, payload = read_record_header(record), payload_of(record)
    if header.encoding == "raw":
        if len(payload) != math.prod(header.shape) * header.dtype.itemsize:
            raise UserError("a record has a damaged length")
        pixels = np.frombuffer(payload, header.dtype).reshape(header.shape)
        return pixels[top : top + height, left : left + width].copy()
    if header.encoding == "png":
        return decode(bytes(payload), "record")[top : top + height, left : left + width].copy()
    return _decompress(header, payload, (top, left, height, width))


def _compress(pixels: Picture) -> bytes:
    height, width, channels = pixels.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.pad(pixels, ((0, rows * TILE - height), (0, columns * TILE - width), (0, 0)), mode="edge")
    tiles = np.ascontiguousarray(padded.reshape(rows, TILE, columns, TILE, channels).transpose(0, 2, 4, 1, 3))
    if channels == 3:  # unsigned numbers wrap around, here and in all differences, so nothing is lost
        tiles = tiles[:, :, [1, 0, 2]]
        tiles[:, :, 1:] -= tiles[:, :, :1]
    tiles[..., 1:, :] -= tiles[..., :-1, :].copy()
    tiles[..., 1:] -= tiles[..., :-1].copy()
    item = pixels.itemsize
    samples = tiles.astype(tiles.dtype.newbyteorder("<"), copy=False)
    planes = samples.view(np.uint8).reshape(rows * columns, -1, item).swapaxes(1, 2)
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False)
    frames = [compressor.compress(tile.tobytes()) for tile in planes]
    offsets = np.cumsum([0, *map(len, frames)]).astype("<u4")
    return b"".join((offsets.tobytes(), *frames))


def _decompress(header: RecordHeader, payload: memoryview, window: tuple[int, int, int, int]) -> Picture:
    top, left, height, width = window
    tile, item, channels = header.tile, header.dtype.itemsize, header.channels
    columns = -(-header.width // tile)
    count = columns * -(-header.height // tile)
    offsets = np.frombuffer(payload, "<u4", count + 1).tolist() if len(payload) >= 4 * (count + 1) else None
    if offsets is None or len(payload) != 4 * (count + 1) + offsets[-1]:
        raise UserError("a record has a damaged length")
    first_row, last_row = top // tile, (top + height - 1) // tile
    first_column, last_column = left // tile, (left + width - 1) // tile
    shape = (last_row - first_row + 1, last_column - first_column + 1)
    planes = np.empty((shape[0] * shape[1], item * channels * tile * tile), np.uint8)
    frames = payload[4 * (count + 1) :]
    decompressor = zstandard.ZstdDecompressor()
    position = 0
    for row in range(first_row, last_row + 1):
        for number in range(row * columns + first_column, row * columns + last_column + 1):
            frame = frames[offsets[number] : offsets[number + 1]]
            try:
                if zstandard.frame_content_size(frame) != planes.shape[1]:  # as much would be allocated
                    raise ValueError("of another size")
                planes[position] = np.frombuffer(decompressor.decompress(frame), np.uint8)
            except (zstandard.ZstdError, ValueError) as error:
                raise UserError(f"a record has a damaged tile ({error})") from error
            position += 1
    if item == 2:
        planes = np.ascontiguousarray(planes.reshape(len(planes), 2, -1).swapaxes(1, 2))
    tiles = planes.reshape(-1).view(header.dtype).reshape(*shape, channels, tile, tile)
    tiles.cumsum(axis=-1, dtype=tiles.dtype, out=tiles)
    tiles.cumsum(axis=-2, dtype=tiles.dtype, out=tiles)
    if channels == 3:
        tiles[:, :, 1:] += tiles[:, :, :1]
        order = [1, 0, 2]
    else:
        order = [0]
    pixels = np.empty((shape[0] * tile, shape[1] * tile, channels), header.dtype)
    for channel, plane in zip(order, range(channels), strict=True):
        pixels[..., channel] = tiles[:, :, plane].swapaxes(1, 2).reshape(pixels.shape[:2])
    top, left = top - first_row * tile, left - first_column * tile
    return pixels[top : top + height, left : left + width].copy()
