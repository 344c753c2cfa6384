"""Files and folders that are there whole, or not at all."""

import contextlib
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def fsync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    if path.is_dir() and os.name != "posix":
        return  # only POSIX systems can open a folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name when the block ends well: there is the old content or the new, never a part.

    Raises:
        OSError: the folder is not writable, the disk is full; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def rename_whole(finished: Path, target: Path) -> None:
    """Give a finished file its name; what had the name before is replaced in the same step.

    Raises:
        OSError: the folder is not writable, the disk is full; the old file is intact.
    """
    fsync(finished)
    os.replace(finished, target)


def write_atomically(path: Path, content: bytes) -> None:
    """`atomic_file` for content at hand."""
    with atomic_file(path) as file:
        file.write(content)


def put_in_place(finished: Path, target: Path) -> None:
    """Give a finished folder its name; what had the name before goes only after that.

    A folder with content cannot be replaced in one step: a kill between the two renames leaves no target, and the old
    folder complete under the name of the finished one with the ending ``.replaced``.
    """
    before = None
    if target.exists():
        before = finished.with_suffix(".replaced")
        os.rename(target, before)
    try:
        os.rename(finished, target)
    except BaseException:
        if before is not None:
            os.rename(before, target)
        raise
    fsync(target.parent)
    if before is not None:
        shutil.rmtree(before)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def crc32_of_file(path: Path) -> str:
    """CRC-32 of a file as 8 hexadecimal digits."""
    checksum, block = 0, bytearray(2**17)  # stays in the processor's cache
    with path.open("rb") as file:
        while count := file.readinto(block):
            checksum = zlib.crc32(memoryview(block)[:count], checksum)
    return f"{checksum:08x}"


def lock(path: Path, *, shared: bool = False, wait: bool = True) -> int:
    """Lock a file or folder against other processes that do the same.

    Returns:
        a file descriptor; the lock is gone when it is closed, or the process ends.

    Raises:
        BlockingIOError: another process holds the lock, and ``wait`` is not set.
    """
    if fcntl is None:  # Windows, which cannot open folders either
        return os.open(os.devnull, os.O_RDONLY)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
