"""`drsformer prepare`: find the pairs of a data set, check them, and write them as folders, store or BasicSR's LMDB."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from drsformer_arch.data import records
from drsformer_arch.data.archives import is_archive, unpack
from drsformer_arch.data.benchmarks import BENCHMARKS, count_warning
from drsformer_arch.data.building import (
    WORKERS_LOCK,
    Form,
    Job,
    Shared,
    build_shard,
    finished_rows,
    lock_file,
    start_worker,
)
from drsformer_arch.data.environments import LONGEST_KEY, forget, open_shared
from drsformer_arch.data.lmdb_builder import check_keys, write_basicsr
from drsformer_arch.data.manifest import read_manifest, write_manifest
from drsformer_arch.data.overlap import Fingerprints, find_duplicates
from drsformer_arch.data.pair_keys import Pair
from drsformer_arch.data.pair_search import find_pairs
from drsformer_arch.data.store import MANIFEST, Shard, is_store, pair_key, read_description, write_description
from drsformer_arch.errors import UserError
from drsformer_arch.files import put_in_place, sha256_of_file, write_atomically

Output = Literal["folder", "raw", "compressed", "basicsr"]
REPORT = "duplicates.txt"
MOST_SHARDS = 64  # a training process opens all files of a store
SMALLEST_SHARD, LARGEST_SHARD = 8 * 2**20, 256 * 2**20  # bytes of source files, unless that makes too many


class Prepared(NamedTuple):
    """A split that is done: where it is, its pairs, the pairs that were skipped, and whether it was there before."""

    path: Path
    pairs: int
    skipped: int
    was_there: bool


def prepare(
    dataset: str,
    sources: Sequence[Path],
    destination: Path,
    *,
    output: Output = "folder",
    split: str | None = None,
    patterns: tuple[str, str] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    shard_size: int | None = None,
) -> list[Prepared]:
    """Prepare a data set; the source is only read.

    Args:
        dataset: a name of ``benchmarks.BENCHMARKS``.
        sources: folder or archive; for "pairs" also two folders, rainy and clean.
        destination: gets ``train`` and ``test`` (folders of pictures, or of BasicSR's LMDBs) or ``train.lmdb`` and
            ``test.lmdb`` (stores), each with a ``manifest.jsonl``.
        output: "folder", "raw" or "compressed" (stores), or "basicsr".
        split: "train" or "test" where the source does not say.
        patterns: of the rainy and the clean names, see ``pair_search.find_pairs``.
        skip_bad: leave out pairs that cannot be used, and list them in the manifest.
        overwrite: replace what is there, once the new is finished.
        workers: processes; by default one per core.
        shard_size: bytes of source files per shard.

    Returns:
        what was prepared.

    Raises:
        UserError: see there; whatever is finished stays, and the same call goes on with it.
        KeyboardInterrupt: likewise.
    """
    workers = workers or _cores()
    destination.mkdir(parents=True, exist_ok=True)
    with _unpacked(sources, destination) as folders:
        found = find_pairs(dataset, folders, split=split, patterns=patterns)
        for message in found.warnings:
            print(f"warning: {message}")
        root = Path(os.path.commonpath([folder.absolute() for folder in folders]))
        prepared = []
        for name, pairs in _with_parts(dataset, found.splits):
            print(f"{name}: {len(pairs):,} pairs ({found.layout})")
            warning = count_warning(dataset, name, len(pairs))
            if warning:
                print(f"warning: {warning}")
            head = {"dataset": dataset, "title": BENCHMARKS[dataset].title, "split": name, "version": warning}
            target = destination / (f"{name}.lmdb" if output in records.ENCODINGS else name)
            build = _Build(target, output, pairs, root=root, head=head, shard_size=shard_size)
            prepared.append(build.run(skip_bad=skip_bad, overwrite=overwrite, workers=workers))
    if not all(result.was_there for result in prepared):
        report = list(_report(destination))
        print("\n".join(report))
        write_atomically(destination / REPORT, ("\n".join(report) + "\n").encode())
    return prepared


def _with_parts(dataset: str, splits: dict[str, list[Pair]]) -> Iterator[tuple[str, list[Pair]]]:
    """The splits; a test split of several sets becomes one for each, because each is scored on its own."""
    for name, pairs in splits.items():
        if name != "test" or not BENCHMARKS[dataset].parts:
            yield name, pairs
            continue
        for part, of_part in itertools.groupby(pairs, key=lambda pair: pair.key.partition("/")[0]):
            yield f"{name}/{part}", [pair._replace(key=pair.key.partition("/")[2]) for pair in of_part]


def _report(destination: Path) -> Iterator[str]:
    """What the clean pictures of all prepared splits have in common, with others of their split and with each other."""
    splits = []
    for path in sorted((*destination.glob(f"[!.]*/{MANIFEST}"), *destination.glob(f"test/[!.]*/{MANIFEST}"))):
        splits.append(_fingerprints(path.parent, path.parent.relative_to(destination).as_posix()))
    for split in splits:
        yield from find_duplicates(split).describe()
    for split, other in itertools.permutations(splits, 2):
        if split.split.startswith("test") and other.split.startswith("train"):
            yield from find_duplicates(split, other).describe()


def _fingerprints(folder: Path, name: str) -> Fingerprints:
    """Of the clean pictures of a prepared split; one that many rainy pictures share counts once."""
    names, digests, perceptual, last = [], [], array("Q"), None
    for row in read_manifest(folder / MANIFEST)[1]:
        if "skipped" in row or (row["target"]["file"] == last and row["input"]["file"] != last):
            continue
        last = row["target"]["file"]
        names.append(row["name"])
        digests.append(bytes.fromhex(row["target"]["sha256"]))
        perceptual.append(int(row["target"]["phash"], 16))
    return Fingerprints(name, names, digests, np.array(perceptual, np.uint64))


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _unpacked(sources: Sequence[Path], destination: Path) -> Iterator[list[Path]]:
    """The sources as folders; archives are unpacked beside the result until that is finished."""
    folders, temporary = [], []
    for source in sources:
        if not is_archive(source):
            folders.append(source)
            continue
        size, changed = _state(source)
        name = hashlib.sha256(f"{source.resolve()}\0{size}\0{changed}".encode()).hexdigest()[:12]
        around = destination / f".unpacked-{name}"
        folder = around / source.name  # which may say the split
        around.mkdir(exist_ok=True)
        if not folder.is_dir():
            unpack(source, folder)
        folders.append(folder)
        temporary.append(around)
    yield folders
    for folder in temporary:  # not reached after an error: the next call needs them again
        shutil.rmtree(folder)


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


class _Build:
    """One split on its way: in a hidden folder ``work``, whose ``content`` takes the name of the target at last."""

    def __init__(
        self,
        target: Path,
        output: Output,
        pairs: list[Pair],
        *,
        root: Path,
        head: dict[str, Any],
        shard_size: int | None,
    ) -> None:
        self.output, self.root, self.head, self.count = output, root, head, len(pairs)
        self.form: Form = "png" if output == "basicsr" else output
        self.target = target
        self.work = self.target.with_name(f".{self.target.name}.building")
        self.content = self.work / "content"
        if output != "folder":
            _check_lengths(pairs)
        if output == "basicsr":
            check_keys([pair.key for pair in pairs])
        self.jobs = list(self._plan(pairs, shard_size))
        self.source = hashlib.sha256("".join(job.fingerprint for job in self.jobs).encode()).hexdigest()

    def _plan(self, pairs: list[Pair], shard_size: int | None) -> Iterator[Job]:
        """Cut the pairs into shards of whole groups that share a target."""
        if shard_size is None:
            total = sum(_state(path)[0] for pair in pairs for path in {pair.input, pair.target})
            # Enough shards for all cores, unless they are tiny; not more files than a training should open.
            shard_size = max(total // MOST_SHARDS, min(max(total // 8, SMALLEST_SHARD), LARGEST_SHARD))
        shard: list[Pair] = []
        number, size, digest = 0, 0, hashlib.sha256(self.form.encode())
        for target, group in itertools.groupby(pairs, key=lambda pair: pair.target):
            target_state = _state(target)
            size += target_state[0]
            for pair in group:
                state = target_state if pair.input == target else _state(pair.input)
                size += state[0] if pair.input != target else 0
                names = [os.path.relpath(path, self.root) for path in (pair.input, target)]
                digest.update(json.dumps([pair.key, *names, pair.halves, *state, *target_state]).encode())
                shard.append(pair)
            if size >= shard_size:
                yield self._job(number, shard, digest.hexdigest())
                number, size, shard, digest = number + 1, 0, [], hashlib.sha256(self.form.encode())
        if shard:
            yield self._job(number, shard, digest.hexdigest())

    def _job(self, number: int, pairs: list[Pair], fingerprint: str) -> Job:
        shards = self.work if self.output == "basicsr" else self.content
        return Job(self.work, shards, number, self.form, pairs, fingerprint, self.root, skip_bad=False)

    def run(self, *, skip_bad: bool, overwrite: bool, workers: int) -> Prepared:
        """Build what is missing and put the whole in place."""
        if self.target.exists():
            before = self._before()
            if before is not None and not overwrite:
                return before
            if not overwrite:
                raise UserError(f"{self.target} exists already; --overwrite replaces it once the new one is finished")
            if not (self.target / MANIFEST).is_file():
                raise UserError(f"{self.target} was not made by this command, so it is not replaced; move it away")
        self.content.mkdir(parents=True, exist_ok=True)  # also the folder of a test split of several sets
        try:
            lock = lock_file(self.work / "build.lock", shared=False, wait=False)
        except BlockingIOError as error:
            raise UserError(f"another process is preparing {self.target}; wait for it") from error
        with lock:
            lock_file(self.work / WORKERS_LOCK, shared=False).close()  # workers of a killed run end within moments
            self._build(skip_bad, workers)
            prepared = self._finish()
        shutil.rmtree(self.work)
        return prepared

    def _before(self) -> Prepared | None:
        """What is at the target already, if it was made from the same source in the same form."""
        if not is_store(self.target) or read_description(self.target).get("source") != self.source:
            return None
        head, _ = read_manifest(self.target / MANIFEST)
        shutil.rmtree(self.work, ignore_errors=True)  # left when a run was killed at its very end
        return Prepared(self.target, head["pairs"], head["skipped"], was_there=True)

    def _build(self, skip_bad: bool, workers: int) -> None:
        if self.form == "folder":
            self._remove_files_of_another_source()
        else:
            for file in {*self.content.iterdir(), *self.work.glob("*.mdb")} - {job.shard for job in self.jobs}:
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        jobs = [job._replace(skip_bad=skip_bad) for job in self.jobs]
        missing = [job for job in jobs if finished_rows(job) is None]
        done = sum(len(job.pairs) for job in jobs) - sum(len(job.pairs) for job in missing)
        if done:
            print(f"going on: {done:,} pairs were finished before")
        context = multiprocessing.get_context("spawn")  # safe whatever threads the caller has
        shared = Shared(context.Value("Q", done), context.Event())
        with (
            tqdm(total=self.count, initial=done, desc=self.head["split"], unit="pair", delay=1) as bar,
            ProcessPoolExecutor(
                min(workers, max(len(missing), 1)), context, initializer=start_worker, initargs=(shared, self.work)
            ) as pool,
        ):
            waiting, running = iter(missing), set[Future]()
            try:
                while True:
                    while len(running) < workers and (job := next(waiting, None)):
                        running.add(pool.submit(build_shard, job))
                    if not running:
                        break
                    finished, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    bar.update(shared.done.value - bar.n)
                    for future in finished:
                        future.result()
            except BrokenProcessPool as error:
                raise UserError("a worker process was killed (out of memory?); the same command goes on") from error
            finally:
                shared.stop.set()

    def _remove_files_of_another_source(self) -> None:
        note = self.work / "source"
        if not note.is_file() or note.read_text() != self.source:
            shutil.rmtree(self.content)
            for rows in self.work.glob("rows-*"):
                rows.unlink()
            self.content.mkdir()
            write_atomically(note, self.source.encode())

    def _finish(self) -> Prepared:
        """Manifest and description, then the name."""
        heads = [finished_rows(job._replace(skip_bad=True)) for job in self.jobs]
        assert None not in heads
        pairs, skipped = (sum(head[key] for head in heads if head) for key in ("pairs", "skipped"))
        if pairs == 0:
            raise UserError(f"all {skipped} pairs of {self.target} were skipped: nothing is left")
        manifest = self.content / MANIFEST
        counts = {"pairs": pairs, "skipped": skipped}
        write_manifest(manifest, self.head | counts, [job.rows for job in self.jobs])
        if self.output in records.ENCODINGS:
            shards = [
                Shard(job.shard.name, head["pairs"], head["bytes"], head["crc32"])
                for job, head in zip(self.jobs, heads, strict=True)
                if head
            ]
            write_description(
                self.content,
                encoding=self.output,
                manifest_sha256=sha256_of_file(manifest),
                source=self.source,
                shards=shards,
            )
        elif self.output == "basicsr":
            for role in ("input", "target"):
                folder = self.content / f"{role}.lmdb"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                write_basicsr(folder, self._encoded(role), pairs)
        if hasattr(os, "sync"):
            os.sync()
        put_in_place(self.content, self.target)
        return Prepared(self.target, pairs, skipped, was_there=False)

    def _encoded(self, role: str) -> Iterator[tuple[str, bytes, tuple[int, int, int]]]:
        """Key, PNG and shape of every picture, from the shards."""
        for job in self.jobs:
            with open_shared(job.shard).begin(buffers=True) as transaction:
                cursor = transaction.cursor()
                number = 0
                while pair := transaction.get(pair_key(number)):
                    keys = bytes(pair).split(b"\0")
                    record = transaction.get(keys[role == "target"]) or b""
                    yield (
                        keys[0].decode().removeprefix("input/"),
                        bytes(records.payload_of(record)),
                        records.read_header(record).shape,
                    )
                    number += 1
                cursor.close()
            forget(job.shard)


def _check_lengths(pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        length = len(f"target/{pair.key}".encode())
        if length > LONGEST_KEY:
            raise UserError(
                f"the name {pair.key} of {pair.input} is too long for LMDB: {length} of {LONGEST_KEY} bytes"
            )
