"""The networks' form for inference, checkpointing, and what torch.compile sees of them."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from drsformer_arch import DRSformer
from drsformer_arch.fast.tiles import replace_by_tiles
from tests.golden_weights import golden_input, load_golden_weights
from tests.literal_drsformer import LiteralDRSformer

SMALL = {"dim": 8, "num_blocks": (1, 1, 1, 1)}
VARIANTS = [
    {"dim": 8, "heads": (1, 2, 2, 4)},
    {"dim": 12, "ffn_expansion_factor": 2.1, "LayerNorm_type": "BiasFree"},  # odd hidden sizes
    {"dim": 12, "ffn_expansion_factor": 2.1, "bias": True, "with_mefc": False},
]


def network(kind: type[torch.nn.Module] = DRSformer, seed: int = 0, **options) -> torch.nn.Module:
    net = load_golden_weights(kind(**SMALL | options)).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize("options", VARIANTS)
def test_fused_network_equals_the_literal_one(options):
    net = network(**options)
    literal = network(LiteralDRSformer, **options)
    literal.load_state_dict(net.state_dict())
    pictures = torch.rand(2, 3, 48, 24, dtype=torch.float64)
    with torch.no_grad():
        expected = literal(pictures)
        # None, with a rest; narrower than the halo, as wide as the smallest level, one: whatever the channels are.
        for tile in (0, 20, *((3, 8, 64) if options is VARIANTS[0] else ())):
            output = net.fused(tile=tile)(pictures)
            torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9, msg=f"tiles of {tile} pixels")


@pytest.mark.parametrize("options", VARIANTS)
def test_fused_network_is_saved_and_loaded_under_the_published_keys(options):
    net, other = network(**options), network(seed=1, **options)
    fused = net.fused()
    saved = fused.state_dict()
    assert saved.keys() == net.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(saved[key], value), key

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
    original = attention.attention
    attention.attention = lambda scores: seen.setdefault("scores", original(scores))
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


def saved_bytes(net: torch.nn.Module, picture: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Bytes kept for the backward pass at the end of the forward pass, parameters excluded, and the output."""
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


def test_checkpointing_saves_memory_and_changes_nothing():
    picture = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    results = []
    for use_checkpoint in (False, True):
        net = network(num_blocks=(2, 2, 2, 2), use_checkpoint=use_checkpoint)
        memory, output = saved_bytes(net, picture)
        output.square().sum().backward()
        results.append((memory, output, {name: parameter.grad for name, parameter in net.named_parameters()}))
    (plain, expected, gradients), (lean, output, recomputed) = results
    assert lean < 0.25 * plain
    assert torch.equal(output, expected)
    for name, gradient in gradients.items():
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
