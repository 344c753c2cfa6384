"""The tags of a TIFF beside its pixels: EXIF notes, colour profile, whether it has several pages."""

import io
import struct
from itertools import islice
from typing import Any, NamedTuple

import tifffile
from PIL import Image
from PIL.ExifTags import IFD, Base

from drsformer_arch.system.errors import show_traceback

# Where a TIFF has its notes, it also has what only its own pixels can be read with.
_NOTES = frozenset(
    {
        Base.ImageDescription,
        Base.Make,
        Base.Model,
        Base.XResolution,
        Base.YResolution,
        Base.ResolutionUnit,
        Base.Software,
        Base.DateTime,
        Base.Artist,
        Base.HostComputer,
        Base.Rating,
        Base.RatingPercent,
        Base.Copyright,
        Base.XPTitle,
        Base.XPComment,
        Base.XPAuthor,
        Base.XPKeywords,
        Base.XPSubject,
    }
)
_BLOCKS = (IFD.Exif, IFD.GPSInfo)
_MARK = b"Exif\0\0"
_ENTRY = 12  # bytes
_SUB_IFDS = 330


class TiffTags(NamedTuple):
    """The tags that belong to the first page."""

    icc_profile: bytes | None = None
    exif: bytes | None = None  # without orientation
    is_photograph: bool = True  # beside the first page there are but thumbnails


def read_tags(content: bytes, notes: list[str]) -> TiffTags:
    """Read the tags of a TIFF; what of them cannot be read is left out and added to `notes`."""
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            first: Any = file.pages.first
            icc_profile, is_reduced = first.iccprofile, first.is_reduced
            has_thumbnail, has_pages = False, False
            page: Any
            for page in islice(file.pages, 1, None):
                has_thumbnail, has_pages = True, not page.is_reduced
                if has_pages:
                    break
            # A thumbnail that comes first stands for a picture elsewhere in the file.
            is_photograph = not has_pages and not (is_reduced and (has_thumbnail or _SUB_IFDS in first.tags))
    except Exception as error:  # damaged in one of many ways
        show_traceback(error)
        notes.append("its colour profile and EXIF block cannot be read and are left out")
        return TiffTags()
    if is_photograph and has_thumbnail:
        notes.append("the thumbnail inside it is left out")
    try:
        block = Image.Exif()
        block.load(_MARK + content)
        exif = _only_notes(block)
        return TiffTags(icc_profile, exif.tobytes() if len(exif) else None, is_photograph)
    except Exception as error:  # Pillow trips in many ways over values of wrong types, and over those of 64 bits
        show_traceback(error)
        notes.append("its EXIF block cannot be read and is left out")
        return TiffTags(icc_profile, None, is_photograph)


def _only_notes(block: Image.Exif) -> Image.Exif:
    notes = Image.Exif()
    notes.endian = "<"
    for tag in block:
        if tag in _NOTES:
            notes[tag] = block[tag]
    for tag in _BLOCKS:
        inner = dict(block.get_ifd(tag)) if tag in block else {}
        if IFD.Interop in inner:
            inner[IFD.Interop] = block.get_ifd(IFD.Interop)
        if inner:
            notes[tag] = inner
    return notes


def with_exif(content: bytes, exif: bytes) -> bytes:
    """Add EXIF notes to the tags of a TIFF with one page, little-endian.

    Raises:
        ValueError: it is too large for the addresses in the notes, or they are damaged in one of many ways (Pillow has
            other errors for them, too).
    """
    block = Image.Exif()
    block.load(exif)
    content += bytes(len(content) % 2)
    added = _only_notes(block).tobytes(len(content)).removeprefix(_MARK)[8:]
    if content[:4] != b"II*\0" or len(content) + len(added) >= 2**31:
        raise ValueError("the file is too large for them")
    (start,) = struct.unpack_from("<I", content, 4)
    entries = _entries(content, start) | _entries(added, 0)
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    added += bytes(len(added) % 2)
    return content[:4] + struct.pack("<I", len(content) + len(added)) + content[8:] + added + directory


def _entries(content: bytes, start: int) -> dict[int, bytes]:
    """Return the entries of a directory by tag; where their values lie is counted from the start of the file."""
    (count,) = struct.unpack_from("<H", content, start)
    places = range(start + 2, start + 2 + _ENTRY * count, _ENTRY)
    return {struct.unpack_from("<H", content, at)[0]: content[at : at + _ENTRY] for at in places}
