"""Stores where they lie: on file systems that nobody may write to, and copied to the node's own disk."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from basicsr.data import build_dataset
from PIL import Image

from drsformer_arch.data.prepare.preparation import prepare_dataset
from drsformer_arch.data.store.environments import forget
from drsformer_arch.data.store.staging import stage_store
from drsformer_arch.data.store.store import Store, verify_store
from drsformer_arch.system.errors import UserError
from tests.runs import PROCESSES, drsformer, write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store of six shards, 9 MB."""
    root, rng = tmp_path_factory.mktemp("staging"), np.random.default_rng(0)
    for index in range(6):
        for part in ("input", "target"):
            (root / part).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (500, 500, 3), np.uint8)).save(root / part / f"{index}.png")
    prepare_dataset(
        "pairs", [root / "input", root / "target"], root / "noise", output="raw", shard_size=10**6, workers=2
    )
    return root / "noise/train.lmdb"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount something at a folder of its own, which is returned."""
    places = []

    def at(name: str, *arguments: object) -> Path:
        place = tmp_path / name
        place.mkdir()
        command = ["mount", *map(str, arguments), str(place)]
        if shutil.which("mount") is None or os.getuid() or subprocess.run(command, check=False).returncode:
            pytest.skip("no permission to mount a disk")
        places.append(place)
        return place

    yield at
    for place in places:
        forget(place)
        subprocess.run(["umount", "-l", place], check=False)


def read_only(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (place / "file").touch()


def sample(index: int, **source: object) -> Any:
    section = {"type": "PairedRainDataset", "name": "n", "phase": "train", "scale": 1, "gt_size": 64, **source}
    random.seed(index)
    return build_dataset(section)[index]


def stage(store: Path, disk: Path, said: Any, go_on: Any) -> None:
    """Stage in a process of its own, which tells what it says and waits to be told to go on."""

    def say(line: str) -> None:
        said.put(line)
        assert go_on.wait(60)

    stage_store(store, str(disk), say)


def test_nothing_is_written_where_data_lie(store, pairs, options, mount, tmp_path):
    shared = mount("shared", "--bind", store.parent)
    read_only(shared)
    sample(0, dataroot=str(pairs))  # the same files, open in this process by another path
    basicsr = mount("basicsr", "--bind", pairs)
    read_only(basicsr)
    lmdbs = {"dataroot_lq": str(basicsr / "input.lmdb"), "dataroot_gt": str(basicsr / "target.lmdb")}
    assert sample(1, **lmdbs)["lq"].equal(sample(1, dataroot=str(basicsr))["lq"])
    assert verify_store(shared / "train.lmdb") == (6, [])
    options["datasets"] = {
        "train": {
            "type": "PairedRainDataset",
            "dataroot": str(shared / "train.lmdb"),
            "stage": str(tmp_path / "scratch"),
            "gt_size": 16,
            "batch_size_per_gpu": 1,
            "num_worker_per_gpu": 1,
        }
    }
    options["train"]["total_iter"] = 2
    del options["val"]
    said = drsformer(tmp_path, "train", "-opt", write(tmp_path, options))
    (copy,) = (tmp_path / "scratch").iterdir()
    assert f"{shared}/train.lmdb was copied to {copy}: 6 of 6 files, 0.01 GB in" in said
    assert verify_store(copy) == (6, [])
    source = {"dataroot": str(shared / "train.lmdb")}
    for index in range(6):
        direct, staged = (sample(index, **source, **more) for more in ({}, {"stage": str(tmp_path / "scratch")}))
        assert direct["lq"].equal(staged["lq"])
        assert direct["lq_path"] == staged["lq_path"]


def test_of_two_processes_one_copies(store, tmp_path):
    said, go_on = PROCESSES.Queue(), PROCESSES.Event()
    both = [PROCESSES.Process(target=stage, args=(store, tmp_path, said, go_on)) for _ in range(2)]
    for process in both:
        process.start()
    lines = {said.get(timeout=60), said.get(timeout=60)}  # the first holds its lock until it may go on
    go_on.set()
    lines.add(said.get(timeout=60))
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    (copy,) = tmp_path.iterdir()
    assert sum(f"{store} was copied to {copy}: 6 of 6 files" in line for line in lines) == 1
    assert f"waiting for another process, which copies {store} to {copy}" in lines
    assert f"{store} is read from its copy {copy}, which was there: 6 pairs" in lines


def test_what_a_killed_copy_left_is_used(store, tmp_path):
    said, go_on = PROCESSES.Queue(), PROCESSES.Event()
    process = PROCESSES.Process(target=stage, args=(store, tmp_path, said, go_on))
    process.start()
    while not list(tmp_path.glob("*/shard-*.mdb")):
        assert process.is_alive()
    process.kill()
    process.join()
    (copy,) = tmp_path.iterdir()
    # The power failed, too: a file that has its name and lacks its content, one that was still being written.
    last = copy / Store(store).shards[-1].file
    last.write_bytes(bytes((store / last.name).stat().st_size))
    (copy / ".shard-00004.drsformer-0123abcd.tmp").write_bytes(b"half")
    (copy / "store.json").unlink(missing_ok=True)
    lines: list[str] = []
    assert stage_store(store, str(tmp_path), lines.append) == copy
    assert int(lines[0].split(": ")[1].split(" of 6 files")[0]) < 6
    assert verify_store(copy) == (6, [])
    assert not list(copy.glob("*.tmp"))
    # What changed since is copied again, and nothing else.
    forget(copy)
    last.write_bytes(bytes(last.stat().st_size))
    stage_store(store, str(tmp_path), lines.append)
    assert "1 of 6 files" in lines[1]
    assert verify_store(copy) == (6, [])
    forget(copy)


def test_parts_and_damage(store, tmp_path):
    part = tmp_path / "part.lmdb"
    shutil.copytree(store, part)
    file = part / "shard-00002.mdb"
    content = file.read_bytes()
    file.unlink()
    disk = str(tmp_path / "disk")
    with pytest.raises(UserError, match="1 of 6 shards are missing"):
        stage_store(part, disk, print)
    said: list[str] = []
    copy = stage_store(part, disk, said.append, partial=True)
    assert "5 of 5 files" in said[0]
    assert verify_store(copy) == (5, ["shard-00002.mdb"])
    file.write_bytes(content[:10_000] + b"?" + content[10_001:])
    with pytest.raises(UserError, match=rf"{file} is damaged: its CRC-32 is \w+, not \w+; copy it again"):
        stage_store(part, disk, said.append)
    file.write_bytes(content[:-4096])
    with pytest.raises(UserError, match=f"{file} was cut short"):
        stage_store(part, disk, said.append)
    file.write_bytes(content)
    stage_store(part, disk, said.append)
    assert "1 of 6 files" in said[1]
    assert verify_store(copy) == (6, [])
    forget(copy)
    with pytest.raises(UserError, match="input is no store, and only stores are staged"):
        stage_store(store.parent.parent / "input", disk, print)
    with pytest.raises(UserError, match=r"names the environment variable \$NO_SUCH, which is not set"):
        stage_store(store, "$NO_SUCH/disk", print)
    for place in ("", "~nobody_of_this_name/disk", str(store / "disk")):
        with pytest.raises(UserError, match=r"option stage: .* on the node's own disk"):
            stage_store(store, place, print)


def test_a_disk_without_room_or_right(store, mount):
    disk = mount("disk", "-t", "tmpfs", "-o", "size=8m", "small")
    with pytest.raises(UserError, match=rf"{disk} has no room for {store}: 0.01 GB are needed, 0.01 GB are free"):
        stage_store(store, str(disk), print)
    assert not list(disk.iterdir())
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(UserError, match=rf"cannot copy {store} to {disk}/\S+: Read-only file system"):
        stage_store(store, str(disk), print)
