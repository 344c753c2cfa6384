"""Trouble of the machine, not of the input: what happened and what to do, in one line. Running again may help."""

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drsformer_arch.bridge import peers
from drsformer_arch.system.errors import LONGEST_REASON, UserError, is_out_of_memory, printable
from drsformer_arch.system.files import expanded

EXIT_TROUBLE = 1
SHARED_MEMORY = Path("/dev/shm")
LITTLE = 64 * 2**20  # bytes of shared memory, which a batch of training patches may take
_WORKERS = "datasets.train.num_worker_per_gpu"
_HANDLES = f"too few file handles: raise their number (ulimit -n 65536), or start fewer workers ({_WORKERS})"
_MEMORY = (
    "not enough memory: end other programs or raise the limit; a training takes less with a smaller "
    f"datasets.train.batch_size_per_gpu or gt_size, with network_g.use_checkpoint: true, or fewer workers ({_WORKERS})"
)
_PROCESSES = f"too few processes or threads: raise their number (ulimit -u), or start fewer workers ({_WORKERS})"
_PEERS = "the connection to another process of this training broke; that one says why"
_BY_NUMBER = {
    errno.EMFILE: _HANDLES,
    errno.ENFILE: _HANDLES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _PROCESSES,
}
# In the words of Python, torch and its loaders; a worker's exception reaches the main process as text.
_BY_WORDS = (
    # First: of a bus error torch also says that shared memory may be short, which a file cut short is not.
    (re.compile(r"DataLoader worker.*(is killed by signal|exited unexpectedly)"), "worker"),
    (re.compile(r"torch_\w+>?.*(No space left|Errno 28|\(28\))|out of shared memory"), "shared memory"),
    (re.compile(r"Too many open files|items of ancdata"), _HANDLES),
    (re.compile(r"can't start new thread|Resource temporarily unavailable"), _PROCESSES),
    (re.compile(r"MemoryError|bad_alloc|Unable to allocate|_ALLOC_FAILED"), _MEMORY),
    (re.compile(r"^(RuntimeError: .*(Connection (closed|reset) by peer|gloo/transport)|Dist\w+Error: )"), _PEERS),
    (re.compile(r"^RuntimeError: .*NCCL error"), _PEERS),
)


class MachineError(UserError):
    """Something that may be gone when the same command runs again."""


def trouble_of(error: BaseException, datasets: Mapping[str, Any] | None = None) -> str | None:
    """Say in one line what happened to the machine and what to do; None where an exception tells of no such trouble.

    Args:
        error: whatever ended a command.
        datasets: the sections of an option file whose pictures were read.
    """
    if known := next((cause for cause in _with_causes(error) if isinstance(cause, MachineError)), None):
        return str(known)  # that a worker has ended may interrupt what follows
    if datasets and _tells_of_a_lost_process(error):
        return _worker_ended("", datasets)
    for cause in _with_causes(error):
        advice = _advice(cause)
        if advice is None:
            continue
        if advice == "shared memory":
            return _of_shared_memory()
        if advice == _PEERS and (lost := peers.lost()):
            advice = f"processes of this training are lost: {lost}"
        if advice == "worker":
            return _worker_ended(str(cause), datasets or {})
        words = printable(" ".join(str(error).split())[:LONGEST_REASON])
        return f"{advice} ({words})" if words else advice
    return None


def _tells_of_a_lost_process(error: BaseException) -> bool:
    """Tell whether a connection ended: a worker that died before torch noticed hands over no more shared memory."""
    return isinstance(error, EOFError | ConnectionError) or (
        isinstance(error, FileNotFoundError) and error.filename is None  # its socket is gone
    )


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _advice(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return _BY_NUMBER[error.errno]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:  # of a semaphore
        return "shared memory" if _free_shared_memory() < LITTLE else None
    text = f"{type(error).__name__}: {error}"
    words = next((advice for pattern, advice in _BY_WORDS if pattern.search(text)), None)
    return words or (_MEMORY if is_out_of_memory(error) else None)


def _of_shared_memory() -> str:
    free = f"{_free_shared_memory() / 2**20:,.0f} MiB free" if SHARED_MEMORY.is_dir() else "not there"
    return (
        f"too little shared memory ({SHARED_MEMORY}: {free}): remove what is left over there, give a container more "
        f"(docker run --shm-size=8g), or read pictures in the main process ({_WORKERS}: 0)"
    )


def _free_shared_memory() -> int:
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0


def _worker_ended(words: str, datasets: Mapping[str, Any]) -> str:
    """Say why a worker process ended, of which torch says at most by which signal.

    A bus error is a page that could not be had: of a file that was cut short, or of shared memory; the system kills
    where memory is short.
    """
    cut = next((reason for root in _roots(datasets) if (reason := _cut_short(root))), None)
    if cut:
        return f"a file was cut short while it was read: {cut}"
    signal = re.search(r"killed by signal: ([\w ]+)", words)
    if not (signal and signal[1] == "Killed") and _free_shared_memory() < LITTLE:
        return _of_shared_memory()
    return (
        f"a process that reads pictures ended{f' (signal {signal[1].strip()})' if signal else ''}, as where the system "
        f"is short of memory and kills one; start fewer of them ({_WORKERS}) if it happens again"
    )


def _roots(datasets: Mapping[str, Any]) -> Iterator[Path]:
    from drsformer_arch.data.store.staging import staged_path  # noqa: PLC0415 - see _cut_short

    for section in datasets.values():
        for part in (section, *(section.get("sets") or ())):
            for key, value in part.items():
                if key.startswith("dataroot") and isinstance(value, str):
                    root = expanded(value)
                    yield root
                    with contextlib.suppress(UserError, OSError):
                        if part.get("stage"):
                            yield staged_path(root, part["stage"])


def _cut_short(root: Path) -> str | None:
    """Find the LMDB file of a store that is shorter than it says, or cannot be read at all."""
    # Any error of a command is looked at here, also where there is no LMDB.
    from drsformer_arch.data.store.environments import forget, open_shared  # noqa: PLC0415

    forget(root)
    for file in sorted(set(root.glob("*.mdb")) - {root / "lock.mdb"}):
        try:
            open_shared(root if file.name == "data.mdb" else file)
        except UserError as error:
            return str(error)
    return None
