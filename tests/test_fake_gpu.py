"""Nothing of ours makes a tensor on the CPU where the network is on a GPU: everything runs on tensors of no GPU.

FakeTensorMode computes shapes, types and devices alone, and refuses what mixes devices as CUDA does. It cannot take
gradients on "cuda" without a GPU, so those are taken on "meta": to torch, a device other than the CPU like any other.
What needs values (metrics see arrays of numpy, scalers see infinities) cannot be tried so: scripts/gpu_check.sh does.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from drsformer_arch.archs import NETWORKS
from drsformer_arch.archs.contract import Contract, outputs
from drsformer_arch.fast import ACCELERATED, accelerate, form_of, fuse, has_fast_form
from drsformer_arch.restore.inference import infer
from drsformer_arch.training import losses
from drsformer_arch.training.derain_model import DerainModel
from tests.golden_weights import small_arguments

TRAINED_FAST = ("DRSformer", "Restormer", "NeRDRain")
LOSSES = {
    name: kind
    for name, kind in inspect.getmembers(losses, inspect.isclass)
    if issubclass(kind, nn.Module) and kind.__module__ == losses.__name__
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a test on fake tensors, also of "cuda" and "meta"."""

    def convert(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Stand for nn.Module._apply, which cannot exchange fake parameters: those of `to` and the like are new."""
        for part in module.modules() if recurse else (module,):
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    with torch.no_grad():
                        part._parameters[name] = nn.Parameter(function(parameter), parameter.requires_grad)
            part._buffers.update({name: function(x) for name, x in part._buffers.items() if x is not None})
        return module

    def copied(x: FakeTensor, memo: dict[int, Tensor]) -> Tensor:
        """Stand for Tensor.__deepcopy__, which reads the memory that fake tensors do not have."""
        copy = x.detach().clone()
        return memo.setdefault(id(x), nn.Parameter(copy, x.requires_grad) if isinstance(x, nn.Parameter) else copy)

    monkeypatch.setattr(nn.Module, "_apply", convert)
    monkeypatch.setattr(FakeTensor, "__deepcopy__", copied, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@contextlib.contextmanager
def autocast(dtype: torch.dtype) -> Iterator[None]:
    """Stand for torch.autocast("cuda"), which turns itself off without a GPU."""
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_cache_enabled(True)


@pytest.fixture
def gradients_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # there is none for "meta"


def of(kind: type[nn.Module], device: str) -> tuple[nn.Module, Tensor]:
    """Make a small network that was built on the CPU and moved, as everybody does, and a picture for it."""
    arguments = small_arguments()[kind.__name__]
    one_each = {name: [1] * len(arguments[name]) for name in ("num_blocks", "depth") if name in arguments}
    net = kind(**arguments | one_each)
    height = net.contract.patch_size or max(8, net.contract.size_multiple, net.contract.smallest_size)
    width = net.contract.patch_size or 2 * height
    return net.to(device), torch.rand(1, 3, height, width, device=device)


def assert_on(device: str, results: tuple[Tensor, ...], image: Tensor) -> None:
    assert results[0].shape == image.shape
    assert {(x.device.type, x.dtype) for x in results} == {(device, torch.float32)}


def take_gradients(net: nn.Module, image: Tensor) -> None:
    results = outputs(net(image))
    assert_on("meta", results, image)
    results = tuple(x for x in results if x.requires_grad)
    torch.autograd.backward(results, [torch.ones_like(x) for x in results])
    assert any(x.grad is not None for x in net.parameters())


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_in_all_forms(kind):
    net, image = of(kind, "cuda")
    seen: set[torch.dtype] = set()
    hooks = [
        module.register_forward_hook(lambda _, __, result: seen.add(result.dtype))
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        assert_on("cuda", outputs(net.eval()(image)), image)
        with autocast(torch.bfloat16):
            assert_on("cuda", outputs(net(image)), image)
        assert torch.bfloat16 in seen
        for hook in hooks:  # modules with hooks get no fast form
            hook.remove()
        assert has_fast_form(net, ACCELERATED) == (kind.__name__ in TRAINED_FAST)
        if kind.__name__ in TRAINED_FAST:
            assert form_of(accelerate(net)) == "fast"
            with autocast(torch.float16):
                assert_on("cuda", outputs(net(image)), image)
        tiles = {None: image.shape[2] // 2, torch.bfloat16: None, torch.float16: 0}
        for dtype, tile in tiles.items() if has_fast_form(net) else ():
            fused = fuse(net, dtype, tile)
            assert form_of(fused) == "fused"
            assert_on("cuda", outputs(fused(image)), image)
            fused.load_state_dict(fused.state_dict())


@pytest.mark.usefixtures("fake", "gradients_on_meta")
@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind.__name__ in TRAINED_FAST])
def test_gradients_of_fast_forms(kind):
    """Only fast forms compute gradients of their own; all others are torch's."""
    net, image = of(kind, "meta")
    assert form_of(accelerate(net)) == "fast"
    take_gradients(net, image)


@pytest.mark.usefixtures("fake")
def test_losses():
    for device in ("cuda", "meta"):
        pred, target, rainy = (torch.rand(2, 3, 32, 40, device=device) for _ in range(3))
        pred.requires_grad_()
        for name, kind in LOSSES.items():
            loss = kind().to(device)
            taken = (pred,) if getattr(loss, "takes_all_outputs", False) else pred
            further = (rainy,) if getattr(loss, "takes_rainy_pictures", False) else ()
            value = loss(taken, target, *further)
            assert value.device.type == device, name
            if device == "meta":
                value.backward()
        assert losses.pyramid_level(target, target[..., ::4, ::4]).device.type == device


@pytest.mark.usefixtures("fake")
def test_padding_tiles_and_published_inference():
    net = nn.Conv2d(3, 3, 3, padding=1).to("cuda")
    contracts = [
        Contract(size_multiple=8, smallest_size=48),
        Contract(patch_size=32, patch_overlap=8),
        Contract(value_range=255.0, window=16),
        Contract(corners=16),
    ]
    for contract in contracts:
        net.contract = contract
        for place in ("cuda", "cpu"):
            image = torch.rand(1, 3, 40, 52, device=place)
            for options in ({}, {"tile": 24, "overlap": 8}, {"as_published": True}, {"ensemble": True}):
                with torch.inference_mode():
                    result = infer(net, image, device=torch.device("cuda"), **options)
                assert (result.device.type, result.shape) == (place, image.shape)


@pytest.mark.usefixtures("fake")
def test_a_training(model_options):
    model_options |= {"num_gpu": 1, "network_g": {"type": "SPDNet", **small_arguments()["SPDNet"]}}
    model_options["datasets"]["train"] |= {
        "gt_size": 64,
        "mini_batch_sizes": [2, 1],
        "gt_sizes": [64, 32],
        "iters": [4, 4],
    }
    del model_options["train"]["pixel_opt"]
    model_options["train"] |= {
        "ema_decay": 0.9,
        "mixing_augs": {"mixup": True, "use_identity": False},
        "losses": [{"type": "EdgeLoss", "outputs": [0, 1]}, {"type": "FrequencyContrastiveLoss", "outputs": [2]}],
    }
    model = DerainModel(model_options)
    model.feed_data({"lq": torch.rand(2, 3, 64, 64), "gt": torch.rand(2, 3, 64, 64)})
    lq, gt, _ = model.plan.select(5, model.lq, model.gt, ["a", "b"])
    loss, _ = model._losses(*model._mixup(lq, gt))
    assert (loss.device.type, lq.shape) == ("cuda", (1, 3, 32, 32))
    model.model_ema(0.9)
    model.lq = torch.rand(1, 3, 61, 75, device="cuda")
    model.test()
    assert_on("cuda", (model.output,), model.lq)


class MadeInForward(nn.Conv2d):
    """Makes a tensor without a device."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.arange(x.shape[3])


class NoBuffer(nn.Conv2d):
    """Keeps a tensor that `to` does not move."""

    def __init__(self) -> None:
        super().__init__(3, 3, 1)
        self.mask = torch.ones(16)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.mask


class _OnCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient * torch.full(gradient.shape, 2)


class MadeInBackward(nn.Conv2d):
    """Makes a tensor without a device for its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return _OnCPU.apply(super().forward(x))


class MadeByFusing(nn.Conv2d):
    """Keeps weights that were arranged anew on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, torch.zeros(3, 3, 1, 1).copy_(self.weight))


@pytest.mark.usefixtures("fake", "gradients_on_meta")
@pytest.mark.parametrize("mistake", [MadeInForward, MadeInBackward, MadeByFusing, NoBuffer])
def test_mistakes_are_found(mistake):
    net = (mistake() if mistake is NoBuffer else mistake(3, 3, 1)).to("meta")
    with pytest.raises(RuntimeError, match=r"same device|devices"):
        take_gradients(net, torch.rand(1, 3, 16, 16, device="meta"))
