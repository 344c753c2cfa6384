"""Losses of NeRD-Rain, SFHformer and FADformer against the values and gradients of the published implementations."""

import numpy as np
import pytest
import torch

import drsformer_arch.plugin  # noqa: F401 - makes BasicSR importable
from drsformer_arch.archs import NeRDRain
from drsformer_arch.system.errors import UserError
from drsformer_arch.training.derain_model import DerainModel
from drsformer_arch.training.losses import EdgeLoss, FFTLoss, FrequencyContrastiveLoss, pyramid_level
from drsformer_arch.training.training_log import GRADIENT_NORM
from tests.golden_weights import GOLDEN, golden_input, load_golden_weights, load_json

# isort: split
from basicsr.losses import build_loss
from basicsr.losses.basic_loss import CharbonnierLoss, L1Loss

NERDRAIN = {"charbonnier": CharbonnierLoss(eps=1e-6), "edge": EdgeLoss(), "fft": FFTLoss(), "l1": L1Loss()}
SCALES = {"charbonnier": (0, 1, 2), "fft": (0, 1, 2), "edge": (0, 1, 2), "l1": (3, 5)}  # outputs that each compares
WEIGHTS = {"charbonnier": 1, "fft": 0.01, "edge": 0.05, "l1": 0.1}


def near(value: float) -> object:
    return pytest.approx(value, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("pair", load_json("nerdrain_losses")["pairs"], ids=["even", "odd"])
@pytest.mark.parametrize("name", NERDRAIN)
def test_losses_of_nerdrain(name, pair):
    x, y = (golden_input(pair["shape"], pair[seed]).double() for seed in ("x_seed", "y_seed"))
    x.requires_grad_()
    loss = NERDRAIN[name](x, y)
    assert loss.item() == near(pair["values"][name])
    loss.backward()
    assert x.grad.norm().item() == near(pair["grad_l2"][name])
    golden = np.load(GOLDEN / "nerdrain_losses.npz")
    if golden["grad_edge"].shape == x.shape:
        torch.testing.assert_close(EdgeLoss.laplacian(x.detach()), torch.from_numpy(golden["laplacian_x"]))
        if f"grad_{name}" in golden:
            torch.testing.assert_close(x.grad, torch.from_numpy(golden[f"grad_{name}"]), rtol=1e-9, atol=1e-12)


def sums(results: list[torch.Tensor] | tuple[torch.Tensor, ...], target: torch.Tensor) -> dict[str, torch.Tensor]:
    values = {}
    for name, scales in SCALES.items():
        values[name] = sum(NERDRAIN[name](results[i], pyramid_level(target, results[i])) for i in scales)
    return values | {"total": sum(WEIGHTS[name] * value for name, value in values.items())}


def test_nerdrain_compares_every_scale_with_a_pyramid_of_the_target():
    golden, facts = np.load(GOLDEN / "nerdrain_losses.npz"), load_json("nerdrain_losses")["recipe"]
    target = golden_input(facts["target_shape"], facts["target_seed"]).double()
    results = [
        golden_input(shape, seed).double().requires_grad_()
        for shape, seed in zip(facts["restored_shapes"], facts["restored_seeds"], strict=True)
    ]
    for index in (1, 2):
        level = pyramid_level(target, results[index])
        torch.testing.assert_close(level, torch.from_numpy(golden[f"pyramid{index}"]), rtol=0, atol=1e-12)
    values = sums(results, target)
    assert {name: value.item() for name, value in values.items()} == near(facts["values"])
    values["total"].backward()
    assert [None if x.grad is None else near(x.grad.norm().item()) for x in results] == facts["grad_l2"]
    with pytest.raises(ValueError, match="no halves"):
        pyramid_level(target, target[..., :-1])


def test_nerdrain_is_trained_as_published():
    facts, small = load_json("nerdrain_losses")["network"], load_json("nerdrain_small")
    net = load_golden_weights(NeRDRain(**small["config"]), small["weight_gain"]).double()
    results = net(golden_input(small["input_shape"], small["input_seed"]).double())
    values = sums(results, golden_input(facts["target_shape"], facts["target_seed"]).double())
    assert {name: value.item() for name, value in values.items()} == near(facts["values"])
    values["total"].backward()
    for key, norm in facts["grad_l2"].items():
        assert net.get_parameter(key).grad.norm().item() == near(norm), key
    everything = torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])
    assert everything.norm().item() == near(facts["grad_l2_all"])


RECIPE = [
    {"type": "CharbonnierLoss", "eps": 1e-6, "outputs": [0, 1, 2]},
    {"type": "FFTLoss", "loss_weight": 0.01, "outputs": [0, 1, 2]},
    {"type": "EdgeLoss", "loss_weight": 0.05, "outputs": [0, 1, 2]},
    {"type": "L1Loss", "loss_weight": 0.1, "outputs": [3, 5]},
]


def test_an_option_file_holds_the_recipe_term_by_term(model_options):
    """`train.losses` alone, and beside `pixel_opt`; every term is in the log and the gradient is that of their sum."""
    facts, small = load_json("nerdrain_losses")["network"], load_json("nerdrain_small")
    model_options["network_g"] = {"type": "NeRDRain", **small["config"]}
    model_options["train"] |= {"losses": RECIPE, "pixel_opt": None, "grad_clip": None}
    model_options["datasets"]["train"] |= {"gt_size": 64}
    model = DerainModel(model_options)
    load_golden_weights(model.net_g, small["weight_gain"])
    batch = {
        "lq": golden_input(small["input_shape"], small["input_seed"]),
        "gt": golden_input(facts["target_shape"], facts["target_seed"]),
    }
    model.feed_data(batch)
    model.optimize_parameters(1)
    log = model.get_current_log()
    values = facts["values"]
    for name, value in zip(("l_charbonnier", "l_fft", "l_edge", "l_l1"), WEIGHTS, strict=True):
        assert log[name] == pytest.approx(WEIGHTS[value] * values[value], rel=1e-5)
    assert log[GRADIENT_NORM] == pytest.approx(facts["grad_l2_all"], rel=1e-4)
    assert "l_pix" not in log

    model_options["train"] |= {
        "losses": [{"type": "FrequencyContrastiveLoss", "name": "fcr"}],
        "pixel_opt": {"type": "L1Loss"},
    }
    model = DerainModel(model_options)
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert {"l_pix", "l_fcr"} <= model.get_current_log().keys()


def assert_case(case: dict, x: torch.Tensor, loss: torch.Tensor) -> None:
    assert loss.item() == near(case["loss"])
    loss.backward()
    assert x.grad.norm().item() == near(case["grad_l2"])
    assert x.grad.abs().sum().item() == near(case["grad_abs_sum"])
    assert x.grad.flatten()[:4].tolist() == near(case["grad_first4"])


def pictures(case: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, other, rainy = (golden_input(case["shape"], case["seed"] + add).double() for add in (0, 100, 200))
    return x.requires_grad_(), (0.7 * x + 0.3 * other).detach(), rainy


@pytest.mark.parametrize("case", load_json("sfhformer_losses")["cases"], ids=["even", "odd"])
def test_loss_of_sfhformer(case):
    x, target, _ = pictures(case)
    assert FFTLoss(convention="parts")(x, target).item() == near(case["fft"])
    assert_case(case, x, L1Loss()(x, target) + FFTLoss(0.1, convention="parts")(x, target))


@pytest.mark.parametrize("case", load_json("fadformer_losses")["cases"], ids=["four", "three"])
def test_contrastive_loss_of_fadformer(case):
    x, target, rainy = pictures(case)
    contrastive = FrequencyContrastiveLoss(0.1)(x, target, rainy, torch.tensor(case["negatives"]))
    assert contrastive.item() == near(0.1 * case["fcr"])
    assert_case(case, x, L1Loss()(x, target) + contrastive)


def test_negatives_are_the_picture_itself_and_another():
    torch.manual_seed(0)
    drawn = torch.stack([FrequencyContrastiveLoss.draw(5) for _ in range(200)])
    assert (drawn[:, :, 0] == torch.arange(5)).all()
    others = [set(drawn[:, own, 1].tolist()) for own in range(5)]
    assert others == [set(range(5)) - {own} for own in range(5)]
    assert FrequencyContrastiveLoss.draw(2).tolist() == [[0, 1], [1, 0]]
    assert FrequencyContrastiveLoss.draw(1).tolist() == [[0]]
    with pytest.raises(ValueError, match="convention"):
        FFTLoss(convention="phase")


def test_weights_of_the_perceptual_loss_come_from_a_file(tmp_path):
    section = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1.0}}
    path = tmp_path / "vgg.pth"
    with pytest.raises(UserError, match=r"perceptual_opt\.weights: there is no file .*vgg\.pth"):
        build_loss({**section, "weights": str(path)})
    path.write_bytes(b"not a file of weights")
    with pytest.raises(UserError, match=r"perceptual_opt\.weights: .*vgg\.pth holds no weights of this VGG"):
        build_loss({**section, "weights": str(path)})
