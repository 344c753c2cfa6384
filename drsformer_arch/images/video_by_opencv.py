"""Videos through OpenCV: without sound, at a constant rate."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2

from drsformer_arch.images.pictures import Picture
from drsformer_arch.images.video_containers import INPUT_OPTIONS, refuse_large
from drsformer_arch.images.video_timing import LARGEST_DENOMINATOR, Timing, timing
from drsformer_arch.system.errors import UserError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its decoders' own complaints name no file; read at first use
CODECS = {
    ".avi": "MJPG",
    ".webm": "VP80",
    **dict.fromkeys((".wmv", ".asf"), "WMV2"),
    ".flv": "FLV1",
    **dict.fromkeys((".mpg", ".mpeg", ".vob"), "MPG2"),
    ".ogv": "THEO",
}
USUAL_CODEC = "mp4v"
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # environment variable, read at every opening
COUNTED = (".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi")  # that name the number of their frames; others guess


class OpenCVVideos:
    """Reads and writes videos through OpenCV."""

    def scan(self, path: Path) -> tuple[Timing, str | None]:
        """Return the times of all frames that can be decoded.

        Returns:
            times; a complaint where the file names more frames, otherwise None, as OpenCV says nothing of damage.

        Raises:
            UserError: there is no such frame, or one is too large.
        """
        times: list[float | None] = []
        video = _open(path)
        try:
            _refuse_large(path, video)
            while video.grab():
                _refuse_large(path, video)  # the size may change
                times.append(video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            rate, named = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            video.release()
        if not times:
            raise UserError(f"video {path} cannot be read: it is damaged or of an unknown kind")
        claimed = [Fraction(rate).limit_denominator(LARGEST_DENOMINATOR)] if 0 < rate < float("inf") else []
        missing = path.suffix.lower() in COUNTED and len(times) < named
        complaint = f"{len(times)} of {named} frames can be decoded" if missing else None
        return timing(times, claimed), complaint

    def frames(self, path: Path) -> Generator[Picture]:
        """Yield all frames, (H, W, 3) RGB uint8, in the size of the first."""
        video = _open(path)
        size = None
        try:
            while True:
                there, frame = video.read()
                if not there:
                    return
                size = size or (frame.shape[1], frame.shape[0])
                if (frame.shape[1], frame.shape[0]) != size:  # calls in browsers change it
                    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            video.release()

    @contextmanager
    def writer(
        self,
        path: Path,
        size: tuple[int, int],
        times: Timing,
        source: Path,  # noqa: ARG002 - whose sound is lost
    ) -> Iterator[Callable[[Picture], object]]:
        """Write frames to a video; whether they arrived is only seen by reading it.

        Raises:
            UserError: OpenCV cannot write such a file.
        """
        codec = cv2.VideoWriter.fourcc(*CODECS.get(path.suffix, USUAL_CODEC))
        video = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, float(times.rate), size)
        if not video.isOpened():
            raise UserError(
                f"OpenCV cannot write a {path.suffix} video of {size[0]}x{size[1]} at {float(times.rate):g} frames per "
                f"second into {path.parent}; ffmpeg, installed, writes more"
            )
        try:
            yield lambda frame: video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        finally:
            video.release()


def _open(path: Path) -> cv2.VideoCapture:
    """Open a video file to be read, and no other file, whatever it names."""
    given = os.environ.get(OPTIONS)
    ours = "|".join(f"{key};{value}" for key, value in INPUT_OPTIONS.items())
    os.environ[OPTIONS] = f"{given}|{ours}" if given else ours  # of two values the last one counts
    try:
        return cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    finally:
        if given is None:
            del os.environ[OPTIONS]
        else:
            os.environ[OPTIONS] = given


def _refuse_large(path: Path, video: cv2.VideoCapture) -> None:
    refuse_large(path, *(int(video.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)))
