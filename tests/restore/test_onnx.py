"""ONNX files against the networks that they were made of; a file of its own, as writing them takes minutes."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from skimage import data

from drsformer_arch import archs
from drsformer_arch.cli import main
from drsformer_arch.images.photographs import read_photograph
from drsformer_arch.restore.networks import load_network
from drsformer_arch.restore.tiling import restore
from tests.restore.test_export import FEW_BLOCKS, checkpoint


@pytest.mark.parametrize("name", [name for name in FEW_BLOCKS if getattr(archs, name).contract.not_as_onnx is None])
def test_onnx_equals_pytorch_at_sizes_it_was_not_traced_with(name, tmp_path, capsys):
    path, out = checkpoint(tmp_path, name), tmp_path / "net.onnx"
    assert main(["export", str(path), "-o", str(out)]) == 0
    assert f"{name}, " in capsys.readouterr().out
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["network"]) == {"type": name, **FEW_BLOCKS[name]}
    net = load_network(path)
    sizes = [(1, 64, 64), (3, 64, 64)] if name == "IDT" else [(1, 16, 50), (3, 81, 40), (2, 72, 128)]
    for number, height, width in sizes:
        rainy = torch.rand(number, 3, height, width)
        (derained,) = session.run(["derained"], {"rainy": rainy.numpy()})
        with torch.no_grad():
            expected = restore(net, rainy).numpy()
        assert np.abs(derained - expected).max() <= 1e-4 * np.abs(expected).max()

    Image.fromarray(data.astronaut()[:75, :90]).save(tmp_path / "rainy.png")
    pictures = []
    for chosen in (["-w", str(out), "--runtime", "onnx"], ["-w", str(path)]):
        target = tmp_path / f"{len(pictures)}.png"
        assert main(["derain", str(tmp_path / "rainy.png"), "-o", str(target), *chosen]) == 0
        pictures.append(read_photograph(target).pixels.astype(int))
    assert "by ONNX Runtime" in capsys.readouterr().out
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
