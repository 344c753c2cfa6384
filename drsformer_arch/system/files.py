"""Files and folders that are there whole, or not at all."""

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from drsformer_arch.system.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # looked at before each use

MARK = "drsformer"  # in the names of temporary files
_LONGEST_STEM = 40  # characters of a file's name in that of its temporary file; more says nothing more
_TEMPORARY = re.compile(rf"\..*\.{MARK}-[0-9a-f]{{8}}\.tmp(\.\w+)?")
_LINKS_IN_A_ROW = 40  # as many as Linux follows
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_cleaned: set[Path] = set()  # folders from which left-overs were removed already


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
def atomic_path(path: Path, suffix: str = "", *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary file that becomes `path` when the block ends well, for writers that want a name.

    What is read back before the block ends is checked before it gets its name. There is the old content or the new,
    never a part. A link stays, and what it leads to is replaced. Into what is no regular file (a device, a pipe,
    /dev/stdout) the finished content is copied.

    Args:
        path: of the file; its folder must exist.
        suffix: that the temporary file's name must end with.
        durable: wait until the content is on the disk; otherwise the caller does, for many files at once.

    Raises:
        OSError: the folder is not writable, the disk is full; the old file is intact.
    """
    target = None if is_stream(path) else followed(path)
    with errors_named(path), _temporary(scratch_folder(path), path.stem, suffix) as unfinished:
        yield unfinished
        if target is None:
            with unfinished.open("rb") as content, _stream(path) as file:
                shutil.copyfileobj(content, file)
        else:
            if durable:
                fsync(unfinished)
            os.replace(unfinished, target)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes its name when the block ends well: there is the old content or the new, never a part.

    A link stays, and what it leads to is replaced. Devices, pipes and /dev/stdout are written to at once.

    Raises:
        OSError: the folder is not writable, the disk is full; the old file is intact.
    """
    if is_stream(path):
        with errors_named(path), _stream(path) as file:
            yield file
    else:
        with atomic_path(path) as unfinished, unfinished.open("wb") as file:
            yield file
            file.flush()


def write_atomically(path: Path, content: bytes) -> None:
    """Write content at hand as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(content)


def is_stream(path: Path) -> bool:
    """Tell whether a path is written to and never replaced: a device, a pipe, or an open file such as /dev/stdout."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def is_stdout(path: Path) -> bool:
    """Tell whether a path is where `print` writes, such as /dev/stdout."""
    return _descriptor(path) == 1


def followed(path: Path) -> Path:
    """Return the file that a path finally leads to through links, which need not be there.

    Raises:
        OSError: the links lead round in a circle.
    """
    try:
        return Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
        return Path(os.path.realpath(path))


def scratch_folder(path: Path) -> Path:
    """Return a folder for temporary files on the disk of a file to be written.

    Raises:
        UserError: the path is a link into a folder that is not there.
    """
    if is_stream(path):
        return Path(tempfile.gettempdir())
    folder = followed(path).parent
    if path.is_symlink() and not folder.is_dir():
        raise UserError(f"{path} is a link into a folder that is not there: {folder}; make it, or remove the link")
    return folder


def refuse_unwritable(path: Path) -> None:
    """Raise before long work what would keep its result from being written; the folder is made where it is missing.

    Raises:
        UserError: the path is a folder, or a link into a folder that is not there.
        OSError: the folder is not writable.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    if not is_stream(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with errors_named(path), _temporary(scratch_folder(path), path.stem, ""):
            pass


def expanded(path: Path | str) -> Path:
    """Put the home folder in the place of `~`; a user who does not exist stays, and is then not found as a path.

    `Path.expanduser` raises a RuntimeError there.
    """
    return Path(os.path.expanduser(path))


def refuse_no_file(path: Path, kind: str = "") -> None:
    """Refuse what would be waited for or read without end; what is not there is left to whoever opens it.

    Args:
        path: to be read.
        kind: such as "picture", for the message.

    Raises:
        UserError: a device, a pipe, a socket, a folder, or a link to no file.
    """
    subject = f"{kind} {path}".strip()
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            raise UserError(f"{subject} is a link to no file ({error.strerror}); restore what it leads to") from error
        return
    if not stat.S_ISREG(mode):
        name = next((name for is_it, name in _KINDS if is_it(mode)), "no regular file")
        raise UserError(f"{subject} is {name}, not a file; write its content into a file and give that")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this package were writing into a folder; what others write now stays."""
    with contextlib.suppress(OSError):  # no such folder, or not ours: nothing to clean
        for entry in list(os.scandir(folder)):
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):  # locked by its writer
                    descriptor = lock(Path(entry.path), wait=False)
                    try:
                        os.unlink(entry.path)
                    finally:
                        os.close(descriptor)


@contextlib.contextmanager
def work_folder(target: Path, ending: str) -> Iterator[Path]:
    """Yield a hidden folder `.NAME.*.ENDING` beside a target, to be renamed when complete; otherwise it is removed.

    What killed processes left of such folders for this target is removed first; one that is in use stays.

    Raises:
        OSError: the folder of the target is not there, or not writable.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.{ending}"):
        with contextlib.suppress(OSError):  # locked by its process
            remove_unlocked(left)
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.{ending}")
    held: int | None = None
    try:
        while held is None:
            folder.mkdir(exist_ok=True)
            held = lock(folder)
            if not folder.is_dir():  # taken for a left-over before it was locked
                os.close(held)
                held = None
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def remove_unlocked(folder: Path) -> None:
    """Remove a folder that no process has locked.

    Raises:
        OSError: one has, or the system cannot tell (Windows).
    """
    if fcntl is None:
        raise BlockingIOError(f"{folder} may be in use")
    descriptor = lock(folder, wait=False)
    try:
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Let errors name the file that was to be written: those of a full disk name none, others a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or _TEMPORARY.fullmatch(Path(error.filename).name)):
            error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def _temporary(folder: Path, name: str, suffix: str) -> Iterator[Path]:
    """Yield an empty file, removed at the end; its lock shows other processes that somebody writes it."""
    if folder not in _cleaned:
        _cleaned.add(folder)
        remove_leftovers(folder)
    path, descriptor = _hidden(folder, name, suffix), None
    try:
        # Ctrl-C may come when the file is there and its descriptor not yet here.
        while (descriptor := _create_locked(path)) is None:
            path = _hidden(folder, name, suffix)
        if fcntl is None:  # Windows renames no open file, and removes none either
            os.close(descriptor)
        yield path
    finally:
        path.unlink(missing_ok=True)
        if fcntl is not None and descriptor is not None:
            os.close(descriptor)


def _hidden(folder: Path, name: str, suffix: str) -> Path:
    return folder / f".{name[:_LONGEST_STEM]}.{MARK}-{os.urandom(4).hex()}.tmp{suffix}"


def _create_locked(path: Path) -> int | None:
    """Return a descriptor of a new file that is locked; None where another process was faster."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(path)  # another process may have taken it for a left-over before it was locked
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return None
    except OSError:  # a disk that knows no locks: there `remove_leftovers` gets none either, and removes nothing
        pass
    return descriptor


def _descriptor(path: Path) -> int | None:
    """Return the number of this process's open file that a path such as /dev/stdout or /dev/fd/63 leads to."""
    own = {f"/proc/{os.getpid()}/fd", "/proc/self/fd", "/dev/fd"}
    for _ in range(_LINKS_IN_A_ROW):
        folder = os.path.realpath(path.parent)
        if folder in own and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder, os.readlink(path))
    return None


@contextlib.contextmanager
def _stream(path: Path) -> Iterator[BinaryIO]:
    number = _descriptor(path)
    if number is not None and sys.stdout is not None:
        sys.stdout.flush()  # what was printed before comes before
    with open(path if number is None else os.dup(number), "wb") as file:
        yield file


def put_in_place(finished: Path, target: Path) -> None:
    """Give a finished folder its name; what had the name before goes only after that.

    A folder with content cannot be replaced in one step: a kill between the two renames leaves no target, and the old
    folder complete under the name of the finished one with the ending `.replaced`.
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


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, or a copy on another disk or one without hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def crc32_of_file(path: Path) -> str:
    """Return the CRC-32 of a file as 8 hexadecimal digits."""
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
        BlockingIOError: another process holds the lock, and `wait` is not set.
    """
    if fcntl is None:  # Windows, which cannot open folders either
        return os.open(os.devnull, os.O_RDONLY)
    descriptor = _open_to_lock(path, shared=shared)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_to_lock(path: Path, *, shared: bool) -> int:
    if not shared:
        with contextlib.suppress(OSError):  # a folder, or a file of others
            return os.open(path, os.O_RDWR)  # NFS gives a lock against all to those who may write
    return os.open(path, os.O_RDONLY)
