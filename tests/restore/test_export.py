"""Weights and networks as files for other programs: what comes back is what went in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
from PIL import Image
from skimage import data

from drsformer_arch import archs
from drsformer_arch.cli import main
from drsformer_arch.restore import export as exporting
from drsformer_arch.restore import weights
from drsformer_arch.restore.networks import load_network
from drsformer_arch.restore.tiling import forward_scaled
from tests.golden_weights import load_golden_weights, small_arguments

SMALL = small_arguments() | {
    "DRSformer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 2, 2], "with_mefc": True},
    "Restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "IDT": {"embed_dim": 16, "img_size": 64, "num_heads": [1, 1, 1, 1, 1, 1, 1, 1, 1]},
    "SPDNet": {"n_feats": 8, "n_resblocks": 1},
    "DualGCN": {"channels": 8, "num_levels": 1},
    "SFHformer": {"embed_dim": [4, 8, 16, 8, 4], "depth": [1, 1, 1, 1, 1], "groups": 2},
    "FADformer": {"embed_dim": [4, 8, 16, 8, 4], "depth": [1, 1, 1, 1, 1]},
}
# Levels without blocks compute nothing that others do not: writing an ONNX file takes time for each of its operators.
FEW_BLOCKS = SMALL | {
    "DRSformer": SMALL["DRSformer"] | {"num_blocks": [1, 0, 0, 1]},
    "Restormer": SMALL["Restormer"] | {"num_blocks": [1, 0, 0, 1]},
    "SFHformer": SMALL["SFHformer"] | {"depth": [1, 0, 1, 0, 0]},
    "FADformer": SMALL["FADformer"] | {"depth": [1, 0, 1, 0, 0]},
}


def checkpoint(folder: Path, name: str) -> Path:
    path = folder / f"{name}.pth"
    net = load_golden_weights(getattr(archs, name)(**FEW_BLOCKS[name]), 0.5)
    torch.save({"params": net.state_dict(), "network": {"type": name, **FEW_BLOCKS[name]}}, path)
    return path


def test_a_network_that_is_no_onnx_says_why(tmp_path, capsys):
    path = checkpoint(tmp_path, "NeRDRain")
    assert main(["export", str(path), "-o", str(tmp_path / "net.onnx")]) == 2
    assert "NeRDRain is not exported as ONNX: PyTorch's exporter does not" in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()


def test_a_torch_program_needs_nothing_of_ours(tmp_path):
    path, out = checkpoint(tmp_path, "Restormer"), tmp_path / "net.pt2"
    assert main(["export", str(path), "-o", str(out)]) == 0
    rainy = torch.rand(3, 3, 48, 104)
    torch.save(rainy, tmp_path / "rainy.pt")
    program = f"""if True:
        import sys, torch
        sys.modules["drsformer_arch"] = None  # must not be imported
        notes = {{"network": ""}}
        net = torch.export.load({str(out)!r}, extra_files=notes).module()
        assert "Restormer" in notes["network"]
        torch.save(net(torch.load({str(tmp_path / "rainy.pt")!r})), {str(tmp_path / "derained.pt")!r})
    """
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    with torch.no_grad():
        expected = load_network(path)(rainy)
    torch.testing.assert_close(torch.load(tmp_path / "derained.pt"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_safetensors_hold_the_arguments(name, tmp_path):
    path, out = checkpoint(tmp_path, name), tmp_path / "net.safetensors"
    assert main(["export", str(path), "-o", str(out)]) == 0
    with safetensors.safe_open(out, framework="np") as file:
        assert json.loads(file.metadata()["network"]) == {"type": name, **FEW_BLOCKS[name]}
    net, again = load_network(path), load_network(out)
    assert type(again) is type(net)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    side = 64 if name == "IDT" else 32
    rainy = torch.rand(1, 3, side, side)
    with torch.no_grad():
        for one, other in zip(forward_scaled(net, rainy, 1.0), forward_scaled(again, rainy, 1.0), strict=True):
            assert torch.equal(one, other)


def test_averaged_weights_come_first_and_shipped_ones_have_names(tmp_path, monkeypatch, capsys):
    net, average = (archs.DRSformer(**SMALL["DRSformer"]) for _ in range(2))
    path = tmp_path / "both.pth"
    torch.save({"params": net.state_dict(), "params_ema": average.state_dict()}, path)
    key = "output.weight"
    assert torch.equal(load_network(path).state_dict()[key], average.state_dict()[key])
    assert torch.equal(load_network(path, "params").state_dict()[key], net.state_dict()[key])

    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    exported = str(tmp_path / "shipped" / "small.safetensors")
    assert main(["export", str(path), "-o", exported, "--note", "data=a = b"]) == 0
    with safetensors.safe_open(exported, framework="pt") as file:
        assert file.metadata()["data"] == "a = b"
    for notes in (["data"], ["data=a", "data=b"], ["network=x"]):
        flags = [flag for note in notes for flag in ("--note", note)]
        assert main(["export", str(path), "-o", str(tmp_path / "no.safetensors"), *flags]) == 2
        assert "note" in capsys.readouterr().err
        assert not (tmp_path / "no.safetensors").exists()
    Image.fromarray(data.astronaut()[:24, :24]).save(tmp_path / "rainy.png")
    assert main(["derain", str(tmp_path / "rainy.png"), "-o", str(tmp_path / "out"), "-w", "small"]) == 0
    assert main(["derain", str(tmp_path / "rainy.png"), "-o", str(tmp_path / "new"), "-w", "smal"]) == 2
    assert capsys.readouterr().err == "error: there is no file smal; did you mean 'small'?\n"


def test_what_is_not_the_same_is_not_written(tmp_path, monkeypatch, capsys):
    path, out = checkpoint(tmp_path, "DualGCN"), tmp_path / "net.onnx"
    out.write_bytes(b"old")
    assert main(["export", str(path), "-o", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    monkeypatch.setattr(exporting, "RELATIVE_ERROR", 0)
    assert main(["export", str(path), "-o", str(out), "--overwrite"]) == 2
    assert "DualGCN is not the same after its export" in capsys.readouterr().err
    assert out.read_bytes() == b"old"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["DualGCN.pth", "net.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "a.pth", "-o", "a.bin"], "a.bin: --format is missing; known: html, onnx, safetensors, torch"),
        (["export", "a.pth", "-o", "a.onnx"], "there is no file a.pth"),
        (
            ["export", "text.safetensors", "-o", "a.onnx"],
            "text.safetensors is a text that begins with 'no",
        ),
        (["derain", "a.png", "-o", "b.png", "-w", "text.onnx"], "text.onnx is damaged or no ONNX file"),
        (["derain", "a.png", "-o", "b.png", "-w", "text.onnx", "--precision", "bf16"], "has its precision, float32"),
        (["derain", "a.png", "-o", "b.png", "-w", "text.safetensors", "--runtime", "onnx"], "takes the .onnx files"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("text.safetensors", "text.onnx"):
        Path(name).write_text("no weights at all")
    Image.fromarray(data.astronaut()[:8, :8]).save("a.png")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
