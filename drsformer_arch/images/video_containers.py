"""The length that video files claim for themselves, so that half a video is not taken for a whole one.

Decoders end without a word where a file was cut, as after a broken download. Containers name the sizes of their parts,
which are compared with the file. A cut between two parts is seen where the container names its whole size, too: not in
.flv, .ogv, .mpg and .ts, which are made for streams and recordings that end anywhere.
"""

import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from drsformer_arch.images.picture_headers import LIMIT, max_pixels
from drsformer_arch.system.errors import UserError

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"styp", b"uuid"))
_PACK = b"\x00\x00\x01\xba"
_SYNC = b"G"

# Names of FFmpeg's demuxers for the containers above and for bare streams of their codecs: never a playlist, a list of
# pictures or another text that names files, which FFmpeg would open whatever the suffix. Tracks of .mov in other files
# it leaves alone by default.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,flv,live_flv,mpegts,mpeg,ogg,mpegvideo,m4v,h264,hevc,dv"
INPUT_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
"""Options of FFmpeg for every video file that is read, so that it reads this file and no other."""


_Ends = Iterator[int]  # of the parts of a file: where it must at least reach


def file_word(path: Path) -> str:
    """Return a path as ffmpeg takes it: never an option and never a protocol."""
    return f"file:{path.absolute()}"


def input_words(path: Path) -> list[str]:
    """Return a video file as ffmpeg and ffprobe read it: no other file, whatever it names."""
    return [*(word for key, value in INPUT_OPTIONS.items() for word in (f"-{key}", value)), "-i", file_word(path)]


def probe(ffprobe: str, path: Path, kind: str) -> list[dict[str, Any]]:
    """Ask ffprobe about the streams of a kind, such as "a", without decoding them; empty where there are none."""
    command = [ffprobe, "-v", "quiet", "-select_streams", kind, "-show_streams", "-of", "json", *input_words(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    with suppress(ValueError, LookupError, TypeError):
        return [dict(stream) for stream in json.loads(done.stdout)["streams"]]
    return []


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
            missing = next((end for end in _parts_of(start)(file) if end > size), 0)
    except OSError as error:
        raise UserError(f"video {path} cannot be read: {error.strerror or error}") from error
    if missing:
        raise UserError(
            f"video {path} is cut off: {size:,} of at least {missing:,} bytes are there; copy or download it again, or "
            f"make a whole file of what is there with another program"
        )


def refuse_large(path: Path, width: int, height: int) -> None:
    """Refuse a video whose frames have more pixels than a picture may have.

    Raises:
        UserError: they have, or the environment variable of the limit is no number.
    """
    limit = max_pixels()
    if width * height > limit:
        raise UserError(
            f"video {path} is too large: {width}x{height} pixels; the environment variable {LIMIT} allows more than "
            f"{limit:,}"
        )


def _parts_of(start: bytes) -> Callable[[BinaryIO], _Ends]:
    """Return who knows the parts of a file with this beginning."""
    kinds: list[tuple[bool, Callable[[BinaryIO], _Ends]]] = [
        (start.startswith(_EBML.to_bytes(4, "big")), _matroska),
        (start[4:8] in _BOXES, _boxes),
        (start.startswith(b"RIFF"), _riff),
        (start == _ASF_HEADER, _asf),
        (start.startswith(b"OggS"), _ogg),
        (start.startswith(b"FLV\x01"), _flv),
        (start.startswith(_PACK), _program_stream),
        (start[:1] == _SYNC, partial(_transport_stream, length=188, offset=0)),
        (start[4:5] == _SYNC, partial(_transport_stream, length=192, offset=4)),  # .m2ts
    ]
    return next((parts for is_it, parts in kinds if is_it), lambda _: iter(()))


def _matroska(file: BinaryIO) -> _Ends:
    """Walk the elements of .mkv and .webm; a segment or cluster of unknown size, as browsers record, goes on inside."""
    while True:
        kind, size = _number(file, keep_mark=True), _number(file)
        if kind is None:
            return
        if size is None:  # cut within the number
            yield file.tell() + 1
            return
        unknown = size == -1
        if unknown and kind not in (_SEGMENT, _CLUSTER):
            return  # no Matroska that is known
        if unknown:
            continue
        end = file.tell() + size
        yield end
        file.seek(end)


def _number(file: BinaryIO, keep_mark: bool = False) -> int | None:
    """Read a number of variable length; -1: unknown; None: the end of the file, or no number."""
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


def _boxes(file: BinaryIO) -> _Ends:
    """Walk the boxes of .mp4, .mov and the like."""
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
        yield start + size
        file.seek(start + size)


def _riff(file: BinaryIO) -> _Ends:
    """Walk the lists of .avi, of which large files have several."""
    while True:
        start = file.tell()
        header = file.read(8)
        if len(header) < 8 or not header.startswith(b"RIFF"):
            return
        size = struct.unpack("<I", header[4:])[0]
        if not size:  # recorded without an end
            return
        yield start + 8 + size
        file.seek(start + 8 + size + size % 2)


def _asf(file: BinaryIO) -> _Ends:
    """Walk the objects of .wmv."""
    while len(header := file.read(24)) == 24:
        start = file.tell() - 24
        size = struct.unpack("<Q", header[16:])[0]
        if size < 24 or size >= 2**63:
            return
        yield start + size
        file.seek(start + size)


def _ogg(file: BinaryIO) -> _Ends:
    """Walk the pages of .ogv."""
    while (header := file.read(27)).startswith(b"OggS"):
        start = file.tell() - len(header)
        lengths = file.read(header[26]) if len(header) == 27 else b""
        end = start + 27 + (header[26] if len(header) == 27 else 0) + sum(lengths)
        yield end
        file.seek(end)


def _flv(file: BinaryIO) -> _Ends:
    """Walk the tags of .flv, each followed by its size."""
    file.seek(9 + 4)
    while header := file.read(11):
        start = file.tell() - len(header)
        if header[0] & 0x1F not in (8, 9, 18):  # sound, video, notes
            return
        end = start + 11 + int.from_bytes(header[1:4], "big") + 4
        yield end
        file.seek(end)


def _program_stream(file: BinaryIO) -> _Ends:
    """Walk the packs and packets of .mpg."""
    while (header := file.read(14)) and header.startswith(b"\0\0\1"[: len(header)]):
        start = file.tell() - len(header)
        if header.startswith(b"\0\0\1\xb9"):  # the end
            return
        if len(header) < 7:
            length = 7
        elif header.startswith(_PACK):
            length = 12 if header[4] >> 4 == 2 else 14 + (header[-1] & 7)  # MPEG-1, MPEG-2
        else:
            length = 6 + int.from_bytes(header[4:6], "big")
        yield start + length
        file.seek(start + length)


def _transport_stream(file: BinaryIO, *, length: int, offset: int) -> _Ends:
    """Look at the last packet of .ts, where the first ones are what they seem to be."""
    head = file.read(4 * length)
    if len(head) == 4 * length and all(head[offset + n * length : offset + n * length + 1] == _SYNC for n in range(4)):
        size = file.seek(0, 2)
        start = size // length * length
        file.seek(start)
        rest = file.read(length)
        if rest and (len(rest) <= offset or rest[offset : offset + 1] == _SYNC):
            yield start + length
