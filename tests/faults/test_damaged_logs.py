"""Logs are only logs, and the checkpoint decides: what cannot be read is passed over with a word, everywhere."""

import json
import os
import shutil
from pathlib import Path

import cv2
import pytest
import torch

from drsformer_arch.cli import main
from drsformer_arch.system.errors import UserError
from drsformer_arch.training import checkpoints, training_records
from drsformer_arch.training.checkpoints import read_manifest, verify
from tests.runs import drsformer, write

STEPS = [{"iter": n, "epoch": 0, "lr": 1e-3, "l_pix": 0.5 / n, "grad_norm": 1.0} for n in range(1, 6)]
DAMAGED_LINES = [
    b'{"iter": 5, "lr": 0.0',
    b"\xff\xfe\x00\x01 bytes",
    b"\x00" * 300,
    b"[" * 100_000,
    b"[1, 2]",
    b"3",
    b"null",
    b"{}",
    b'{"lr": 0.001}',
    b'{"iter": "7"}',
    b'{"iter": -1, "lr": 1}',
    b'{"iter": 1e9, "lr": 1}',
    b'{"iter": true, "lr": 1}',
    b'{"iter": ' + b"9" * 5000 + b', "lr": 1}',
    b'{"iter": ' + b"9" * 500 + b', "lr": 1}',
    b'{"iter": 6, "lr": ' + b"9" * 500 + b"}",
    b'{"iter": 6, "lr": [0.001]}',
    b'{"iter": 6, "lr": null}',
    b'{"iter": 6, "lr": {"a": 1}}',
    b'{"iter": 6, "data_set": 5, "psnr": 30}',
    b'{"iter": 6, "data_set": "val", "psnr": "high"}',
    b'{"iter": 6, "data_set": "\\ud800", "psnr": 30}',
]
ODD_BUT_TRUE = [
    b'{"iter": 6}',
    b'{"iter": 6, "l_pix": NaN, "lr": 1e308}',
    b'{"iter": 7, "l_pix": Infinity, "lr": -1e308}',
    b'{"iter": 7, "data_set": "\\u001b[2J<b>", "psnr": Infinity, "a\\nb": 1}',
]


def experiment(folder: Path, *lines: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    good = [json.dumps(step).encode() for step in STEPS]
    (folder / "training.jsonl").write_bytes(b"\n".join([*good[:2], *lines, *good[2:]]) + b"\n")
    return folder


def curves_are_shown(folder: Path, capsys: pytest.CaptureFixture) -> str:
    """Assert that plot and report show the curves; return what they say beside that."""
    figure, page = folder.parent / "training.png", folder.parent / "page.html"
    assert main(["plot", str(folder), "-o", str(figure)]) == 0
    said = capsys.readouterr().err
    assert main(["report", "--experiment", str(folder), "-o", str(page)]) == 0
    assert capsys.readouterr().err == said
    assert "Traceback" not in said
    assert cv2.imread(str(figure)) is not None
    assert "loss l_pix" in page.read_text()
    return said


def test_lines_of_the_log_that_cannot_be_read(tmp_path, capsys, fault):
    for number, line in enumerate(DAMAGED_LINES):
        folder = experiment(tmp_path / f"{number}", line)
        with fault("damaged line of a log"):
            words: list[str] = []
            assert training_records.read(folder, words.append) == STEPS
            assert words == [f"{folder / 'training.jsonl'}: no record can be read from line 3; passed over"]
            training_records.forget_after(folder, 4)
            assert training_records.read(folder) == STEPS[:4]
            assert line in (folder / "training.jsonl").read_bytes()  # nothing that may be of use goes
    folder = experiment(tmp_path / "all", *DAMAGED_LINES, *ODD_BUT_TRUE)
    with fault("damaged line of a log"):
        said = curves_are_shown(folder, capsys)
        assert f"from {len(DAMAGED_LINES)} lines, the first one 3; passed over" in said
        assert said.count("\n") == 1


def test_a_line_that_a_kill_cut_does_not_spoil_the_next(tmp_path):
    folder = experiment(tmp_path / "cut")
    with (folder / "training.jsonl").open("ab") as file:
        file.write(b'{"iter": 6, "l')
    training_records.forget_after(folder, 5)
    training_records.append(folder, {"iter": 6, "lr": 1})
    assert training_records.read(folder) == [*STEPS, {"iter": 6, "lr": 1}]


@pytest.mark.parametrize("kind", ["folder", "pipe", "broken link"])
def test_something_else_in_the_place_of_the_log(kind, tmp_path, capsys, caplog, fault):
    folder = tmp_path / "small"
    folder.mkdir()
    path = folder / "training.jsonl"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "broken link": lambda: path.symlink_to("no/where")}[kind]()
    text = " 10:00:00 INFO: [small][epoch:  0, iter:  {}, lr:(1e-3,)] [eta: 1 day, time: 1 (0)] l_pix: 5e-1 \n"
    odd = [
        "\x00\xff",
        text.format("9" * 5000),
        text.format("9" * 30),
        text.format(3).replace("1e-3", "fast"),
        "    total_iter: 1e999\n",
    ]
    (folder / "train_small_1.log").write_text("".join([*odd, text.format("1,000"), text.format("1,001")]))
    (folder / "train_small_2.log").mkdir()
    with fault("no log in a log's place"):
        said = curves_are_shown(folder, capsys)
        assert "4 lines are passed over, as their numbers cannot be read" in said
        if kind != "pipe":  # nobody would read from it
            training_records.append(folder, {"iter": 1})
            assert "cannot be written" in caplog.text
        training_records.forget_after(folder, 0)


ODD_MANIFESTS = {
    "empty": b"",
    "cut": b'{"files": {',
    "bytes": b"\xff\x00",
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "half deep": b'{"files": {"2.state": "0"}, "options": ' + b'{"a":' * 500 + b"1" + b"}" * 502,
    "list": b"[]",
    "number": b"1",
    "no files": b"{}",
    "files of a list": b'{"files": ["2.state"]}',
    "not of the state": b'{"files": {}}',
    "digest of a number": b'{"files": {"2.state": 5}}',
    "NUL in a name": b'{"files": {"2.state": "0", "a\\u0000b": "0"}}',
    "device": b'{"files": {"/dev/zero": "0", "2.state": "0"}}',
    "options of a list": b'{"files": {"2.state": "0"}, "options": [1]}',
    "best of a list": b'{"files": {"2.state": "0"}, "best": [1]}',
    "best of numbers": b'{"files": {"2.state": "0"}, "best": {"val": {"psnr": 3}}}',
    "best without a value": b'{"files": {"2.state": "0"}, "best": {"val": {"psnr": {"iter": 1}}}}',
    "validated of words": b'{"files": {"2.state": "0"}, "validated": {"val": "yes"}}',
    "huge": b'{"files": {"2.state": "' + b" " * 2**24 + b'"}}',
}


@pytest.mark.parametrize("kind", ODD_MANIFESTS)
def test_odd_manifests_are_one_line(kind, tmp_path, fault):
    state = tmp_path / "2.state"
    state.write_bytes(b"")
    (tmp_path / "2.json").write_bytes(ODD_MANIFESTS[kind])
    with fault("odd manifest"), pytest.raises(UserError) as error:
        verify(state)
    assert str(tmp_path / "2.json") in str(error.value) or kind == "device", error.value
    assert len(str(error.value)) < 400


def test_resume_passes_over_odd_checkpoints_and_logs(options, tmp_path, fault):
    """The newest checkpoint that is whole decides, whatever lies around it."""
    options["train"]["total_iter"], options["logger"]["save_checkpoint_freq"] = 4, 1
    drsformer(tmp_path, "train", "-opt", write(tmp_path, options))
    folder = tmp_path / "experiments/small"
    states, models = folder / "training_states", folder / "models"
    (states / "4.json").write_bytes(ODD_MANIFESTS["deep"])
    (states / "3.json").write_bytes(ODD_MANIFESTS["list"])
    (states / "2.json").unlink()
    torch.save([1, 2], models / "net_g_2.pth")  # it loads, and holds no weights
    old = torch.load(models / "net_g_1.pth"), torch.load(states / "1.state")
    (states / "1.json").unlink()
    for content, path in zip(old, (models / "net_g_1.pth", states / "1.state"), strict=True):
        torch.save(content, path, _use_new_zipfile_serialization=False)  # as torch before 1.6 wrote them
    with (folder / "training.jsonl").open("ab") as log:
        log.write(b"\xff\x00\n[[[\n" + DAMAGED_LINES[0])
    kept = shutil.copytree(folder, tmp_path / "kept")
    with fault("odd checkpoints and logs"):
        said = drsformer(tmp_path, "train", "-opt", "small.yml", "--auto_resume")
        skipped = [line for line in said.splitlines() if line.startswith("Skipped")]
        assert len(skipped) == 3
        assert "nested too deeply" in skipped[0]
        assert "names no files" in skipped[1]
        assert "holds a list" in skipped[2]
        assert "iter: 1." in said
        assert "Traceback" not in said
        assert "from 3 lines, the first one " in said
        assert [one["iter"] for one in training_records.read(folder) if "lr" in one] == [1, 2, 3, 4]
    again = tmp_path / "experiments/small/training_states/1.state"
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    with fault("odd checkpoints and logs"):
        resume = f"path:resume_state={again}"
        said = drsformer(tmp_path, "train", "-opt", "small.yml", "--force_yml", resume)
        assert "iter: 1." in said
        assert read_manifest(checkpoints.manifest_of(states / "4.state").with_suffix(".state"))


def test_a_figure_has_an_end_however_many_quantities_logs_name(tmp_path, capsys):
    lines = [{"iter": i, "epoch": 0, "lr": 1e-3, **{f"l_{name}": 1.0 for name in range(60)}} for i in (1, 2)]
    (tmp_path / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["plot", str(tmp_path), "-o", str(tmp_path / "training.png")]) == 0
    assert "40 panels; 21 more quantities are left out" in capsys.readouterr().out
