"""The `drsformer` command as a user runs it: real processes, real LMDB, real checkpoints."""

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from drsformer_arch import __version__, archs
from drsformer_arch.cli import main
from tests.runs import Run, assert_same, drsformer, losses, write


def test_a_resumed_training_equals_an_uninterrupted_one(options, tmp_path):
    """10 pictures in batches of 4 (2 x 2) are 3 iterations an epoch; state 4 lies inside the second."""
    options["datasets"]["train"] |= {"num_worker_per_gpu": 2}
    for dataset in options["datasets"].values():
        dataset |= {key: os.path.relpath(dataset[key], tmp_path) for key in ("dataroot_lq", "dataroot_gt")}
    options["train"] |= {"effective_batch_size": 4, "ema_decay": 0.9, "mixing_augs": {"mixup": True}}
    options["logger"]["save_checkpoint_freq"] = 4
    options["val"] |= {"val_freq": 3, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}
    whole_log = drsformer(tmp_path, "train", "-opt", write(tmp_path, options))
    assert sorted(losses(whole_log)) == list(range(1, 9))  # BasicSR drops the last batch and ends early
    folder = tmp_path / "experiments/small"
    whole = torch.load(folder / "models/net_g_8.pth"), torch.load(folder / "training_states/8.state")

    for path in ("models/net_g_8.pth", "models/net_g_latest.pth"):
        (folder / path).unlink()
    (folder / "training_states/8.state").write_bytes(b"half a file")  # as after a kill: the one before is taken
    (folder / "training_states/best.state").write_bytes(b"")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()  # the option file in the experiment's folder says which one is meant
    resumed_log = drsformer(elsewhere, "train", "-opt", str(folder / "small.yml"), "--auto_resume")
    assert "Skipped" in resumed_log
    assert "8.state" in resumed_log
    assert losses(resumed_log) == {i: loss for i, loss in losses(whole_log).items() if i > 4}
    assert_same(whole[0], torch.load(folder / "models/net_g_8.pth"))
    assert_same(whole[1], torch.load(folder / "training_states/8.state"))
    assert not list(tmp_path.glob("experiments/*archived*"))
    assert not list(elsewhere.iterdir())


def test_a_signal_saves_stops_and_the_test_command_scores_the_result(options, tmp_path, pairs):
    options["train"] |= {"total_iter": 100000, "ema_decay": 0.9}
    options["train"]["scheduler"]["periods"] = [4, 100000]
    options["val"]["val_freq"] = 100000
    options["logger"]["save_checkpoint_freq"] = 2
    options["datasets"]["train"]["num_worker_per_gpu"] = 2
    write(tmp_path, options)
    process = Run(tmp_path, "train", "-opt", "small.yml", output=tmp_path / "log")
    states = tmp_path / "experiments/small/training_states"
    deadline = time.monotonic() + 120
    while not (states / "2.state").exists():
        assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # as schedulers do: the loader's workers get it too
    assert process.wait(120) == 75
    said = (tmp_path / "log").read_text()
    stopped = int(re.search(r"Stopped after iteration (\d+)", said).group(1))
    assert (states / f"{stopped}.state").exists()
    assert "Traceback" not in said

    resumed = drsformer(
        tmp_path, "train", "-opt", "small.yml", "--auto_resume", "--force_yml", f"train:total_iter={stopped + 2}"
    )
    assert list(losses(resumed)) == [stopped + 1, stopped + 2]

    test = {key: options[key] for key in ("model_type", "num_gpu", "network_g", "val")}
    test |= {"name": "scored", "datasets": {"test": {**options["datasets"]["val"], "name": "pairs"}}}
    test["path"] = {"pretrain_network_g": "experiments/small/models/net_g_latest.pth", "param_key_g": "params_ema"}
    said = drsformer(tmp_path, "test", "-opt", write(tmp_path, test, "test.yml"), "--report", "page.html")
    assert "params_ema" in said
    assert re.search(r"# psnr \[rain200 protocol\]: \d\d\.\d+", said)
    results = sorted(path.name for path in (tmp_path / "results/scored/visualization/pairs").iterdir())
    assert results == [f"{path.stem}_scored.png" for path in sorted((pairs / "input").glob("*.png"))]
    mean = float(re.search(r"# psnr \[rain200 protocol\]: ([\d.]+)", said).group(1))
    page = (tmp_path / "page.html").read_text()
    assert page.count("<tr data-name=") == 10
    assert f"<dd>{mean:.2f} <small>dB</small>" in page


def test_mistakes_end_in_one_line_and_leave_old_experiments_alone(options, tmp_path, pairs):
    """Each found by a process of its own, where only a running pipeline can find it."""
    broken = tmp_path / "broken"
    shutil.copytree(pairs, broken)
    (broken / "input/03.png").write_bytes((pairs / "input/03.png").read_bytes()[:100])
    fewer = tmp_path / "fewer"
    shutil.copytree(pairs, fewer)
    (fewer / "target/05.png").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "experiments").write_text("a file where a folder must be")

    def on_disk(root: Path, part: str = "input") -> str:
        changed = yaml.safe_load(yaml.safe_dump(options))
        for dataset in changed["datasets"].values():
            dataset |= {"dataroot_lq": str(root / part), "dataroot_gt": str(root / "target")}
        changed["datasets"]["train"]["num_worker_per_gpu"] = 1
        return write(tmp_path, changed, "disk.yml")

    def fails(*arguments: str) -> str:
        said = drsformer(tmp_path, "train", "-opt", *arguments, expect=2)
        last = said.strip().splitlines()[-1]
        assert last.startswith("error: "), said[-3000:]
        assert "Traceback" not in said, said[-3000:]
        return last

    assert "there is no folder" in fails(on_disk(tmp_path / "nowhere"))
    assert re.search(r"experiments", fails(on_disk(pairs)))  # cannot be written
    (tmp_path / "experiments").unlink()
    assert re.search(r"data set train: picture .*broken/input/03.png cannot be read", fails(on_disk(broken)))
    assert re.search(r"data set train: .*10 pictures in .* but 9 in", fails(on_disk(fewer)))
    assert re.search(r"data set train.*empty", fails(write_empty(tmp_path, options)))


def write_empty(folder: Path, options: dict) -> str:
    changed = yaml.safe_load(yaml.safe_dump(options))
    for dataset in changed["datasets"].values():
        dataset |= {"dataroot_lq": str(folder / "empty"), "dataroot_gt": str(folder / "empty")}
    return write(folder, changed, "empty.yml")


def test_doctor_and_help(tmp_path, monkeypatch, capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "basicsr" in said
    assert "DRSformer" in said
    assert "No problems found" in said
    for line in (
        r"arch: +DRSformer, Restormer",
        "Forms that run .*DRSformer fast",
        r"Processor: .* \d+ of \d+ cores",
        "GPU: ",
    ):
        assert re.search(line, said), line
    # No path of the user's own folder is told, whether it is a link or not.
    (tmp_path / "home").symlink_to(Path(archs.__file__).parents[2])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["doctor"]) == 0
    assert f"drsformer-basicsr {__version__} at ~/drsformer_arch\n" in capsys.readouterr().out
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "basicsr", None)  # as where it is not installed
        assert main(["doctor"]) == 0
        said = capsys.readouterr().out
        assert "Training (train, test): not set up; this sets it up: drsformer setup-training" in said
        assert "Registered" not in said

    def broken_driver() -> int:
        raise RuntimeError("driver\nmismatch")

    monkeypatch.setattr(torch.cuda, "device_count", broken_driver)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "DRSformer" in said
    assert said.endswith("Problems:\n  - torch: RuntimeError: driver mismatch\n")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "drsformer train -opt" in capsys.readouterr().out


def test_two_dashes_are_no_value(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (["samples", "--seed=--"], ["derain", "rainy.png", "-o", "out", "--tile=--"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        assert "error: argument --" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    assert main(["derain", "-o", "out", "--", "--tile=--"]) == 2  # behind two dashes it is a file
    assert "there is no file" in capsys.readouterr().err
