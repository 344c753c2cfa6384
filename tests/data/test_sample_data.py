"""`drsformer samples`: the same pictures everywhere, training apart from test, and nothing else is deleted."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import pytest

from drsformer_arch.cli import main

ROOT = Path(__file__).parents[2]


def samples(*arguments: object) -> int:
    return main(["samples", *map(str, arguments)])


def test_samples(tmp_path, capsys):
    out = tmp_path / "new" / "samples"
    assert samples("-o", out) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["test_psnr_y"] == pytest.approx(24.99, abs=0.02), "other pictures need another VERSION"
    assert (manifest["training_pairs"], manifest["test_pairs"]) == (200, 8)
    assert "24.99 dB" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["samples"]  # nothing half-made is left

    names = sorted(path.name for path in (out / "test" / "input").iterdir())
    assert names == sorted(path.name for path in (out / "test" / "target").iterdir())
    assert len(names) == manifest["test_pairs"]
    for name in names:
        rainy, clean = (cv2.imread(str(out / "test" / kind / name)) for kind in ("input", "target"))
        assert rainy.shape == clean.shape
        assert all(side % 8 for side in rainy.shape[:2])
    photographs = {name.rsplit("_", 1)[0] for name in names}
    training = {path.name: path.read_bytes() for path in (out / "train" / "input").iterdir()}
    assert len(training) == manifest["training_pairs"]
    assert not any(name.startswith(tuple(photographs)) for name in training)

    written = (out / "manifest.json").stat().st_mtime_ns
    assert samples("-o", out) == 0
    assert "already there" in capsys.readouterr().out
    assert samples("-o", out, "--lmdb") == 0  # adds the stores to what is there
    assert "already there" not in capsys.readouterr().out
    assert all((out / store / "store.json").exists() for store in ("train.lmdb", "test.lmdb"))
    assert (out / "manifest.json").stat().st_mtime_ns == written

    assert samples("-o", out, "--seed", 1) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert samples("-o", out, "--overwrite") == 0
    assert {path.name: path.read_bytes() for path in (out / "train" / "input").iterdir()} == training
    assert [path.name for path in out.parent.iterdir()] == ["samples"]


def test_samples_delete_nothing_else(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    for options in ((), ("--overwrite",)):
        assert samples("-o", tmp_path, *options) == 2
        assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    own = tmp_path / "pairs/train/input/mine.png"  # pairs of one's own, in folders of the same names
    own.parent.mkdir(parents=True)
    own.write_bytes(b"keep me")
    assert samples("-o", tmp_path / "pairs", "--overwrite") == 2
    assert "holds other things (train), so it is not overwritten" in capsys.readouterr().err
    assert own.read_bytes() == b"keep me"


def test_without_scikit_image_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert samples("-o", tmp_path / "samples") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install scikit-image" in error
    assert not list(tmp_path.iterdir())


def test_the_script_of_the_demo_makes_the_stores(tmp_path, capsys):
    specification = importlib.util.spec_from_file_location("make_demo_data", ROOT / "scripts/make_demo_data.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    out = tmp_path / "demo"
    assert script.main(["--out", str(out)]) == 0
    assert (out / "train.lmdb" / "store.json").exists()
    assert script.main(["--out", str(out)]) == 0
    assert "already there" in capsys.readouterr().out
    assert script.main(["--out", str(out), "--seed", "1"]) == 1
    assert "--overwrite" in capsys.readouterr().err
