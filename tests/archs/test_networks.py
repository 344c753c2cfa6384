"""What networks declare, and what inference makes of it: value range, patches, outputs, checkpoints of all kinds."""

import itertools

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from drsformer_arch import archs
from drsformer_arch.archs.contract import Contract, contract_of
from drsformer_arch.restore.networks import load_network, recognise
from drsformer_arch.restore.tiling import even_tile, restore, tile_starts
from drsformer_arch.system.errors import UserError
from drsformer_arch.training.losses import MultiOutputMSELoss, NegativeSSIMLoss, PSNRLoss
from tests.golden_weights import GOLDEN, golden_input, golden_state, load_golden_weights, load_json, small_arguments

SMALL = small_arguments() | {
    "DRSformer": {"dim": 8, "num_blocks": [1, 2, 1, 1], "heads": [1, 2, 2, 4], "ffn_expansion_factor": 2.1},
    "Restormer": {"dim": 8, "num_blocks": [1, 1, 1, 2], "num_refinement_blocks": 3, "bias": True},
    "IDT": {"img_size": 64, "embed_dim": 8, "qkv_bias": False},
    "SPDNet": {"n_feats": 8, "n_resblocks": 2},
    "DualGCN": {"channels": 8, "num_levels": 2},
}
KINDS = {kind.__name__: kind for kind in archs.NETWORKS}


@pytest.mark.parametrize("name", KINDS)
def test_networks_run_on_pictures_of_any_size(name):
    net = load_golden_weights(KINDS[name](**SMALL[name]), gain=0.5).eval()
    assert net.contract.sees_all_pixels or net.contract.patch_size  # so that nobody takes tiles for whole pictures
    for height, width in ((1, 1), (2, 90), (33, 70), (64, 64)):
        picture = torch.rand(2, 3, height, width)
        with torch.no_grad():
            result = restore(net, picture)
        assert result.shape == picture.shape
        assert result.isfinite().all()
        with torch.no_grad():  # pictures of a batch do not see each other
            torch.testing.assert_close(restore(net, picture[1:]), result[1:], rtol=1e-3, atol=1e-4)


def test_value_range_and_outputs_are_the_networks_own():
    net = load_golden_weights(archs.SPDNet(**SMALL["SPDNet"]), gain=0.5).double().eval()
    picture = torch.rand(1, 3, 20, 31, dtype=torch.float64)
    with torch.no_grad():
        results = net(255 * picture)
        assert len(results) == 3
        torch.testing.assert_close(restore(net, picture), results[0] / 255, rtol=1e-12, atol=1e-12)


def test_other_packages_networks_have_the_defaults():
    assert contract_of(torch.nn.Identity()) == Contract()
    picture = torch.rand(1, 3, 7, 5)
    assert torch.equal(restore(torch.nn.Identity(), picture), picture)


def test_patches_are_merged_as_published():
    facts, golden = load_json("idt_merge"), np.load(GOLDEN / "idt_merge.npz")
    picture = golden_input(facts["input_shape"], facts["input_seed"]).double()
    net = archs.IDT(embed_dim=8)
    seen = itertools.count()
    net.forward = lambda patches: torch.stack([patch + 0.1 * next(seen) for patch in patches])
    torch.testing.assert_close(restore(net, picture), torch.from_numpy(golden["output"]), rtol=0, atol=1e-12)
    assert next(seen) == len(facts["starts"])

    sizes = []
    net.forward = lambda patches: sizes.extend(patch.shape[1:] for patch in patches) or patches
    for height, width, patches in ((128, 128, 1), (1, 1, 1), (100, 236, 2), (237, 129, 6)):
        sizes.clear()
        picture = torch.rand(1, 3, height, width, dtype=torch.float64)
        torch.testing.assert_close(restore(net, picture), picture, rtol=0, atol=1e-12)
        assert sizes == [(128, 128)] * patches


@pytest.mark.parametrize("largest", [64, 100, 512])
@pytest.mark.parametrize("overlap", [0, 16, 63])
def test_tiles_cover_a_picture_evenly(largest, overlap):
    for length in (1, largest - 1, largest, largest + 1, 1000, 1024, 4001):
        tile = even_tile(length, largest, overlap, 8)
        starts = tile_starts(length, tile, overlap)
        assert tile <= largest
        assert starts[0] == 0
        assert starts[-1] + tile == length
        assert all(0 < second - first <= tile - overlap for first, second in itertools.pairwise(starts))
        fewest = max(-(-(length - overlap) // (largest - overlap)), 1)
        assert len(starts) == fewest
        assert tile * fewest <= length + (fewest - 1) * overlap + 8 * fewest, "tiles overlap more than they need to"


@pytest.mark.parametrize("wrapping", ["bare", "module", "averaged", "params", "ours"])
@pytest.mark.parametrize("name", KINDS)
def test_checkpoints_name_their_network_or_are_recognised(name, wrapping, tmp_path):
    arguments = SMALL[name]
    state = golden_state({key: tuple(value.shape) for key, value in KINDS[name](**arguments).state_dict().items()})
    if name == "SPDNet":  # published files hold more than is used
        state |= {"conv_init1.ins.weight": torch.ones(4), "sub2.IDWT.g0_col": torch.ones(1, 1, 2, 1)}
    content = {
        "bare": state,
        "module": {f"module.{key}": value for key, value in state.items()},
        "averaged": {  # of torch.optim.swa_utils, of a network that thop counted
            "n_averaged": torch.tensor(3),
            "module.total_ops": torch.zeros(1, dtype=torch.float64),
            **{f"module.module.{key}": value for key, value in state.items()},
            "module.module.x.total_params": torch.zeros(1, dtype=torch.float64),
        },
        "params": {"params": state},
        "ours": {"params": state, "network": {"type": name, **arguments}},
    }[wrapping]
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    net = load_network(path)
    assert type(net) is KINDS[name]
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key]), key
    if wrapping == "bare":
        kind, found = recognise(state)
        expected = {key: value for key, value in arguments.items() if key in found}
        assert kind is KINDS[name]
        assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("published", "name", "arguments"),
    [
        ("drsformer_official", "DRSformer", {"dim": 48, "ffn_expansion_factor": 2.66, "with_mefc": True}),
        ("drsformer_official_without_mefc", "DRSformer", {"heads": [1, 2, 4, 8], "with_mefc": False}),
        ("restormer_official", "Restormer", {"num_blocks": [4, 6, 6, 8], "num_refinement_blocks": 4, "bias": False}),
        ("idt_official", "IDT", {"img_size": 128, "num_heads": [1, 2, 4, 8, 16, 16, 8, 4, 2], "mlp_ratio": 4}),
        ("spdnet_official", "SPDNet", {"n_feats": 32, "n_resblocks": 3}),
        ("dualgcn_official", "DualGCN", {"channels": 72, "num_levels": 5}),
        ("nerdrain_official", "NeRDRain", {"dim": 48, "num_blocks": [2, 3, 3], "heads": [1, 2, 4], "bias": False}),
        ("nerdrain_s_official", "NeRDRain", {"dim": 32, "ffn_expansion_factor": 2.66, "LayerNorm_type": "WithBias"}),
        ("sfhformer_s_official", "SFHformer", {"depth": [2, 2, 4, 2, 2], "groups": 1}),
        ("sfhformer_m_official", "SFHformer", {"depth": [4, 4, 8, 4, 4], "embed_dim": [32, 64, 128, 64, 32]}),
        ("sfhformer_l_official", "SFHformer", {"depth": [6, 6, 10, 6, 6], "embed_kernel_size": 3}),
        ("fadformer_official", "FADformer", {"depth": [4, 8, 10, 8, 4], "embed_dim": [32, 64, 128, 64, 32]}),
        ("fadformer_mini_official", "FADformer", {"depth": [2, 3, 4, 3, 2], "embed_dim": [24, 48, 96, 48, 24]}),
    ],
)
def test_published_checkpoints_are_recognised(published, name, arguments):
    shapes = load_json(f"{published}_state_dict")
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
    kind, found = recognise(state)
    assert kind.__name__ == name
    assert {key: found[key] for key in arguments} == arguments
    del state[next(iter(state))]
    assert recognise(state) is None


def test_weights_of_no_network_of_ours_are_refused(tmp_path):
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="none of the networks DRSformer, Restormer, IDT, SPDNet, DualGCN"):
        load_network(tmp_path / "other.pth")
    torch.save({"params": {"weight": torch.ones(2)}, "network": {"type": "DRSformr"}}, tmp_path / "typo.pth")
    with pytest.raises(UserError, match="did you mean 'DRSformer'"):
        load_network(tmp_path / "typo.pth")


def test_what_little_is_missing_or_unknown_is_named(tmp_path):
    state, path = KINDS["Restormer"](**SMALL["Restormer"]).state_dict(), tmp_path / "weights.pth"
    torch.save({"params": state, "network": {"type": "DRSformer", **SMALL["DRSformer"]}}, path)
    with pytest.raises(UserError, match=r"fit DRSformer, which its metadata name: .*; its weights are of Restormer$"):
        load_network(path)
    missing = next(key for key in reversed(state) if key.startswith("refinement"))
    torch.save({key: value for key, value in state.items() if key != missing} | {"x.gamma": torch.ones(3)}, path)
    with pytest.raises(UserError) as error:
        load_network(path)
    said = str(error.value)
    assert "nearly those of Restormer" in said
    assert f"1 of {len(state)} tensors are missing (for example {missing})" in said
    assert "1 are unknown (for example x.gamma)" in said
    state = KINDS["DRSformer"](**SMALL["DRSformer"]).state_dict()
    torch.save({key: value for key, value in state.items() if key != "output.weight"}, path)
    with pytest.raises(UserError, match=r"nearly those of DRSformer, but output\.weight is missing$"):
        load_network(path)


def test_idt_takes_its_own_size_only_and_drops_paths_only_in_training():
    net = load_golden_weights(archs.IDT(**SMALL["IDT"] | {"drop_path_rate": 0.9}), gain=0.7)
    picture = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net.eval()(picture), net(picture))
        assert not torch.equal(net.train()(picture), net(picture))
    with pytest.raises(ValueError, match="built for 64x64, the picture is 64x72"):
        net(torch.rand(1, 3, 64, 72))
    released = archs.IDT(embed_dim=8)
    for stage, within, between in ((released.encoderlayer_1, 3, 5), (released.decoderlayer_3, 4, 2)):
        *windows, spatial = (block.drop_path.probability for block in stage.blocks)
        assert windows == pytest.approx([0.1 * within / 9] * 3)
        assert spatial == pytest.approx(0.1 * between / 9)


def test_losses_are_the_published_ones():
    facts = load_json("idt_ssim_loss")
    first = golden_input(facts["shape"], facts["seed"]).double()
    second = 0.7 * first + 0.3 * golden_input(facts["shape"], facts["seed"] + 100).double()
    loss = NegativeSSIMLoss()
    assert float(loss(first, second)) == pytest.approx(-facts["ssim_float64_window"], abs=1e-12)
    assert float(loss(first, first)) == pytest.approx(-1, abs=1e-12)

    target, results = torch.rand(2, 3, 8, 8), tuple(torch.rand(3, 2, 3, 8, 8))
    expected = sum(((255 * result - 255 * target) ** 2).mean() for result in results)
    torch.testing.assert_close(MultiOutputMSELoss(loss_weight=65025)(results, target), expected)


def test_psnr_loss_is_the_mean_of_the_pictures_psnr():
    target, result = torch.rand(2, 4, 3, 9, 7, dtype=torch.float64)
    result[0] = target[0]  # no picture's error may be infinite
    apart = [peak_signal_noise_ratio(target[i].numpy(), result[i].numpy(), data_range=1) for i in (1, 2, 3)]
    loss = PSNRLoss(loss_weight=0.5, eps=1e-10)(result.requires_grad_(), target)
    assert loss.item() == pytest.approx(-0.5 * (sum(apart) + 100) / 4, abs=1e-6)
    loss.backward()
    assert result.grad.isfinite().all()
    assert not result.grad[0].any()
    with pytest.raises(ValueError, match="eps must be positive"):
        PSNRLoss(eps=0)
