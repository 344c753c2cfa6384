"""What is particular to DRSformer; tests/test_golden.py compares its function with the published one."""

import pytest
import torch

from drsformer_arch import DRSformer
from drsformer_arch.fast import depthwise
from drsformer_arch.fast import slabs as msfn
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
    attention = DRSformer(**SMALL).encoder_level1[0].attn
    sparse = attention.attention(torch.zeros(1, 1, 8, 8))
    assert (sparse > 0).sum(-1).eq(8 * 4 // 5).all()
    torch.testing.assert_close(sparse.sum(-1), torch.full((1, 1, 8), 0.8))


def test_every_parameter_gets_a_gradient_under_bf16_autocast():
    net = DRSformer(**SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = net(golden_input((1, 3, 32, 32), 3))
    output.float().abs().mean().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


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
        net = DRSformer(**{**SMALL, **arguments})
        net(torch.zeros(shape))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("hidden", [6, 7])
def test_gradients_of_the_feed_forward_stay_in_channels_last_memory(hidden, monkeypatch):
    """Where they did not, a third of a small network's training step was spent on putting them back."""
    layouts = []

    def watched(x, *arguments):
        y = depthwise.depthwise_conv(x, *arguments)
        y.register_hook(lambda gradient: layouts.append(gradient.is_contiguous(memory_format=torch.channels_last)))
        return y

    monkeypatch.setattr(msfn, "depthwise_conv", watched)
    part = msfn.MixedScaleFeedForward(4, hidden, bias=True)
    x = torch.randn(2, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    part(x).square().sum().backward()
    assert layouts == [True] * 8


@pytest.mark.parametrize("unpaired", [0, 1])
def test_gradients_of_gradients_of_the_sum_of_slabs(unpaired):
    slabs = torch.randn(2, 6, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(msfn.SumOfSlabs.apply, (slabs, unpaired))
