"""LPIPS: the values of the package itself, which network a file is of, and what goes wrong."""

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from skimage import data

from drsformer_arch.cli import main
from drsformer_arch.plugin import METRIC_REGISTRY
from drsformer_arch.system.errors import UserError
from drsformer_arch.training.learned_distance import load_lpips
from drsformer_arch.training.validation import needs_target, try_metric

lpips = pytest.importorskip("lpips")
CLEAN = np.ascontiguousarray(data.astronaut()[:96, 100:228])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Give weights of SqueezeNet that a seed draws, where torchvision looks for those that it would fetch."""
    torch.manual_seed(3)
    path = tmp_path / "checkpoints" / Path(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url).name
    path.parent.mkdir()
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_are_those_of_the_package(weights, tmp_path, monkeypatch, capsys):
    noise = np.random.default_rng(0).normal(0, 20, CLEAN.shape)
    result = np.clip(CLEAN + noise, 0, 255).astype(np.uint8)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    theirs = lpips.LPIPS(net="squeeze", verbose=False)  # takes the file itself
    with torch.no_grad():
        expected = theirs(*map(lpips.im2tensor, (result, CLEAN))).item()
    assert expected > 0.01
    metric = METRIC_REGISTRY.get("calculate_lpips")
    ours = metric(result[..., ::-1], CLEAN[..., ::-1], weights=str(weights), better="lower")
    assert ours == pytest.approx(expected, rel=1e-5)
    assert metric(CLEAN, CLEAN, weights=str(weights)) == 0
    assert needs_target({"type": "calculate_lpips"})

    for name, picture in (("result", result), ("target", CLEAN)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), picture[..., ::-1])
        cv2.imwrite(str(tmp_path / name / "2.png"), picture[:16, :16, ::-1])
    arguments = ["evaluate", str(tmp_path / "result"), str(tmp_path / "target"), "--protocol", "rgb"]
    out = tmp_path / "scores.csv"
    assert main([*arguments, "--lpips", str(weights), "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert f"\nLPIPS              {expected:.4f}" in said.out
    assert "LPIPS needs at least 32 x 32 pixels, these are 16 x 16" in said.err
    rows = list(csv.DictReader(out.open()))
    assert float(rows[0]["lpips"]) == pytest.approx(expected, rel=1e-5)
    assert main([*arguments, "--lpips", str(tmp_path / "nowhere.pth")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: there is no file {tmp_path / 'nowhere.pth'}; LPIPS needs the weights of AlexNet")
    assert said.count("\n") == 1


def test_networks_are_told_apart_and_other_weights_are_refused(tmp_path):
    torch.manual_seed(0)
    alex = torchvision.models.AlexNet().features.state_dict(prefix="features.")
    path = tmp_path / "alex.pth"
    torch.save(alex, path)
    model = load_lpips(str(path))
    assert model.pnet_type == "alex"
    assert torch.equal(model.net.slice2[1].weight, alex["features.3.weight"])
    assert torch.equal(model.net.slice5[0].bias, alex["features.10.bias"])
    section = {"type": "calculate_lpips", "weights": str(path)}
    try_metric(section, "val.metrics.lpips", 48, 64)
    for state in ({**alex, "features.3.weight": torch.zeros(1)}, {"conv.weight": torch.zeros(1)}, [1]):
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(UserError, match=r"val\.metrics\.lpips: .*other\.pth holds no weights of AlexNet, VGG16 or"):
            try_metric({**section, "weights": str(tmp_path / "other.pth")}, "val.metrics.lpips", 48, 64)
    torch.save({key: value * math.nan for key, value in alex.items()}, tmp_path / "nan.pth")
    with pytest.raises(UserError, match=r"nan\.pth holds NaN or infinite values"):
        load_lpips(str(tmp_path / "nan.pth"))
