"""Videos through ffmpeg: with sound, and with times, colours and shape of pixels as in the source."""

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from drsformer_arch.images.pictures import Picture
from drsformer_arch.images.video_containers import file_word, input_words, probe, refuse_large
from drsformer_arch.images.video_sound import sound_options
from drsformer_arch.images.video_timing import Timing, timing
from drsformer_arch.system.errors import UserError

SCAN_UNIT = 1_000_000  # of the times that are read, per s
TIME_UNIT = 90_000  # of the times that are written where the rate varies, per s; the usual rates divide it
_COMPLAINT = re.compile(r"\[(error|fatal|panic)\]|corrupt")  # warnings of most other kinds mean nothing
CUT = ("ended prematurely", "partial file")  # in complaints about files that are not whole
# From colours at half the resolution to pixels and back: copied and averaged, what was not changed comes back as it was
# (measured on a photograph: 0.01 of 255 off, where the filter's defaults are 1 off and darker).
_EXACT = "accurate_rnd+full_chroma_int+full_chroma_inp"
READ_FLAGS, WRITTEN_FLAGS = f"flags=neighbor+{_EXACT}", f"flags=area+{_EXACT}"
MATRICES = {  # names of streams and of the filter `scale`
    "bt709": "bt709",
    "bt470bg": "bt470",
    "smpte170m": "smpte170m",
    "smpte240m": "smpte240m",
    "fcc": "fcc",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}
UNKNOWN = "unknown"


class Encoder(NamedTuple):
    """The way in which a kind of file is encoded."""

    options: tuple[str, ...]
    sound: tuple[str, ...]  # the usual encoder, and one where that does not take these channels or is not built in
    names_range: bool = False  # whether a file can say that its samples use all values
    halves_any_size: bool = True  # whether colours may have half the resolution where a side is odd
    varies: bool = True  # whether every frame can have a time of its own


H264 = Encoder(("-c:v", "libx264", "-crf", "17"), ("aac",), names_range=True, halves_any_size=False)
# It has no place for frames in another order.
AVI = H264._replace(options=(*H264.options, "-bf", "0"), sound=("libmp3lame", "pcm_s16le"), varies=False)
VP9_OPTIONS = ("-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-row-mt", "1")
VP9 = Encoder(VP9_OPTIONS, ("libopus", "libvorbis"), names_range=True, halves_any_size=False)
MPEG2 = Encoder(("-c:v", "mpeg2video", "-q:v", "2"), ("mp2",), varies=False)
WMV = Encoder(("-c:v", "wmv2", "-q:v", "2"), ("wmav2", "libmp3lame"))
THEORA = Encoder(("-c:v", "libtheora", "-q:v", "10"), ("libvorbis", "libopus"), varies=False)
ENCODERS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv", ".3gp", ".3g2", ".ts", ".mts", ".m2ts", ".flv"), H264),
    ".avi": AVI,
    ".webm": VP9,
    **dict.fromkeys((".mpg", ".mpeg", ".vob"), MPEG2),
    **dict.fromkeys((".wmv", ".asf"), WMV),
    ".ogv": THEORA,
}


class Colours(NamedTuple):
    """The rules by which samples of a stream become colours, as its file says and as it is meant."""

    matrix: str  # that converts them, a name of the filter `scale`
    full: bool  # whether they use all values
    tags: tuple[str, str, str, str]  # range, primaries, transfer function, matrix


class FFmpegVideos:
    """Reads and writes videos through the programs ffmpeg and ffprobe."""

    def __init__(self, ffmpeg: str, ffprobe: str) -> None:
        self.ffmpeg, self.ffprobe = ffmpeg, ffprobe
        self.as_they_come = (_option_of_times(ffmpeg), "passthrough")

    @classmethod
    def installed(cls) -> "FFmpegVideos | None":
        """Return None where the two programs are not installed."""
        ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
        return cls(ffmpeg, ffprobe) if ffmpeg and ffprobe else None

    def scan(self, path: Path) -> tuple[Timing, str | None]:
        """Return the times of all frames, by decoding them.

        Returns:
            times; what ffmpeg complains of first, None where it does not.

        Raises:
            UserError: the file has no frames, is cut off, cannot be decoded at all, or its frames are too large.
        """
        claimed = probe(self.ffprobe, path, "V:0")
        for stream in claimed:
            refuse_large(path, int(stream.get("width", 0)), int(stream.get("height", 0)))
        command = [self.ffmpeg, "-v", "level+warning", "-nostdin", *input_words(path), "-map", "0:V:0"]
        command += [*self.as_they_come, "-enc_time_base", f"1:{SCAN_UNIT}", "-f", "framecrc", "-"]
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, check=False
            ).returncode
            complaint = first_line(errors, path, _COMPLAINT)
            output.seek(0)
            rows = [line.split(b",") for line in output if line[:1].isdigit()]
        unit = 1 / SCAN_UNIT
        times = [float(row[2]) * unit if row[2].strip().lstrip(b"-").isdigit() else None for row in rows]
        if code or not times or (complaint and any(words in complaint for words in CUT)):
            reason = f" ({complaint})" if complaint and "whitelist" not in complaint else ""
            raise UserError(f"video {path} cannot be read: it is damaged or of an unknown kind{reason}")
        stream = claimed[0] if claimed else self._stream(path)
        claims = (_fraction(stream.get(key)) for key in ("r_frame_rate", "avg_frame_rate"))
        return timing(times, [claim for claim in claims if claim]), complaint

    def _stream(self, path: Path) -> dict[str, Any]:
        for stream in probe(self.ffprobe, path, "V:0"):
            return stream
        raise UserError(f"video {path} cannot be read: ffprobe knows no stream in it")

    def frames(self, path: Path) -> Generator[Picture]:
        """Yield all frames, (H, W, 3) RGB uint8, upright, in the size of the first.

        Raises:
            UserError: ffmpeg fails.
        """
        colours = colours_of(self._stream(path))
        command = [self.ffmpeg, "-v", "error", "-nostdin", *input_words(path), "-map", "0:V:0", *self.as_they_come]
        command += ["-vf", f"scale=in_color_matrix={colours.matrix}:{READ_FLAGS},format=rgb24"]
        command += ["-f", "image2pipe", "-c:v", "ppm", "-"]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
            assert process.stdout is not None
            try:
                while (frame := _read_ppm(process.stdout)) is not None:
                    yield frame
                if process.wait():
                    raise UserError(f"video {path} cannot be read: {first_line(errors, path)}")
            finally:
                process.kill()
                process.stdout.close()
                process.wait()

    @contextmanager
    def writer(
        self, path: Path, size: tuple[int, int], times: Timing, source: Path
    ) -> Iterator[Callable[[Picture], object]]:
        """Write frames to a video with the sound, the notes and the colours of the source.

        Raises:
            UserError: the container takes no such sound; or ffmpeg fails, its reason is in the message.
        """
        encoder, stream = ENCODERS[path.suffix], self._stream(source)
        # Times are whole numbers of a unit: of frames at a constant rate from the beginning, otherwise TIME_UNIT.
        steady = (times.steady and abs(times.start) < 0.001) or not encoder.varies
        unit = times.rate if steady else Fraction(TIME_UNIT)
        base = f"{unit.denominator}:{unit.numerator}"
        command = [self.ffmpeg, "-v", "error", "-y", "-itsoffset", f"{max(times.start, 0):.6f}"]
        command += ["-f", "ivf", "-c:v", "ppm", "-i", "-", *input_words(source)]
        command += ["-map", "0:v", *sound_options(self.ffmpeg, self.ffprobe, source, path.suffix, encoder.sound)]
        command += ["-map_metadata", "1", *encoder.options]
        command += [*self.as_they_come, "-enc_time_base", base, *_written(stream, size, encoder), file_word(path)]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)
            assert process.stdin is not None
            stdin, count = process.stdin, 0

            def write(frame: Picture) -> None:
                nonlocal count
                time = count if steady else round((times.times[count] - times.start) * TIME_UNIT)
                header = b"P6\n%d %d\n255\n" % size
                stdin.write(struct.pack("<IQ", len(header) + frame.nbytes, time) + header)
                stdin.write(np.ascontiguousarray(frame).data)
                count += 1

            try:
                stdin.write(_ivf_header(size, unit))
                yield write
                stdin.close()
                failed = process.wait() != 0
            except BrokenPipeError:
                process.wait()
                failed = True
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                with suppress(BrokenPipeError):
                    stdin.close()
            if failed:
                raise UserError(f"ffmpeg cannot write the {path.suffix} video: {first_line(errors, path)}")


@lru_cache
def _option_of_times(ffmpeg: str) -> str:
    """Return the option that keeps frames and their times as they come; its name changed with version 5.1."""
    said = subprocess.run([ffmpeg, "-version"], capture_output=True, stdin=subprocess.DEVNULL, check=False).stdout
    version = re.match(rb"ffmpeg version n?(\d+)\.(\d+)", said)  # others are built from the newest source
    return "-vsync" if version and (int(version[1]), int(version[2])) < (5, 1) else "-fps_mode"


def colours_of(stream: dict[str, Any]) -> Colours:
    """Return how samples become colours; where the file does not say, as players take it: BT.709 from HD on."""
    tags = tuple(str(stream.get(key, UNKNOWN)) for key in ("color_range", "color_primaries", "color_transfer"))
    space = str(stream.get("color_space", UNKNOWN))
    high_definition = int(stream.get("width", 0)) >= 1280 or int(stream.get("height", 0)) > 576
    matrix = MATRICES.get(space, "bt709" if high_definition else "bt601")
    pixels = str(stream.get("pix_fmt", ""))
    is_rgb = space in ("gbr", "rgb") or pixels.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "pal8"))
    if is_rgb:  # the result is not: it says how it was made
        return Colours(matrix, False, ("tv", tags[1], tags[2], "bt709" if high_definition else "smpte170m"))
    full = tags[0] == "pc" or pixels.startswith("yuvj")
    return Colours(matrix, full, (tags[0], tags[1], tags[2], space if space in MATRICES else UNKNOWN))


def _written(stream: dict[str, Any], size: tuple[int, int], encoder: Encoder) -> list[str]:
    """Return options for colours and the shape of pixels as in the source."""
    colours = colours_of(stream)
    full = colours.full and encoder.names_range
    odd = size[0] % 2 or size[1] % 2
    # Half the resolution in colour is what players expect.
    pixels = "yuv444p" if odd and not encoder.halves_any_size else "yuv420p"
    shown, primaries, transfer, matrix = colours.tags
    shown = ("pc" if full else "tv") if shown != UNKNOWN or colours.full else UNKNOWN
    tags = {"range": shown, "color_primaries": primaries, "color_trc": transfer, "colorspace": matrix}
    filters = [
        f"scale=out_color_matrix={colours.matrix}:out_range={'pc' if full else 'tv'}:{WRITTEN_FLAGS}",
        f"format={pixels}",
        f"setparams={':'.join(f'{key}={value}' for key, value in tags.items())}",
    ]
    if shape := _fraction(stream.get("sample_aspect_ratio"), ":"):
        if size[0] == stream.get("height") and size[1] == stream.get("width") and size[0] != size[1]:  # turned
            shape = 1 / shape
        filters.append(f"setsar={shape.numerator}/{shape.denominator}")
    options = {"-color_range": shown, "-color_primaries": primaries, "-color_trc": transfer, "-colorspace": matrix}
    named = [word for option, value in options.items() if value != UNKNOWN for word in (option, value)]
    return ["-vf", ",".join(filters), *named]


def _ivf_header(size: tuple[int, int], unit: Fraction) -> bytes:
    """Return the header of IVF, the simplest container whose frames have times; these are PPM pictures."""
    return struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, b"PPM ", *size, unit.numerator, unit.denominator, 0, 0)


def _read_ppm(stream: IO[bytes]) -> Picture | None:
    """Read the next picture of the stream, (H, W, 3) RGB uint8; None at its end."""
    if not stream.readline():  # P6
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()  # the largest value, 255
    content = stream.read(width * height * 3)
    if len(content) < width * height * 3:
        return None
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def _fraction(text: object, between: str = "/") -> Fraction | None:
    """Read a positive fraction as ffprobe writes it; None for 0 and nothing."""
    with suppress(ValueError, ZeroDivisionError):
        numerator, _, denominator = str(text).partition(between)
        value = Fraction(int(numerator), int(denominator))
        return value if value > 0 else None
    return None


def first_line(errors: IO[bytes], path: Path, kind: re.Pattern[str] | None = None) -> str | None:
    """Return what ffmpeg complained of first, which tells the most; None where it did not.

    Args:
        errors: what it wrote.
        path: of the file, which is left out.
        kind: of complaints that count; default: all.
    """
    errors.seek(0)
    lines = errors.read(2**16).decode(errors="replace").strip().splitlines()
    line = next((line for line in lines if kind is None or kind.search(line)), None)
    if line is None:
        return None
    plain = re.sub(r"^(\[[^]]*? @ 0x[0-9a-f]+\] )?(\[\w+\] )?", "", line)
    return plain.replace(f"{file_word(path)}: ", "").strip()
