"""What video files say of their own length, so that half a video is not taken for a whole one.

Decoders end without a word where a file was cut, as after a broken download. Most containers name the sizes of their
parts, which are compared with the file; those that are made for broadcasting (.ts, .mpg) name none.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from drsformer_arch.errors import UserError

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"styp", b"uuid"))


class _Part(NamedTuple):
    start: int
    end: int  # where the file must at least reach


def refuse_cut(path: Path) -> None:
    """Refuse a video file that ends before its container does.

    Raises:
        UserError: a part of the file is missing; or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(16)
            file.seek(0)
            ends = [part.end for part in _parts_of(start)(file)]
    except OSError as error:
        raise UserError(f"video {path} cannot be read: {error.strerror or error}") from error
    if ends and max(ends) > size:
        raise UserError(
            f"video {path} is cut off: {size:,} of {max(ends):,} bytes are there; copy or download it again, or make a "
            f"whole file of what is there with another program"
        )


def _parts_of(start: bytes) -> Callable[[BinaryIO], Iterator[_Part]]:
    if start.startswith(_EBML.to_bytes(4, "big")):
        return _matroska
    if start[4:8] in _BOXES:
        return _boxes
    if start.startswith(b"RIFF"):
        return _riff
    if start == _ASF_HEADER:
        return _asf
    return lambda _: iter(())


def _matroska(file: BinaryIO) -> Iterator[_Part]:
    """Elements of .mkv and .webm; a segment or cluster of unknown size, as browsers record, goes on with its parts."""
    while True:
        start = file.tell()
        kind, size = _number(file, keep_mark=True), _number(file)
        if kind is None:
            return
        if size is None:  # cut within the number
            yield _Part(start, file.tell() + 1)
            return
        unknown = size == -1
        if unknown and kind not in (_SEGMENT, _CLUSTER):
            return  # no Matroska that is known
        if unknown:
            continue
        end = file.tell() + size
        yield _Part(start, end)
        file.seek(end)


def _number(file: BinaryIO, keep_mark: bool = False) -> int | None:
    """A number of variable length; -1: unknown; None: the end of the file, or no number."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    number = int.from_bytes(first + rest, "big")
    if keep_mark:
        return number
    number -= 1 << (7 * length)
    return -1 if number == (1 << (7 * length)) - 1 else number


def _boxes(file: BinaryIO) -> Iterator[_Part]:
    """Boxes of .mp4, .mov and the like."""
    while True:
        start = file.tell()
        header = file.read(8)
        if len(header) < 8 or header[4:] not in _BOXES:
            return
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8:  # 0: up to the end of the file
            return
        yield _Part(start, start + size)
        file.seek(start + size)


def _riff(file: BinaryIO) -> Iterator[_Part]:
    """The lists of .avi, of which large files have several."""
    while True:
        start = file.tell()
        header = file.read(8)
        if len(header) < 8 or not header.startswith(b"RIFF"):
            return
        size = struct.unpack("<I", header[4:])[0]
        if not size:  # recorded without an end
            return
        yield _Part(start, start + 8 + size)
        file.seek(start + 8 + size + size % 2)


def _asf(file: BinaryIO) -> Iterator[_Part]:
    """Objects of .wmv."""
    while len(header := file.read(24)) == 24:
        start = file.tell() - 24
        size = struct.unpack("<Q", header[16:])[0]
        if size < 24 or size >= 2**63:
            return
        yield _Part(start, start + size)
        file.seek(start + size)
