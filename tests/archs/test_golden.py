"""The networks against the published implementations' outputs, gradients, keys and shapes, plain and in fast forms."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from drsformer_arch import archs
from drsformer_arch.archs.contract import outputs
from drsformer_arch.fast import accelerate, plain
from drsformer_arch.restore.networks import drop_unused
from tests.golden_weights import GOLDEN, golden_input, load_golden_weights, load_json

NETWORKS = {kind.__name__.lower(): kind for kind in archs.NETWORKS}
# Golden values of a second, literal implementation, which those of the published networks confirmed.
LITERAL = ["drsformer_gray", "drsformer_batch", "drsformer_bias", "drsformer_odd", "restormer_bias", "restormer_odd"]
WITH_FAST_FORM = ["drsformer_small", "drsformer_small_without_mefc", "restormer_small"]
VARIANTS = sorted(path.stem for path in GOLDEN.glob("*_small*.json"))
TOLERANCE = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-5, 1e-4)}  # outputs, gradient norms


def golden_network(name: str) -> tuple[torch.nn.Module, dict, dict]:
    facts = load_json(name)
    net = NETWORKS[name.partition("_")[0]](**facts["config"])
    load_golden_weights(net, facts.get("weight_gain", 1.0)).train(facts.get("mode") == "train")
    return net, facts, dict(np.load(GOLDEN / f"{name}.npz"))


def golden_image(facts: dict) -> torch.Tensor:
    return golden_input(facts["input_shape"], facts["input_seed"]) * np.float32(facts.get("input_scale", 1))


def weighted_sum(results: tuple[torch.Tensor, ...], facts: dict) -> torch.Tensor:
    """The scalar whose gradients the golden files hold."""
    total = torch.zeros((), dtype=results[0].dtype)
    for index, result in enumerate(results):
        g = np.random.RandomState(facts["input_seed"] + 1 + index).standard_normal(tuple(result.shape))
        total = total + (result * torch.from_numpy(g).to(result.dtype)).sum()
    return total


def deviation(a: torch.Tensor, b: np.ndarray) -> float:
    return float(np.abs(a.detach().double().numpy() - b).max() / np.abs(b).max())


@pytest.fixture
def relu_sides(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first pass decides which values ReLUs let through, the second follows it.

    Some values are 1e-8 from the kink. In float32 processor and number of threads decide on which side they fall, and
    with it about gradients that differ by up to a tenth.
    """
    sides: list[torch.Tensor] = []
    relu, ahead = torch.nn.functional.relu, 0

    def follow(x: torch.Tensor, **_: bool) -> torch.Tensor:
        nonlocal ahead
        if x.dtype == torch.float64:
            sides.append(x > 0)
            return relu(x)
        ahead += 1
        return x * sides[ahead - 1]

    monkeypatch.setattr(torch.nn.functional, "relu", follow)
    yield
    assert ahead in (0, len(sides))


@pytest.mark.parametrize(
    ("name", "form", "dtype"),
    [
        *itertools.product(VARIANTS, [plain], TOLERANCE),
        *itertools.product(WITH_FAST_FORM, [accelerate], TOLERANCE),
        *itertools.product(LITERAL, [plain, accelerate], [torch.float64]),
    ],
)
@pytest.mark.usefixtures("relu_sides")
def test_outputs_and_gradients_equal_the_published_network(name, form, dtype):
    net, facts, golden = golden_network(name)
    image = golden_image(facts)
    if dtype == torch.float32:
        form(net).double()(image.double())
        net, *_ = golden_network(name)
    net, image = form(net).to(dtype), image.to(dtype).requires_grad_()
    results = outputs(net(image))
    output_tolerance, gradient_tolerance = TOLERANCE[dtype]
    for result, key in zip(results, facts.get("outputs", ["output"]), strict=True):
        assert deviation(result, golden[key]) <= output_tolerance, key

    for key, value in net.named_buffers():
        if key in golden:  # running statistics, after one pass in training
            assert deviation(value, golden[key]) <= output_tolerance, key

    weighted_sum(results, facts).backward()
    assert deviation(image.grad, golden["grad_input"]) <= output_tolerance
    norms = {
        key: float(parameter.grad.double().norm())
        for key, parameter in net.named_parameters()
        if parameter.requires_grad
    }
    used = {key: value for key, value in facts["grad_l2"].items() if value is not None}
    assert norms.keys() == used.keys()
    # DualGCN's softmaxes, and NeRD-Rain's temperatures, have gradients that are differences of far larger parts.
    cancels = name.startswith(("dualgcn", "nerdrain")) and dtype == torch.float32
    smallest = 1e-6 * max(used.values()) if cancels else 1e-7
    for key, expected in used.items():
        assert norms[key] == pytest.approx(expected, rel=gradient_tolerance, abs=smallest), key


def test_the_published_configuration():
    """All 33.7 million parameters, in float64."""
    net, facts, golden = golden_network("drsformer_published")
    image = golden_image(facts).double().requires_grad_()
    output = net.double()(image)
    assert deviation(output, golden["output"]) <= 1e-9
    weighted_sum((output,), facts).backward()
    assert deviation(image.grad, golden["grad_input"]) <= 1e-9
    for key, parameter in net.named_parameters():
        assert parameter.grad.norm().item() == pytest.approx(facts["grad_l2"][key], rel=1e-9), key


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("drsformer_official", {}, 33_655_424),
        ("drsformer_official_without_mefc", {"with_mefc": False}, 32_610_304),
        ("restormer_official", {}, 26_126_644),
        ("restormer", {"LayerNorm_type": "BiasFree"}, 26_111_668),
        ("idt_official", {}, 16_416_463),
        ("spdnet_official", {}, 2_981_525),
        ("dualgcn_official", {}, 2_731_071),
        ("nerdrain_official", {}, 22_888_538),
        ("nerdrain_s_official", {"dim": 32}, 10_528_266),
        ("sfhformer_s_official", {"depth": [2, 2, 4, 2, 2]}, 2_960_527),
        ("sfhformer_m_official", {}, 5_826_843),
        ("sfhformer_l_official", {"depth": [6, 6, 10, 6, 6]}, 7_612_069),
        ("sfhformer", {"groups": 2, "depth": [6, 6, 10, 6, 6]}, 7_631_559),
        ("fadformer_official", {}, 6_958_041),
        ("fadformer_mini_official", {"embed_dim": [24, 48, 96, 48, 24], "depth": [2, 3, 4, 3, 2]}, 1_709_733),
    ],
)
def test_keys_and_shapes_equal_the_published_checkpoints(name, options, parameters):
    with torch.device("meta"):
        net = NETWORKS[name.partition("_")[0]](**options)
    state = net.state_dict()
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    if "_official" in name:  # other sizes have no published file
        published = drop_unused(net, load_json(f"{name}_state_dict"))
        assert {key: list(value.shape) for key, value in state.items()} == published
