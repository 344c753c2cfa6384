"""`drsformer evaluate`: scores of result pictures against their targets, streamed from the disk to a table.

==========  ===========================================================================================================
group       columns
==========  ===========================================================================================================
rain200     psnr_rain200 (dB), ssim_rain200: the protocol of Rain200L, Rain200H and SPA-Data
ddn         psnr_ddn (dB), ssim_ddn: the protocol of DID-Data and DDN-Data
rgb         psnr_rgb (dB), ssim_rgb: all samples of the RGB picture, SSIM as the mean of the three channels
niqe        niqe: NIQE as BasicSR 1.4.2 computes it (Y, pristine parameters of the authors, 96x96 blocks), lower is
            better; needs no target
lpips       lpips: LPIPS 0.1 of its authors' package (RGB), by the network of which weights are given, lower is better
==========  ===========================================================================================================

The same columns of the rainy pictures begin with `input_`. Pictures of 16 bits are rounded to 8, of which published
scores are; gray counts as R = G = B.
"""

import multiprocessing
import signal
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from drsformer_arch.data.pairing.result_pairs import ResultPair
from drsformer_arch.evaluate.score_names import DESCRIPTIONS, INPUT_PREFIX, LPIPS, NIQE, NIQE_BLOCK
from drsformer_arch.evaluate.summary import PictureScores, Summary
from drsformer_arch.images.pictures import PICTURE_SUFFIXES, Picture, decode, eight_bits, read_file
from drsformer_arch.metrics import SCORES, Planes
from drsformer_arch.system import packages, processor, worker
from drsformer_arch.system.errors import UserError, did_you_mean, line_of, printable
from drsformer_arch.system.escapes import csv_line
from drsformer_arch.system.files import atomic_file

GROUPS = tuple(group for group in DESCRIPTIONS if group != LPIPS)  # that need no more than the pictures
PAIRS_PER_WORKER = 8  # fewer are scored before another process has started
AHEAD = 4  # pairs per worker that are waiting or done and not asked for yet


def columns(which: Sequence[str], *, target: bool = True, rainy: bool = False) -> list[str]:
    """Return the columns of column groups, for pairs with or without targets and rainy pictures."""
    own = [f"{what}_{group}" for group in which if group in SCORES and target for what in SCORES[group]]
    own += [NIQE] * (NIQE in which) + [LPIPS] * (LPIPS in which and target)
    return own + [f"{INPUT_PREFIX}{column}" for column in own] * rainy


def score_pictures(result: Picture, target: Picture | None, which: Sequence[str]) -> dict[str, float]:
    """Score one result.

    Args:
        result: (H, W, C) RGB or gray, uint8 or uint16.
        target: of the same height and width; without it there is only NIQE.
        which: groups of scores, of "rain200", "ddn", "rgb" and "niqe".

    Returns:
        The value of each column, such as "psnr_rain200"; PSNR is in dB, infinite where the planes are equal, and
            there is no "niqe" where the picture has none.

    Raises:
        ValueError: the sizes differ, or a side is shorter than SSIM's window.
    """
    return _scores(_planes(result), None if target is None else _planes(target), which)


def evaluate(
    pairs: Sequence[ResultPair], which: Sequence[str], *, workers: int | None = None, lpips: str | None = None
) -> Generator[PictureScores, None, None]:
    """Score pairs in their order; a pair that cannot be scored says why, the rest goes on.

    Only some pairs per worker are read ahead of what the caller takes, so that the memory does not grow with their
    number. Closing the iterator stops the workers.

    Args:
        pairs: of `find_result_pairs`.
        which: column groups of `GROUPS`, and "lpips".
        workers: processes; 1: none but this one. Default: as many as there are cores and work for. They are started
            anew (spawn), so that a script needs `if __name__ == "__main__":`.
        lpips: for the group "lpips", the weights below it, as `training.learned_distance.load_lpips` takes them.

    Raises:
        ModuleNotFoundError: NIQE is BasicSR's, LPIPS that of the package `lpips`, which is not installed.
        UserError: an unknown group, weights that are none, or worker processes do not start.
    """
    for group in which:
        if group not in DESCRIPTIONS:
            raise UserError(f"unknown scores {group!r}{did_you_mean(group, DESCRIPTIONS)}")
    if NIQE in which:
        packages.require("basicsr")
    if LPIPS in which:
        if lpips is None:
            raise UserError("LPIPS needs a file with the weights of the network below it")
        learned_distance().load_lpips(lpips)
    if workers is None:
        workers = min(processor.usable_cores(), len(pairs) // PAIRS_PER_WORKER)
    workers = min(workers, len(pairs))  # more would wait for nothing
    if workers <= 1:
        return (_score(pair, tuple(which), lpips) for pair in pairs)
    return _in_processes(pairs, tuple(which), workers, lpips)


def learned_distance() -> Any:
    """Import what computes LPIPS, and loads torch."""
    from drsformer_arch.training import learned_distance  # noqa: PLC0415 - only LPIPS needs it

    return learned_distance


def _in_processes(
    pairs: Sequence[ResultPair], which: tuple[str, ...], workers: int, lpips: str | None
) -> Generator[PictureScores, None, None]:
    """Score in the order of the pairs. A process that dies takes others along; their pairs are done again."""
    pool = _pool(workers, which)
    running: deque[tuple[ResultPair, Future[PictureScores]]] = deque()

    def submit(pair: ResultPair) -> None:
        try:
            with _interrupts_held_back():  # from the beginning, in the process that this may start
                running.append((pair, pool.submit(_score, pair, which, lpips)))
        except BrokenProcessPool as error:
            running.append((pair, Future()))
            running[-1][1].set_exception(error)

    def first_row() -> PictureScores:
        nonlocal pool
        pair, future = running.popleft()
        try:
            return future.result()
        except BrokenProcessPool:
            pool.shutdown()
            row = _alone(pair, which, lpips)
            again = [pair for pair, _ in running]
            running.clear()
            pool = _pool(workers, which)
            for pair in again:
                submit(pair)
            return row

    try:
        try:
            with _interrupts_held_back():
                beginning = pool.submit(int)
            beginning.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process ended early (out of memory? fewer --workers take less; a script needs "
                "if __name__ == '__main__':)"
            ) from error
        for pair in pairs:
            submit(pair)
            if len(running) == AHEAD * workers:
                yield first_row()
        while running:
            yield first_row()
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int, which: tuple[str, ...]) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # safe whatever threads the caller has
    return ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(NIQE in which or LPIPS in which,))


def _alone(pair: ResultPair, which: tuple[str, ...], lpips: str | None) -> PictureScores:
    """Score in a process alone: what killed one among others may fit the memory, or kills only its own."""
    with _pool(1, which) as pool, _interrupts_held_back():
        future = pool.submit(_score, pair, which, lpips)
    try:
        return future.result()
    except BrokenProcessPool:
        return PictureScores(pair, {}, f"{printable(pair.result)}: the process that reads it dies (out of memory?)")


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, and from every process that is started in it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(with_torch: bool) -> None:
    worker.set_up()
    processor.keep_freed_memory()
    if with_torch:
        import torch  # noqa: PLC0415 - only NIQE and LPIPS need it

        torch.set_num_threads(1)


def _score(pair: ResultPair, which: tuple[str, ...], lpips: str | None = None) -> PictureScores:
    """Read and score one pair; whatever decoders and metrics raise becomes its problem."""
    subject, pictures = pair.result, dict[Path, Picture]()
    try:
        for subject in filter(None, pair[1:]):
            pictures[subject] = decode(read_file(subject), subject)
        subject = pair.result
        for path, picture in pictures.items():
            if picture.shape[:2] != pictures[pair.result].shape[:2]:
                raise UserError(f"{pair.result} is {_size(pictures[pair.result])} but {path} is {_size(picture)}")
        planes = {path: _planes(picture) for path, picture in pictures.items()}
        target = planes[pair.target] if pair.target is not None else None
        scores = _scores(planes[pair.result], target, which, lpips)
        if pair.rainy is not None:
            of_input = _scores(planes[pair.rainy], target, which, lpips)
            scores |= {f"{INPUT_PREFIX}{column}": value for column, value in of_input.items()}
    except Exception as error:  # of many libraries, and none may end the other pairs
        return PictureScores(pair, {}, line_of(error, subject))
    return PictureScores(pair, scores, None, any(picture.dtype != np.uint8 for picture in pictures.values()))


def _size(picture: Picture) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _planes(picture: Picture) -> Planes:
    if picture.dtype == np.uint16:
        picture = eight_bits(picture)
    return Planes(picture)


def _scores(result: Planes, target: Planes | None, which: Sequence[str], lpips: str | None = None) -> dict[str, float]:
    scores: dict[str, float] = {}
    if target is not None:
        if result.picture.shape[:2] != target.picture.shape[:2]:
            raise UserError(f"the pictures differ in size: {_size(result.picture)} and {_size(target.picture)}")
        if result.picture.shape != target.picture.shape:
            result, target = (Planes(_in_colour(planes.picture)) for planes in (result, target))
        scores = {
            f"{what}_{group}": score(result, target)
            for group in which
            if group in SCORES
            for what, score in SCORES[group].items()
        }
    if NIQE in which:
        quality = _niqe(_in_colour(result.picture))
        if quality is not None:
            scores[NIQE] = quality
    if LPIPS in which and target is not None:
        pictures = (_in_colour(planes.picture) for planes in (result, target))
        scores[LPIPS] = learned_distance().lpips_of(*pictures, lpips)
    return scores


def _in_colour(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return picture if picture.shape[2] == 3 else np.repeat(picture, 3, axis=2)


def _niqe(picture: npt.NDArray[np.uint8]) -> float | None:
    """Compute NIQE of (H, W, 3) RGB; None where there are not two blocks to compare, or all are flat."""
    height, width = picture.shape[:2]
    if (height // NIQE_BLOCK) * (width // NIQE_BLOCK) < 2:
        return None
    from drsformer_arch.bridge import importable  # noqa: F401, PLC0415 - makes BasicSR importable, and loads torch

    # isort: split
    from basicsr.metrics import calculate_niqe  # noqa: PLC0415

    with warnings.catch_warnings():
        # Flat blocks divide zero by zero; BasicSR leaves them out itself.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            quality = float(calculate_niqe(picture[..., ::-1], crop_border=0))
        except np.linalg.LinAlgError:  # nothing is left
            return None
    return quality if np.isfinite(quality) else None


def score_files(
    pairs: Sequence[ResultPair],
    which: Sequence[str],
    out: Path | None = None,
    *,
    workers: int | None = None,
    lpips: str | None = None,
) -> Summary:
    """Score pairs with a progress bar; a picture that fails is named on stderr, the rest goes on.

    Args:
        pairs: of `find_result_pairs`, at least one.
        which: column groups of `GROUPS`.
        out: CSV file with one line per picture, in the order of the pairs; it is replaced when the last one is done.
            Where that fails after scores were computed, `Summary.unwritten` says why, and all pictures are scored.
        workers: as `evaluate` takes them.
        lpips: likewise.

    Raises:
        ModuleNotFoundError: as `evaluate`.
        UserError: as `evaluate`, or `out` is a folder or named as a picture, or worker processes do not start.
        OSError: `out` cannot be written, as is seen before anything is scored, or nobody reads the pipe any more.
    """
    if out is not None and (out.is_dir() or out.suffix.lower() in PICTURE_SUFFIXES):
        raise UserError(
            f"{out} is {'a folder' if out.is_dir() else 'the name of a picture'}; scores are written as CSV"
        )
    names = columns(which, target=pairs[0].target is not None, rainy=pairs[0].rainy is not None)
    summary = Summary(names)
    with (
        tqdm(total=len(pairs), unit="picture", disable=None, delay=2) as bar,
        closing(evaluate(pairs, which, workers=workers, lpips=lpips)) as scored,
    ):
        rows = _counted(scored, summary, bar)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            try:
                with atomic_file(out) as file:
                    file.write(csv_line(["picture", "result", "target", "input", *names, "problem"]))
                    for row in rows:
                        values = [f"{row.scores[name]:.9f}" if name in row.scores else "" for name in names]
                        paths = [path or "" for path in row.pair[1:]]
                        file.write(csv_line([row.pair.name, *paths, *values, row.problem or ""]))
            except OSError as error:
                if isinstance(error, BrokenPipeError) or not summary.scored + summary.failed:
                    raise
                summary.unwritten = error
        for _ in rows:
            pass  # all of them, or those after a line that could not be written
    return summary


def _counted(rows: Iterable[PictureScores], summary: Summary, bar: tqdm) -> Iterator[PictureScores]:
    """Yield the rows, after they were added to the summary and those that failed were named."""
    for row in rows:
        summary.add(row)
        if row.problem is not None:
            bar.write(f"error: {row.problem}", file=sys.stderr)
        bar.update()
        yield row
