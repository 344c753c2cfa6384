"""The weights that come with the package: what the file says, and what it does to pictures that it never saw."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors
import skimage

from drsformer_arch import Restorer, __version__
from drsformer_arch.cli import main
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.options.reading import load_yaml
from drsformer_arch.rain.rain_presets import RainParameters
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.restore.weights import DEFAULT, find_weights

ROOT = Path(__file__).parents[2]
# Left out of everything that it was trained on, see scripts/package_photographs.py.
UNSEEN = ("chelsea.png", "coffee.png", "camera.png")
# dB of PSNR over the rainy pictures, a little less than measured.
GAINS = {"rain200l": 8, "rain800": 2.6, "rain200h": 11, "light": 5.5, "medium": 7.3, "heavy": 7.3}


@pytest.fixture(scope="module")
def unseen() -> list[np.ndarray]:
    """(about 300, 400, 3) BGR uint8."""
    folder = Path(skimage.__file__).parent / "data"
    pictures = [cv2.imread(str(folder / name)) for name in UNSEEN]
    assert not any(Path(name).stem in (ROOT / "options/DRSformer-S/scenes.json").read_text() for name in UNSEEN)
    return [picture[:301, :400] for picture in pictures]


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer()


def test_the_file_says_what_it_is():
    path = find_weights(DEFAULT)
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert path.stat().st_size <= 6e6
    assert {"data", "recipe", "licence", "drsformer_version"} <= set(metadata)
    assert metadata["drsformer_version"] <= __version__
    said = json.loads(metadata["network"])
    for path in (ROOT / "options/DRSformer-S").glob("*.yml"):
        network = load_yaml(path)["network_g"]
        assert network.items() <= said.items(), path


@pytest.mark.parametrize("preset", GAINS)
def test_rain_is_taken_off_unseen_pictures(preset, unseen, restorer):
    rng = np.random.default_rng(4)
    gains = []
    for clean in unseen * 3:
        rainy = add_rain(clean, rng, RainParameters.sample(rng, preset))
        derained = restorer(rainy[..., ::-1])[..., ::-1]
        gains.append(calculate_psnr_rain200(derained, clean) - calculate_psnr_rain200(rainy, clean))
    assert np.mean(gains) >= GAINS[preset], gains


def test_clean_pictures_stay_as_they_are(unseen, restorer):
    for clean in unseen:
        same = restorer(clean[..., ::-1])[..., ::-1]
        assert calculate_psnr_rain200(same, clean) >= 40
        colours = [picture.reshape(-1, 3).mean(axis=0) for picture in (same, clean)]
        assert np.abs(np.subtract(*colours)).max() < 1  # of 255


def test_the_command_needs_no_weights(unseen, restorer, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "rainy.png"), unseen[0])
    assert main(["derain", str(tmp_path / "rainy.png"), "-o", str(tmp_path / "derained.png")]) == 0
    assert "1 of 1 files derained with DRSformer" in capsys.readouterr().out
    derained = cv2.imread(str(tmp_path / "derained.png"))
    assert np.array_equal(derained, restorer(unseen[0][..., ::-1])[..., ::-1])
