"""Trouble of the machine while a training runs: one line with what to do, exit code 1, and --auto_resume goes on."""

import ctypes
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from basicsr.utils import misc
from torch.utils.data import get_worker_info

from drsformer_arch.bridge import trouble
from drsformer_arch.bridge.command import explained
from drsformer_arch.bridge.trouble import MachineError, trouble_of
from drsformer_arch.cli import main
from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.data.prepare.preparation import prepare_dataset
from tests.runs import ENVIRONMENT, PROCESSES, assert_same, drsformer, everything, write

TOTAL = 9
NEW_MOUNTS = 0x20000  # CLONE_NEWNS of Linux
MIB = 2**20


def few_handles() -> None:
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def little_memory() -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 40 * MIB, -1))


def read_a_large_picture() -> None:
    little_memory()
    np.ones((100, MIB))


def little_shared_memory() -> None:
    """Give this process and its children a /dev/shm of 64 KiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(NEW_MOUNTS) == 0
    for command in ("--make-rprivate /", "-t tmpfs -o size=64k small /dev/shm"):
        subprocess.run(["mount", *command.split()], check=True)


def in_a_worker(sample: int, act: Callable[[], None], saved_in: Path | None = None) -> None:
    """Let something happen in a process that reads pictures, before its so-manyth sample.

    Args:
        sample: the earliest one.
        act: what happens.
        saved_in: a training's folder, which must hold a new checkpoint first. BasicSR starts a process that it ends
            again before the first iteration: what that one does would meet the next one when it opens its files.
    """
    original, samples = PairedRainDataset.__getitem__, count(1)
    before = checkpoints(saved_in)

    def read(self: PairedRainDataset, index: object) -> object:
        if (
            get_worker_info() is not None
            and next(samples) >= sample
            and (not saved_in or checkpoints(saved_in) > before)
        ):
            act()
        return original(self, index)

    PairedRainDataset.__getitem__ = read


def checkpoints(folder: Path | None) -> int:
    names = folder.glob("experiments/small/training_states/*.state") if folder else ()
    return max((int(path.stem) for path in names), default=0)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cut_short(store: Path) -> None:
    for shard in store.glob("*.mdb"):
        os.truncate(shard, 4096)


def _train(prepare_process: Callable[[], None], folder: Path) -> None:
    os.environ |= ENVIRONMENT
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    multiprocessing.set_start_method("fork", force=True)  # as the command's own, which no server of forks started
    prepare_process()
    sys.exit(main(["train", "-opt", "small.yml", "--auto_resume"]))


def ended(folder: Path, prepare_process: Callable[[], None] = lambda: None) -> str:
    """Run a training that ends in trouble, and return its last line."""
    process = PROCESSES.Process(target=_train, args=(prepare_process, folder))
    process.start()
    return last_line(process, folder)


def last_line(process, folder: Path) -> str:
    process.join(120)
    code, said = process.exitcode, (folder / "log").read_text(errors="replace")
    process.kill()
    assert code == 1, f"{code}: {said[-3000:]}"
    last = said.strip().splitlines()[-1].strip("\0")  # torch ends its line about a bus error so
    assert last.startswith("error: "), said[-3000:]
    assert last.endswith("; --auto_resume goes on from the last checkpoint"), said[-3000:]
    assert "Traceback" not in said, said[-5000:]
    return last


@pytest.fixture
def training(options, pairs, tmp_path) -> tuple[Path, dict]:
    """Return the folder of a training that reads a store in a worker process, and what it leaves if nothing happens."""
    options["train"] |= {"total_iter": TOTAL, "ema_decay": 0.9}
    options["logger"] |= {"save_checkpoint_freq": 1, "save_best": "psnr"}
    options["val"]["val_freq"] = 3
    prepare_dataset("pairs", [pairs / "input", pairs / "target"], tmp_path / "set", output="raw", workers=1)
    (store,) = (tmp_path / "set").glob("*.lmdb")
    options["datasets"]["train"] = {
        "type": "PairedRainDataset",
        "dataroot": str(store),
        "gt_size": 32,
        "batch_size_per_gpu": 2,
        "num_worker_per_gpu": 1,
    }
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, options)
    drsformer(tmp_path / "whole", "train", "-opt", "small.yml")
    return tmp_path / "broken", everything(tmp_path / "whole/experiments/small", TOTAL)


def test_trouble_is_one_line_and_the_training_goes_on(training, fault):
    """One trouble after the other hits the same training, which ends as if there had been none."""
    folder, whole = training
    (store,) = folder.parent.glob("set/*.lmdb")
    copy = shutil.copytree(store, folder / "copy")
    troubles = {
        "killed worker": (
            partial(in_a_worker, 9, be_killed),
            r"reads pictures ended( \(signal Killed\))?, .*num_worker_per_gpu",
        ),
        "file handles": (few_handles, r"too few file handles: .*ulimit -n"),
        "memory": (little_memory, r"not enough memory: .*batch_size_per_gpu"),
        "memory of a worker": (
            partial(in_a_worker, 1, read_a_large_picture),
            r"not enough memory: .*batch_size_per_gpu",
        ),
        "shared memory": (little_shared_memory, r"too little shared memory \(/dev/shm: \d+ MiB free\).*--shm-size"),
        "store cut short": (
            partial(in_a_worker, 3, partial(cut_short, store), folder),
            rf"a file was cut short while it was read: {store}",
        ),
    }
    for kind, (act, message) in troubles.items():
        with fault(f"trouble: {kind}"):
            line = ended(folder, act)
            assert re.search(message, line), line
            (folder / "log").unlink()
    assert store.name in drsformer(folder, "train", "-opt", "small.yml", "--auto_resume", expect=2)  # known before
    shutil.copytree(copy, store, dirs_exist_ok=True)
    drsformer(folder, "train", "-opt", "small.yml", "--auto_resume")
    assert_same(whole, everything(folder / "experiments/small", TOTAL))


def test_runs_that_follow_each_other_within_a_second_are_all_kept(tmp_path):
    folder = tmp_path / "small"
    for number in range(3):
        misc.mkdir_and_rename(str(folder))
        (folder / f"{number}").touch()
    assert len(list(tmp_path.glob("small_archived_*/*"))) == 2
    assert (folder / "2").exists()


def test_a_bus_error_is_not_taken_for_little_shared_memory(pairs, tmp_path):
    store = shutil.copytree(pairs / "input.lmdb", tmp_path / "input.lmdb")
    cut_short(store)
    words = (
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that workers are out of shared memory"
    )
    said = trouble_of(RuntimeError(words), {"train": {"dataroot_lq": str(store)}})
    assert f"a file was cut short while it was read: {store}" in str(said)


def test_a_worker_whose_end_is_told_while_it_is_explained(pairs, tmp_path, monkeypatch):
    """Torch raises that from its handler of SIGCHLD, after the connection to the worker was found closed."""
    store = shutil.copytree(pairs / "input.lmdb", tmp_path / "input.lmdb")
    cut_short(store)
    told, look = [], trouble._cut_short

    def interrupted(root: Path) -> str | None:
        if not told:
            told.append(RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."))
            raise told[0]
        return look(root)

    monkeypatch.setattr(trouble, "_cut_short", interrupted)
    options = {"datasets": {"train": {"dataroot_lq": str(store)}}}
    with pytest.raises(MachineError, match="a file was cut short while it was read"), explained(options):
        raise EOFError
    assert told
    late = RuntimeError("DataLoader worker (pid 8) is killed by signal: Terminated.")
    late.__context__ = MachineError("what was known")
    assert trouble_of(late) == "what was known"


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "reset"), FileNotFoundError(2, "no socket")])
def test_a_worker_that_died_before_torch_noticed(error, tmp_path):
    """It depends on the moment which of these the main process meets."""
    assert "a process that reads pictures ended" in str(trouble_of(error, {"train": {"dataroot": str(tmp_path)}}))
    assert trouble_of(FileNotFoundError(2, "gone", "picture.png"), {"train": {}}) is None


def test_launchers_do_not_repeat_mistakes(tmp_path, monkeypatch, capsys):
    """Every process of a job is told, and ends before it imports anything."""
    note = tmp_path / "given up"
    monkeypatch.setenv("DRSFORMER_GIVEN_UP", str(note))
    assert main(["evaluate", str(tmp_path)]) == 2
    assert note.exists()
    assert str(tmp_path) in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["train", "-opt", "small.yml"])
    assert capsys.readouterr().err == ""
    note.unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["train"])
    assert note.exists()
