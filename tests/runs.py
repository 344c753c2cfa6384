"""The `drsformer` command in processes of its own."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
import yaml

from drsformer_arch.cli import main
from drsformer_arch.training import training_records

COMMAND = [sys.executable, "-c", "import sys; from drsformer_arch.cli import main; sys.exit(main())"]
TRAIN_DISTRIBUTED = Path(__file__).parents[1] / "scripts" / "train_distributed.sh"
# One thread: sums of floats keep their order, so that runs can be compared to the bit on a busy machine too.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


# Processes of the command are forks of one that has done nothing but import: this takes seconds, and a fork does not.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["drsformer_arch.bridge.option_checks", "drsformer_arch.training.derain_model", "tests.runs"]
)


class Run:
    """A running command, with as much of `subprocess.Popen` as tests use; what it says is appended to a file.

    It leads a session and a group of processes of its own.
    """

    def __init__(self, folder: Path, *arguments: str, output: Path) -> None:
        self._process = PROCESSES.Process(target=_command, args=(folder, arguments, output))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("drsformer", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def kill_group(self) -> None:
        """Kill the command and the processes that it has started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended, or does not lead a group yet
            self.kill()


def _command(folder: Path, arguments: Sequence[str], output: Path) -> None:
    # Not by the environment that it inherits: whoever started the fork server first decided on that.
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    os.setsid()
    os.chdir(folder)
    sys.modules["__main__"] = ModuleType("__main__")  # processes that it starts need not import pytest
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.exit(main(arguments))


def drsformer(folder: Path, *arguments: str, expect: int = 0) -> str:
    with tempfile.NamedTemporaryFile("r", errors="replace") as output:
        run = Run(folder, *arguments, output=Path(output.name))
        try:
            code = run.wait(300)
        finally:
            run.kill()
        said = output.read()
    assert code == expect, said[-3000:]
    return said


def several(processes: int, restarts: int = 0) -> dict[str, str]:
    """Return the environment in which `TRAIN_DISTRIBUTED` starts so many processes, without checking first."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    started = {"PROCESSES": str(processes), "RESTARTS": str(restarts), "CHECK": "no"}
    return {**ENVIRONMENT, "PATH": path, **started}


def train_distributed(folder: Path, processes: int, *arguments: str) -> str:
    done = subprocess.run(
        ["bash", str(TRAIN_DISTRIBUTED), "-opt", "small.yml", *arguments],
        cwd=folder,
        env=several(processes),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


def write(folder: Path, options: dict, name: str = "small.yml") -> str:
    (folder / name).write_text(yaml.safe_dump(options))
    return name


def assert_same(a: object, b: object, where: str = "") -> None:
    """Assert that two values are equal to the bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}/{index}")
    else:
        assert a == b, where


def losses(log: str) -> dict[int, str]:
    return {int(i): loss for i, loss in re.findall(r"iter:\s+(\d+), .*?l_pix: (\S+)", log)}


def everything(experiment: Path, total: int) -> dict:
    """Read all that a training leaves, less the times it took."""
    manifest = json.loads((experiment / f"training_states/{total}.json").read_text())
    steps, validations = [], []
    for record in training_records.read(experiment):
        if "data_set" in record:
            validations.append(record)
        else:
            steps.append({key: record[key] for key in ("iter", "epoch", "lr", "batch", "l_pix", "grad_norm")})
    return {
        "weights": torch.load(experiment / f"models/net_g_{total}.pth"),
        "state": torch.load(experiment / f"training_states/{total}.state"),
        "best weights": torch.load(experiment / "models/net_g_best.pth"),
        "manifest": {key: manifest[key] for key in ("iter", "best", "validated")},
        "log": steps,
        "validations": validations,
    }
