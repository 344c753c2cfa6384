"""Trainings that are killed, damaged and started twice: nothing is lost, nothing damaged is used."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import cv2
import pytest
import torch

from drsformer_arch.bridge.repairs import load_resume_state
from drsformer_arch.training import training_records
from tests.runs import COMMAND, ENVIRONMENT, Run, assert_same, drsformer, everything, losses, write

KILLS, MANY_KILLS = 3, 100  # in the short and the long form


def start(
    folder: Path, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen | Run:
    if not environment:
        return Run(folder, "train", "-opt", "small.yml", *arguments, output=folder / "log")
    command = [*COMMAND, "train", "-opt", "small.yml", *arguments]
    with open(folder / "log", "a") as log:
        return subprocess.Popen(command, cwd=folder, env={**ENVIRONMENT, **environment}, stdout=log, stderr=log)


def until(condition, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.01)


def newest(states: Path) -> int:
    return max((int(path.stem) for path in states.glob("*.state")), default=0)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def trained(options: dict, tmp_path: Path) -> Path:
    """Train 8 iterations and return the folder, with a checkpoint after every second one."""
    options["logger"] |= {"save_checkpoint_freq": 2, "keep_checkpoints": 3, "save_best": "psnr"}
    options["train"]["ema_decay"] = 0.9
    options["val"]["val_freq"] = 2
    drsformer(tmp_path, "train", "-opt", write(tmp_path, options))
    return tmp_path / "experiments/small"


def assert_goes_on(steps: list[dict], again: list[dict]) -> None:
    """Assert that a training resumed after its fourth step made the same ones, and that its clock went on."""
    timeless = ("iter", "lr", "l_pix", "grad_norm")
    assert [[one[key] for key in timeless] for one in again] == [[one[key] for key in timeless] for one in steps]
    times = [one["elapsed_seconds"] for one in again]
    assert times[:4] == [one["elapsed_seconds"] for one in steps[:4]]
    assert times == sorted(times)


def test_checkpoints_are_kept_verified_and_compared(trained, options, fault):
    folder, states, models = trained.parents[1], trained / "training_states", trained / "models"
    assert sorted(path.name for path in states.iterdir()) == [
        f"{iteration}.{kind}" for iteration in (4, 6, 8) for kind in ("json", "state")
    ]
    kept = {f"net_g_{label}.pth" for label in (4, 6, 8, "latest", "best")}
    assert {path.name for path in models.iterdir()} == kept
    manifest = json.loads((states / "8.json").read_text())
    best = manifest["best"]["val"]["psnr"]
    saved = torch.load(models / "net_g_best.pth")
    assert saved.keys() == {"params", "params_ema", "network"}
    assert best["iter"] % 2 == 0
    if best["iter"] in (4, 6, 8):
        assert_same(saved["params_ema"], torch.load(models / f"net_g_{best['iter']}.pth")["params_ema"])
    whole = torch.load(models / "net_g_8.pth"), torch.load(states / "8.state")

    records = training_records.read(trained)
    steps = [record for record in records if "lr" in record]
    assert [record["iter"] for record in steps] == list(range(1, 9))
    assert all(record["grad_norm"] > 0 and 0 <= record["data_share"] <= 1 and record["batch"] == 2 for record in steps)
    validations = {record["iter"]: record["psnr"] for record in records if "data_set" in record}
    assert validations.keys() == {2, 4, 6, 8}
    assert max(validations.values()) == best["val"]

    flip_a_byte(models / "net_g_8.pth")  # both load, one is not what was written
    flip_a_byte(states / "6.state")
    options["train"]["grad_clip"] = 0.02
    write(folder, options)
    with fault("newest checkpoint damaged"):
        said = drsformer(folder, "train", "-opt", "small.yml", "--auto_resume", "--force_yml", "train:total_iter=8")
        assert "Skipped" in said
        assert "net_g_8.pth is damaged" in said
        assert "6.state is damaged" in said
    assert "Option changed since iteration 4: train.grad_clip: was 0.01, is 0.02" in said
    assert said.count("Option changed") == 1
    assert list(losses(said)) == [5, 6, 7, 8]
    assert "-1 day" not in said  # the time that is left at the last iteration, as BasicSR counts it

    options["train"]["grad_clip"] = 0.01
    write(folder, options)
    resume = f"path:resume_state={states / '4.state'}"
    said = drsformer(folder, "train", "-opt", "small.yml", "--force_yml", resume)
    assert "Option changed" not in said
    assert_same(whole[0], torch.load(models / "net_g_8.pth"))
    assert_same(whole[1], torch.load(states / "8.state"))
    assert json.loads((states / "8.json").read_text())["best"] == manifest["best"]
    again = [record for record in training_records.read(trained) if "lr" in record]
    assert_goes_on(steps, again)
    assert "1 training, 7 panels" in drsformer(folder, "plot", "experiments/small", "-o", "training.png")
    assert cv2.imread(str(folder / "training.png")).shape[1] > 1000
    flip_a_byte(states / "4.state")
    with fault("checkpoint asked for is damaged"):
        said = drsformer(folder, "train", "-opt", "small.yml", "--force_yml", resume, expect=2)
        assert "Traceback" not in said
        assert "4.state is damaged: it is not what was written" in said


def test_a_resume_from_nothing_is_said(tmp_path, capsys):
    path = {"experiments_root": str(tmp_path / "small"), "training_states": str(tmp_path / "small/training_states")}
    opt = {"auto_resume": True, "rank": 0, "path": path}
    assert load_resume_state(opt) is None
    assert capsys.readouterr().out == ""  # a first run
    (tmp_path / "small").mkdir()  # one that ended before its first checkpoint
    assert load_resume_state(opt) is None
    assert "the training begins anew" in capsys.readouterr().out


def test_a_second_training_of_one_name_is_refused(options, tmp_path, fault):
    options["train"] |= {"total_iter": 100000}
    options["train"]["scheduler"]["periods"] = [4, 100000]
    options["val"]["val_freq"] = 100000
    write(tmp_path, options)
    first = start(tmp_path)
    try:
        states = tmp_path / "experiments/small/training_states"
        until((states / "3.state").exists, first, tmp_path / "log")
        for flags in ((), ("--auto_resume",)):
            with fault("second training of one name"):
                said = drsformer(tmp_path, "train", "-opt", "small.yml", *flags, expect=2)
                assert said == (
                    "error: another training named small is running here; "
                    "give this one another name (--force_yml name=...)\n"
                )
        assert first.poll() is None
        assert not list(tmp_path.glob("experiments/*archived*"))
    finally:
        first.kill()
        first.wait()
    total = f"train:total_iter={newest(states) + 1}"  # it may be far by now
    drsformer(tmp_path, "train", "-opt", "small.yml", "--auto_resume", "--force_yml", total)


def test_kills_at_any_moment_cost_no_checkpoint(options, tmp_path, fault, long):
    """Killed, resumed and killed again: what is left always resumes, and the end is that of an unbroken run."""
    total = 12 + 2 * (MANY_KILLS if long else KILLS)
    options["train"] |= {"total_iter": total, "ema_decay": 0.9}
    options["train"]["scheduler"]["periods"] = [4, 1000]
    options["logger"] |= {"save_checkpoint_freq": 1, "keep_checkpoints": 2, "save_best": "psnr"}
    options["val"]["val_freq"] = 1
    whole = tmp_path / "whole"
    whole.mkdir()
    drsformer(whole, "train", "-opt", write(whole, options))

    broken = tmp_path / "broken"
    broken.mkdir()
    write(broken, options)
    states = broken / "experiments/small/training_states"
    rng = random.Random(0)
    for _ in range(MANY_KILLS if long else KILLS):
        with fault("kill -9 while training, saving or validating"):
            before = newest(states)
            process = start(broken, "--auto_resume")
            while newest(states) == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.random() * 0.5)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert newest(states) > before or before == total
    said = drsformer(broken, "train", "-opt", "small.yml", "--auto_resume")
    assert "Traceback" not in said + (broken / "log").read_text()
    assert_same(*(everything(run / "experiments/small", total) for run in (whole, broken)))
    last = [f"{iteration}.{kind}" for iteration in (total - 1, total) for kind in ("json", "state")]
    assert sorted(path.name for path in states.iterdir()) == sorted(last)
