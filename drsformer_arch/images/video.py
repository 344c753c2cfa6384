"""Videos, frame by frame: through ffmpeg where it is installed, otherwise through OpenCV, without sound."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from drsformer_arch.images.pictures import Picture
from drsformer_arch.images.video_by_ffmpeg import ENCODERS, FFmpegVideos
from drsformer_arch.images.video_by_opencv import OpenCVVideos
from drsformer_arch.images.video_containers import refuse_cut
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import atomic_path, refuse_no_file

VIDEO_SUFFIXES = frozenset(ENCODERS)
"""Containers that are read and written."""
Item = TypeVar("Item")


def derain_video(
    source: Path,
    target: Path,
    derain: Callable[[list[Picture]], list[Picture]],
    *,
    batch: int = 1,
    suffix: str | None = None,
    note: Callable[[str], object] | None = None,
) -> int:
    """Derain a video; there is the old file or the new one, never a part.

    Every frame is derained by itself. With ffmpeg the sound, the times of the frames, colours and the shape of pixels
    are kept, frames are turned as the file says, and the result is of high quality: H.264, or what the container asks
    for. OpenCV writes a constant rate, the mean of the source's. Frames have 8 bits. The source is decoded twice, as a
    damaged one is to be refused before the work, and the result once before it gets its name.

    Args:
        source: the video.
        target: the result.
        derain: frames (H, W, 3) RGB uint8 to the same.
        batch: frames computed together.
        suffix: of the result's container, one of `VIDEO_SUFFIXES`; default: that of `target`.
        note: is called with what the decoder complained of, though it went on.

    Returns:
        The number of frames.

    Raises:
        UserError: a video that cannot be read, is not whole, or cannot be written.
        OSError: the folder is not writable, the disk is full.
    """
    suffix = (suffix or target.suffix).lower()
    if suffix not in VIDEO_SUFFIXES:
        raise UserError(f"{target}: videos are written as {', '.join(sorted(VIDEO_SUFFIXES))}")
    refuse_no_file(source, "video")
    refuse_cut(source)
    videos = FFmpegVideos.installed() or OpenCVVideos()
    times, complaint = videos.scan(source)
    if complaint and note:
        note(f"the decoder went on after a complaint: {complaint}")
    count = 0
    with atomic_path(target, suffix) as unfinished:
        with (
            closing(videos.frames(source)) as frames,
            tqdm(desc=source.name, total=len(times.times), unit="frame", leave=False, disable=None) as bar,
        ):
            first = next(frames, None)
            if first is None:
                raise UserError(f"video {source} has no frames that can be read")
            size = (first.shape[1], first.shape[0])
            with videos.writer(unfinished, size, times, source) as write:
                for group in batched(chain([first], frames), batch):
                    count += len(group)
                    if count > len(times.times):
                        break
                    for frame in derain(group):
                        write(frame)
                    bar.update(len(group))
        if count != len(times.times):
            raise UserError(
                f"video {source} had {len(times.times)} frames at first, but {count} then; is it being written?"
            )
        _read_back(videos, unfinished, target, count)
    return count


def _read_back(videos: FFmpegVideos | OpenCVVideos, unfinished: Path, target: Path, count: int) -> None:
    """Decode what was written: some writers keep the errors of a full disk to themselves."""
    try:
        refuse_cut(unfinished)
        written = len(videos.scan(unfinished)[0].times)
    except UserError as error:
        raise UserError(
            f"{target}: the written video cannot be read back, is the disk full? It is discarded"
        ) from error
    if written != count:
        raise UserError(
            f"{target}: {written} of {count} written frames can be read back, is the disk full? The video is discarded"
        )


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield neighbours in lists of at most `size`."""
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch
