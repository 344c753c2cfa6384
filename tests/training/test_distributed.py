"""Several real processes (gloo, CPU): the same losses, the same scores, and what happens when one dies."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.golden_weights import small_arguments
from tests.runs import TRAIN_DISTRIBUTED, drsformer, losses, several, train_distributed, write

LIMIT = 60  # seconds within which a job must end after one of its processes was killed


def start(folder: Path, processes: int, restarts: int) -> subprocess.Popen:
    with open(folder / "log", "w") as log:
        command = ["bash", str(TRAIN_DISTRIBUTED), "-opt", "small.yml"]
        return subprocess.Popen(command, cwd=folder, env=several(processes, restarts), stdout=log, stderr=log)


def run(folder: Path, processes: int) -> str:
    """A training that begins anew."""
    shutil.rmtree(folder / "experiments", ignore_errors=True)
    return train_distributed(folder, processes)


def manifest(folder: Path, iteration: int) -> dict:
    return json.loads((folder / f"experiments/small/training_states/{iteration}.json").read_text())


def test_processes_train_and_validate_like_one(options, tmp_path):
    """Losses differ by the order of sums only; scores of equal weights are equal to the bit."""
    options["train"] |= {"effective_batch_size": 4, "total_iter": 4}
    options["datasets"]["train"] |= {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    options["val"]["save_img"] = True
    write(tmp_path, options)
    alone = losses(drsformer(tmp_path, "train", "-opt", "small.yml"))
    together = losses(run(tmp_path, 2))
    assert {key: float(value) for key, value in together.items()} == pytest.approx(
        {key: float(value) for key, value in alone.items()}, rel=2e-4
    )

    del options["train"]["effective_batch_size"]  # no multiple of three processes
    options["train"]["optim_g"]["lr"] = 0
    options["train"]["scheduler"]["eta_mins"] = [0, 0]
    options["logger"]["save_checkpoint_freq"] = options["train"]["total_iter"] = 1
    options["val"]["val_freq"] = 1
    write(tmp_path, options)
    drsformer(tmp_path, "train", "-opt", "small.yml")
    scores = manifest(tmp_path, 1)["best"]
    run(tmp_path, 3)  # 10 pictures: shares of different size
    assert manifest(tmp_path, 1)["best"] == scores
    assert len(list((tmp_path / "experiments/small/visualization").iterdir())) == 10


@pytest.mark.parametrize("name", ["NeRDRain", "FADformer"])
def test_networks_train_together_whose_layers_no_loss_needs(name, options, tmp_path):
    """Those of pictures that are not compared, and what makes a prior that nobody reads; batch norms beside."""
    options["network_g"] = {"type": name, **small_arguments()[name]}
    options["train"] |= {"effective_batch_size": 4, "total_iter": 3}
    options["datasets"]["train"] |= {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    options["datasets"].pop("val")
    options.pop("val")
    write(tmp_path, options)
    together = losses(run(tmp_path, 2))
    assert len(together) == 3
    assert all(math.isfinite(float(value)) for value in together.values())


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_killed_process_ends_the_job_or_starts_it_again(restarts, options, tmp_path, fault):
    options["train"] |= {"effective_batch_size": 2, "total_iter": 100000 if restarts == 0 else 12}
    options["train"]["scheduler"]["periods"] = [4, 100000]
    options["datasets"]["train"] |= {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    options["logger"]["save_checkpoint_freq"] = 2
    options["val"]["val_freq"] = 100000
    write(tmp_path, options)
    job = start(tmp_path, 2, restarts)
    states = tmp_path / "experiments/small/training_states"
    deadline = time.monotonic() + 120
    while not (states / "4.json").exists():
        assert job.poll() is None, (tmp_path / "log").read_text()[-2000:]
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.02)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    by_rank = {
        re.search(rb"\0RANK=(\d)", Path(f"/proc/{child}/environ").read_bytes()).group(1): int(child)
        for child in children
        if b"\0RANK=" in Path(f"/proc/{child}/environ").read_bytes()
    }
    with fault("kill -9 of one process of a job"):
        os.kill(by_rank[b"1"], signal.SIGKILL)
        code = job.wait(LIMIT if restarts == 0 else 120)
        said = (tmp_path / "log").read_text()
        if restarts == 0:
            assert code == 1
            assert re.search(r"Process 1 \(local rank 1, pid \d+\) was killed by SIGKILL", said), said[-3000:]
            assert "error: processes of this training are lost: ended: rank 1 on " in said
        else:
            assert code == 0, said[-3000:]
            assert "starting all again (1 tries left)" in said
            assert "Resuming training from epoch" in said
            assert (states / "12.json").exists()


def test_a_stopped_job_goes_on(options, tmp_path, fault):
    options["train"] |= {"effective_batch_size": 2, "total_iter": 100000}
    options["train"]["scheduler"]["periods"] = [4, 100000]
    options["datasets"]["train"] |= {"num_worker_per_gpu": 2, "batch_size_per_gpu": 1}
    options["logger"]["save_checkpoint_freq"] = options["val"]["val_freq"] = 100000
    write(tmp_path, options)
    job = start(tmp_path, 2, 3)
    deadline = time.monotonic() + 120
    while "iter:       3" not in (tmp_path / "log").read_text():
        assert job.poll() is None, (tmp_path / "log").read_text()[-2000:]
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.05)
    with fault("SIGTERM to a job of 2 processes"):
        job.send_signal(signal.SIGTERM)
        assert job.wait(LIMIT) == 75
        said = (tmp_path / "log").read_text()
        stopped = int(re.search(r"Stopped after iteration (\d+)", said).group(1))
        assert "Traceback" not in said
        assert said.count("SIGTERM") == said.count("Stopped") == 1
        assert manifest(tmp_path, stopped)["iter"] == stopped
        assert "Resuming" not in said
        options["train"]["total_iter"] = stopped + 2
        write(tmp_path, options)
        job = start(tmp_path, 2, 0)
        assert job.wait(120) == 0
        assert list(losses((tmp_path / "log").read_text())) == [stopped + 1, stopped + 2]
