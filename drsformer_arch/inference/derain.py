"""`drsformer derain`: pictures, videos and folders of them from the disk to the disk."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob, has_magic
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from drsformer_arch.data.pictures import PICTURE_SUFFIXES
from drsformer_arch.errors import UserError, first_few
from drsformer_arch.inference.photographs import (
    WRITTEN,
    Photograph,
    eight_bits,
    read_photograph,
    sixteen_bits,
    write_photograph,
)
from drsformer_arch.inference.restorer import Restorer
from drsformer_arch.inference.video import VIDEO_SUFFIXES, batched, derain_video

READ = PICTURE_SUFFIXES | {".gif"} | VIDEO_SUFFIXES.keys()  # single pictures of .gif become .png


class Job(NamedTuple):
    """One picture or video."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        """By its name."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES


def find_jobs(inputs: Sequence[str], out: Path, suffix: str | None, *, overwrite: bool) -> list[Job]:
    """What to read and where to write it.

    Folders are searched recursively and keep their structure below `out`. A single file may be given a name instead of
    a folder.

    Args:
        inputs: files, folders and patterns.
        out: folder of the results, or the result of a single file.
        suffix: of result pictures, for example ".png"; default: as the source, or .png where that cannot be written.
        overwrite: replace results that exist.

    Raises:
        UserError: an input that does not exist, two pictures with one result, a result that exists or that is its own
            source.
    """
    found: list[tuple[Path, Path]] = []  # source, name below `out`
    for one in inputs:
        paths = (
            sorted(map(Path, glob(one, recursive=True))) if has_magic(one) and not Path(one).exists() else [Path(one)]
        )
        if not paths:
            raise UserError(f"nothing matches {one}")
        for path in paths:
            if path.is_dir():
                found += [(one, one.relative_to(path)) for one in _files_in(path, out)]
            elif path.exists():
                found.append((path, Path(path.name)))
            else:
                raise UserError(f"there is no file {path}")
    if not found:
        raise UserError(f"no picture or video ({', '.join(sorted(READ))}) in {', '.join(inputs)}")
    one_file = len(inputs) == 1 and Path(inputs[0]).is_file()
    of_its_kind = VIDEO_SUFFIXES if Path(inputs[0]).suffix.lower() in VIDEO_SUFFIXES else WRITTEN
    names_a_file = one_file and out.suffix.lower() in of_its_kind and not out.is_dir()
    jobs = [Job(source, out if names_a_file else out / _renamed(name, suffix)) for source, name in found]
    _refuse_losses(jobs, overwrite)
    return jobs


def _files_in(folder: Path, out: Path) -> list[Path]:
    """All pictures and videos below a folder, without hidden ones and without earlier results."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in READ
        and path.is_file()
        and (out.resolve() not in path.resolve().parents or out.resolve() in folder.resolve().parents)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _renamed(name: Path, suffix: str | None) -> Path:
    if name.suffix.lower() in VIDEO_SUFFIXES:
        return name
    if suffix is None:
        suffix = name.suffix if name.suffix.lower() in WRITTEN else ".png"
    return name.with_suffix(suffix)


def _refuse_losses(jobs: Sequence[Job], overwrite: bool) -> None:
    sources: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target == job.source.resolve():
            raise UserError(f"the result would replace its source {job.source}; choose another folder with -o")
        if target in sources:
            raise UserError(f"{sources[target]} and {job.source} would have the same result {job.target}")
        sources[target] = job.source
    existing = [str(job.target) for job in jobs if job.target.exists()]
    if existing and not overwrite:
        raise UserError(f"results exist already: {first_few(existing)} (--overwrite replaces them)")


def derain(jobs: Sequence[Job], restorer: Restorer, *, batch: int = 1, depth: int | None = None) -> list[str]:
    """Derain pictures, then videos; a bad one is named and left out, the rest goes on.

    Args:
        jobs: what to do.
        restorer: the network.
        batch: pictures of equal size that are computed together, where they follow each other, or frames.
        depth: 8 or 16 bits; default: as the source.

    Returns:
        One line per picture or video that could not be derained.
    """
    problems: list[str] = []
    with tqdm(total=len(jobs), unit="file", disable=None) as bar:

        def pictures() -> Iterator[tuple[Job, Photograph]]:
            for job in jobs:
                if job.is_video:
                    continue
                try:
                    yield job, read_photograph(job.source)
                except UserError as error:
                    _report(problems, str(error), bar)

        for group in _of_equal_size(pictures(), batch):
            try:
                results = restorer.batch([photograph.pixels for _, photograph in group])
            except UserError as error:
                for job, _ in group:
                    _report(problems, f"{job.source}: {error}", bar)
                continue
            for (job, photograph), pixels in zip(group, results, strict=True):
                with _named(job, problems, bar):
                    job.target.parent.mkdir(parents=True, exist_ok=True)
                    write_photograph(job.target, _in_depth(photograph._replace(pixels=pixels), depth))
        for job in jobs:
            if job.is_video:
                with _named(job, problems, bar):
                    job.target.parent.mkdir(parents=True, exist_ok=True)
                    derain_video(job.source, job.target, restorer.batch, batch=batch)
    return problems


@contextmanager
def _named(job: Job, problems: list[str], bar: tqdm) -> Iterator[None]:
    """What goes wrong while a result is written becomes a line."""
    try:
        yield
        bar.update()
    except UserError as error:
        _report(problems, str(error), bar)
    except OSError as error:
        _report(problems, f"{job.target} cannot be written: {error.strerror}", bar)


def _report(problems: list[str], problem: str, bar: tqdm) -> None:
    problems.append(problem)
    bar.write(f"error: {problem}", file=sys.stderr)
    bar.update()


def _of_equal_size(pictures: Iterator[tuple[Job, Photograph]], batch: int) -> Iterator[list[tuple[Job, Photograph]]]:
    """Neighbours of equal size and type, at most `batch` of them."""
    for _, same in groupby(pictures, key=lambda one: (one[1].pixels.shape, one[1].pixels.dtype)):
        yield from batched(same, batch)


def _in_depth(photograph: Photograph, depth: int | None) -> Photograph:
    """8 or 16 bits per channel, also of the alpha."""
    bits = photograph.pixels.dtype.itemsize * 8
    if depth is None or depth == bits:
        return photograph
    converted = eight_bits if depth == 8 else sixteen_bits
    alpha = None if photograph.alpha is None else converted(photograph.alpha)
    return photograph._replace(pixels=converted(photograph.pixels), alpha=alpha)
