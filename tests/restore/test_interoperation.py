"""Tools that know nothing of us load our files: spandrel and torch.hub."""

import importlib
import sys
from pathlib import Path

import pytest
import spandrel
import torch

from drsformer_arch import archs, spandrel_support
from drsformer_arch.restore.tiling import restore
from drsformer_arch.restore.weights import save_safetensors
from tests.golden_weights import load_golden_weights, load_json
from tests.restore.test_export import SMALL

ROOT = Path(__file__).parents[2]
KINDS = {kind.__name__: kind for kind in archs.NETWORKS}


@pytest.fixture(scope="module")
def loader() -> spandrel.ModelLoader:
    registry = spandrel.MAIN_REGISTRY.copy()
    for _ in range(2):
        spandrel_support.install(registry)
    ours = [each for each in registry if isinstance(each.architecture, spandrel_support.DerainingArchitecture)]
    assert len(ours) == len(KINDS)  # also where a test before has made them known to spandrel's own registry
    return spandrel.ModelLoader("cpu", registry)


def test_without_spandrel_one_line_says_what_installs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "drsformer_arch.spandrel_support")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ModuleNotFoundError, match=r"^spandrel needs .*: pip install 'drsformer-basicsr\[spandrel\]'$"):
        importlib.import_module("drsformer_arch.spandrel_support")


@pytest.mark.parametrize("name", KINDS)
def test_spandrel_loads_our_files(name, loader, tmp_path):
    net = load_golden_weights(KINDS[name](**SMALL[name]), 0.5).eval()
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    save_safetensors(tmp_path / "net.safetensors", net.state_dict(), {"type": name, **SMALL[name]})
    rainy = torch.rand(1, 3, 45, 70)
    with torch.no_grad():
        expected = restore(net, rainy).clamp(0, 1)
    for path in sorted(tmp_path.iterdir()):
        model = loader.load_from_file(path)
        assert model.architecture.id == name
        assert model.purpose == "Restoration"
        assert model.scale == 1
        torch.testing.assert_close(model(rainy), expected)


@pytest.mark.parametrize(
    ("published", "name"),
    [
        ("drsformer_official", "DRSformer"),
        ("drsformer_official_without_mefc", "DRSformer"),
        ("restormer_official", "Restormer"),
        ("idt_official", "IDT"),
        ("spdnet_official", "SPDNet"),
    ],
)
def test_spandrel_detects_published_files(published, name, loader):
    state = {key: torch.zeros(shape) for key, shape in load_json(f"{published}_state_dict").items()}
    assert loader.load_from_state_dict({"params": state}).architecture.id == name


def test_torch_hub(tmp_path):
    for kind in archs.NETWORKS:
        small = torch.hub.load(ROOT, kind.__name__.lower(), source="local", **SMALL[kind.__name__])
        assert type(small).__name__ == kind.__name__
    net = torch.hub.load(ROOT, "drsformer", source="local", **SMALL["DRSformer"])
    assert isinstance(net, torch.nn.Module)
    assert net.training
    path = str(tmp_path / "net.pth")
    torch.save(net.state_dict(), path)
    again = torch.hub.load(ROOT, "drsformer", source="local", weights=path)
    assert torch.equal(again.state_dict()["output.weight"], net.state_dict()["output.weight"])
    with pytest.raises(ValueError, match="holds a DRSformer, not a Restormer"):
        torch.hub.load(ROOT, "restormer", source="local", weights=path)
    rainy = (torch.rand(20, 30, 3) * 255).byte().numpy()
    assert torch.hub.load(ROOT, "restorer", source="local", weights=path)(rainy).shape == rainy.shape
