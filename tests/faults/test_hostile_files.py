"""Files from strangers: refused in one short line, nothing in them is executed, nothing lands outside."""

import io
import json
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
import yaml

from drsformer_arch.archs.drsformer_arch import DRSformer
from drsformer_arch.cli import main
from tests.runs import drsformer, write

LONGEST_MESSAGE = 400  # characters; a message must not print the bomb
BOMB = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}' if n else 'x'] * 10)}]\n" for n in range(10))


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Run a command that must fail as for a user's mistake, and return what it says."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert code in (1, 2), said.err[-3000:]
    assert "Traceback" not in said.err, said.err[-3000:]
    assert len(lines[-1]) < LONGEST_MESSAGE, lines[-1][:1000]
    return lines[-1]


@pytest.mark.parametrize(
    ("what", "text", "message"),
    [
        ("code", "name: !!python/object/apply:os.mkdir ['executed']", "could not determine a constructor"),
        ("code", "name: !!python/object/new:os.system [touch executed]", "could not determine a constructor"),
        ("code", "name: !!python/name:os.system ''", "could not determine a constructor"),
        ("YAML bomb", BOMB + "network_g: *l9", "references grow to more than"),
        ("YAML bomb", BOMB + "network_g:\n  <<: *l9", "references grow to more than"),
        ("YAML bomb", "network_g: &a [*a]", "a reference contains itself"),
        ("YAML bomb", f"network_g: {'[' * 5000}{']' * 5000}", "more than 100 sections"),
        ("odd YAML", f"name: {'9' * 5000}", "Exceeds the limit|must be text"),
        ("odd YAML", "name: 2026-13-45", "month must be in"),
        ("odd YAML", "? [a, b]\n: c", "a key must be a name"),
    ],
)
def test_option_files(what, text, message, options, tmp_path, monkeypatch, capsys, fault):  # noqa: PLR0917 - fixtures
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.yml").write_text(yaml.safe_dump({**options, "name": None}).replace("name: null\n", "") + text)
    with fault(f"option file with {what}"):
        line = refused(capsys, "train", "-opt", "evil.yml")
        assert line.startswith("error: evil.yml")
        assert re.search(message, line), line
        assert [path.name for path in tmp_path.iterdir()] == ["evil.yml"]


class Attack:
    """Opens a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return open, (str(self.target), "w")


def hostile_weights(kind: str, path: Path, target: Path) -> None:
    if kind == "zip":
        torch.save({"params": Attack(target)}, path)
    elif kind == "old format":
        torch.save({"params": Attack(target)}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"params": Attack(target)}))


@pytest.mark.parametrize("kind", ["zip", "old format", "bare pickle"])
def test_weights_with_code(kind, tmp_path, pairs, capsys, fault):
    weights, executed = tmp_path / "net_g_latest.pth", tmp_path / "executed"
    hostile_weights(kind, weights, executed)
    out = tmp_path / "out"
    for command in (("derain", pairs / "input", "-o", out, "-w", weights), ("export", weights, "-o", out / "net.onnx")):
        with fault("weights with code"):
            assert re.search("(code and|its) objects are not loaded", refused(capsys, *command))
            assert not executed.exists()
            assert not list(out.glob("*"))


@pytest.mark.parametrize("header", [b"{" * 100, json.dumps({"a": {"dtype": "F32", "shape": [1 << 40]}}).encode()])
def test_safetensors_that_promise_too_much(header, tmp_path, pairs, capsys, fault):
    weights = tmp_path / "net.safetensors"
    for length in (len(header), 1 << 60):
        weights.write_bytes(struct.pack("<Q", length) + header + b"\0" * 100)
        with fault("damaged safetensors"):
            assert str(weights) in refused(capsys, "derain", pairs / "input", "-o", tmp_path / "out", "-w", weights)


def test_a_training_state_with_code(options, tmp_path, fault):
    options["train"]["total_iter"] = 2
    options["logger"]["save_checkpoint_freq"] = 1
    drsformer(tmp_path, "train", "-opt", write(tmp_path, options))
    states, executed = tmp_path / "experiments/small/training_states", tmp_path / "executed"
    for manifest in states.glob("2.json"):
        manifest.unlink()  # with it, the checksum alone would tell
    torch.save({key: Attack(executed) for key in ("iter", "epoch", "optimizers", "schedulers")}, states / "2.state")
    with fault("training state with code"):
        said = drsformer(tmp_path, "train", "-opt", "small.yml", "--auto_resume")
        assert "Skipped" in said
        assert "2.state" in said
        assert "iter: 1." in said
        assert not executed.exists()
        torch.save(Attack(executed), states / "2.state")
        (states / "2.json").unlink()
        resume = f"path:resume_state={states / '2.state'}"
        said = drsformer(tmp_path, "train", "-opt", "small.yml", "--force_yml", resume, expect=2)
        assert "2.state" in said.splitlines()[-1]
        assert not executed.exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_that_write_elsewhere(kind, tmp_path, pairs, capsys, fault):
    picture = (pairs / "input/00.png").read_bytes()
    for name in ("../escaped.png", "/tmp/escaped.png", "input/../../escaped.png"):
        path = tmp_path / f"evil.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(name, picture)
        else:
            with tarfile.open(path, "w") as archive:
                member = tarfile.TarInfo(name)
                member.size = len(picture)
                archive.addfile(member, io.BytesIO(picture))
        with fault("archive that writes elsewhere"):
            line = refused(capsys, "prepare", "pairs", path, "-o", tmp_path / "out")
            assert "escaped.png" in line
            assert not list(tmp_path.glob("**/escaped.png"))
            assert not Path("/tmp/escaped.png").exists()


def test_pictures_that_promise_too_much(tmp_path, pairs, capsys, fault):
    """A header of 60 bytes can ask for 4.8 GB."""
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 40000, 40000, 8, 2, 0, 0, 0)
    (tmp_path / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", zlib.crc32(header[4:])) + b"\0" * 20
    )
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "fine.png").write_bytes((pairs / "input/00.png").read_bytes())
    network = {"dim": 8, "num_blocks": (1, 1, 1, 1), "with_mefc": False}
    weights = tmp_path / "net.pth"
    torch.save({"params": DRSformer(**network).state_dict()}, weights)
    with fault("damaged picture"):
        names = ("huge.png", "text.png", "fine.png")
        said = refused(capsys, "derain", *(tmp_path / n for n in names), "-o", tmp_path / "out", "-w", weights)
        assert said
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["fine.png"]
