"""Large photographs at a smaller size, against OpenCV's own resizing, by hand and by the command."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from drsformer_arch.cli import main
from drsformer_arch.restore import working_scale
from drsformer_arch.restore.restorer import Restorer
from drsformer_arch.restore.working_scale import at_scale, automatic_scale


class Darker(torch.nn.Module):
    """A network that takes more from bright pixels than from dark ones."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image - 0.2 * image**2


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def test_the_rain_of_the_smaller_picture_is_taken_from_the_picture():
    pixels = noise(40, 64, dtype=np.uint16)
    whole = pixels / 65535
    small = cv2.resize(whole, (16, 10), interpolation=cv2.INTER_AREA)
    rain = cv2.resize(0.2 * small**2, (64, 40), interpolation=cv2.INTER_LINEAR)
    result = Restorer(Darker(), scale=0.25)(pixels)
    assert np.abs(result - np.rint(np.clip(whole - rain, 0, 1) * 65535)).max() <= 1
    assert np.abs(Restorer(Darker(), scale=1)(pixels) - np.rint((whole - 0.2 * whole**2) * 65535)).max() <= 1
    gray = Restorer(Darker(), scale=0.25)(np.repeat(pixels[..., :1], 3, axis=2))[..., 0]
    assert np.abs(Restorer(Darker(), scale=0.25)(pixels[..., 0]).astype(int) - gray).max() <= 1


@pytest.mark.parametrize("scale", [1, 0.5, 0.37, 0.001])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (45, 61)])
def test_where_no_rain_is_found_every_sample_stays(scale, size):
    pixels = noise(*size)
    assert np.array_equal(Restorer(torch.nn.Identity(), scale=scale)(pixels), pixels)
    sizes = []

    def run(image: torch.Tensor) -> torch.Tensor:
        sizes.append(image.shape[-2:])
        return image

    at_scale(run, torch.zeros(2, 3, *size), scale)
    assert [tuple(one) for one in sizes] == [tuple(max(1, int(side * scale + 0.5)) for side in size)]


def test_only_the_shipped_weights_choose_a_scale(monkeypatch, tmp_path, capsys):
    sizes = ((512, 512), (1080, 1920), (1500, 2000), (3000, 4000), (1, 10**7), (1, 10**7 + 1))
    assert [automatic_scale(*size) for size in sizes] == [1, 1, 0.5, 0.25, 0.5, 0.25]
    monkeypatch.setattr(working_scale, "LARGEST_PIXELS", 64 * 64)
    Image.fromarray(noise(70, 90)).save(tmp_path / "large.png")
    pixels = noise(70, 90)
    own = tmp_path / "own.safetensors"
    own.write_bytes((Path(working_scale.__file__).parents[1] / "weights/DRSformer-S.safetensors").read_bytes())
    for weights, options, expected in (
        ("DRSformer-S", {}, 0.5),
        ("DRSformer-S", {"scale": 1}, 1),
        ("DRSformer-S", {"published_inference": True}, 1),
        (own, {}, 1),
    ):
        restorer, sizes = Restorer(weights, **options), []
        restorer.net.register_forward_pre_hook(lambda _, inputs, sizes=sizes: sizes.append(inputs[0].shape[2]))
        restorer(pixels)
        assert restorer.smallest_scale == expected
        assert sizes == [72 if expected == 1 else 40]
        assert (restorer.note_on_scale() is None) == (expected == 1)
    command = ["derain", str(tmp_path / "large.png"), "-o", str(tmp_path / "out.png")]
    assert main(command) == 0
    assert "note: rain was looked for in large pictures at 0.5 of their size; --scale 1" in capsys.readouterr().err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), Restorer()(pixels))
    assert main([*command, "--overwrite", "--scale", "1"]) == 0
    assert "looked for" not in capsys.readouterr().err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), Restorer(own)(pixels))
    for value in ("0", "1.5", "nan", "half"):
        assert main([*command, "--overwrite", "--scale", value]) == 2
        said = capsys.readouterr().err
        assert "the scale must be auto, or a number above 0 and at most 1" in said
        assert value in said
