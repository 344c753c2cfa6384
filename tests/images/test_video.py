"""`drsformer derain` on real videos, with ffmpeg where it is installed, and without."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from drsformer_arch import archs
from drsformer_arch.cli import main
from drsformer_arch.images import video_by_ffmpeg
from drsformer_arch.images.video import derain_video
from drsformer_arch.images.video_containers import refuse_cut
from drsformer_arch.system.errors import UserError
from tests.golden_weights import load_golden_weights

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(not FFMPEG, reason="no ffmpeg here")
FRAMES = 7


def frames(height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Yield a photograph that moves, RGB."""
    whole = cv2.resize(data.astronaut(), (2 * width, 2 * height), interpolation=cv2.INTER_AREA)
    return [whole[index : index + height, 2 * index : 2 * index + width] for index in range(FRAMES)]


def write_video(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (64, 48))
    for frame in frames():
        writer.write(frame[..., ::-1].copy())
    writer.release()


def read_video(path: Path) -> list[np.ndarray]:
    video, found = cv2.VideoCapture(str(path)), []
    while (answer := video.read())[0]:
        found.append(answer[1][..., ::-1])
    return found


def without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(load_golden_weights(archs.DRSformer(dim=8, num_blocks=(1, 1, 1, 1), with_mefc=False)).state_dict(), path)
    return path


@pytest.mark.parametrize("ffmpeg", [pytest.param(True, marks=needs_ffmpeg), False])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
def test_every_frame_is_derained_once_and_in_order(suffix, ffmpeg, tmp_path, monkeypatch):
    if not ffmpeg:
        without_ffmpeg(monkeypatch)
    source, target = tmp_path / "a.avi", tmp_path / f"b{suffix}"
    write_video(source)
    seen: list[int] = []

    def darker(group: list[np.ndarray]) -> list[np.ndarray]:
        seen.append(len(group))
        return [frame // 2 for frame in group]

    assert derain_video(source, target, darker, batch=3) == FRAMES
    assert seen == [3, 3, 1]
    given, result = read_video(source), read_video(target)
    assert len(result) == FRAMES
    assert result[0].shape == (48, 64, 3)
    for before, after in zip(given, result, strict=True):
        assert np.abs(after.astype(int) - before // 2).mean() < 6, "a frame is missing, or colours changed"
    assert cv2.VideoCapture(str(target)).get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(["a.avi", target.name])


@needs_ffmpeg
def test_sound_rotation_odd_sizes_and_colours_are_kept(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    inputs = "-f lavfi -i testsrc=size=65x50:rate=30000/1001:duration=0.4 -f lavfi -i sine=duration=0.4"
    colours = "-vf scale=out_color_matrix=bt709,format=yuv444p -colorspace bt709"
    run_ffmpeg(tmp_path, f"{inputs} {colours} plain.mp4")
    for how in ("-i plain.mp4 -metadata:s:v:0 rotate=90", "-display_rotation 90 -i plain.mp4"):  # old and new ffmpeg
        if run_ffmpeg(tmp_path, f"{how} -c copy -y a.mp4", check=False) and decoded(source).shape[1] == 65:
            break
    assert derain_video(source, target, lambda group: group) == 12
    given, result = decoded(source), decoded(target)
    assert given.shape == result.shape == (12, 65, 50, 3)
    assert np.abs(given.astype(int) - result).mean() < 4
    notes = subprocess.run([FFMPEG, "-i", target], check=False, capture_output=True, text=True).stderr
    assert "Audio: aac" in notes
    assert "29.97 fps" in notes


def run_ffmpeg(folder: Path, arguments: str, check: bool = True) -> bool:
    command = [FFMPEG, "-v", "error", *arguments.split()]
    return not subprocess.run(command, cwd=folder, check=check, capture_output=True).returncode


def decoded(path: Path) -> np.ndarray:
    """Decode to (frames, H, W, 3) RGB, by ffmpeg as raw pictures; upright ones are 65 high and 50 wide."""
    command = [FFMPEG, "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8)
    height, width = read_video(path)[0].shape[:2]
    return raw.reshape(-1, height, width, 3)


def test_the_command_takes_pictures_and_videos(weights, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "street.avi")
    cv2.imwrite(str(tmp_path / "in" / "photo.png"), frames()[0])
    (tmp_path / "in" / "text.mp4").write_text("no video")
    run = ["derain", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-w", str(weights)]
    assert main(run) == 1
    said = capsys.readouterr()
    assert "2 of 3 files derained" in said.out
    assert said.err.count("text.mp4 cannot be read: it is damaged or of an unknown kind") == 1
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["photo.png", "street.avi"]
    assert main(["derain", str(tmp_path / "in" / "street.avi"), "-o", str(tmp_path / "one.mp4"), *run[4:]]) == 0
    assert len(read_video(tmp_path / "one.mp4")) == FRAMES


BOTH_WAYS = pytest.mark.parametrize("ffmpeg", [pytest.param(True, marks=needs_ffmpeg), False])
PLAIN = "-f lavfi -i testsrc=size=64x48:rate=25:duration=0.4 -pix_fmt yuv420p"


def unchanged(group: list[np.ndarray]) -> list[np.ndarray]:
    return group


def write_photograph(path: Path, width: int, height: int) -> np.ndarray:
    """Write a photograph without edges, which colours of half the resolution would change; RGB."""
    smooth = cv2.GaussianBlur(data.astronaut(), (0, 0), 8)
    photograph = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), photograph[..., ::-1])
    return photograph


def times_of(path: Path) -> list[float]:
    """Read when frames are shown, in s from the first."""
    video, times = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while video.grab():
        times.append(video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return [time - times[0] for time in times]


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "ffmpeg"),
    [*((suffix, True) for suffix in (".mp4", ".webm", ".ts", ".avi")), (".mp4", False), (".webm", False)],
)
def test_frames_of_a_browsers_recording_keep_their_number_and_times(ffmpeg, suffix, tmp_path, monkeypatch):
    """They come when they come, and the file claims 1000 per second."""
    irregular = "setpts='(N*30+mod(N*N,7)*3+if(gt(N,5),400,0))/1000/TB',settb=1/1000"
    arguments = f"-f lavfi -i testsrc=size=64x48:rate=1000:duration=0.011 -vf {irregular} -fps_mode passthrough"
    source, target = tmp_path / "a.webm", tmp_path / f"b{suffix}"
    run_ffmpeg(tmp_path, f"{arguments} -enc_time_base 1:1000 -c:v libvpx -b:v 1M a.webm")
    if not ffmpeg:
        without_ffmpeg(monkeypatch)
    assert derain_video(source, target, unchanged, batch=4) == 11
    given, result = times_of(source), times_of(target)
    assert len(given) == len(result) == 11
    assert given[6] - given[5] > 0.4
    if ffmpeg and suffix != ".avi":
        assert result == pytest.approx(given, abs=0.0015)
    else:  # a constant rate, the mean
        assert result == pytest.approx(np.linspace(0, given[-1], 11), abs=0.02)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("size", "made", "tags"),
    [
        ("1280x720", "bt709:out_range=tv", ""),
        ("1280x720", "bt709:out_range=tv", "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"),
        ("160x120", "bt601:out_range=tv", ""),
        ("160x120", "bt709:out_range=tv", "-colorspace bt709"),
        ("160x120", "bt601:out_range=pc", "-color_range pc"),
        ("160x120", "bt2020:out_range=tv", "-colorspace bt2020nc -color_primaries bt2020 -color_trc smpte2084"),
    ],
)
def test_colours_mean_after_it_what_they_meant_before(size, made, tags, tmp_path):
    """Samples and what the file says of them stay: players show the same, and the network sees true colours."""
    photograph = write_photograph(tmp_path / "a.png", *map(int, size.split("x")))
    arguments = f"-loop 1 -t 0.08 -i a.png -vf scale=out_color_matrix={made},format=yuv420p {tags} -crf 6 a.mp4"
    run_ffmpeg(tmp_path, arguments)
    seen: list[np.ndarray] = []

    def keep(group: list[np.ndarray]) -> list[np.ndarray]:
        seen.extend(group)
        return group

    derain_video(tmp_path / "a.mp4", tmp_path / "b.mp4", keep)
    assert np.abs(seen[0].astype(int) - photograph).mean() < 1.5, "the network sees other colours"
    samples, described = [], []
    for name in ("a.mp4", "b.mp4"):
        raw = ["-v", "error", "-i", tmp_path / name, "-f", "rawvideo", "-"]
        done = subprocess.run([FFMPEG, *raw], check=True, capture_output=True)
        samples.append(np.frombuffer(done.stdout, np.uint8).astype(int))
        keys = "color_range,color_space,color_transfer,color_primaries,pix_fmt"
        words = ["-v", "error", "-show_entries", f"stream={keys}", "-of", "csv", tmp_path / name]
        described.append(subprocess.run([shutil.which("ffprobe"), *words], check=True, capture_output=True).stdout)
    assert described[0] == described[1]
    assert np.abs(samples[0] - samples[1]).mean() < 1.4
    assert abs((samples[0] - samples[1]).mean()) < 0.1


@needs_ffmpeg
@BOTH_WAYS
def test_10_bits_are_derained_and_pixels_keep_their_shape(ffmpeg, tmp_path, monkeypatch):
    write_photograph(tmp_path / "a.png", 64, 48)
    run_ffmpeg(tmp_path, "-loop 1 -t 0.4 -i a.png -vf format=yuv420p10le,setsar=16/11 -c:v libx264 a.mkv")
    if not ffmpeg:
        without_ffmpeg(monkeypatch)
    assert derain_video(tmp_path / "a.mkv", tmp_path / "b.mp4", unchanged) == 10
    given, result = read_video(tmp_path / "a.mkv"), read_video(tmp_path / "b.mp4")
    assert np.abs(given[0].astype(int) - result[0]).mean() < 4
    if ffmpeg:
        done = subprocess.run([FFMPEG, "-i", tmp_path / "b.mp4"], check=False, capture_output=True, text=True)
        assert "SAR 16:11" in done.stderr


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "ffmpeg"),
    [*((suffix, True) for suffix in (".ts", ".mpg", ".wmv", ".flv")), (".ts", False), (".mpg", False), (".wmv", False)],
)
def test_other_containers_are_videos(suffix, ffmpeg, weights, tmp_path, monkeypatch):
    run_ffmpeg(tmp_path, f"{PLAIN} -q:v 2 a{suffix}" if suffix != ".3gp" else f"{PLAIN} -c:v mpeg4 a.3gp")
    if not ffmpeg:
        without_ffmpeg(monkeypatch)
    assert main(["derain", str(tmp_path / f"a{suffix}"), "-o", str(tmp_path / "out"), "-w", str(weights)]) == 0
    assert len(read_video(tmp_path / "out" / f"a{suffix}")) == 10


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "ffmpeg"),
    [
        ("a.webm", True),
        ("fast.mp4", True),
        *((f"a{suffix}", False) for suffix in (".webm", ".avi", ".wmv", ".flv", ".mpg", ".ts", ".m2ts", ".ogv")),
        *((name, False) for name in ("live.webm", "fast.mp4", "slow.mp4")),
    ],
)
def test_half_a_video_is_no_video(name, ffmpeg, weights, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    options = {"live.webm": "-live 1", "fast.mp4": "-movflags +faststart"}.get(name, "")
    run_ffmpeg(tmp_path, f"{PLAIN} -t 0.4 {options} {name}")
    path, whole = tmp_path / name, (tmp_path / name).read_bytes()
    if not ffmpeg:
        without_ffmpeg(monkeypatch)
    run = ["derain", str(path), "-o", str(tmp_path / "out"), "-w", str(weights)]
    refuse_cut(path)
    for share in (0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole)) // 2 * 2 + 1])
        capsys.readouterr()
        assert main(run) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert f"video {path} " in error, error
        assert not list((tmp_path / "out").glob("*"))


@BOTH_WAYS
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_full_disk_leaves_the_old_video(suffix, ffmpeg, weights, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    source, disk = tmp_path / f"long{suffix}", tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "small", str(disk)]
    if shutil.which("mount") is None or os.getuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("no permission to mount a disk")
    try:
        if not ffmpeg:
            without_ffmpeg(monkeypatch)
        write_video(tmp_path / "short.avi")
        noise = np.random.default_rng(0)
        derain_video(tmp_path / "short.avi", disk / source.name, unchanged)
        codec = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}[suffix]
        writer = cv2.VideoWriter(str(source), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25, (128, 96))
        for _ in range(30):
            writer.write(noise.integers(0, 256, (96, 128, 3), np.uint8))
        writer.release()
        old = (disk / source.name).read_bytes()
        capsys.readouterr()
        assert main(["derain", str(source), "-o", str(disk / source.name), "--overwrite", "-w", str(weights)]) == 1
        said = capsys.readouterr()
        assert "0 of 1 files derained" in said.out, said
        assert said.err.count("error: ") == 1, said
        assert re.search("disk full|No space left", said.err), said.err
        assert (disk / source.name).read_bytes() == old
        assert len(list(disk.iterdir())) == 1
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


@needs_ffmpeg
def test_ffmpegs_telling_line_is_shown(weights, tmp_path, capsys, monkeypatch):
    encoder = video_by_ffmpeg.H264._replace(sound=video_by_ffmpeg.VP9.sound)
    monkeypatch.setitem(video_by_ffmpeg.ENCODERS, ".webm", encoder)
    run_ffmpeg(tmp_path, f"-f lavfi -i sine=duration=0.4 {PLAIN} -c:a aac a.mp4")
    assert main(["derain", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "b.webm"), "-w", str(weights)]) == 1
    assert "Only VP8 or VP9 or AV1 video and Vorbis or Opus audio" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@BOTH_WAYS
def test_a_list_of_other_files_is_no_video(ffmpeg, tmp_path, monkeypatch):
    """FFmpeg would open what it names."""
    if not ffmpeg:
        without_ffmpeg(monkeypatch)
    other = tmp_path / "secret.mp4"
    write_video(tmp_path / "a.avi")
    derain_video(tmp_path / "a.avi", other, unchanged)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n{}\n#EXT-X-ENDLIST\n"
    for text in (playlist.format(f"file://{other}"), playlist.format("secret.mp4"), "ffconcat version 1.0\nfile {}\n"):
        (tmp_path / "list.mp4").write_text(text.format("secret.mp4"))
        with pytest.raises(UserError, match=r"list\.mp4 cannot be read: it is damaged or of an unknown kind$"):
            derain_video(tmp_path / "list.mp4", tmp_path / "b.mp4", unchanged)
    assert not (tmp_path / "b.mp4").exists()


@needs_ffmpeg
@pytest.mark.parametrize(
    ("source", "made", "suffix", "kept"),
    [
        ("a.mp4", "aac", ".webm", "opus"),
        ("a.mkv", "flac", ".mp4", "aac"),
        ("a.webm", "libopus", ".avi", "mp3"),
        ("a.mkv", "libvorbis", ".ts", "aac"),
        ("a.mkv", "pcm_s16le -ar 8000", ".flv", "aac"),
    ],
)
def test_sound_is_encoded_again_where_it_cannot_be_copied(source, made, suffix, kept, tmp_path):
    """All tracks of it; .ts takes Vorbis as data of an unknown kind, .flv 8000 samples per second as 5512."""
    tracks = "-f lavfi -i sine=duration=0.4 -f lavfi -i sine=duration=0.4"
    run_ffmpeg(tmp_path, f"{tracks} {PLAIN} -map 0 -map 1 -map 2 -c:a {made} {source}")
    assert derain_video(tmp_path / source, tmp_path / f"b{suffix}", unchanged) == 10
    done = subprocess.run([FFMPEG, "-i", tmp_path / f"b{suffix}"], check=False, capture_output=True, text=True)
    assert re.findall(r"Audio: (\w+)", done.stderr) == [kept] * (1 if suffix == ".flv" else 2)


@needs_ffmpeg
def test_sound_without_an_encoder_is_refused_before_the_work(tmp_path, monkeypatch):
    encoder = video_by_ffmpeg.VP9._replace(sound=("no_encoder",))
    monkeypatch.setitem(video_by_ffmpeg.ENCODERS, ".webm", encoder)
    run_ffmpeg(tmp_path, f"-f lavfi -i sine=duration=0.4 {PLAIN} -c:a aac a.mp4")
    with pytest.raises(UserError, match=r"the sound of video .*a\.mp4 \(aac\) can neither be copied into a \.webm"):
        derain_video(tmp_path / "a.mp4", tmp_path / "b.webm", lambda _: pytest.fail("derained"))


@BOTH_WAYS
def test_frames_beyond_the_limit_of_pixels_are_refused(ffmpeg, tmp_path, monkeypatch):
    if not ffmpeg:
        without_ffmpeg(monkeypatch)
    source, target = tmp_path / "a.avi", tmp_path / "b.mp4"
    write_video(source)
    monkeypatch.setenv("DRSFORMER_MAX_PIXELS", str(64 * 48 - 1))
    with pytest.raises(UserError, match=r"a\.avi is too large: 64x48 pixels; .*DRSFORMER_MAX_PIXELS"):
        derain_video(source, target, unchanged)
    assert not target.exists()
    monkeypatch.setenv("DRSFORMER_MAX_PIXELS", str(64 * 48))
    assert derain_video(source, target, unchanged) == FRAMES


AS_THE_FILE_IS_MADE = """
import os
first = os.open
def interrupted(path, *rest):
    descriptor = first(path, *rest)
    if ".drsformer-" in str(path):
        os.kill(os.getpid(), signal.SIGTERM)
    return descriptor
os.open = interrupted
"""


@pytest.mark.parametrize(
    ("number", "ffmpeg", "moment"),
    [
        pytest.param(signal.SIGTERM, True, "", marks=needs_ffmpeg),
        (None, False, AS_THE_FILE_IS_MADE),
        (signal.SIGINT, False, ""),
    ],
)
def test_a_signal_leaves_no_temporary_file(number, ffmpeg, moment, weights, tmp_path):
    """In a process of its own; the program's folder is left out of its path where it shall not find ffmpeg."""
    source, out = tmp_path / "a.avi", tmp_path / "out"
    write_video(source)
    # A shell's background jobs ignore Ctrl-C from the start.
    script = "import sys, shutil, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += "from drsformer_arch.cli import main; "
    script += "" if ffmpeg else "shutil.which = lambda _: None; "
    # Frames come one by one, and never all.
    script += (
        "from drsformer_arch.restore.restorer import Restorer; "
        "Restorer.batch = lambda _, frames: time.sleep(0.2) or frames"
    )
    script += f"{moment or chr(10)}sys.exit(main(sys.argv[1:]))"
    arguments = ["derain", source, "-o", out / "a.avi", "-w", weights]
    process = subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    if number:
        while not list(out.glob(".*")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
    assert "Interrupted" in process.communicate()[1]
    assert process.returncode == 130
    assert not list(out.iterdir())


@BOTH_WAYS
def test_an_error_in_the_middle_leaves_the_old_video(ffmpeg, tmp_path, monkeypatch):
    if not ffmpeg:
        without_ffmpeg(monkeypatch)
    source, target = tmp_path / "a.avi", tmp_path / "b.mp4"
    write_video(source)
    target.write_bytes(b"old")
    calls = iter(range(3))

    def fails(group: list[np.ndarray]) -> list[np.ndarray]:
        if next(calls) == 2:
            raise MemoryError
        return group

    with pytest.raises(MemoryError):
        derain_video(source, target, fails)
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
