"""The switch between plain and fast form, wherever a network is built for use."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from drsformer_arch import DRSformer, Restorer, archs
from drsformer_arch.cli import main
from drsformer_arch.fast import form_of
from drsformer_arch.fast.builders import NetworkBuilder
from drsformer_arch.training.derain_model import DerainModel
from tests.conftest import SMALL_NETWORK
from tests.golden_weights import load_golden_weights

# isort: split
from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY


def test_basicsr_builds_fast_forms_and_says_so(caplog):
    with caplog.at_level(logging.INFO, "basicsr"):
        logging.getLogger("basicsr").addHandler(caplog.handler)
        nets = [build_network({**SMALL_NETWORK, **switch}) for switch in ({}, {"fast": True}, {"fast": False})]
        build_network({"type": "DualGCN", "fast": False})
        logging.getLogger("basicsr").removeHandler(caplog.handler)
    assert [form_of(net) for net in nets] == ["fast", "fast", "plain"]
    assert {type(net) for net in nets} == {DRSformer}
    said = [line for line in caplog.messages if " form (" in line]
    assert said[0].startswith("DRSformer runs in its fast form (network_g.fast: false")
    assert len(set(said)) == 2
    assert not any("DualGCN runs" in line for line in said)  # there is nothing to switch
    nets[2].load_state_dict(nets[0].state_dict())
    with torch.no_grad():
        picture = torch.rand(1, 3, 32, 32)
        torch.testing.assert_close(nets[0](picture), nets[2](picture), rtol=1e-4, atol=1e-5)
    for kind in archs.NETWORKS:
        registered = ARCH_REGISTRY.get(kind.__name__)
        assert isinstance(registered, NetworkBuilder)
        assert registered.kind is kind
        assert registered.__doc__ == kind.__doc__


@pytest.mark.parametrize("model_type", ["DerainModel", "SRModel"])
def test_every_model_class_obeys_the_switch(model_type, model_options, tmp_path):
    model_options |= {"model_type": model_type, "num_gpu": 0, "scale": 1}
    model_options["train"]["optim_g"]["type"] = "Adam"
    model_options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [4], "gamma": 0.5}
    model_options["train"]["pixel_opt"] |= {"loss_weight": 1, "reduction": "mean"}
    model_options["train"]["ema_decay"] = 0.9
    model_options["path"]["pretrain_network_g"] = None
    for switch, form in ((True, "fast"), (False, "plain")):
        model_options["network_g"]["fast"] = switch
        model = build_model(model_options)
        assert form_of(model.net_g) == form_of(model.net_g_ema) == form
        model.save_network(model.net_g, "net_g", int(switch))
    if model_type == "DerainModel":  # BasicSR's own model writes no metadata
        saved = [torch.load(tmp_path / "models" / f"net_g_{number}.pth")["network"] for number in (0, 1)]
        assert saved[0] == saved[1] == SMALL_NETWORK


@pytest.mark.parametrize(("switch", "form"), [(True, "fused"), (False, "plain")])
def test_validation_obeys_the_switch(switch, form, model_options, pairs):
    model_options["network_g"]["fast"] = switch
    model = DerainModel(model_options)
    seen, original = set(), model.test
    model.test = lambda: seen.add(form_of(model.inference_net)) or original()
    section = {"name": "val", "phase": "val", "scale": 1, "type": "PairedRainDataset", "dataroot": str(pairs)}
    data_set = build_dataset({**section, "io_backend": {"type": "disk"}})
    model.nondist_validation(torch.utils.data.DataLoader(data_set), 1, None, False)
    assert seen == {form}


@pytest.mark.parametrize(("value", "shown"), [("maybe", "'maybe'"), ("~", "None"), ("1", "1")])
def test_a_switch_that_is_none_is_named(value, shown, options, tmp_path, monkeypatch, capsys):  # noqa: PLR0917 - fixtures
    monkeypatch.chdir(tmp_path)
    Path("small.yml").write_text(yaml.safe_dump(options))
    assert main(["train", "-opt", "small.yml", "--force_yml", f"network_g:fast={value}"]) == 2
    assert f"option network_g.fast must be true or false, not {shown}" in capsys.readouterr().err


def test_the_restorer_and_torch_hub(tmp_path):
    net = load_golden_weights(DRSformer(**{key: value for key, value in SMALL_NETWORK.items() if key != "type"}), 0.5)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    rainy = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    fast, plain = Restorer(tmp_path / "net.pth"), Restorer(tmp_path / "net.pth", fast=False)
    assert (form_of(fast.net), form_of(plain.net)) == ("fused", "plain")
    assert np.abs(fast(rainy).astype(int) - plain(rainy)).max() <= 1
    root = Path(__file__).parents[2]
    for switch, form in ((True, "fast"), (False, "plain")):
        loaded = torch.hub.load(root, "drsformer", source="local", weights=str(tmp_path / "net.pth"), fast=switch)
        assert form_of(loaded) == form
