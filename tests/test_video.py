"""`drsformer derain` on real videos, with ffmpeg where it is installed, and without."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from drsformer_arch import archs
from drsformer_arch.cli import main
from drsformer_arch.inference.video import derain_video
from tests.golden_weights import load_golden_weights

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(not FFMPEG, reason="no ffmpeg here")
FRAMES = 7


def frames(height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A photograph that moves, RGB."""
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
    assert len(result) == FRAMES and result[0].shape == (48, 64, 3)
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
    assert "Audio: aac" in notes and "29.97 fps" in notes


def run_ffmpeg(folder: Path, arguments: str, check: bool = True) -> bool:
    command = [FFMPEG, "-v", "error", *arguments.split()]
    return not subprocess.run(command, cwd=folder, check=check, capture_output=True).returncode


def decoded(path: Path) -> np.ndarray:
    """(frames, H, W, 3) RGB, by ffmpeg as raw pictures; upright ones are 65 high and 50 wide."""
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


@pytest.mark.parametrize("ffmpeg", [pytest.param(True, marks=needs_ffmpeg), False])
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
    assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2
