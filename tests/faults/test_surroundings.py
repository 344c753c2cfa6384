"""What machines do to a training: full and vanishing disks, clocks that jump, files that rot. All real, none mocked."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_checkpoints import newest, start, until
from tests.runs import assert_same, drsformer, everything, write

TOTAL = 12
MB = 1_000_000


@pytest.fixture(scope="module")
def left() -> dict:
    """Hold what the one unbroken training of this module leaves, once it ran."""
    return {}


@pytest.fixture
def whole(options, left, tmp_path) -> dict:
    """Return what an unbroken training leaves; the fixture `options` become its options."""
    options["train"] |= {"total_iter": TOTAL, "ema_decay": 0.9}
    options["logger"] |= {"save_checkpoint_freq": 1, "save_best": "psnr", "keep_checkpoints": 4}
    options["val"]["val_freq"] = 5
    if not left:
        folder = tmp_path / "whole"
        folder.mkdir()
        drsformer(folder, "train", "-opt", write(folder, options))
        left |= everything(folder / "experiments/small", TOTAL)
    return left


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """Mount a small disk of its own at the folder `experiments`."""
    folder = tmp_path / "broken/experiments"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "small", str(folder)]
    if shutil.which("mount") is None or os.getuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("no permission to mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False, stderr=subprocess.DEVNULL)


def ended(process: subprocess.Popen, log: Path) -> str:
    """Wait for a training that must stop as for a user's mistake, and return its last line."""
    code, said = process.wait(120), log.read_text()
    assert code == 2, said[-3000:]
    assert "Traceback" not in said, said[-3000:]
    assert "Logging error" not in said, said[-3000:]
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: "), said[-3000:]
    return last


def test_a_disk_that_is_full_read_only_or_gone(disk, whole, options, tmp_path, fault):
    folder, states = disk.parent, disk / "small/training_states"
    write(folder, options)
    with fault("disk full"):
        assert "No space left" in ended(start(folder, "--auto_resume"), folder / "log")
        assert newest(states) > 0
        assert not list(disk.glob("*/*/*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)

    def breaks(name: str, *command: object) -> str:
        (folder / "log").write_text("")
        before = newest(states)
        process = start(folder, "--auto_resume")
        until(lambda: newest(states) > before, process, folder / "log")
        # A disk on which a file is just being written cannot become read-only.
        until(lambda: not subprocess.run([*map(str, command)], check=False).returncode, process, folder / "log")
        last = ended(process, folder / "log")
        assert str(disk) in last, (name, last)
        return last

    with fault("read-only disk"):
        subprocess.run(["mount", "--bind", states, states], check=True)
        breaks("read-only", "mount", "-o", "remount,bind,ro", states)
        subprocess.run(["umount", states], check=True)
    copy = tmp_path / "copy"
    with fault("disk unplugged"):
        shutil.copytree(disk, copy)
        breaks("gone", "umount", "-l", disk)
        shutil.rmtree(disk)
        shutil.copytree(copy, disk)
    drsformer(folder, "train", "-opt", "small.yml", "--auto_resume")
    assert_same(whole, everything(disk / "small", TOTAL))


def test_a_clock_that_jumps(whole, options, tmp_path, fault):
    """Years ahead and back at every look, and files whose times say nothing."""
    jumps = tmp_path / "jumps"
    jumps.mkdir()
    (jumps / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "now, jumps = time.time, itertools.cycle([0, 3e8, -3e8, 1e6])\n"
        "time.time = lambda: now() + next(jumps)\n"
    )
    folder = tmp_path / "broken"
    folder.mkdir()
    write(folder, options)
    states = folder / "experiments/small/training_states"
    with fault("clock that jumps"):
        environment = {"PYTHONPATH": str(jumps)}
        process = start(folder, "--auto_resume", environment=environment)
        until(lambda: newest(states) >= 4, process, folder / "log")
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in folder.glob("experiments/small/*/*"):
            os.utime(path, (4e9, 4e9 - int("".join(filter(str.isdigit, path.stem)) or 0)))  # the oldest looks newest
        process = start(folder, "--auto_resume", environment=environment)
        assert process.wait(120) == 0, (folder / "log").read_text()[-3000:]
        assert_same(whole, everything(folder / "experiments/small", TOTAL))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_rots(workers, whole, options, pairs, tmp_path, fault):  # noqa: PLR0917 - fixtures
    folder = tmp_path / "broken"
    shutil.copytree(pairs, folder)
    options["datasets"]["train"] |= {
        "dataroot_lq": str(folder / "input"),
        "dataroot_gt": str(folder / "target"),
        "num_worker_per_gpu": workers,
    }
    write(folder, options)
    rotten = folder / "input/07.png"
    content = rotten.read_bytes()
    with fault("picture that rots"):
        rotten.write_bytes(content[:2000])
        assert f"picture {rotten} cannot be read" in ended(start(folder), folder / "log")
        rotten.write_bytes(content)
        drsformer(folder, "train", "-opt", "small.yml", "--auto_resume")
        assert_same(whole, everything(folder / "experiments/small", TOTAL))
