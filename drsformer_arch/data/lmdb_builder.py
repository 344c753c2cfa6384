"""Pictures into an LMDB that BasicSR reads, or none at all.

The layout is BasicSR's own (``basicsr/utils/lmdb_util.py``): a folder ``NAME.lmdb`` with ``data.mdb``, ``lock.mdb`` and
``meta_info.txt``, in which every line names a picture, ``KEY.png (h,w,c) COMPRESSION``; the database holds a PNG for
every KEY. BasicSR's own builder guesses the map size from the first picture (and fails in the middle with
MDB_MAP_FULL), and leaves a folder that looks complete when it is killed. Here the map grows by need, and the folder
gets its name only when its content was read back.
"""

from __future__ import annotations

import glob
import logging
import mmap
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import lmdb
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

_BATCH_BYTES = 32 * 2**20  # written in one transaction, and again when the map was too small for it
_META_LINE = re.compile(r"(?P<key>.+)\.png \((?P<height>\d+),(?P<width>\d+),(?P<channels>\d+)\) \d")
_LONGEST_KEY = 511  # bytes, fixed when liblmdb is compiled


def pictures_in_folder(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and its subfolders, as :func:`build_lmdb` takes them.

    Args:
        folder: searched for the suffixes in ``PICTURE_SUFFIXES``, in small or capital letters. Names that start with a
            dot are left out.

    Returns:
        key to file, sorted by key. The key is the path relative to ``folder`` without its extension, with "/" between
        folders.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no picture lies in it, or two files have the same key (``a.png`` and ``a.jpg``).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of pictures: {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        # Such as the ._NAME.png that macOS puts beside NAME.png.
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or path.suffix.lower() not in PICTURE_SUFFIXES or not path.is_file():
            continue
        key = relative.with_suffix("").as_posix()
        if key in found:
            raise ValueError(f"two pictures have the same key {key!r}: {found[key]} and {path}")
        found[key] = path
    if not found:
        raise ValueError(f"no picture ({', '.join(sorted(PICTURE_SUFFIXES))}) in {folder}")
    return dict(sorted(found.items()))


def build_lmdb(
    pictures: Mapping[str, Path | npt.NDArray[np.uint8]],
    target: Path,
    *,
    compress_level: int = 1,
    overwrite: bool = False,
    map_size: int = 64 * 2**20,
) -> int:
    """Write pictures into an LMDB in BasicSR's layout.

    All work is done in a hidden folder beside ``target``. It takes the name of the target when every picture was read
    back from it and everything is on the disk; a failure removes it and leaves what was there before.

    Args:
        pictures: key to picture file, or to an array (H, W), (H, W, 1) or (H, W, 3) of uint8, 0 to 255, in BGR order.
            Files are stored as BasicSR sees them when it reads the folder: 8 bits per channel, gray or BGR, without
            alpha, turned as EXIF says.
        target: the folder to make; its name ends in ``.lmdb``.
        compress_level: PNG compression, 0 (none) to 9 (slow and small); lossless in any case.
        overwrite: replace an existing LMDB, once the new one is verified.
        map_size: first size of the memory map in bytes; it is doubled as often as needed.

    Returns:
        the number of pictures written.

    Raises:
        FileExistsError: ``target`` exists and ``overwrite`` is not set, or it is no LMDB.
        FileNotFoundError: the folder that shall hold ``target`` does not exist.
        ValueError: no pictures, a key BasicSR cannot hold, a picture that cannot be read, ``target`` without ``.lmdb``,
            or a compression level or map size out of range.
        RuntimeError: what was read back is not what was written.
        OSError, lmdb.Error: writing failed, for example because the disk is full.
    """
    # A link is followed, because renaming over it would replace the link and not what it leads to.
    named, target = Path(target), Path(os.path.realpath(target))
    if named.suffix != ".lmdb":
        raise ValueError(f"BasicSR reads an LMDB only from a folder whose name ends in .lmdb, not from {named}")
    if compress_level not in range(10):
        raise ValueError(f"PNG compression is 0 to 9, not {compress_level!r}")
    if map_size < 1:
        raise ValueError(f"the first map size must be at least one byte, not {map_size!r}")
    if not pictures:
        raise ValueError(f"no pictures to write into {named}")
    _check_keys(list(pictures))
    if target.exists():
        if not overwrite:
            raise FileExistsError(f"{named} exists already; give another name, or overwrite=True to replace it")
        if not (target / "data.mdb").is_file():
            raise FileExistsError(f"{named} exists and is no LMDB, so it is not replaced")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} to write {target.name} into")
    for left in sorted(target.parent.glob(f".{glob.escape(target.name)}.*.building")):
        logger.warning("%s: another build is running, or one was killed; remove this folder if none is running", left)

    # Without the ending .lmdb BasicSR refuses to read the unfinished folder.
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.building")
    try:
        unfinished.mkdir()
        _write(pictures, unfinished, compress_level, map_size)
        _verify(unfinished, len(pictures))
        for name in ("data.mdb", "meta_info.txt", "."):
            _fsync(unfinished / name)
        _put_in_place(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return len(pictures)


def _check_keys(keys: list[str]) -> None:
    """Refuse keys that BasicSR's reader would not give back as they are."""
    seen: set[str] = set()
    for key in keys:
        if not isinstance(key, str) or not key:
            reason = "it must be a text with something in it"
        elif not key.isascii():
            reason = "BasicSR holds ASCII characters only"
        elif not key.isprintable():
            reason = "it contains a line break or another control character, and the meta file has one line per key"
        elif "." in key:
            reason = "BasicSR cuts a key at its first dot"
        elif len(key) > _LONGEST_KEY:
            reason = f"LMDB holds at most {_LONGEST_KEY} bytes, it has {len(key)}"
        elif key in seen:
            reason = "it occurs twice"
        else:
            seen.add(key)
            continue
        raise ValueError(f"key {key!r} cannot be stored: {reason}")


def _encode(key: str, picture: Path | npt.NDArray[np.uint8], compress_level: int) -> tuple[bytes, tuple[int, int, int]]:
    """The picture as PNG, and its shape (h, w, c)."""
    if isinstance(picture, np.ndarray):
        pixels = picture
        legal_shape = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))
        if pixels.dtype != np.uint8 or not legal_shape or pixels.size == 0:
            raise ValueError(
                f"picture {key!r} must be (H, W), (H, W, 1) or (H, W, 3) of uint8, not {pixels.shape} of {pixels.dtype}"
            )
    else:
        pixels = _read_picture(Path(picture))
    done, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, compress_level])
    if not done:
        raise ValueError(f"picture {key!r} of shape {pixels.shape} cannot be encoded as PNG")
    return encoded.tobytes(), (pixels.shape[0], pixels.shape[1], 1 if pixels.ndim == 2 else pixels.shape[2])


def _read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """A file as (H, W) or (H, W, 3) BGR, uint8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"picture {path} cannot be read: {error.strerror}") from error
    pixels = _decode(content)
    if pixels is None:
        raise ValueError(f"picture {path} cannot be read: it is damaged or of an unknown kind ({len(content)} bytes)")
    return pixels


def _decode(content: bytes) -> npt.NDArray[np.uint8] | None:
    """Pixels of an encoded picture, or None where there are none."""
    if not content:
        return None  # cv2 would raise an error about its own buffer
    # Reduces to 8 bits and drops alpha like the colour mode BasicSR reads with, but keeps gray pictures at one channel.
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYCOLOR)  # type: ignore[return-value]


def _write(
    pictures: Mapping[str, Path | npt.NDArray[np.uint8]], folder: Path, compress_level: int, map_size: int
) -> None:
    # Synced once at the end: until then the folder has no name that anyone reads.
    environment = lmdb.open(str(folder), map_size=_whole_pages(map_size), mode=0o644, sync=False, metasync=False)
    try:
        with open(folder / "meta_info.txt", "w", encoding="ascii") as meta:
            batch: list[tuple[bytes, bytes]] = []
            waiting = 0
            for key in tqdm(pictures, desc="writing", unit="picture", delay=2):
                value, shape = _encode(key, pictures[key], compress_level)
                meta.write(f"{key}.png ({shape[0]},{shape[1]},{shape[2]}) {compress_level}\n")
                batch.append((key.encode("ascii"), value))
                waiting += len(value)
                if waiting >= _BATCH_BYTES:
                    map_size = _put_batch(environment, batch, map_size)
                    batch, waiting = [], 0
            _put_batch(environment, batch, map_size)
        environment.sync(True)
    finally:
        environment.close()


def _put_batch(environment: lmdb.Environment, batch: list[tuple[bytes, bytes]], map_size: int) -> int:
    """Write a batch in one transaction; returns the size of the map, which is doubled until the batch fits."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
            return map_size
        except lmdb.MapFullError:  # the transaction was undone as a whole
            map_size *= 2
            environment.set_mapsize(_whole_pages(map_size))


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _meta_lines(folder: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Key and shape (h, w, c) of every line of the meta file."""
    with open(folder / "meta_info.txt", encoding="ascii") as meta:
        for line in meta:
            match = _META_LINE.fullmatch(line.rstrip("\n"))
            if match is None:
                raise RuntimeError(f"{folder / 'meta_info.txt'} holds a line that is none of BasicSR's: {line!r}")
            yield match["key"], (int(match["height"]), int(match["width"]), int(match["channels"]))


def _verify(folder: Path, count: int) -> None:
    """Read everything back; raise RuntimeError where it is not what the meta file says."""
    shapes = dict(_meta_lines(folder))
    environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
    try:
        entries = environment.stat()["entries"]
        if not entries == len(shapes) == count:
            raise RuntimeError(f"{count} pictures given, but {entries} in the LMDB and {len(shapes)} in its meta file")
        with environment.begin() as transaction:
            for key, shape in tqdm(shapes.items(), desc="verifying", unit="picture", delay=2):
                pixels = _decode(transaction.get(key.encode("ascii")) or b"")
                found = None if pixels is None else (*pixels.shape, 1)[:3]
                if found != shape:
                    raise RuntimeError(
                        f"picture {key!r} was written with shape {shape}, but {found or 'nothing'} was read back"
                    )
    finally:
        environment.close()


def _put_in_place(finished: Path, target: Path) -> None:
    """Give a finished folder its name; what had the name before goes only after that."""
    before = None
    if target.exists():
        # A folder with content cannot be replaced in one step. A kill between the two renames leaves no target, and the
        # old LMDB complete under this name.
        before = finished.with_suffix(".replaced")
        os.rename(target, before)
    try:
        os.rename(finished, target)
    except BaseException:
        if before is not None:
            os.rename(before, target)
        raise
    _fsync(target.parent)
    if before is not None:
        shutil.rmtree(before)


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # only POSIX systems can open a folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
