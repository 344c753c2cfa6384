"""scripts/train_distributed.sh on two hosts without Slurm, and the cable between them that is cut."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.cluster.hosts import Host, Hosts, wait_until
from tests.cluster.trainings import BEGINS, Training
from tests.runs import TRAIN_DISTRIBUTED, assert_same, drsformer, several

TIMEOUT = 12  # seconds that processes wait for each other
LEAVE = 60  # seconds to say so and to end, on a busy machine


@pytest.fixture
def pair(training) -> Training:
    """Prepare a training of 25 iterations whose processes wait 12 seconds for each other."""
    made = training()
    made.options["dist_params"] = {"timeout_minutes": TIMEOUT / 60}
    made.options["train"]["total_iter"] = 25
    made.options["logger"]["save_checkpoint_freq"] = 5
    made.write()
    return made


class Sides:
    """The command on both hosts, `left` being where they meet."""

    def __init__(self, hosts: Hosts, training: Training, restarts: int = 0) -> None:
        environment = {**several(1, restarts), "NODES": "2", "MASTER": "left"}
        self._logs = {name: training.folder / f"{name}.log" for name in ("left", "right")}
        self.jobs = {}
        for name, log in self._logs.items():
            with open(log, "w") as said:
                command = ["bash", str(TRAIN_DISTRIBUTED), "-opt", training.file]
                self.jobs[name] = hosts[name].start(
                    *command, folder=training.folder, env=environment, stdout=said, stderr=said
                )

    def said(self, name: str) -> str:
        return self._logs[name].read_text()

    def both(self) -> str:
        return "\n".join(f"---- {name}\n{self.said(name)[-3000:]}" for name in self._logs)

    def wait(self, limit: float) -> dict[str, int]:
        """Wait for both, and return their exit codes."""
        wait_until(lambda: all(job.poll() is not None for job in self.jobs.values()), limit, self.both)
        return {name: job.returncode for name, job in self.jobs.items()}

    def wait_for_iteration(self, iteration: int) -> None:
        wait_until(lambda: f"iter: {iteration:7}," in self.said("left"), BEGINS, self.both)


def process_of(host: Host, rank: int) -> int:
    """Find the process of a rank on a host, by its number outside."""
    space = os.readlink(f"/proc/{host.pid}/ns/pid")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "ns/pid") == space and f"\0RANK={rank}\0".encode() in (
                b"\0" + (folder / "environ").read_bytes()
            ):
                return int(folder.name)
        except OSError:  # it has ended
            continue
    raise AssertionError(f"no process with RANK={rank}")


def cut_in_mid_training(hosts: Hosts, sides: Sides, _pair: Training) -> None:
    sides.wait_for_iteration(7)
    hosts.cut("right")


def cut_while_saving(hosts: Hosts, sides: Sides, pair: Training) -> None:
    """Hold the process that saves before its last file, the manifest, is there."""
    sides.wait_for_iteration(1)
    saving = process_of(hosts["left"], 0)

    def is_saving() -> bool:
        said = sides.said("left")
        begun = re.search(r"iter:\s+(\d+), [^\n]*\n[^\n]*Saving models and training states\.\s*$", said)
        return bool(begun) and int(begun[1]) not in pair.saved()

    while True:
        assert sides.jobs["left"].poll() is None, sides.both()
        if is_saving():
            os.kill(saving, signal.SIGSTOP)
            if is_saving():
                break
            os.kill(saving, signal.SIGCONT)
    hosts.cut("right")
    os.kill(saving, signal.SIGCONT)


@pytest.mark.parametrize("cut", [cut_in_mid_training, cut_while_saving])
def test_a_cut_cable_ends_both_sides_and_costs_nothing(cut, hosts, pair, fault, measured):
    if cut is cut_while_saving:
        pair.options["logger"]["save_checkpoint_freq"] = 1
        pair.write()
    sides = Sides(hosts, pair)
    with fault("cable between two hosts is cut"):
        cut(hosts, sides, pair)
        seconds = {}
        begun = time.monotonic()

        def ended() -> bool:
            for name, job in sides.jobs.items():
                if job.poll() is not None:
                    seconds.setdefault(name, time.monotonic() - begun)
            return len(seconds) == 2

        wait_until(ended, TIMEOUT + LEAVE, sides.both)
        for name, after in seconds.items():
            measured(f"{name} (timeout_minutes={TIMEOUT / 60:.1f}) ended after", after)
        for name, other, rank, address in (("left", "right", 1, "10.77.0.2"), ("right", "left", 0, "10.77.0.1")):
            said = sides.said(name)
            assert sides.jobs[name].returncode == 1, said
            lost = f"error: processes of this training are lost: out of reach: rank {rank} on {other} ({address})"
            assert lost in said, said
            assert "--auto_resume goes on" in said
            assert "Traceback" not in said, said
        assert not list(Path(pair.folder, "experiments/small").glob("*/.*.tmp"))

        hosts.join("right")
        again = Sides(hosts, pair)
        assert again.wait(BEGINS) == {"left": 0, "right": 0}, again.both()
        assert "Resuming training from" in again.said("left")
        whole = pair.folder / "whole"
        whole.mkdir()
        (whole / "small.yml").write_text((pair.folder / "small.yml").read_text())
        drsformer(whole, "train", "-opt", "small.yml")  # one process that adds what two had computed
        ours, theirs = (torch.load(folder / "experiments/small/models/net_g_25.pth") for folder in (pair.folder, whole))
        assert_same(ours, theirs)
