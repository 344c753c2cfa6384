"""Derain pictures, videos and folders of them, from the disk to the disk."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from glob import glob, has_magic
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from drsformer_arch.images.photographs import WRITTEN, Photograph, read_photograph, write_photograph
from drsformer_arch.images.pictures import PICTURE_SUFFIXES, eight_bits, sixteen_bits
from drsformer_arch.images.video import VIDEO_SUFFIXES, batched, derain_video
from drsformer_arch.restore.restorer import Restorer
from drsformer_arch.system.archives import ALL_ARCHIVE_SUFFIXES, INSTEAD
from drsformer_arch.system.errors import UserError, first_few, line_of, printable
from drsformer_arch.system.files import followed, is_stream, refuse_no_file, remove_leftovers

READ = PICTURE_SUFFIXES | {".gif"} | VIDEO_SUFFIXES  # single pictures of .gif become .png


class Job(NamedTuple):
    """A picture or video to derain, and where its result goes."""

    source: Path
    target: Path
    suffix: str  # of the result's format, which a device or a pipe does not name
    problem: str | None = None  # why it cannot be read

    @property
    def is_video(self) -> bool:
        """Tell whether the name of a file says that it is a video."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES


class _Input(NamedTuple):
    """A file among the inputs."""

    source: Path
    name: Path  # below the folder of the results
    problem: str | None = None


def find_jobs(inputs: Sequence[str], out: Path, suffix: str | None, *, overwrite: bool) -> list[Job]:
    """Decide what to read and where to write it.

    Folders are searched recursively, also through links, and keep their structure below `out`. A single file may be
    given a name instead of a folder.

    Args:
        inputs: files, folders and patterns.
        out: folder of the results, or the result of a single file.
        suffix: of result pictures, for example ".png"; default: as the source, or .png where that cannot be written.
        overwrite: replace results that exist.

    Raises:
        UserError: an input that does not exist or is no file, two pictures with one result, a result that exists or
            that is its own source.
    """
    files: list[_Input] = []
    for name in inputs:
        is_pattern = has_magic(name) and not Path(name).exists()
        paths = sorted(map(Path, glob(name, recursive=True))) if is_pattern else [Path(name)]
        if not paths:
            raise UserError(f"nothing matches {name}")
        for path in paths:
            if path.is_dir():
                files += _files_in(path, out)
            elif is_pattern:
                files.append(_Input(path, Path(path.name), _problem(path)))
            else:
                files.append(_Input(_given(path), Path(path.name)))
    if not files:
        raise UserError(f"no picture or video ({', '.join(sorted(READ))}) in {', '.join(inputs)}")
    one_file = len(inputs) == 1 and Path(inputs[0]).is_file()
    if is_stream(out) and not one_file:
        raise UserError(
            f"-o {out} takes the result of one file; give one picture or video, or a folder for the results"
        )
    of_its_kind = VIDEO_SUFFIXES if Path(inputs[0]).suffix.lower() in VIDEO_SUFFIXES else WRITTEN
    names_its_kind = out.suffix.lower() in of_its_kind and not out.is_dir()
    jobs = []
    for source, relative, problem in files:
        renamed = _renamed(relative, suffix)
        kind = out.suffix if one_file and names_its_kind else renamed.suffix
        target = out if one_file and (names_its_kind or is_stream(out)) else out / renamed
        jobs.append(Job(source, target, kind.lower(), problem))
    for folder in {job.target.parent for job in jobs}:
        remove_leftovers(folder)
    _refuse_losses([job for job in jobs if job.problem is None], overwrite)
    return jobs


def _given(path: Path) -> Path:
    """Check a file that the user named.

    Raises:
        UserError: there is no such file, or it is an archive, a pipe or a device.
    """
    refuse_no_file(path)
    if not path.exists():
        raise UserError(f"there is no file {path}")
    if path.name.lower().endswith(ALL_ARCHIVE_SUFFIXES):
        raise UserError(f"{path} is an archive, no picture or video; {INSTEAD}")
    return path


def _problem(path: Path) -> str | None:
    """Say why a file among the inputs cannot be read; None where it can."""
    try:
        refuse_no_file(path)
    except UserError as error:
        return str(error)
    return None


def _files_in(top: Path, out: Path) -> list[_Input]:
    """List all pictures and videos below a folder, without hidden ones and without earlier results.

    Links to folders are followed, but not back to a folder that holds them. What is no file, leads to none or cannot
    be searched is named.
    """
    results = os.path.realpath(out)
    files: list[_Input] = []
    waiting = [(top, frozenset[str]())]
    while waiting:
        folder, above = waiting.pop()
        real = os.path.realpath(folder)
        if real in above or (_is_below(real, results) and not _is_below(os.path.realpath(top), results)):
            continue
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            files.append(_Input(folder, folder.relative_to(top), line_of(error, f"folder {folder}")))
            continue
        for name in names:
            path = folder / name
            if path.is_dir():
                waiting.append((path, above | {real}))
            elif path.suffix.lower() in READ or (path.is_symlink() and not path.exists() and not path.suffix):
                files.append(_Input(path, path.relative_to(top), _problem(path)))
    return sorted(files)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def _renamed(name: Path, suffix: str | None) -> Path:
    if name.suffix.lower() in VIDEO_SUFFIXES:
        return name
    if suffix is None:
        suffix = name.suffix if name.suffix.lower() in WRITTEN else ".png"
    return name.with_suffix(suffix)


def _refuse_losses(jobs: Sequence[Job], overwrite: bool) -> None:
    sources: dict[Path, Path] = {}
    for job in jobs:
        target = followed(job.target)
        if target == followed(job.source):
            raise UserError(f"the result would replace its source {job.source}; choose another folder with -o")
        if target in sources:
            raise UserError(f"{sources[target]} and {job.source} would have the same result {job.target}")
        sources[target] = job.source
    existing = [str(job.target) for job in jobs if job.target.exists() and not is_stream(job.target)]
    if existing and not overwrite:
        raise UserError(f"results exist already: {first_few(existing)} (--overwrite replaces them)")


def derain(jobs: Sequence[Job], restorer: Restorer, *, batch: int = 1, depth: int | None = None) -> list[str]:
    """Derain pictures, then videos; a bad one is named and left out, whatever is wrong with it, the rest goes on.

    Args:
        jobs: the pictures and videos.
        restorer: the network.
        batch: pictures of equal size that are computed together, where they follow each other, or frames.
        depth: 8 or 16 bits; default: as the source.

    Returns:
        One line per picture or video that could not be derained.
    """
    with tqdm(total=len(jobs), unit="file", disable=None) as bar:
        run = _Deraining(restorer, bar)

        def pictures() -> Iterator[tuple[Job, Photograph]]:
            for job in jobs:
                if job.problem is not None:
                    run.report(job.problem)
                elif not job.is_video:
                    with run.problems_named(job.source):
                        yield job, read_photograph(job.source)

        for group in _of_equal_size(pictures(), batch):
            run.pictures(group, depth)
        for job in jobs:
            if job.is_video and job.problem is None:
                run.video(job, batch)
    return run.problems


class _Deraining:
    """A run over many files, and the problems that it met so far."""

    def __init__(self, restorer: Restorer, bar: tqdm) -> None:
        self.restorer, self.bar = restorer, bar
        self.problems: list[str] = []

    def pictures(self, group: Sequence[tuple[Job, Photograph]], depth: int | None) -> None:
        """Derain pictures of equal size together, or by themselves where that fails: one may be the reason."""
        try:
            results = self.restorer.batch([photograph.pixels for _, photograph in group])
        except Exception as error:  # of any kind: it must not end the run
            if len(group) == 1:
                self.report(line_of(error, group[0][0].source))
            else:
                for single in group:
                    self.pictures([single], depth)
            return
        for (job, photograph), pixels in zip(group, results, strict=True):
            with self.problems_named(job.source, job.target):
                job.target.parent.mkdir(parents=True, exist_ok=True)
                result = _in_depth(photograph._replace(pixels=pixels), depth)
                for note in (*photograph.notes, *write_photograph(job.target, result, job.suffix)):
                    self.note(job, note)
                self.bar.update()

    def video(self, job: Job, batch: int) -> None:
        """Derain a video."""
        with self.problems_named(job.source, job.target):
            job.target.parent.mkdir(parents=True, exist_ok=True)
            note = partial(self.note, job)
            derain_video(job.source, job.target, self.restorer.batch, batch=batch, suffix=job.suffix, note=note)
            self.bar.update()

    @contextmanager
    def problems_named(self, source: Path, target: Path | None = None) -> Iterator[None]:
        """Report whatever goes wrong with an input, or while its result is written, as its line."""
        try:
            yield
        except Exception as error:  # of any kind: it must not end the run
            line = line_of(error, source)
            if target is not None and isinstance(error, OSError) and error.errno is not None:
                line = printable(f"{target} cannot be written: {error.strerror}")
            self.report(line)

    def note(self, job: Job, text: str) -> None:
        """Say what of the source its result could not keep."""
        self.bar.write(printable(f"note: {job.source}: {text}"), file=sys.stderr)

    def report(self, problem: str) -> None:
        """Count an input that could not be derained."""
        self.problems.append(problem)
        self.bar.write(f"error: {problem}", file=sys.stderr)
        self.bar.update()


def _of_equal_size(pictures: Iterator[tuple[Job, Photograph]], batch: int) -> Iterator[list[tuple[Job, Photograph]]]:
    """Group neighbours of equal size and type, at most `batch` of them."""
    for _, same in groupby(pictures, key=lambda pair: (pair[1].pixels.shape, pair[1].pixels.dtype)):
        yield from batched(same, batch)


def _in_depth(photograph: Photograph, depth: int | None) -> Photograph:
    """Convert to 8 or 16 bits per channel, also of the alpha."""
    bits = photograph.pixels.dtype.itemsize * 8
    if depth is None or depth == bits:
        return photograph
    converted = eight_bits if depth == 8 else sixteen_bits
    alpha = None if photograph.alpha is None else converted(photograph.alpha)
    return photograph._replace(pixels=converted(photograph.pixels), alpha=alpha)
