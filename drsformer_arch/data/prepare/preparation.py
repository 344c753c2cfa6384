"""`drsformer prepare`: find the pairs of a data set, check them, and write them as folders, store or BasicSR's LMDB."""

import contextlib
import hashlib
import itertools
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from drsformer_arch.data.pairing.benchmarks import benchmark_named, count_warning
from drsformer_arch.data.pairing.pair_keys import SourcePair
from drsformer_arch.data.pairing.source_pairs import find_source_pairs
from drsformer_arch.data.prepare.duplicates import Fingerprints, find_duplicates
from drsformer_arch.data.prepare.split_build import STORES, Output, Prepared, SplitBuild
from drsformer_arch.data.store.manifest import read_manifest
from drsformer_arch.data.store.store import MANIFEST
from drsformer_arch.images.picture_headers import max_pixels
from drsformer_arch.system.archives import is_archive, unpack
from drsformer_arch.system.errors import UserError, printable
from drsformer_arch.system.files import lock, remove_leftovers, write_atomically
from drsformer_arch.system.processor import usable_cores

REPORT = "duplicates.txt"


def prepare_dataset(
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
        dataset: a name that `drsformer prepare` knows, such as "rain200h", or "pairs".
        sources: folder or archive; for "pairs" also two folders, rainy and clean.
        destination: gets `train` and `test` (folders of pictures, or of BasicSR's LMDBs) or `train.lmdb` and
            `test.lmdb` (stores), each with a `manifest.jsonl`.
        output: "folder", "raw" or "compressed" (stores), or "basicsr".
        split: "train" or "test" where the source does not say.
        patterns: of the rainy and the clean names, such as `("rain/{}x2", "norain/{}")`; they replace known layouts.
        skip_bad: leave out pairs that cannot be used, and list them in the manifest.
        overwrite: replace what is there, once the new is finished.
        workers: processes; by default one more than cores.
        shard_size: bytes of source files per shard.

    Returns:
        One entry for each split.

    Raises:
        UserError: the source holds no pairs or bad ones, the disk is full, or something else lies at the destination;
            whatever is finished stays, and the same call goes on with it.
        KeyboardInterrupt: likewise.
    """
    benchmark = benchmark_named(dataset)
    max_pixels()  # a wrong limit would be the trouble of every single pair
    sources, destination = [Path(source).absolute() for source in sources], Path(destination).absolute()
    _refuse_inside(sources, destination)
    with _alone_in(destination), _unpacked(sources, destination) as folders:
        found = find_source_pairs(dataset, folders, split=split, patterns=patterns)
        for message in found.warnings:
            print(f"warning: {printable(message)}")
        prepared = []
        for name, pairs in _with_parts(found.splits, several=bool(benchmark.parts)):
            print(f"{name}: {len(pairs):,} pairs ({printable(found.layout)})", flush=True)
            warning = count_warning(dataset, name, len(pairs))
            if warning:
                print(f"warning: {warning}")
            build = SplitBuild(
                destination / (f"{name}.lmdb" if output in STORES else name),
                output,
                pairs,
                folders=folders,
                unpacked=[folder for folder in folders if folder not in sources],
                head={"dataset": dataset, "title": benchmark.title, "split": name, "version": warning},
                shard_size=shard_size,
            )
            usual = usable_cores() + 1  # one waits for the disk while the others compute
            prepared.append(build.run(skip_bad=skip_bad, overwrite=overwrite, workers=workers or usual))
        if not all(result.was_there for result in prepared) or not (destination / REPORT).is_file():
            report = list(map(printable, _report(destination, ".lmdb" if output in STORES else "")))
            print("\n".join(report))
            write_atomically(destination / REPORT, ("\n".join(report) + "\n").encode())
    return prepared


def _refuse_inside(sources: Sequence[Path], destination: Path) -> None:
    """Refuse results in a source, which is only read: the next call must not find them in it."""
    for source in sources:
        place, real = source.resolve(), destination.resolve()
        if place == real or place in real.parents:
            raise UserError(f"the results would lie in the source {source}; give an -o outside of it")


@contextlib.contextmanager
def _alone_in(destination: Path) -> Iterator[None]:
    """Keep other processes from preparing into one folder, and remove what killed ones left in it.

    A folder that was made for nothing is removed again.
    """
    is_new = not destination.exists()
    destination.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(destination, wait=False)
    except BlockingIOError:  # its number is also that of too few processes
        raise UserError(f"another process is preparing into {destination}; wait for it") from None
    try:
        for left in destination.glob(".removing-*"):
            shutil.rmtree(left)
        remove_leftovers(destination)
        yield
    finally:
        os.close(held)
        if is_new:
            with contextlib.suppress(OSError):  # it holds something
                destination.rmdir()


def _with_parts(splits: dict[str, list[SourcePair]], *, several: bool) -> Iterator[tuple[str, list[SourcePair]]]:
    """Yield the splits; a test split of several sets becomes one for each, because each is scored on its own."""
    for name, pairs in splits.items():
        if name != "test" or not several:
            yield name, pairs
            continue
        for part, of_part in itertools.groupby(pairs, key=lambda pair: pair.key.partition("/")[0]):
            yield f"{name}/{part}", [pair._replace(key=pair.key.partition("/")[2]) for pair in of_part]


def _report(destination: Path, suffix: str) -> Iterator[str]:
    """Yield what the clean pictures of all splits have in common, with others of their split and with each other."""
    splits = []
    for path in sorted((*destination.glob(f"[!.]*/{MANIFEST}"), *destination.glob(f"test/[!.]*/{MANIFEST}"))):
        if path.parent.suffix == suffix:
            splits.append(_fingerprints(path.parent, path.parent.relative_to(destination).as_posix()))
    for split in splits:
        yield from find_duplicates(split).describe()
    for split, other in itertools.permutations(splits, 2):
        if split.split.startswith("test") and other.split.startswith("train"):
            yield from find_duplicates(split, other).describe()


def _fingerprints(folder: Path, name: str) -> Fingerprints:
    """Read the fingerprints of a split's clean pictures; one that many rainy pictures share counts once."""
    names, digests, perceptual, last = [], [], array("Q"), None
    for row in read_manifest(folder / MANIFEST)[1]:
        if "skipped" in row or (row["target"]["file"] == last and row["input"]["file"] != last):
            continue
        last = row["target"]["file"]
        names.append(row["name"])
        digests.append(bytes.fromhex(row["target"]["sha256"]))
        perceptual.append(int(row["target"]["phash"], 16))
    return Fingerprints(name, names, digests, np.array(perceptual, np.uint64))


@contextlib.contextmanager
def _unpacked(sources: Sequence[Path], destination: Path) -> Iterator[list[Path]]:
    """Yield the sources as folders; archives are unpacked beside the result until that is finished.

    What an earlier call unpacked is used again, or removed where the archive has changed since.
    """
    folders, temporary = [], []
    for source in sources:
        if not is_archive(source):
            folders.append(source)
            continue
        state = source.stat()
        place, version = (
            hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
            for text in (str(source.resolve()), f"{state.st_size}\0{state.st_mtime_ns}")
        )
        around = destination / f".unpacked-{place}-{version}"
        for left in destination.glob(f".unpacked-{place}-*"):
            if left != around:
                _remove(left)
        folder = around / source.name  # which may say the split
        around.mkdir(exist_ok=True)
        try:
            if not folder.is_dir():
                unpack(source, folder)
        except BaseException:
            shutil.rmtree(around, ignore_errors=True)
            raise
        folders.append(folder)
        temporary.append(around)
    yield folders
    for folder in temporary:  # not reached after an error: the next call needs them again
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, under another name first: what a killed removal leaves must not be taken for the whole."""
    removing = folder.with_name(folder.name.replace(".unpacked", ".removing"))
    os.rename(folder, removing)
    shutil.rmtree(removing)
