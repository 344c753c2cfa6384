"""The authors' own ways of inference against their golden values, and the self-ensemble by its symmetries."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from drsformer_arch.archs import FADformer, NeRDRain
from drsformer_arch.archs.contract import Contract
from drsformer_arch.restore.inference import from_corners, in_windows, infer
from tests.golden_weights import GOLDEN, golden_input, load_golden_weights, load_json

WINDOWS = load_json("nerdrain_windows")["cases"]


@pytest.mark.parametrize("number", range(len(WINDOWS)))
def test_every_pixel_comes_from_the_window_that_nerdrains_authors_take_it_from(number):
    case = WINDOWS[number]
    expected = np.load(GOLDEN / "nerdrain_windows.npz")[f"index{number}"]
    rows, columns = torch.meshgrid(torch.arange(case["H"]), torch.arange(case["W"]), indexing="ij")
    seen = []

    def corner(part: torch.Tensor) -> torch.Tensor:  # of the window, for all of its pixels
        seen.append(part[0, :, 0, 0].tolist())
        return part[:, :, :1, :1].expand_as(part)

    result = in_windows(corner, torch.stack((rows, columns))[None].float(), case["win"])
    wanted = torch.tensor(case["top_left"])[torch.from_numpy(expected).long()].permute(2, 0, 1)
    assert torch.equal(result[0], wanted.float())
    assert sorted(seen) == sorted(case["top_left"])


def test_four_corners_are_merged_as_by_fadformers_authors():
    facts = load_json("fadformer_merge")
    image = golden_input(facts["input_shape"], facts["input_seed"]).double()
    starts = [tuple(start) for start in facts["starts"]]

    def crop(part: torch.Tensor) -> torch.Tensor:
        places = [(y, x) for y, x in starts if torch.equal(part, image[..., y : y + 40, x : x + 52])]
        return 0.5 * part + 0.1 * starts.index(places[0])

    merged = from_corners(crop, image, facts["multiple"], 12)
    torch.testing.assert_close(merged, torch.from_numpy(np.load(GOLDEN / "fadformer_merge.npz")["output"]))
    for height, width in ((43, 54), (40, 54), (40, 52), (13, 9)):
        picture = torch.rand(2, 3, height, width, dtype=torch.float64)
        torch.testing.assert_close(from_corners(lambda part: part, picture, 4, 12), picture)


@pytest.mark.parametrize("size", [(70, 45), (7, 300)])
def test_networks_run_as_published(size):
    picture = torch.rand(1, 3, *size, dtype=torch.float64)
    nerdrain = load_golden_weights(NeRDRain(dim=4, num_blocks=[1, 1, 1], heads=[1, 1, 1]), 0.5).double().eval()
    nerdrain.contract = dataclasses.replace(nerdrain.contract, window=32)
    fadformer = load_golden_weights(FADformer(embed_dim=[4, 8, 16, 8, 4], depth=[1, 0, 1, 0, 1])).double().eval()
    with torch.no_grad():
        for net in (nerdrain, fadformer):
            assert infer(net, picture, as_published=True).shape == picture.shape
        whole = infer(nerdrain, picture)
        left = slice(0, 32)
        window = infer(nerdrain, picture[..., left, left])
        torch.testing.assert_close(infer(nerdrain, picture, as_published=True)[..., left, left], window)
        assert not torch.allclose(whole[..., left, left], window)


@pytest.mark.parametrize("upright", [False, True])
def test_the_ensemble_does_not_depend_on_how_a_picture_is_turned(upright):
    class Shift(torch.nn.Module):
        """A network that no symmetry leaves as it is."""

        contract = Contract(size_multiple=4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.roll(1, 3) * torch.linspace(0, 1, x.shape[2], dtype=x.dtype)[:, None]

    picture = torch.rand(1, 3, 12, 20, dtype=torch.float64)
    result = infer(Shift(), picture, ensemble=True, upright=upright)
    assert not torch.allclose(result, infer(Shift(), picture))
    for turns, mirrored in itertools.product(range(4), (False, True)):
        turned = torch.rot90(picture.flip(3) if mirrored else picture, turns, (2, 3))
        expected = torch.rot90(result.flip(3) if mirrored else result, turns, (2, 3))
        equal = torch.allclose(infer(Shift(), turned, ensemble=True, upright=upright), expected)
        assert equal == (not upright or turns % 2 == 0)
    torch.testing.assert_close(infer(torch.nn.Identity(), picture, ensemble=True, tile=8, overlap=2), picture)
