"""The sound of a video: copied where the new container takes it, otherwise encoded again.

What a container takes depends on the container, the codec and the version of ffmpeg, so it is tried with the first
packets, before a frame is derained.
"""

import json
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from drsformer_arch.images.video_containers import file_word, input_words
from drsformer_arch.system.errors import UserError

_PACKETS = "50"  # packets of a trial
AAC = ("aac",)
MP2 = ("mp2",)
WMA = ("wmav2", "libmp3lame")
# Of every container: the usual one, and one where that does not take these channels or is not built in
SOUND_ENCODERS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv", ".3gp", ".3g2", ".ts", ".mts", ".m2ts", ".flv"), AAC),
    ".avi": ("libmp3lame", "pcm_s16le"),
    ".webm": ("libopus", "libvorbis"),
    **dict.fromkeys((".mpg", ".mpeg", ".vob"), MP2),
    **dict.fromkeys((".wmv", ".asf"), WMA),
    ".ogv": ("libvorbis", "libopus"),
}
ONE_TRACK = (".flv",)  # have no place for a second one


class Track(NamedTuple):
    """What a file says of a track of sound."""

    codec: str
    rate: str  # samples per second
    channels: str


def sound_options(ffmpeg: str, ffprobe: str, source: Path, suffix: str) -> list[str]:
    """Return options that put the sound of ffmpeg's second input into a video.

    Args:
        ffmpeg: the program.
        ffprobe: the program.
        source: the second input; tracks without a packet are left out.
        suffix: of the video's container.

    Raises:
        UserError: a track can neither be copied nor encoded.
    """
    options: list[str] = []
    count = 0
    for index, given in enumerate(_tracks(ffprobe, source)):
        track = [ffmpeg, "-v", "error", "-nostdin", *input_words(source), "-map", f"0:a:{index}"]
        command = [*track, "-c", "copy", "-frames:a", "1", "-f", "framecrc", "-"]
        first = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
        empty = not any(line[:1].isdigit() for line in first.splitlines())
        if empty or (count and suffix in ONE_TRACK):
            continue
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder) / f"sound{suffix}"
            for encoder in ("copy", *SOUND_ENCODERS[suffix]):
                command = [*track, "-y", "-c:a", encoder, "-frames:a", _PACKETS, file_word(trial)]
                failed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode
                arrived = [] if failed else _tracks(ffprobe, trial)  # some take it as unknown data, or change its rate
                if arrived and (encoder != "copy" or arrived == [given]):
                    break
            else:
                raise UserError(
                    f"the sound of video {source} ({given.codec}) can neither be copied into a {suffix} video nor be "
                    f"encoded for it by this ffmpeg; a .mkv video takes more kinds"
                )
        options += ["-map", f"1:a:{index}", f"-c:a:{count}", encoder]
        count += 1
    return options


def _tracks(ffprobe: str, path: Path) -> list[Track]:
    command = [ffprobe, "-v", "quiet", "-select_streams", "a", "-show_streams", "-of", "json", *input_words(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    with suppress(ValueError, LookupError):
        streams = json.loads(done.stdout)["streams"]
        return [
            Track(*(str(stream.get(key, "unknown")) for key in ("codec_name", "sample_rate", "channels")))
            for stream in streams
        ]
    return []
