"""One split of a data set, from found pairs to a finished folder or store."""

import contextlib
import glob
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from drsformer_arch.data.pairing.pair_keys import SourcePair
from drsformer_arch.data.prepare import shard_build
from drsformer_arch.data.store import records
from drsformer_arch.data.store.environments import LONGEST_KEY, forget, open_shared
from drsformer_arch.data.store.lmdb_builder import check_keys, write_basicsr
from drsformer_arch.data.store.manifest import read_manifest, write_manifest
from drsformer_arch.data.store.store import MANIFEST, Shard, Store, pair_key, read_description, write_description
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import lock, put_in_place, sha256_of_file, write_atomically
from drsformer_arch.system.json_files import read_json

Output = Literal["folder", "raw", "compressed", "basicsr"]
STORES = ("raw", "compressed")  # the outputs that are stores
NOTE = ".prepared.json"  # in other outputs: what store.json says of a store
USUAL_SHARDS, MOST_SHARDS = 64, 4096  # a training process opens all files of a store
SMALLEST_SHARD = 16 * 2**20  # bytes of source files


class Prepared(NamedTuple):
    """A split that is done: where it is, its pairs, the pairs that were skipped, and whether it was there before."""

    path: Path
    pairs: int
    skipped: int
    was_there: bool


class SplitBuild:
    """One split on its way: in a hidden folder `work`, whose `content` takes the name of the target at last.

    Args:
        target: the folder to make.
        output: what it becomes.
        pairs: in their order.
        folders: the sources; names in the manifest are relative to them.
        unpacked: those of them that were unpacked from archives: the times of their files mean nothing.
        head: of the manifest.
        shard_size: bytes of source files per shard.

    Raises:
        UserError: names that the output cannot hold, too many shards.
    """

    def __init__(
        self,
        target: Path,
        output: Output,
        pairs: list[SourcePair],
        *,
        folders: Sequence[Path],
        unpacked: Sequence[Path],
        head: dict[str, Any],
        shard_size: int | None,
    ) -> None:
        self.output, self.head, self.count = output, head, len(pairs)
        self.folders, self.unpacked = tuple(folders), tuple(unpacked)
        self.form: shard_build.Form = "png" if output == "basicsr" else output
        # A link is followed, because renaming over it would replace the link and not what it leads to.
        self.target = Path(os.path.realpath(target))
        self.work = self.target.with_name(f".{self.target.name}.{output}.building")
        self.content = self.work / "content"
        if output != "folder":
            _check_lengths(pairs)
        if output == "basicsr":
            check_keys([pair.key for pair in pairs])
        self.jobs = list(self._plan(pairs, shard_size))
        self.source = hashlib.sha256("".join(job.fingerprint for job in self.jobs).encode()).hexdigest()

    def _state(self, path: Path) -> tuple[int, int]:
        """Return size in bytes and time of the last change in ns; zeros where there is no file: its reader names it."""
        try:
            state = path.stat()
        except OSError:
            return 0, 0
        is_unpacked = any(path.is_relative_to(folder) for folder in self.unpacked)
        return state.st_size, 0 if is_unpacked else state.st_mtime_ns

    def _plan(self, pairs: list[SourcePair], shard_size: int | None) -> Iterator[shard_build.ShardJob]:
        """Cut the pairs into shards of whole groups that share a target."""
        groups = [list(group) for _, group in itertools.groupby(pairs, key=lambda pair: pair.target)]
        if shard_size is None:
            total = sum(self._state(path)[0] for group in groups for path in _files(group))
            shard_size = max(total // USUAL_SHARDS, SMALLEST_SHARD)  # as many as keep all cores busy to the end
        number, size, shard, digest = 0, 0, list[SourcePair](), hashlib.sha256(self.form.encode())
        for position, group in enumerate(groups, 1):
            states = {path: self._state(path) for path in _files(group)}
            size += sum(state[0] for state in states.values())
            for pair in group:
                names = [shard_build.name_in_source(path, self.folders) for path in (pair.input, pair.target)]
                state = [*states[pair.input], *states[pair.target]]
                digest.update(json.dumps([pair.key, *names, pair.halves, *state]).encode())
            shard += group
            if size >= shard_size or position == len(groups):
                if number == MOST_SHARDS:
                    raise UserError(f"this makes more than {MOST_SHARDS} files; give a larger --shard-size")
                shards = self.work if self.output == "basicsr" else self.content
                yield shard_build.ShardJob(
                    self.work, shards, number, self.form, shard, digest.hexdigest(), self.folders, skip_bad=False
                )
                number, size, shard, digest = number + 1, 0, [], hashlib.sha256(self.form.encode())

    def run(self, *, skip_bad: bool, overwrite: bool, workers: int) -> Prepared:
        """Build what is missing and put the whole in place.

        Raises:
            UserError: the target exists and is something else, a pair that cannot be used, a full disk.
        """
        for given_up in self.target.parent.glob(f".{glob.escape(self.target.name)}.*.building"):
            if given_up != self.work:
                shutil.rmtree(given_up)
        if self.target.exists():
            before = None if overwrite else self._before(skip_bad)
            if before is not None:
                shutil.rmtree(self.work, ignore_errors=True)  # left when a run was killed at its very end
                return before
            if not overwrite:
                raise UserError(
                    f"{self.target} exists already, and not of the same source and kind, or not complete; "
                    "--overwrite replaces it once the new one is finished"
                )
            if not (self.target / MANIFEST).is_file():
                raise UserError(f"{self.target} was not made by this command, so it is not replaced; move it away")
        self.content.mkdir(parents=True, exist_ok=True)  # also the folder of a test split of several sets
        os.close(lock(self.work))  # workers of a killed run end within moments
        with shard_build.disk_errors_named(self.work):
            self._build(skip_bad, workers)
            prepared = self._finish()
        shutil.rmtree(self.work)
        return prepared

    def _before(self, skip_bad: bool) -> Prepared | None:
        """Return what is at the target, if it is complete and was made from the same source in the same form."""
        try:
            if self.output in STORES:
                note = read_description(self.target)
                sizes = [(shard.file, shard.bytes) for shard in Store(self.target).shards]
                complete = all((self.target / file).stat().st_size == size for file, size in sizes)
            else:
                note, complete = read_json(self.target / NOTE), True
            head, _ = read_manifest(self.target / MANIFEST)
            is_of_this_source = note["source"] == self.source
        except (OSError, ValueError, KeyError, TypeError):  # missing, or damaged in whatever way
            return None
        if not is_of_this_source or not complete or (head["skipped"] and not skip_bad):
            return None
        return Prepared(self.target, head["pairs"], head["skipped"], was_there=True)

    def _build(self, skip_bad: bool, workers: int) -> None:
        """Build all shards and their rows, in worker processes."""
        if self.form == "folder":
            self._remove_files_of_another_source()
        else:
            written = {*self.content.iterdir(), *self.work.glob("*.mdb"), *self.work.glob(".*.tmp")}
            for file in written - {job.shard for job in self.jobs}:
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        jobs = [job._replace(skip_bad=skip_bad) for job in self.jobs]
        missing = [job for job in jobs if shard_build.finished_rows(job) is None]
        done = sum(len(job.pairs) for job in jobs) - sum(len(job.pairs) for job in missing)
        if done:
            print(f"going on: {done:,} pairs were finished before")
        context = multiprocessing.get_context("spawn")  # safe whatever threads the caller has
        shared = shard_build.Progress(context.Value("Q", done), context.Event())
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(
                tqdm(total=self.count, initial=done, desc=self.head["split"], unit="pair", delay=1)
            )
            processes = min(workers, max(len(missing), 1))
            pool = ProcessPoolExecutor(
                processes, context, initializer=shard_build.start_worker, initargs=(shared, self.work)
            )
            stack.enter_context(pool)
            waiting, running = iter(missing), set[Future[Any]]()
            try:
                while True:
                    while len(running) < workers and (job := next(waiting, None)):
                        with _interrupts_ignored():  # from the beginning, in the process that this may start
                            running.add(pool.submit(shard_build.build_shard, job))
                    if not running:
                        break
                    finished, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    bar.update(shared.done.value - bar.n)
                    for future in finished:
                        future.result()
            except BrokenProcessPool as error:
                raise UserError(
                    "a worker process ended early (out of memory? a script that prepares needs "
                    "if __name__ == '__main__':); the same command goes on"
                ) from error
            finally:
                # The workers stop after the pair they are at; interrupted again, the pool would wait for ever.
                stack.enter_context(_interrupts_ignored())
                shared.stop.set()

    def _remove_files_of_another_source(self) -> None:
        """Remove files that may be of another source: a picture's file does not show to which pair it belongs."""
        note = self.work / "source"
        if not note.is_file() or note.read_text() != self.source:
            shutil.rmtree(self.content)
            for rows in self.work.glob("rows-*"):
                rows.unlink()
            self.content.mkdir()
            write_atomically(note, self.source.encode())
        for part in self.content.rglob(".*.tmp"):
            part.unlink()

    def _finish(self) -> Prepared:
        """Write manifest and description, then give the whole its name."""
        heads = [head for job in self.jobs if (head := shard_build.finished_rows(job._replace(skip_bad=True)))]
        assert len(heads) == len(self.jobs)
        pairs, skipped = (sum(head[key] for head in heads) for key in ("pairs", "skipped"))
        if pairs == 0:
            raise UserError(f"all {skipped} pairs of {self.target} were skipped: nothing is left")
        manifest = self.content / MANIFEST
        write_manifest(manifest, self.head | {"pairs": pairs, "skipped": skipped}, [job.rows for job in self.jobs])
        if self.output in STORES:
            write_description(
                self.content,
                encoding=self.output,
                manifest_sha256=sha256_of_file(manifest),
                source=self.source,
                shards=[
                    Shard(job.shard.name, head["pairs"], head["bytes"], head["crc32"])
                    for job, head in zip(self.jobs, heads, strict=True)
                ],
            )
        else:
            write_atomically(self.content / NOTE, json.dumps({"source": self.source}).encode())
        if self.output == "basicsr":
            for role in ("input", "target"):
                folder = self.content / f"{role}.lmdb"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                write_basicsr(folder, self._encoded(role), pairs)
        if hasattr(os, "sync"):
            os.sync()
        forget(self.target)
        put_in_place(self.content, self.target)
        return Prepared(self.target, pairs, skipped, was_there=False)

    def _encoded(self, role: str) -> Iterator[tuple[str, bytes, tuple[int, int, int]]]:
        """Yield key, PNG and shape of every picture, from the shards."""
        for job in self.jobs:
            with open_shared(job.shard).begin(buffers=True) as transaction:
                number = 0
                while pair := transaction.get(pair_key(number)):
                    keys = bytes(pair).split(b"\0")
                    record = transaction.get(keys[role == "target"]) or b""
                    yield (
                        keys[0].decode().removeprefix("input/"),
                        bytes(records.payload_of(record)),
                        records.read_record_header(record).shape,
                    )
                    number += 1
            forget(job.shard)


def _files(group: list[SourcePair]) -> set[Path]:
    return {path for pair in group for path in (pair.input, pair.target)}


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C for a while; only the main thread can decide that, and only it is interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_lengths(pairs: Sequence[SourcePair]) -> None:
    for pair in pairs:
        length = len(f"target/{pair.key}".encode())
        if length > LONGEST_KEY:
            raise UserError(
                f"the name {pair.key} of {pair.input} is too long for LMDB: {length} of {LONGEST_KEY} bytes"
            )
