"""Where files are written to: plain files whole or not at all, links followed, devices and pipes written to."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from drsformer_arch.archs.drsformer_arch import DRSformer
from drsformer_arch.cli import main
from drsformer_arch.restore.weights import save_safetensors
from drsformer_arch.system import files
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import atomic_file, atomic_path, write_atomically
from tests.restore.test_derain import picture

NETWORK = {"type": "DRSformer", "dim": 8, "num_blocks": [1, 1, 1, 1], "with_mefc": False}


def read_in_background(pipe: Path) -> Callable[[], bytes]:
    """Read a named pipe while something writes it; the answer waits for its end."""
    content: list[bytes] = []
    thread = threading.Thread(target=lambda: content.append(pipe.read_bytes()), daemon=True)
    thread.start()

    def answer() -> bytes:
        thread.join(60)
        return content[0]

    return answer


def written_by_name(path: Path, content: bytes) -> None:
    """As writers do that want a name, such as those of videos."""
    with atomic_path(path, ".bin") as unfinished:
        unfinished.write_bytes(content)


@pytest.mark.parametrize("write", [write_atomically, written_by_name])
def test_what_is_no_plain_file_is_written_to(write, tmp_path, capfd):
    pipe, device = tmp_path / "pipe", tmp_path / "null"
    os.mkfifo(pipe)
    answer = read_in_background(pipe)
    write(pipe, b"content")
    assert answer() == b"content"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        device.symlink_to(os.devnull)
    write(device, b"content")
    assert stat.S_ISCHR(device.stat().st_mode)
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write(full, b"content")
    capfd.readouterr()
    print("before")
    for path in ("/dev/stdout", "/dev/fd/1", f"/proc/{os.getpid()}/fd/1"):
        write(Path(path), b"content\n")
    assert capfd.readouterr().out == "before\n" + 3 * "content\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "null", "pipe"]


@pytest.mark.parametrize("write", [write_atomically, written_by_name])
def test_links_stay_and_lead_to_the_new_content(write, tmp_path):
    (tmp_path / "deep").mkdir()
    target, link, second = tmp_path / "deep" / "target", tmp_path / "link", tmp_path / "second"
    link.symlink_to("deep/target")
    second.symlink_to("link")
    for content in (b"new where nothing was", b"replaced"):
        write(second, content)
        assert target.read_bytes() == content
        assert link.is_symlink()
        assert second.is_symlink()
    inode = target.stat().st_ino
    write(second, b"again")
    assert target.stat().st_ino != inode, "not replaced in one step"
    link.unlink()
    link.symlink_to("second")
    with pytest.raises(OSError, match="symbolic links"):
        write(second, b"round in a circle")
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_old_content_stays_where_writing_fails(tmp_path):
    path = tmp_path / f"{'long' * 60}.csv"  # near the longest name that disks take
    write_atomically(path, b"old")
    for fails in (atomic_file, atomic_path):
        with pytest.raises(ZeroDivisionError), fails(path):
            1 / 0  # noqa: B018
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OSError, match="No such file") as error:
        write_atomically(tmp_path / "nowhere" / "a.csv", b"")
    assert error.value.filename == str(tmp_path / "nowhere" / "a.csv")


def test_left_overs_of_killed_processes_go_and_those_at_work_stay(tmp_path):
    script = "\n".join(
        [
            "import os, sys, pathlib, drsformer_arch.system.files as files",
            "with files.atomic_path(pathlib.Path(sys.argv[1]), '.mp4') as unfinished:",
            "    unfinished.write_bytes(b'a part')",
            "    print('writing', flush=True)",
            "    sys.stdin.readline()",
        ]
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "a.mp4"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "writing\n"
    stays = tmp_path / ".of.another-program.tmp"
    stays.touch()
    writers[0].kill()
    writers[0].wait()
    assert len(list(tmp_path.iterdir())) == 3
    files.remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert stays.exists()
    writers[1].communicate("go on\n")
    assert (tmp_path / "a.mp4").read_bytes() == b"a part"
    assert len(list(tmp_path.iterdir())) == 2


def test_locks_against_all_are_of_files_open_for_writing(tmp_path):
    """NFS gives no others."""
    file = tmp_path / "file"
    file.touch()
    for path, mode in ((file, os.O_RDWR), (tmp_path, os.O_RDONLY)):
        held = files.lock(path)
        assert fcntl.fcntl(held, fcntl.F_GETFL) & os.O_ACCMODE == mode
        with pytest.raises(BlockingIOError):
            files.lock(path, wait=False)
        os.close(held)


def test_what_is_no_plain_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nothing")
    for path, reason in (("pipe", "a pipe"), ("/dev/zero", "a device"), (".", "a folder"), ("link", "a link to no")):
        with pytest.raises(UserError, match=f"picture .* is {reason}"):
            files.refuse_no_file(tmp_path / path, "picture")
    files.refuse_no_file(tmp_path / "not there")
    (tmp_path / "plain").touch()
    files.refuse_no_file(tmp_path / "plain")


@pytest.fixture
def inputs(tmp_path) -> Path:
    """Two folders of pictures, weights and the log of a training."""
    for folder in ("results", "targets"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), picture(32, 32) // (1 + (folder == "results")))
    network = {key: value for key, value in NETWORK.items() if key != "type"}
    save_safetensors(tmp_path / "net.safetensors", DRSformer(**network).state_dict(), NETWORK)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.jsonl").write_text(
        '{"iter": 1, "lr": 1, "l_pix": 0.5}\n{"iter": 2, "lr": 1, "l_pix": 0.4}\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    ("command", "start"),
    [
        (["evaluate", "results", "targets"], b"picture,"),
        (["report", "results", "targets"], b"<!doctype html>"),
        (["plot", "run"], b"\x89PNG"),
        (["export", "net.safetensors", "--format", "safetensors"], b""),
        (["derain", "results/a.png", "-w", "net.safetensors"], b"\x89PNG"),
    ],
)
def test_every_command_writes_into_pipes_and_to_stdout(command, start, inputs, monkeypatch, capfdbinary):
    monkeypatch.chdir(inputs)
    os.mkfifo("pipe")
    answer = read_in_background(inputs / "pipe")
    assert main([*command, "-o", "pipe"]) == 0
    content = answer()
    assert content[: len(start)].lower() == start.lower()
    assert content
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    capfdbinary.readouterr()
    assert main([*command, "-o", "/dev/stdout"]) == 0
    written = capfdbinary.readouterr()
    assert (written.out[:8], len(written.out)) == (content[:8], len(content)), "something else is in the result"
    assert written.err
