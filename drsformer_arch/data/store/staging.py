"""A store copied to the node's own disk before it is read: random patches of a shared file system are slow for all.

The copy has a name of its own, the store's with a part of the SHA-256 of its `store.json`: another store, or the same
one prepared anew, is another copy. Its `store.json` comes last, so that an unfinished copy is no store; the shards that
a killed process finished are kept. One process copies, others that want the same copy wait for its lock.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from drsformer_arch.data.store.store import DESCRIPTION, MANIFEST, Shard, Store, is_store
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import (
    atomic_path,
    crc32_of_file,
    lock,
    remove_leftovers,
    sha256_of_file,
    write_atomically,
)
from drsformer_arch.system.json_files import read_json

NOTE = ".staged.json"  # size and time of the last change of every file of the copy, when it was checked
_BLOCK = 2**22  # bytes that are read at once: fewer calls, each of which may ask another machine


def staged_path(source: Path, disk: str) -> Path:
    """Return where the copy of a store lies.

    Args:
        source: the store.
        disk: a folder on the node's disk; `~` and environment variables are replaced.

    Raises:
        UserError: an environment variable that is not set, somebody who is not known, a folder in a store; no store.
    """
    place = os.path.expanduser(os.path.expandvars(disk))
    if unset := re.search(r"\$\w+|\$\{\w+\}", place):
        raise UserError(f"option stage: {disk} names the environment variable {unset[0]}, which is not set")
    if not place or place.startswith("~"):
        raise UserError(f"option stage: {disk or repr(disk)} is no folder; name one on the node's own disk")
    refuse_no_store(source)
    if any(map(is_store, (Path(place), *Path(place).resolve().parents))):
        raise UserError(f"option stage: {place} is in a store; name a folder on the node's own disk")
    digest = hashlib.sha256((source / DESCRIPTION).read_bytes()).hexdigest()[:12]
    name = source.resolve().name.removesuffix(".lmdb")
    return Path(place, f"{name}-{digest}.lmdb")


def refuse_no_store(source: Path) -> None:
    """Refuse to stage what is no store.

    Raises:
        UserError: it is none.
    """
    if not is_store(source):
        raise UserError(
            f"option stage: {source} is no store, and only stores are staged; make one (drsformer prepare --lmdb), or "
            "leave stage out"
        )


def stage_store(source: Path, disk: str, say: Callable[[str], None], *, partial: bool = False) -> Path:
    """Copy a store to the node's disk, or find the copy that is there; checksums are compared on the way.

    Args:
        source: the store.
        disk: see `staged_path`; made where it is missing.
        say: is told what is waited for, and what was copied and how fast.
        partial: copy the shards that are there; otherwise a missing one is an error.

    Returns:
        the copy.

    Raises:
        UserError: the store is damaged or incomplete, the disk has too little room, or nothing may be written there.
    """
    target = staged_path(source, disk)
    store = Store(source, partial=partial)
    try:
        target.mkdir(parents=True, exist_ok=True)
        try:
            held = lock(target, wait=False)
        except BlockingIOError:
            say(f"waiting for another process, which copies {source} to {target}")
            held = lock(target)
        try:
            return _copy(store, target, say)
        finally:
            os.close(held)
            with contextlib.suppress(OSError):  # it holds something
                target.rmdir()
    except OSError as error:
        raise UserError(
            f"cannot copy {source} to {target}: {error.strerror or error} (option stage; free room or choose another "
            "folder, or leave it out)"
        ) from error


def _copy(store: Store, target: Path, say: Callable[[str], None]) -> Path:
    """Copy what is missing; the lock of the target is held."""
    start = time.perf_counter()
    remove_leftovers(target)
    noted = _noted(target)
    missing = [shard for shard in store.shards if not _is_whole(target / shard.file, shard, noted)]
    manifest = store.path / MANIFEST
    copied = _state(target / MANIFEST)
    lacks_manifest = manifest.is_file() and (copied is None or copied != noted.get(MANIFEST))
    if not missing and not lacks_manifest and is_store(target):
        say(f"{store.path} is read from its copy {target}, which was there: {len(store):,} pairs")
        _write_note(target, store)
        return target
    needed = sum(shard.bytes for shard in missing) + (manifest.stat().st_size if lacks_manifest else 0)
    free = shutil.disk_usage(target).free + sum(_size(target / shard.file) for shard in missing)
    if needed > free:
        raise UserError(
            f"{target.parent} has no room for {store.path}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are "
            "free (option stage; free room or choose another folder, or leave it out)"
        )
    for shard in missing:
        (target / shard.file).unlink(missing_ok=True)  # its room is needed; who reads it now keeps it
    with tqdm(total=needed, desc=f"copying to {target.parent}", unit="B", unit_scale=True, delay=2) as bar:
        for shard in missing:
            _copy_shard(store.path / shard.file, target / shard.file, shard, bar.update)
    if lacks_manifest:
        with atomic_path(target / MANIFEST) as unfinished:
            shutil.copyfile(manifest, unfinished)
            if sha256_of_file(unfinished) != store.manifest_sha256:
                raise UserError(f"{manifest} is not the manifest of this store; copy it again")
    _write_note(target, store)
    write_atomically(target / DESCRIPTION, (store.path / DESCRIPTION).read_bytes())
    seconds = max(time.perf_counter() - start, 1e-3)
    say(
        f"{store.path} was copied to {target}: {len(missing)} of {len(store.shards)} files, {needed / 1e9:.2f} GB in "
        f"{seconds:.1f} s ({needed / 1e6 / seconds:,.0f} MB/s), checksums compared"
    )
    return target


def _copy_shard(source: Path, target: Path, shard: Shard, advance: Callable[[int], object]) -> None:
    checksum, block = 0, bytearray(_BLOCK)
    with atomic_path(target) as unfinished:
        with source.open("rb", buffering=0) as file, unfinished.open("wb", buffering=0) as copy:
            while count := file.readinto(block):
                part = memoryview(block)[:count]
                checksum = zlib.crc32(part, checksum)
                while part:
                    part = part[copy.write(part) :]
                advance(count)
        if f"{checksum:08x}" != shard.crc32:
            raise UserError(
                f"{source} is damaged: its CRC-32 is {checksum:08x}, not {shard.crc32}; copy it again, or prepare the "
                "data again"
            )


def _noted(target: Path) -> dict[str, list[int]]:
    """Return what was noted of the copy; nothing where it was not finished, or the note is damaged."""
    try:
        note = read_json(target / NOTE)
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _is_whole(file: Path, shard: Shard, noted: dict[str, list[int]]) -> bool:
    """Tell whether a file of the copy is what it must be; one that nobody noted, or that changed, is read."""
    if _size(file) != shard.bytes:
        return False
    return _state(file) == noted.get(shard.file) or crc32_of_file(file) == shard.crc32


def _write_note(target: Path, store: Store) -> None:
    names = [*(shard.file for shard in store.shards), MANIFEST]
    note = {name: state for name in names if (state := _state(target / name)) is not None}
    if note != _noted(target):
        write_atomically(target / NOTE, json.dumps(note).encode())


def _state(file: Path) -> list[int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _size(file: Path) -> int:
    return (_state(file) or [0])[0]
