"""LMDB environments: one per file and process for reading, a map that grows by need for writing."""

import mmap
import os
import threading
from pathlib import Path
from typing import NamedTuple

import lmdb

from drsformer_arch.system.errors import UserError

LONGEST_KEY = 511  # bytes, fixed when liblmdb is compiled
MAP_SIZE = 64 * 2**20  # bytes, to begin with
_BATCH_BYTES = 2 * 2**20  # in one transaction: LMDB allocates its pages anew, and larger ones cost several times that


class _Opened(NamedTuple):
    """An environment, the process that opened it, and device and inode of its file."""

    process: int
    environment: lmdb.Environment
    file: tuple[int, int]


_open: dict[str, _Opened] = {}  # by real path
_real: dict[str, str] = {}  # by the paths asked for: resolving links takes longer than reading a patch
_lock = os.getpid(), threading.Lock()


def open_shared(path: str | Path) -> lmdb.Environment:
    """Open an LMDB for reading, once: LMDB forbids to open a file twice in a process (training and validation).

    Any number of processes and threads may read, because nothing is locked: nobody may write meanwhile.

    Args:
        path: a folder with `data.mdb`, or a file.

    Raises:
        UserError: it does not exist, is no LMDB, or was cut short.
    """
    name = os.fspath(path)
    real = _real.get(name)
    if real is None:
        real = os.path.realpath(name)
    opened = _open.get(real)
    if opened is not None and opened.process == os.getpid():
        _real[name] = real
        return opened.environment
    with _opening():
        return _open_here(real, path)


def _opening() -> threading.Lock:
    """Return the lock of this process: one that another thread held during a fork would stay locked in the child."""
    global _lock  # noqa: PLW0603
    if _lock[0] != os.getpid():
        _lock = os.getpid(), threading.Lock()
    return _lock[1]


def _open_here(real: str, path: str | Path) -> lmdb.Environment:
    opened = _open.get(real)
    if opened is not None:
        if opened.process == os.getpid():
            return opened.environment
        # One from before a fork must not be used. Closed for this process only: LMDB's list would refuse a second one.
        opened.environment.close()
    is_folder = os.path.isdir(real)
    file = os.path.join(real, "data.mdb") if is_folder else real
    if not os.path.isfile(file):
        raise UserError(f"{path} is no LMDB ({'data.mdb is missing' if is_folder else 'there is no such file'})")
    state = os.stat(file)
    identity = state.st_dev, state.st_ino
    for process, environment, other in _open.values():  # by another mount, or a hard link
        if process == os.getpid() and other == identity:
            return environment
    try:
        environment = lmdb.open(real, subdir=is_folder, readonly=True, lock=False, readahead=False)
        pages = environment.info()["last_pgno"] + 1
        needed = pages * environment.stat()["psize"]
    except lmdb.Error as error:
        raise UserError(f"{path} cannot be read as an LMDB: {error}") from error
    # Reading a page beyond the end of the file would kill the process (SIGBUS).
    if os.path.getsize(file) < needed:
        raise UserError(f"{file} was cut short: {os.path.getsize(file):,} bytes of {needed:,}; copy it again")
    _open[real] = _Opened(os.getpid(), environment, identity)
    return environment


def forget(path: str | Path) -> None:
    """Close the shared environments of LMDBs that are going to be moved or removed: this one, or all in a folder."""
    real = os.path.realpath(path)
    for opened in [opened for opened in _open if opened == real or opened.startswith(os.path.join(real, ""))]:
        process, environment, _ = _open.pop(opened)
        if process == os.getpid():
            environment.close()
    _real.clear()


def release() -> None:
    """Close all shared environments of this process, so that it maps no more pages of them; they open again by need.

    No other thread of the process may be reading.
    """
    for real, (process, environment, _) in list(_open.items()):
        if process == os.getpid():  # one from before a fork stays noted, for `_open_here` to close
            del _open[real]
            environment.close()


class Writer:
    """Writes entries into one LMDB in a `with` block; the memory map is doubled as often as needed.

    Nothing is on the disk for sure before the block ends well: an unfinished LMDB must have a name that nobody reads.

    Args:
        path: a folder, or with `subdir=False` a file; made where missing.
        map_size: first size of the map in bytes.
    """

    def __init__(self, path: Path, *, subdir: bool, map_size: int = MAP_SIZE) -> None:
        self._map_size = map_size
        self._batch: list[tuple[bytes, bytes]] = []
        self._waiting = 0
        self._environment = lmdb.open(
            str(path),
            subdir=subdir,
            map_size=_whole_pages(map_size),
            mode=0o644,
            sync=False,
            metasync=False,
            lock=subdir,
        )

    def put(self, key: bytes, value: bytes) -> None:
        """Add an entry; an older one under the same key is replaced."""
        self._batch.append((key, value))
        self._waiting += len(value)
        if self._waiting >= _BATCH_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what is waiting in one transaction."""
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._batch:
                        transaction.put(key, value)
            except lmdb.MapFullError:  # the transaction was undone as a whole
                self._map_size *= 2
                self._environment.set_mapsize(_whole_pages(self._map_size))
            else:
                self._batch, self._waiting = [], 0
                return

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.commit()
                self._environment.sync(True)
        finally:
            self._environment.close()


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
