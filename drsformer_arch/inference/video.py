"""Videos, frame by frame: through ffmpeg where it is installed, otherwise through OpenCV, without sound."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import IO, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from drsformer_arch.data.pictures import Picture
from drsformer_arch.errors import UserError
from drsformer_arch.files import rename_whole

VIDEO_SUFFIXES = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
"""Containers that are read and written, and OpenCV's codec for each."""
H264 = ("-c:v", "libx264", "-crf", "17")
VP9 = ("-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-row-mt", "1")
LARGEST_DENOMINATOR = 1001  # of frame rates such as 30000/1001
Size = tuple[int, int]  # width, height
Item = TypeVar("Item")


def derain_video(
    source: Path, target: Path, derain: Callable[[list[Picture]], list[Picture]], *, batch: int = 1
) -> int:
    """Derain a video; there is the old file or the new one, never a part.

    Every frame is derained by itself. With ffmpeg the sound is kept, frames are turned as the file says and come at a
    constant rate, and the result is H.264 (VP9 in .webm) of high quality. Frames have 8 bits.

    Args:
        source: the video.
        target: the result; its suffix decides the container.
        derain: frames (H, W, 3) RGB uint8 to the same.
        batch: frames computed together.

    Returns:
        The number of frames.

    Raises:
        UserError: a video that cannot be read or written.
        OSError: the folder is not writable, the disk is full.
    """
    rate, about = _rate_and_length(source)
    ffmpeg = shutil.which("ffmpeg")
    frames = _frames_by_ffmpeg(ffmpeg, source, rate) if ffmpeg else _frames_by_opencv(source)
    unfinished = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    count = 0
    try:
        with closing(frames), tqdm(desc=source.name, total=about, unit="frame", leave=False, disable=None) as bar:
            first = next(frames, None)
            if first is None:
                raise UserError(f"video {source} has no frames that can be read")
            size = (first.shape[1], first.shape[0])
            writer = (
                _writer_by_ffmpeg(ffmpeg, unfinished, size, rate, source)
                if ffmpeg
                else _writer_by_opencv(unfinished, size, rate)
            )
            with writer as write:
                for group in batched(chain([first], frames), batch):
                    for frame in derain(group):
                        write(frame)
                    count += len(group)
                    bar.update(len(group))
        rename_whole(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _rate_and_length(source: Path) -> tuple[Fraction, int | None]:
    """Frames per second, and about how many frames there are; None where the file does not say."""
    header = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG)
    try:
        rate, count = header.get(cv2.CAP_PROP_FPS), int(header.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        header.release()
    if not 0 < rate < float("inf"):
        raise UserError(f"video {source} cannot be read: it is damaged or of an unknown kind")
    return Fraction(rate).limit_denominator(LARGEST_DENOMINATOR), count if count > 0 else None


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Neighbours in lists of at most `size`."""
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


def _frames_by_opencv(source: Path) -> Generator[Picture]:
    video = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG)
    try:
        while True:
            there, frame = video.read()
            if not there:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        video.release()


def _frames_by_ffmpeg(ffmpeg: str, source: Path, rate: Fraction) -> Generator[Picture]:
    command = [ffmpeg, "-v", "error", "-nostdin", "-i", _file(source), "-map", "0:v:0", "-r", str(rate)]
    command += ["-f", "image2pipe", "-c:v", "ppm", "-"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        try:
            while (frame := _read_ppm(process.stdout)) is not None:
                yield frame
            if process.wait():
                raise UserError(f"video {source} cannot be read: {_last_line(errors)}")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _read_ppm(stream: IO[bytes]) -> Picture | None:
    """The next picture of the stream, (H, W, 3) RGB uint8; None at its end."""
    if not stream.readline():  # P6
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()  # the largest value, 255
    content = stream.read(width * height * 3)
    if len(content) < width * height * 3:
        return None
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


@contextmanager
def _writer_by_opencv(path: Path, size: Size, rate: Fraction) -> Iterator[Callable[[Picture], object]]:
    codec = cv2.VideoWriter.fourcc(*VIDEO_SUFFIXES[path.suffix.lower()])
    video = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, float(rate), size)
    if not video.isOpened():
        raise UserError(f"OpenCV cannot write a {path.suffix} video into {path.parent}; ffmpeg, installed, writes more")
    try:
        yield lambda frame: video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        video.release()
    if not path.stat().st_size:
        raise OSError(None, "nothing was written, is the disk full?")


@contextmanager
def _writer_by_ffmpeg(
    ffmpeg: str, path: Path, size: Size, rate: Fraction, source: Path
) -> Iterator[Callable[[Picture], object]]:
    """Frames to a video with the sound and the notes of the source."""
    width, height = size
    command = [ffmpeg, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(rate), "-i", "-", "-i", _file(source), "-map", "0:v", "-map", "1:a?", "-map_metadata", "1"]
    command += ["-c:a", "copy", *(VP9 if path.suffix.lower() == ".webm" else H264)]
    # Half the resolution in colour is what players expect; it needs even sides. Colours as high definition has them.
    pixels = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
    command += ["-vf", f"scale=out_color_matrix=bt709:out_range=tv,format={pixels}", "-colorspace", "bt709"]
    command += ["-color_primaries", "bt709", "-color_trc", "bt709", _file(path)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None
        stdin = process.stdin
        try:
            yield lambda frame: stdin.write(np.ascontiguousarray(frame).data)
            stdin.close()
            failed = process.wait() != 0
        except BrokenPipeError:
            process.wait()
            failed = True
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if failed:
            raise OSError(None, f"ffmpeg: {_last_line(errors)}")


def _file(path: Path) -> str:
    """A path as ffmpeg takes it: never an option and never a protocol."""
    return f"file:{path.absolute()}"


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"
