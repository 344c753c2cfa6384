"""The `drsformer` command in processes of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from drsformer_arch import training_records

COMMAND = [sys.executable, "-c", "import sys; from drsformer_arch.cli import main; sys.exit(main())"]
TRAIN_DISTRIBUTED = Path(__file__).parents[1] / "scripts" / "train_distributed.sh"
# One thread: sums of floats keep their order, so that runs can be compared to the bit on a busy machine too.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def drsformer(folder: Path, *arguments: str, expect: int = 0) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == expect, done.stdout[-3000:]
    return done.stdout


def several(processes: int, restarts: int = 0) -> dict[str, str]:
    """The environment in which `TRAIN_DISTRIBUTED` starts so many processes."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**ENVIRONMENT, "PATH": path, "PROCESSES": str(processes), "RESTARTS": str(restarts)}


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
    """Equal to the bit, through dicts and lists."""
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
    """What a training leaves, less the times it took."""
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
