"""Work of the processes of `drsformer prepare`: decode, check and write one shard of pairs.

A shard gets its name when it is on the disk and was read back; then its rows follow, a small file with what is known
of its pairs. Both exist, or the shard is built again: so a build that was killed goes on where it was.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lmdb
import numpy as np

from drsformer_arch.data.pairing.pair_keys import SourcePair
from drsformer_arch.data.prepare.perceptual_hash import perceptual_hash
from drsformer_arch.data.store import records
from drsformer_arch.data.store.environments import Writer, forget
from drsformer_arch.data.store.store import check_shard, pair_key
from drsformer_arch.images.picture_headers import PictureError
from drsformer_arch.images.pictures import Picture, decode, encode_png, read_file
from drsformer_arch.system import worker
from drsformer_arch.system.errors import UserError, line_of, printable
from drsformer_arch.system.files import atomic_path, crc32_of_file, lock, write_atomically
from drsformer_arch.system.json_files import parse_json

Form = Literal["folder", "raw", "compressed", "png"]


class ShardJob(NamedTuple):
    """A shard to build.

    Attributes:
        folder: rows of finished shards, locks; its `content` is the output.
        shards: folder of the shards.
        number: of the shard.
        form: how pictures are written; "png" are shards on their way into BasicSR's layout.
        pairs: in their order.
        fingerprint: of the pairs and the form; a finished shard with the same one is kept.
        folders: the sources; names in the manifest are relative to them.
        skip_bad: list pairs that cannot be used instead of stopping.
    """

    folder: Path
    shards: Path
    number: int
    form: Form
    pairs: list[SourcePair]
    fingerprint: str
    folders: tuple[Path, ...]
    skip_bad: bool

    @property
    def shard(self) -> Path:
        """File of the shard's records."""
        return self.shards / f"shard-{self.number:05d}.mdb"

    @property
    def rows(self) -> Path:
        """File of the shard's rows of the manifest."""
        return self.folder / f"rows-{self.number:05d}.jsonl"


class Stopped(Exception):  # noqa: N818 - a request that was met, no error
    """The main process asked to stop."""


class Progress(NamedTuple):
    """Memory that a worker shares with the main process: how many pairs are done, and whether to stop."""

    done: Any
    stop: Any


_shared: Progress | None = None


def start_worker(shared: Progress, folder: Path) -> None:
    """Set up a worker process."""
    global _shared  # noqa: PLW0603 - the way a process pool hands things to its workers
    _shared = shared
    worker.set_up()
    lock(folder, shared=True)  # until the process ends


def name_in_source(path: Path, folders: Sequence[Path]) -> str:
    r"""Return a file's path relative to the source it lies in; with several sources their names stand first.

    Bytes that are no UTF-8, which a manifest cannot hold, become `\xff`.
    """
    name = path.as_posix()
    for folder in folders:
        if path.is_relative_to(folder):
            inside = path.relative_to(folder).as_posix()
            name = inside if len(folders) == 1 else f"{folder.name}/{inside}"
            break
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def disk_errors_named(folder: Path) -> Iterator[None]:
    """Turn a failure to write into one line.

    Raises:
        UserError: instead of OSError and lmdb.Error.
    """
    try:
        yield
    except (OSError, lmdb.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        free = shutil.disk_usage(folder).free / 2**30
        where = getattr(error, "filename", None) or folder
        raise UserError(
            f"cannot write to {where}: {reason} ({free:.1f} GiB free); what is finished stays, the same command goes on"
        ) from error


def finished_rows(job: ShardJob) -> dict[str, Any] | None:
    """Return the first line of a finished shard's rows, None where the shard must be built."""
    try:
        with job.rows.open("rb") as file:
            head = parse_json(file.readline())
        is_finished = (
            head["fingerprint"] == job.fingerprint
            and (job.skip_bad or not head["skipped"])
            and _bytes_of(job) == head["bytes"]
        )
    except (OSError, ValueError, KeyError, TypeError):  # missing, or damaged in whatever way
        return None
    return head if is_finished else None


def _bytes_of(job: ShardJob) -> int:
    """Return the size of a job's shard or of all its picture files, as far as they are there."""
    if job.form != "folder":
        return job.shard.stat().st_size if job.shard.is_file() else -1
    size = 0
    with job.rows.open(encoding="utf-8") as rows:
        next(rows)
        for row in map(json.loads, rows):
            for role in ("input", "target") if "skipped" not in row else ():
                path = _path_in_folder(job, role, row)
                size += path.stat().st_size if path.is_file() else -1
    return size


def build_shard(job: ShardJob) -> None:
    """Build one shard and its rows.

    Raises:
        UserError: a picture or pair that cannot be used (unless skipped), a full disk.
        Stopped: on request.
    """
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any]
    with disk_errors_named(job.folder):
        if job.form == "folder":
            size = 0
            for pair, row, content in _checked_pairs(job, rows):
                for role in ("input", "target"):
                    size += _write_file(_path_in_folder(job, role, row), content[role], is_half=bool(pair.halves))
            facts = {"bytes": size}
            if hasattr(os, "sync"):
                os.sync()  # before the rows vouch for them; one call for all
        else:
            with atomic_path(job.shard) as unfinished:
                try:
                    check_shard(unfinished, _write_shard(job, unfinished, rows))
                finally:
                    forget(unfinished)
                facts = {"bytes": unfinished.stat().st_size, "crc32": crc32_of_file(unfinished)}
        skipped = sum("skipped" in row for row in rows)
        head = {"fingerprint": job.fingerprint, "pairs": len(rows) - skipped, "skipped": skipped, **facts}
        lines = [json.dumps(line, ensure_ascii=False) for line in (head, *rows)]
        write_atomically(job.rows, ("\n".join(lines) + "\n").encode())


def _write_shard(job: ShardJob, path: Path, rows: list[dict[str, Any]]) -> int:
    """Write all pairs of a job into an LMDB file; a target that several pairs share is written once."""
    number = 0
    last: tuple[Path, bytes] | None = None
    with Writer(path, subdir=False) as writer:
        for pair, _, content in _checked_pairs(job, rows):
            input_key = f"input/{pair.key}".encode()
            writer.put(input_key, records.pack(content["input"].pixels, job.form))  # type: ignore[arg-type]  # raw or compressed
            if last is None or last[0] != pair.target or pair.halves:
                last = pair.target, f"target/{pair.key}".encode()
                writer.put(last[1], records.pack(content["target"].pixels, job.form))  # type: ignore[arg-type]  # raw or compressed
            writer.put(pair_key(number), input_key + b"\0" + last[1])
            number += 1
    return number


class Loaded(NamedTuple):
    """A picture and the file content it was decoded from."""

    pixels: Picture
    content: bytes


def _checked_pairs(
    job: ShardJob, rows: list[dict[str, Any]]
) -> Iterator[tuple[SourcePair, dict[str, Any], dict[str, Loaded]]]:
    """Yield decoded pairs that are in order, each with its row of the manifest; every row is added to `rows`."""
    target: tuple[Path, Loaded, dict[str, Any]] | None = None
    for pair in job.pairs:
        if _shared is not None:
            if _shared.stop.is_set():
                raise Stopped
            with _shared.done.get_lock():
                _shared.done.value += 1
        try:
            if pair.halves:
                rainy, clean = _halves(pair)
                target = None
            else:
                rainy = _load(pair.input)
                clean = target[1] if target is not None and target[0] == pair.target else _load(pair.target)
            if rainy.pixels.shape[:2] != clean.pixels.shape[:2]:
                sizes = [f"{picture.pixels.shape[1]}x{picture.pixels.shape[0]}" for picture in (rainy, clean)]
                raise PictureError(f"picture {pair.input} is {sizes[0]} but its target {pair.target} is {sizes[1]}")
            if target is None or target[0] != pair.target:
                facts = _facts(clean.pixels, pair.target, job) | {"phash": f"{perceptual_hash(clean.pixels):016x}"}
                target = pair.target, clean, facts
            row = {"name": pair.key, "input": _facts(rainy.pixels, pair.input, job), "target": target[2]}
        except Exception as error:  # of any kind: what is wrong with a pair is that pair's line
            reason = str(error) if isinstance(error, UserError) else line_of(error, f"picture {pair.input}")
            if not job.skip_bad:
                raise UserError(reason) from error
            for path in (pair.input, pair.target):
                reason = reason.replace(printable(path), printable(name_in_source(path, job.folders)))
            rows.append({"name": pair.key, "skipped": reason})
            continue
        rows.append(row)
        yield pair, row, {"input": rainy, "target": clean}


def _load(path: Path) -> Loaded:
    content = read_file(path)
    return Loaded(decode(content, path), content)


def _halves(pair: SourcePair) -> tuple[Loaded, Loaded]:
    """Return the rainy and the clean half of a picture that holds both."""
    both = _load(pair.input)
    width = both.pixels.shape[1]
    if width % 2:
        raise PictureError(f"picture {pair.input} holds two halves side by side, but its width {width} is odd")
    left, right = (Loaded(np.ascontiguousarray(half), b"") for half in np.split(both.pixels, 2, axis=1))
    return (right, left) if pair.halves == "clean_left" else (left, right)


def _facts(pixels: Picture, path: Path, job: ShardJob) -> dict[str, Any]:
    """Return a row's entry of one picture; the hash is that of the pixels (RGB, row by row, little-endian)."""
    little_endian = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    return {
        "file": name_in_source(path, job.folders),
        "shape": list(pixels.shape),
        "dtype": f"uint{8 * pixels.itemsize}",
        "sha256": hashlib.sha256(little_endian.data).hexdigest(),
    }


def _path_in_folder(job: ShardJob, role: str, row: dict[str, Any]) -> Path:
    """Return where a picture goes in the folder form: under its pair's name, a half as PNG."""
    both = row["input"]["file"] == row["target"]["file"]
    ending = ".png" if both else os.path.splitext(row[role]["file"])[1]
    return job.folder / "content" / role / f"{row['name']}{ending}"


def _write_file(path: Path, picture: Loaded, *, is_half: bool) -> int:
    """Write the file as it came, or a half as PNG; returns its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = encode_png(picture.pixels) if is_half else picture.content
    with atomic_path(path, durable=False) as unfinished:
        unfinished.write_bytes(content)
    return len(content)
