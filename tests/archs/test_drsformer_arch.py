"""What is particular to DRSformer; tests/archs/test_golden.py compares its function with the published one."""

import pytest
import torch

from drsformer_arch import DRSformer
from drsformer_arch.archs.drsformer_arch import top_k
from drsformer_arch.fast import accelerate, plain
from tests.golden_weights import golden_input, load_golden_weights

SMALL = {"dim": 8, "num_blocks": (1, 1, 1, 1)}


def test_batch_memory_format_and_bias_free_variants_agree():
    for options in ({}, {"LayerNorm_type": "BiasFree", "bias": True}, {"inp_channels": 1, "out_channels": 1}):
        net = load_golden_weights(DRSformer(**SMALL, **options)).double().eval()
        batch = golden_input((2, options.get("inp_channels", 3), 16, 24), 5).double()
        with torch.no_grad():
            one_by_one = torch.cat([net(picture[None]) for picture in batch])
            together = net(batch.to(memory_format=torch.channels_last))
        assert together.shape == batch.shape
        torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-10)


def test_exact_ties_keep_exactly_k_scores():
    for k in (4, 5, 6):
        assert top_k(torch.zeros(1, 1, 8, 8), k).isfinite().sum(-1).eq(k).all()
    attention = accelerate(DRSformer(**SMALL)).encoder_level1[0].attn
    sparse = attention.maps(torch.zeros(1, 1, 8, 8))
    assert (sparse > 0).sum(-1).eq(8 * 4 // 5).all()
    torch.testing.assert_close(sparse.sum(-1), torch.full((1, 1, 8), 0.8))


@pytest.mark.parametrize("form", [plain, accelerate])
def test_every_parameter_gets_a_gradient_under_bf16_autocast(form):
    net = form(DRSformer(**SMALL))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = net(golden_input((1, 3, 32, 32), 3))
    output.float().abs().mean().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, (1, 3, 16, 20), "multiples of 8, not 16x20"),
        ({}, (1, 1, 16, 16), "built for 3 channels, the picture has 1"),
        ({"heads": (8, 2, 4, 8)}, None, "8 channels do not split into 8 heads"),
        ({"num_blocks": (1, 1)}, None, "four entries"),
        ({"out_channels": 1}, None, "must be equal"),
        ({"LayerNorm_type": "Batch"}, None, "LayerNorm_type"),
    ],
)
def test_bad_arguments_are_named(arguments, shape, message):
    with pytest.raises(ValueError, match=message) as error:
        DRSformer(**{**SMALL, **arguments})(torch.zeros(shape))
    assert "\n" not in str(error.value)
