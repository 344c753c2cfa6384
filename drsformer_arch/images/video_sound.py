"""The sound of a video: copied where the new container takes it, otherwise encoded again.

What a container takes depends on the container, the codec and the version of ffmpeg, so it is tried with the first
packets, before a frame is derained.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from drsformer_arch.images.video_containers import file_word, input_words, probe
from drsformer_arch.system.errors import UserError

_PACKETS = "50"  # packets of a trial
ONE_TRACK = (".flv",)  # have no place for a second one


class Track(NamedTuple):
    """A track of sound, as a file describes it."""

    codec: str
    rate: str  # samples per second
    channels: str


def sound_options(ffmpeg: str, ffprobe: str, source: Path, suffix: str, encoders: Sequence[str]) -> list[str]:
    """Return options that put the sound of ffmpeg's second input into a video.

    Args:
        ffmpeg: the program.
        ffprobe: the program.
        source: the second input; tracks without a packet are left out.
        suffix: of the video's container.
        encoders: of sound for it, the usual one first.

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
            for encoder in ("copy", *encoders):
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
    keys = ("codec_name", "sample_rate", "channels")
    return [Track(*(str(stream.get(key, "unknown")) for key in keys)) for stream in probe(ffprobe, path, "a")]
