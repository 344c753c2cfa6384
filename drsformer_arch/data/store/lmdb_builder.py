"""Pictures into an LMDB that BasicSR reads, or none at all.

The layout is BasicSR's own (`basicsr/utils/lmdb_util.py`): a folder `NAME.lmdb` with `data.mdb`, `lock.mdb` and
`meta_info.txt`, in which every line names a picture, `KEY.png (h,w,c) COMPRESSION`; the database holds a PNG for
every KEY. BasicSR's own builder guesses the map size from the first picture (and fails in the middle with
MDB_MAP_FULL), and leaves a folder that looks complete when it is killed. Here the map grows by need, and the folder
gets its name only when its content was read back.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from drsformer_arch.data.store.environments import LONGEST_KEY, MAP_SIZE, Writer, forget, open_shared
from drsformer_arch.images.pictures import Picture, decode, encode_png, read_file
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import fsync, put_in_place, work_folder

COMPRESS_LEVEL = 1

_META_LINE = re.compile(r"(?P<key>.+)\.png \((?P<height>\d+),(?P<width>\d+),(?P<channels>\d+)\) \d")


def build_lmdb(
    pictures: Mapping[str, Path | npt.NDArray[np.uint8]],
    target: Path,
    *,
    compress_level: int = COMPRESS_LEVEL,
    overwrite: bool = False,
    map_size: int = MAP_SIZE,
) -> int:
    """Write pictures into an LMDB in BasicSR's layout.

    All work is done in a hidden folder beside `target`. It takes the name of the target when every picture was read
    back from it and everything is on the disk; a failure removes it and leaves what was there before. What a killed
    process left is removed by the next.

    Args:
        pictures: key to picture file, or to an array (H, W), (H, W, 1) or (H, W, 3) of uint8, 0 to 255, in BGR order.
            Files are stored as `drsformer_arch.images.pictures` reads them: without alpha, turned as EXIF says; of 16
            bits per channel BasicSR reads 8, here as from a folder.
        target: the folder to make; its name ends in `.lmdb`.
        compress_level: PNG compression, 0 (none) to 9 (slow and small); lossless in any case.
        overwrite: replace an existing LMDB, once the new one is verified.
        map_size: first size of the memory map in bytes; it is doubled as often as needed.

    Returns:
        the number of pictures written.

    Raises:
        FileExistsError: `target` exists and `overwrite` is not set, or it is no LMDB.
        FileNotFoundError: the folder that shall hold `target` does not exist.
        ValueError: no pictures, a key BasicSR cannot hold, a picture that cannot be read, `target` without `.lmdb`,
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
    check_keys(list(pictures))
    if target.exists():
        if not overwrite:
            raise FileExistsError(f"{named} exists already; give another name, or overwrite=True to replace it")
        if not (target / "data.mdb").is_file():
            raise FileExistsError(f"{named} exists and is no LMDB, so it is not replaced")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} to write {target.name} into")
    # Without the ending .lmdb BasicSR refuses to read the unfinished folder.
    with work_folder(target, "building") as unfinished:
        try:
            encoded = (
                (key, *_encode(key, pictures[key], compress_level))
                for key in tqdm(pictures, desc="writing", unit="picture", delay=2)
            )
            write_basicsr(unfinished, encoded, len(pictures), compress_level=compress_level, map_size=map_size)
            _verify(unfinished)
        finally:
            forget(unfinished)
        put_in_place(unfinished, target)
    return len(pictures)


def check_keys(keys: list[str]) -> None:
    """Refuse keys that BasicSR's reader would not give back as they are.

    Raises:
        UserError: the first of them, and why.
    """
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
        elif len(key) > LONGEST_KEY:
            reason = f"LMDB holds at most {LONGEST_KEY} bytes, it has {len(key)}"
        elif key in seen:
            reason = "it occurs twice"
        else:
            seen.add(key)
            continue
        raise UserError(f"key {key!r} cannot be stored in BasicSR's layout: {reason}")


def write_basicsr(
    folder: Path,
    pictures: Iterable[tuple[str, bytes, tuple[int, int, int]]],
    count: int,
    *,
    compress_level: int = COMPRESS_LEVEL,
    map_size: int = MAP_SIZE,
) -> None:
    """Write encoded pictures into an empty folder in BasicSR's layout, and see them on the disk.

    Args:
        folder: gets `data.mdb` and `meta_info.txt`.
        pictures: key, PNG and shape (h, w, c); the keys suit BasicSR.
        count: how many they are.
        compress_level: what the meta file says of the PNGs.
        map_size: first size of the memory map in bytes.

    Raises:
        RuntimeError: fewer or more pictures arrived in the database.
        OSError, lmdb.Error: writing failed, for example because the disk is full.
    """
    writer = Writer(folder, subdir=True, map_size=map_size)
    with open(folder / "meta_info.txt", "w", encoding="ascii") as meta, writer:
        for key, png, (height, width, channels) in pictures:
            meta.write(f"{key}.png ({height},{width},{channels}) {compress_level}\n")
            writer.put(key.encode("ascii"), png)
    found = open_shared(folder).stat()["entries"]
    forget(folder)
    if found != count:
        raise RuntimeError(f"{count} pictures given, but {found} in the LMDB")
    for name in ("data.mdb", "meta_info.txt", "."):
        fsync(folder / name)


def _encode(key: str, picture: Path | npt.NDArray[np.uint8], compress_level: int) -> tuple[bytes, tuple[int, int, int]]:
    """Return the picture as PNG, and its shape (h, w, c)."""
    if isinstance(picture, np.ndarray):
        pixels: Picture = picture[..., None] if picture.ndim == 2 else picture[..., ::-1]
        if picture.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or picture.size == 0:
            raise ValueError(
                f"picture {key!r} must be (H, W), (H, W, 1) or (H, W, 3) of uint8, "
                f"not {picture.shape} of {picture.dtype}"
            )
    else:
        pixels = decode(read_file(Path(picture)), picture)
    return encode_png(pixels, compress_level), (pixels.shape[0], pixels.shape[1], pixels.shape[2])


def _verify(folder: Path) -> None:
    """Read everything back; raise RuntimeError where it is not what the meta file says."""
    with open(folder / "meta_info.txt", encoding="ascii") as meta, open_shared(folder).begin() as transaction:
        for line in tqdm(meta, desc="verifying", unit="picture", delay=2):
            match = _META_LINE.fullmatch(line.rstrip("\n"))
            if match is None:
                raise RuntimeError(f"{folder / 'meta_info.txt'} holds a line that is none of BasicSR's: {line!r}")
            key, shape = match["key"], tuple(map(int, match.group("height", "width", "channels")))
            try:
                found: object = decode(transaction.get(key.encode("ascii")) or b"", key).shape
            except UserError:
                found = None
            if found != shape:
                raise RuntimeError(
                    f"picture {key!r} was written with shape {shape}, but {found or 'nothing'} was read back"
                )
