"""Several real processes (gloo, CPU): the same losses, the same scores, and what happens when one dies."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.distributed import HashStore

from drsformer_arch.bridge import repairs
from drsformer_arch.bridge.peers import Peers
from drsformer_arch.restore.restorer import Restorer
from drsformer_arch.system.errors import UserError
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
def test_networks_train_together_whose_layers_no_loss_needs(name, options, pairs, tmp_path):
    """Those of pictures that are not compared, and what makes a prior that nobody reads; batch norms beside."""
    options["network_g"] = {"type": name, **small_arguments()[name]}
    options["train"] |= {"effective_batch_size": 4, "total_iter": 3}
    options["datasets"]["train"] |= {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    options["logger"]["save_checkpoint_freq"] = options["val"]["val_freq"] = 3
    options["val"]["save_img"] = True
    write(tmp_path, options)
    together = losses(run(tmp_path, 2))
    assert len(together) == 3
    assert all(math.isfinite(float(value)) for value in together.values())
    # Both processes derain with the network that is saved: running statistics are those of the first.
    restorer = Restorer(tmp_path / "experiments/small/models/net_g_3.pth")
    for path in (tmp_path / "experiments/small/visualization").glob("*/*.png"):
        rainy, derained = (
            cv2.imread(str(one))[..., ::-1] for one in (pairs / "input" / f"{path.parent.name}.png", path)
        )
        assert np.mean(restorer(rainy) != derained) < 1e-3


def wait_for(condition: Callable[[], bool], job: subprocess.Popen, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        said = (folder / "log").read_text()
        assert job.poll() is None, said[-2000:]
        assert time.monotonic() < deadline, said[-2000:]
        time.sleep(0.02)


def kill_second_process(job: subprocess.Popen) -> None:
    for child in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split():
        if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes():
            os.kill(int(child), signal.SIGKILL)
            return
    raise AssertionError("there is no second process")


def short_steps(options: dict) -> None:
    """Begin a training that lasts, one picture in each of two processes."""
    options["train"] |= {"effective_batch_size": 2, "total_iter": 100000}
    options["train"]["scheduler"]["periods"] = [4, 100000]
    options["datasets"]["train"] |= {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    options["logger"]["save_checkpoint_freq"] = 2
    options["val"]["val_freq"] = 100000


def test_more_processes_than_a_queue_holds_may_ask_one_that_never_answers():
    store = HashStore()
    with ThreadPoolExecutor(2) as threads:
        peers = list(threads.map(lambda rank: Peers(store, rank, 2), range(2)))
    for _ in range(200 * len(peers)):
        socket.create_connection(json.loads(store.get("peer_1"))[1:], 1).close()


def test_a_killed_process_ends_the_job(options, tmp_path, fault):
    short_steps(options)
    write(tmp_path, options)
    job = start(tmp_path, 2, 0)
    wait_for((tmp_path / "experiments/small/training_states/4.json").exists, job, tmp_path)
    with fault("kill -9 of one process of a job"):
        kill_second_process(job)
        assert job.wait(LIMIT) == 1
        said = (tmp_path / "log").read_text()
        assert re.search(r"Process 1 \(local rank 1, pid \d+\) was killed by SIGKILL: the training ends", said), said
        assert "error: processes of this training are lost: ended: rank 1 on " in said


def test_a_stopped_job_goes_on_and_survives_a_crash(options, tmp_path, fault):
    """A stop ends with 75 and no traceback; with restarts a killed process costs what follows the last checkpoint."""
    short_steps(options)
    options["datasets"]["train"]["num_worker_per_gpu"] = 2
    options["logger"]["save_checkpoint_freq"] = 100000
    write(tmp_path, options)
    job = start(tmp_path, 2, 3)
    wait_for(lambda: "iter:       3" in (tmp_path / "log").read_text(), job, tmp_path)
    with fault("SIGTERM to a job of 2 processes"):
        job.send_signal(signal.SIGTERM)
        assert job.wait(LIMIT) == 75
        said = (tmp_path / "log").read_text()
        stopped = int(re.search(r"Stopped after iteration (\d+)", said).group(1))
        assert manifest(tmp_path, stopped)["iter"] == stopped
        assert "Traceback" not in said
        assert said.count("SIGTERM") == said.count("Stopped") == 1
        assert "Resuming" not in said
    options["train"]["total_iter"] = total = stopped + 8
    options["logger"]["save_checkpoint_freq"] = 1
    write(tmp_path, options)
    with fault("kill -9 of one process of a job"):
        job = start(tmp_path, 2, 1)
        wait_for((tmp_path / f"experiments/small/training_states/{stopped + 2}.json").exists, job, tmp_path)
        kill_second_process(job)
        assert job.wait(120) == 0
        said = (tmp_path / "log").read_text()
        assert "starting all again (tries left: 1)" in said
        assert said.count("Resuming training from epoch") == 2
        assert list(losses(said)) == list(range(stopped + 1, total + 1))


def test_processes_do_not_share_a_gpu(monkeypatch):
    """Before they meet; those without GPUs may be as many as one likes."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(repairs, "_store_of_this_attempt", lambda: pytest.fail("it was not refused"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"3 processes were started on .*, which has 2 GPUs .*: start 2"):
        repairs.init_dist("pytorch")
    for gpu, processes in ((False, "3"), (True, "2")):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        with pytest.raises(pytest.fail.Exception):
            repairs.init_dist("pytorch", gpu=gpu)


@pytest.mark.parametrize("check", ["yes", "no"])
def test_a_mistake_is_said_once_and_not_started_again(check, options, tmp_path):
    """Each of the two processes finds it where it is not checked first."""
    options["train"]["effective_batch_size"] = 3
    write(tmp_path, options)
    environment = {**several(2, 3), "CHECK": check}
    done = subprocess.run(
        ["bash", str(TRAIN_DISTRIBUTED), "-opt", "small.yml"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == done.stderr.count("error: small.yml: train.effective_batch_size 3") == 1
    assert not (tmp_path / "experiments").exists()


def test_machines_end_together(options, tmp_path, long):
    """The mistake of one, which the other cannot know, ends both; a stop of one saves and stops both."""
    if not long:
        pytest.skip("long: four starts")
    short_steps(options)
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        write(folder, options)
    options["datasets"]["val"]["dataroot_lq"] = "nowhere"
    write(tmp_path / "other", options, "wrong.yml")
    endings = []
    for file in ("wrong.yml", "small.yml"):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            environment = {**several(1, 3), "NODES": "2", "MASTER": f"localhost:{free.getsockname()[1]}"}
        jobs = []
        for folder, option_file in ((tmp_path / "one", "small.yml"), (tmp_path / "other", file)):
            with open(folder / "log", "w") as log:
                command = ["bash", str(TRAIN_DISTRIBUTED), "-opt", option_file]
                jobs.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        if file == "small.yml":
            wait_for(lambda: any("iter:       3" in log.read_text() for log in tmp_path.glob("*/log")), jobs[0], folder)
            jobs[1].send_signal(signal.SIGTERM)
        endings.append([job.wait(120) for job in jobs])
        logs = [(folder / "log").read_text() for folder in (tmp_path / "one", tmp_path / "other")]
        assert not any("Traceback" in log for log in logs)
        if file == "wrong.yml":
            assert "Another machine ended the training (exit code 2)" in logs[0]
            assert "there is no folder nowhere" in logs[1]
    assert endings == [[2, 2], [75, 75]]
