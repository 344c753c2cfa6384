"""The fast forms against the plain networks, what they may replace, and how they are switched."""

import copy
import pickle
import sys
import types

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from drsformer_arch import archs, fast
from drsformer_arch.archs import DRSformer, FADformer, NeRDRain, Restormer, SFHformer
from drsformer_arch.archs.contract import outputs
from drsformer_arch.archs.drsformer_arch import (
    Expert,
    ExpertStep,
    MixedScaleFeedForward,
    SparseTransformerBlock,
    TopKSparseAttention,
)
from drsformer_arch.archs.u_shape import Level
from drsformer_arch.fast import accelerate, form_of, fuse, plain
from drsformer_arch.fast.slabs import SumOfSlabs
from drsformer_arch.fast.tiles import replace_by_tiles
from tests.golden_weights import golden_input, load_golden_weights

SMALL = {"dim": 8, "num_blocks": (1, 1, 1, 1)}
VARIANTS = {
    "DRSformer": (DRSformer, {"heads": (1, 2, 2, 4), "num_blocks": (2, 1, 1, 1)}),
    "odd hidden sizes": (DRSformer, {"dim": 12, "ffn_expansion_factor": 2.1, "LayerNorm_type": "BiasFree"}),
    "biases": (DRSformer, {"dim": 12, "ffn_expansion_factor": 2.1, "bias": True, "with_mefc": False}),
    "gray": (DRSformer, {"inp_channels": 1, "out_channels": 1, "ffn_expansion_factor": 3.2, "bias": True}),
    "Restormer": (Restormer, {"num_refinement_blocks": 2}),
    "Restormer, biases": (
        Restormer,
        {"dim": 12, "ffn_expansion_factor": 2.1, "bias": True, "LayerNorm_type": "BiasFree"},
    ),
    "NeRDRain": (NeRDRain, {"num_blocks": (2, 1, 1), "heads": (1, 2, 2)}),
    "NeRDRain, biases": (
        NeRDRain,
        {"num_blocks": (1, 2, 1), "heads": (1, 1, 2), "bias": True, "LayerNorm_type": "BiasFree"},
    ),
    "dual pixel": (Restormer, {"inp_channels": 6, "dual_pixel_task": True}),
}
SIZES = {  # number, height, width, and tiles: none, less than the halo, the lowest level's, larger than all; a rest
    (1, 48, 24): (0, 3, 8, 64),
    (3, 16, 40): (20,),
}


def network(kind: type[nn.Module] = DRSformer, seed: int = 0, **options) -> nn.Module:
    net = load_golden_weights(kind(**SMALL | options)).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def pictures(net: nn.Module, number: int, height: int, width: int) -> torch.Tensor:
    height, width = (side + -side % net.contract.size_multiple for side in (height, width))
    return torch.rand(number, net.contract.picture_channels, height, width, dtype=torch.float64)


def gradients(net: nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compute the first output, and the gradients of a weighted sum of all."""
    image = image.clone().requires_grad_()
    net.zero_grad(set_to_none=True)
    output, *others = outputs(net(image))
    torch.manual_seed(1)
    sums = [(x * torch.randn(x.shape, dtype=torch.float64).to(x.dtype)).sum() for x in (output, *others)]
    torch.stack(sums).sum().backward()
    return output.detach(), {"image": image.grad} | {name: value.grad for name, value in net.named_parameters()}


@pytest.mark.parametrize("name", VARIANTS)
def test_fast_forms_equal_the_plain_network(name):
    kind, options = VARIANTS[name]
    net = network(kind, **options)
    accelerated = accelerate(copy.deepcopy(net))
    assert (form_of(net), form_of(accelerated)) == ("plain", "fast")
    for training, (shape, tiles) in zip((True, False), SIZES.items(), strict=True):
        image = pictures(net, *shape)
        expected, wanted = gradients(net.train(training), image)
        output, found = gradients(accelerated.train(training), image)
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
        for key, gradient in wanted.items():
            # NeRD-Rain's queries have gradients of 1e-13 behind values of 1e3: 2.3e-9 on some processors.
            torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-8 * gradient.abs().max(), msg=key)
        for tile in tiles:
            fused = fuse(accelerated, tile=tile)
            assert form_of(fused) == "fused"
            assert form_of(accelerated) == "fast"
            with torch.no_grad():
                output = outputs(fused(image))[0]
            torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9, msg=f"tiles of {tile} pixels, {shape}")


BATCH_NORMS = {
    "SFHformer": lambda: SFHformer(embed_dim=[8, 16, 32, 16, 8], depth=[1, 1, 2, 0, 1]),
    "SFHformer, groups": lambda: SFHformer(embed_dim=[4, 8, 16, 8, 4], depth=[1, 1, 1, 1, 1], groups=4),
    "FADformer": lambda: FADformer(embed_dim=[8, 16, 32, 16, 8], depth=[1, 0, 2, 1, 1]),
}


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_batch_norms_are_folded_in_inference_only(name):
    net = load_golden_weights(BATCH_NORMS[name]()).double()
    image = torch.rand(2, 3, 36, 28, dtype=torch.float64)
    assert form_of(accelerate(copy.deepcopy(net))) == "plain"
    fused = fuse(net)
    assert form_of(fused) == "fused"
    assert fused.state_dict().keys() == net.state_dict().keys()
    with torch.no_grad():
        expected = net.eval()(image)
        torch.testing.assert_close(fused(image), expected, rtol=1e-9, atol=1e-9)
        for tensor in fused.parameters():  # no second copy of a weight, and none of a running mean
            tensor.mul_(0.5)
        for tensor in (parameter for parameter in net.parameters()):
            tensor.mul_(0.5)
        torch.testing.assert_close(fused(image), net(image), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(fused.train()(image), net.train()(image), rtol=1e-9, atol=1e-9)
    net.eval().get_submodule("layer1.blocks.0.norm1").register_forward_hook(lambda *_: None)
    assert "but for Block" in form_of(fuse(net))


class SameChoice:
    """All passes keep the scores that the first one kept: near ties among them may fall to either side otherwise."""

    def __init__(self, net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.orders: dict[str, torch.Tensor] = {}
        self.at = ""
        self.watch(net)
        monkeypatch.setattr(torch.Tensor, "topk", self.topk)

    def watch(self, net: nn.Module) -> nn.Module:
        for name, module in net.named_modules():
            if isinstance(module, TopKSparseAttention):
                module.register_forward_pre_hook(lambda _module, _inputs, name=name: setattr(self, "at", name))
        return net

    @property
    def topk(self):
        def choose(scores: torch.Tensor, k: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
            order = self.orders.setdefault(self.at, scores.argsort(dim=dim, descending=True))[..., :k]
            return scores.gather(dim, order), order

        return choose


@pytest.mark.parametrize("name", ["DRSformer", "odd hidden sizes", "biases", "Restormer"])
def test_fast_forms_in_lower_precision(name, monkeypatch):
    """They are no further from float64 than the plain network in the same precision is."""
    kind, options = VARIANTS[name]
    net = network(kind, **options)
    image = pictures(net, 2, 32, 40)
    same = SameChoice(net, monkeypatch)
    expected, exact = gradients(net, image)
    net.float()
    accelerated = accelerate(copy.deepcopy(net))

    def error(actual: torch.Tensor, wanted: torch.Tensor = expected) -> float:
        return float((actual.double() - wanted).norm() / wanted.norm())

    output, found = gradients(accelerated, image.float())
    assert error(output) < 1e-5
    # At the kinks of ReLU gradients follow the rounding: single ones may differ by more.
    together, wanted = (torch.cat([one.double().flatten() for one in given.values()]) for given in (found, exact))
    assert error(together, wanted) < 1e-2
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            plainly, wanted = gradients(net, image.float())
            quickly, found = gradients(accelerated, image.float())
        finite = all(gradient.isfinite().all() for gradient in wanted.values())  # float16 may overflow without a scale
        with torch.no_grad():
            fused = fuse(accelerated, dtype, tile=0)(image.float())
        assert fused.dtype == torch.float32
        assert not finite or all(gradient.isfinite().all() for gradient in found.values())
        assert max(error(quickly), error(fused)) < 1.5 * error(plainly), dtype
    assert same.orders.keys() == {key for key, module in net.named_modules() if isinstance(module, TopKSparseAttention)}


@pytest.mark.parametrize("kind", [archs.IDT, archs.SPDNet, archs.DualGCN])
def test_networks_without_fast_forms_stay_as_they_are(kind):
    net = load_golden_weights(kind(), 0.5).eval()
    assert form_of(accelerate(net)) == "plain"
    assert not fast.has_fast_form(net)
    with torch.no_grad():
        for one, other in zip(
            *(outputs(form(torch.rand(1, 3, 128, 128).fill_(0.5))) for form in (net, fuse(net))), strict=True
        ):
            assert torch.equal(one, other)


class OtherForward(MixedScaleFeedForward):
    """A class whose forward a researcher changed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * super().forward(x)


class OtherUse(DRSformer):
    """A network that uses a map again that a level was given."""

    def features(self, image: torch.Tensor) -> torch.Tensor:
        x = self.encoder_level0(self.patch_embed(image))
        return torch.cat((self.encoder_level1(x) + x, self.encoder_level1(x)), dim=1)


def test_only_exactly_the_classes_that_forms_were_written_for_are_replaced(monkeypatch):
    net = network(num_blocks=(2, 1, 1, 1))
    block = net.encoder_level1[0]
    block.ffn.__class__ = OtherForward
    accelerate(net)
    assert type(block.ffn) is OtherForward
    assert form_of(net) == "fast but for OtherForward"
    x = torch.rand(1, 8, 40, 40, dtype=torch.float64)
    for form in (net, fuse(net, tile=8), fuse(net.float(), torch.bfloat16, tile=8)):
        first = form.encoder_level1[0]
        with torch.no_grad():
            y = x.to(next(form.parameters()).dtype)
            if first is not block:
                assert not first.ffn(first.norm2(y)).any(), "the other feed-forward is not called"
    plain(net)

    whole = OtherUse(**SMALL).double()
    picture = torch.rand(1, 3, 40, 40, dtype=torch.float64)
    with torch.no_grad():  # nothing that is still used may be overwritten
        torch.testing.assert_close(fuse(whole, tile=8)(picture), whole(picture), rtol=1e-9, atol=1e-9)

    class Block(SparseTransformerBlock):
        pass

    part = Block(8, 1, 16, False, "WithBias")
    assert type(accelerate(part)) is Block
    assert type(fuse(part)) is Block

    monkeypatch.setattr(TopKSparseAttention, "forward", nn.Identity.forward)  # a class that was changed in a session
    assert type(accelerate(TopKSparseAttention(8, 1, False))) is TopKSparseAttention


def test_parts_that_are_exchanged_or_hooked_into_run():
    def attention() -> TopKSparseAttention:
        return TopKSparseAttention(8, 1, False)

    class Adapter(nn.Conv2d):
        pass

    adapted, hooked, wider, later = attention(), attention(), attention(), accelerate(attention())
    wider.qkv_dwconv = nn.Conv2d(24, 24, 5, padding=2, groups=24, bias=False)
    adapted.qkv = Adapter(8, 24, 1, bias=False)
    hooked.qkv.register_forward_hook(lambda *_: None)
    assert type(later) is not TopKSparseAttention
    later.project_out = nn.Conv2d(8, 8, 1, bias=False)
    assert form_of(later) == "fast"  # as before
    later.qkv = Adapter(8, 24, 1, bias=False)
    changed = (accelerate(adapted), accelerate(hooked), accelerate(wider), later)
    assert {type(module) for module in changed} == {TopKSparseAttention}

    own_forward, part_with_forward, watched, mixed, normed, added = (attention() for _ in range(6))
    own_forward.forward = lambda x: x
    part_with_forward.qkv.forward = lambda x: x.repeat(1, 3, 1, 1)
    watched.qkv.register_full_backward_hook(lambda *_: None)
    mixed.attn1 = nn.Parameter(torch.rand(1, 8, 8))
    for module in (accelerate(normed), accelerate(added)):
        assert form_of(module) == "fast"
    normed.qkv = nn.utils.weight_norm(nn.Conv2d(8, 24, 1, bias=False))  # of the same class, but hooked into
    added.add_module("qkv", Adapter(8, 24, 1, bias=False))
    for module in (own_forward, part_with_forward, watched, mixed, normed, added):
        assert type(accelerate(module)) is TopKSparseAttention
    accelerated = accelerate(attention())
    nn.utils.parametrize.register_parametrization(accelerated, "temperature", nn.Softplus())
    assert not isinstance(vars(TopKSparseAttention).get("temperature"), property)  # only of the one that asked for it

    step = ExpertStep(8)
    other, x, gates = copy.deepcopy(step), torch.rand(1, 8, 9, 9), torch.rand(1, 8)
    accelerate(step)
    adapter, expert = nn.Sequential(nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 8, 3, padding=1)
    for one in (step, other):
        one._ops[1].op[4], one._ops[5] = adapter, expert
    torch.testing.assert_close(step(x, gates), other(x, gates), rtol=1e-4, atol=1e-5)

    block = SparseTransformerBlock(8, 1, 16, False, "WithBias")
    block.norm2 = nn.InstanceNorm2d(8)  # looks at all pixels: no tiles
    x = torch.rand(1, 8, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(fuse(Level(block), tile=8)(x), block(x), rtol=1e-5, atol=1e-5)
    for part in ("norm1", "attn", "norm2", "ffn"):
        hooked = SparseTransformerBlock(8, 1, 16, False, "WithBias")
        hooked.get_submodule(part).register_forward_hook(lambda _module, _x, y: y - y.mean(dim=(2, 3), keepdim=True))
        assert type(fuse(hooked)) is SparseTransformerBlock


def test_experts_whose_class_was_changed_run(monkeypatch):
    monkeypatch.setattr(Expert, "forward", lambda self, x: 2 * self.op(x))
    assert type(accelerate(ExpertStep(8))) is ExpertStep


def dense(level: Level, x: torch.Tensor) -> torch.Tensor:
    maps = [x]
    for block in level:
        maps.append(block(maps[-1]))
    return sum(maps[1:], start=x)


def stashing(net: nn.Module) -> nn.Module:
    """Give a network a skip from the embedding to the end, by hooks."""
    stash = []
    net.encoder_level0.register_forward_hook(lambda _module, _x, y: stash.append(y))
    net.refinement.register_forward_hook(lambda _module, _x, y: y + torch.cat((stash.pop(),) * 2, dim=1))
    return net


def one_scale(net: nn.Module) -> nn.Module:
    """Make a network whose second level gets what is also the first skip."""
    net.down1_2, net.encoder_level2 = nn.Identity(), copy.deepcopy(net.encoder_level1)
    net.down2_3, net.up3_2 = nn.Conv2d(8, 32, 2, stride=2), nn.ConvTranspose2d(32, 24, 2, stride=2)
    net.up2_1 = nn.Conv2d(16, 8, 1)
    return net.double()


def with_method(name: str, of: str, function) -> object:
    def change(net: nn.Module) -> nn.Module:
        module = net.get_submodule(of)
        setattr(module, name, types.MethodType(function, module))
        return net

    return change


CHANGES = {
    "dense level": with_method("forward", "encoder_level1", dense),
    "other features": with_method("features", "", OtherUse.features),
    "stash": stashing,
    "one scale": one_scale,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_maps_that_a_changed_network_uses_again_are_not_overwritten(change):
    net = change(network(num_blocks=(2, 1, 1, 1), with_mefc=False))
    picture = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net, tile=8)(picture), net(picture), rtol=1e-9, atol=1e-9)


def test_a_block_that_is_used_twice_does_not_overwrite_what_it_is_given():
    block = SparseTransformerBlock(8, 1, 16, False, "WithBias")
    x = torch.rand(1, 8, 20, 20)
    before = x.clone()
    with torch.no_grad():
        fuse(Level(block, block), tile=8)(x)
    assert torch.equal(x, before)


def test_replicas_of_data_parallel_compute_the_same(monkeypatch):
    """As on several GPUs, whose copies of the parameters are clones here."""
    replicate = sys.modules["torch.nn.parallel.replicate"]
    monkeypatch.setattr(
        replicate,
        "_broadcast_coalesced_reshape",
        lambda tensors, devices, *_, **__: [[tensor.clone() for tensor in tensors] for _ in devices],
    )
    net = network().float()
    picture = torch.rand(1, 3, 16, 16)
    for form in (net, accelerate(copy.deepcopy(net)), fuse(net, torch.bfloat16, tile=8)):
        for replica in replicate.replicate(form, [0, 1]):
            assert form_of(replica) == form_of(form)
            with torch.no_grad():
                assert torch.equal(replica(picture), form(picture))


@pytest.mark.parametrize("kind", [DRSformer, Restormer])
def test_networks_of_16_bits_and_fused_ones_inside_autocast(kind):
    net = load_golden_weights(kind(**SMALL | {"bias": True})).eval()
    picture = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        expected = net(picture)
        half = copy.deepcopy(net).bfloat16()
        results = [form(half)(picture.bfloat16()).float() for form in (copy.deepcopy, accelerate, fuse)]
        fused = fuse(net, torch.bfloat16, tile=4)
        results += [pickle.loads(pickle.dumps(fused))(picture)]
        with torch.autocast("cpu", torch.bfloat16):
            results += [form(picture) for form in (fused, fuse(net, tile=4))]
    error = (results[0] - expected).norm()
    assert all((result - expected).norm() < 1.5 * error for result in results)
    with pytest.raises(ValueError, match="a fused network stays"):
        plain(fused)


def test_a_network_is_accelerated_and_plain_again_in_the_middle_of_a_training():
    net = network()
    before = {key: value for key, value in net.named_parameters()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    other, image = copy.deepcopy(net), pictures(net, 1, 16, 16)
    others = torch.optim.AdamW(other.parameters(), lr=1e-3)
    for step in range(4):
        (plain if step % 2 else accelerate)(net)
        for one, its in ((net, optimizer), (other, others)):
            one(image).square().mean().backward()
            its.step()
            its.zero_grad()
    assert form_of(net) == "plain"
    assert all(before[key] is value for key, value in net.named_parameters())
    for key, value in other.state_dict().items():
        torch.testing.assert_close(net.state_dict()[key], value, rtol=1e-6, atol=1e-9)
    again = pickle.loads(pickle.dumps(accelerate(net)))
    assert form_of(again) == "fast"
    with torch.no_grad():
        assert torch.equal(again(image), net(image))
    with pytest.raises(ValueError, match="a fused network stays"):
        plain(net.fused())


@pytest.mark.parametrize("name", ["DRSformer", "odd hidden sizes", "biases"])
def test_fused_network_is_saved_and_loaded_under_the_published_keys(name):
    options = VARIANTS[name][1]
    net, other = network(**options), network(seed=1, **options)
    fused = net.fused()
    saved = fused.state_dict()
    assert saved.keys() == net.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(saved[key], value), key

    part = {"latent.0.ffn.project_in.weight": other.state_dict()["latent.0.ffn.project_in.weight"]}
    fused.load_state_dict(part, strict=False)
    for key, value in (net.state_dict() | part).items():
        assert torch.equal(fused.state_dict()[key], value), key

    fused.load_state_dict(other.state_dict())
    picture = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fused(picture), other(picture), rtol=1e-9, atol=1e-9)
    state = net.state_dict()
    state["latent.0.ffn.dwconv5x5.weight"] = torch.zeros(3, 1, 5, 5)
    with pytest.raises(RuntimeError, match=r"latent\.0\.ffn"):
        fused.load_state_dict(state)
    del state["latent.0.ffn.dwconv5x5.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*latent\.0\.ffn\.dwconv5x5\.weight"):
        fused.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*latent\.0\.ffn\.surplus"):
        fused.load_state_dict(net.state_dict() | {"latent.0.ffn.surplus": torch.zeros(1)})


def test_fused_network_holds_no_weights_that_could_become_stale():
    """Every weight exists once in it: none beside the ones it computes with, and none shared with its source."""
    net = network()
    fused = net.fused()
    own = {tensor.data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    tensors = [*fused.parameters(), *fused.buffers()]
    assert own.isdisjoint(tensor.data_ptr() for tensor in tensors)
    duplicates = sum(  # the last channel of odd hidden sizes lies in both slabs
        half[0].shape[1] + 9 + 25 + half.small_pairs.shape[-1] ** 2 * 2
        for module in fused.modules()
        if hasattr(module, "halves") and module.hidden % 2
        for half in module.halves()
    )
    assert sum(tensor.numel() for tensor in tensors) <= sum(p.numel() for p in net.parameters()) + duplicates
    picture = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        before = fused(picture)
        for parameter in net.parameters():
            parameter.mul_(1.5)
        assert torch.equal(fused(picture), before)
        torch.testing.assert_close(net.fused()(picture), net(picture), rtol=1e-9, atol=1e-9)
        # Changing a weight in place, past load_state_dict, is seen as well: there is no second copy.
        for tensor in tensors:
            tensor.zero_()
        assert torch.equal(fused(picture), picture)
        assert all(not value.any() for value in fused.state_dict().values())


def test_bf16_keeps_norms_scores_and_gates_in_float32():
    net = load_golden_weights(DRSformer(**SMALL)).eval()
    fused = net.fused(torch.bfloat16)
    assert fused.encoder_level1[0].attn.qkv.weight.dtype == torch.bfloat16
    assert fused.encoder_level1[0].ffn.halves()[0].large.dtype == torch.bfloat16
    assert fused.reduce_chan_level2.weight.dtype == fused.down1_2.body[0].weight.dtype == torch.bfloat16
    assert fast.dtype_of(fused) is torch.bfloat16
    assert fast.dtype_of(net.fused()) is None
    for precise in (
        fused.encoder_level1[0].norm1.body.weight,
        fused.encoder_level1[0].attn.temperature,
        fused.refinement.layers[0].ca_fc[0].weight,
        fused.patch_embed.proj.weight,
        fused.output.weight,
    ):
        assert precise.dtype == torch.float32
    seen = {}
    attention, gate = fused.encoder_level1[0].attn, fused.refinement.layers[0]
    original = attention.maps
    attention.maps = lambda scores: seen.setdefault("scores", original(scores))
    gate.register_forward_hook(lambda _module, _inputs, output: seen.setdefault("gate", output))
    picture = golden_input((1, 3, 64, 64), 7)
    with torch.no_grad():
        output = fused(picture)
        expected = net(picture)
    assert seen["scores"].dtype == seen["gate"].dtype == output.dtype == torch.float32
    assert (output - expected).square().mean() < 1e-3 * (expected - picture).square().mean()


def test_tiles_of_any_size_are_exact():
    weight = torch.randn(3, 1, 5, 5, dtype=torch.float64)
    x = torch.randn(2, 3, 13, 7, dtype=torch.float64).contiguous(memory_format=torch.channels_last)

    def blur_twice(x):
        for _ in range(2):
            x = torch.nn.functional.conv2d(x, weight, padding=2, groups=3).relu()
        return x

    expected = blur_twice(x)
    for tile in range(15):
        result = replace_by_tiles(blur_twice, x.clone(), 4, tile)
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12, msg=f"tiles of {tile} pixels")


def saved_bytes(net: nn.Module, picture: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Count the bytes kept for the backward pass, parameters excluded; return them and the output."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(picture)
    return sum(storage.nbytes() for storage in kept.values()), output


@pytest.mark.parametrize("form", [plain, accelerate])
def test_checkpointing_saves_memory_and_changes_nothing(form):
    picture = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    results = []
    for use_checkpoint in (False, True):
        net = form(network(num_blocks=(2, 2, 2, 2), use_checkpoint=use_checkpoint))
        memory, output = saved_bytes(net, picture)
        output.square().sum().backward()
        results.append((memory, output, {name: parameter.grad for name, parameter in net.named_parameters()}))
    (stored, expected, expected_gradients), (lean, output, recomputed) = results
    assert lean < 0.25 * stored
    assert torch.equal(output, expected)
    for name, gradient in expected_gradients.items():
        assert torch.equal(recomputed[name], gradient), name


def test_torch_compile_sees_one_graph_for_all_sizes():
    net = load_golden_weights(DRSformer(**SMALL)).fused(tile=0)
    counter = CompileCounter()
    compiled = torch.compile(net, backend=counter, dynamic=True, fullgraph=True)
    # Not smaller: torch itself treats convolutions of few values in another way, which would be a second graph.
    with torch.inference_mode():
        for height, width in ((256, 264), (280, 320), (320, 256)):
            picture = torch.rand(1, 3, height, width)
            assert torch.equal(compiled(picture), net(picture))
    assert counter.frame_count == 1


@pytest.mark.parametrize("hidden", [6, 7])
def test_gradients_of_the_feed_forward_stay_in_channels_last_memory(hidden, monkeypatch):
    """Where they did not, a third of a small network's training step was spent on putting them back."""
    layouts = []

    def watched(x, *arguments):
        y = fast.depthwise.depthwise_conv(x, *arguments)
        y.register_hook(lambda gradient: layouts.append(gradient.is_contiguous(memory_format=torch.channels_last)))
        return y

    monkeypatch.setattr(fast.slabs, "depthwise_conv", watched)
    part = accelerate(MixedScaleFeedForward(4, hidden, bias=True))
    x = torch.randn(2, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    part(x).square().sum().backward()
    assert layouts == [True] * 8


@pytest.mark.parametrize("unpaired", [0, 1])
def test_gradients_of_gradients_of_the_sum_of_slabs(unpaired):
    slabs = torch.randn(2, 6, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(SumOfSlabs.apply, (slabs, unpaired))
