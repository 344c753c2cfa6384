"""Promises of the rain generator and of the demo data made with it."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from drsformer_arch.data.rain_synthesis import RainParameters, add_rain

SCRIPT = Path(__file__).parent.parent / "scripts" / "make_demo_data.py"


def scene(*shape: int) -> np.ndarray:
    """A smooth picture of all brightnesses."""
    noise = np.random.default_rng(7).uniform(0, 1, shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def test_same_seed_same_bytes_whatever_the_global_random_state():
    clean = scene(61, 83, 3)
    np.random.seed(1)
    first = add_rain(clean, np.random.default_rng(5))
    np.random.seed(2)
    second = add_rain(clean, np.random.default_rng(5))
    other = add_rain(clean, np.random.default_rng(6))
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("strength", ["light", "medium", "heavy"])
@pytest.mark.parametrize("shape", [(120, 90, 3), (97, 121), (1, 1, 3), (3, 200)])
def test_rain_adds_light_and_leaves_its_input_alone(strength, shape):
    clean = scene(*shape) if min(shape[:2]) > 1 else np.full(shape, 90, np.uint8)
    clean.setflags(write=False)
    before = clean.tobytes()
    rng = np.random.default_rng(3)
    rainy = add_rain(clean, rng, RainParameters.sample(rng, strength))
    assert rainy.shape == clean.shape
    assert rainy.dtype == np.uint8
    assert np.all(rainy >= clean)
    if min(shape[:2]) > 50:
        assert rainy.mean() > clean.mean() + 0.5
    assert clean.tobytes() == before


def test_stronger_rain_differs_more():
    clean = scene(160, 160, 3)

    def mean_error(strength):
        rng = np.random.default_rng(0)
        drawn = [add_rain(clean, rng, RainParameters.sample(rng, strength)) for _ in range(12)]
        return np.mean([np.mean((rainy.astype(float) - clean) ** 2) for rainy in drawn])

    assert 2 * mean_error("light") < mean_error("medium") < mean_error("heavy") / 2


@pytest.mark.parametrize("angle", [-40, 0, 25])
def test_streaks_fall_in_the_direction_asked_for(angle):
    rain = add_rain(np.zeros((400, 400), np.uint8), np.random.default_rng(1), RainParameters(angle=angle, density=15))
    gradient_y, gradient_x = np.gradient(cv2.GaussianBlur(rain.astype(np.float64), (0, 0), 1.5))
    # Structure tensor: across a streak brightness changes most; 0 degrees is a change along x, so vertical streaks.
    across = 0.5 * np.arctan2(2 * (gradient_x * gradient_y).mean(), (gradient_x**2).mean() - (gradient_y**2).mean())
    assert np.rad2deg(across) == pytest.approx(angle, abs=4)
    upright = add_rain(np.zeros((400, 400), np.uint8), np.random.default_rng(1), RainParameters(angle=0, density=15))
    assert rain.mean() == pytest.approx(upright.mean(), rel=0.2)  # a leaning streak is as long as an upright one


def test_rain_reaches_every_border_alike():
    rain = add_rain(np.zeros((600, 600), np.uint8), np.random.default_rng(1), RainParameters(density=60)).astype(float)
    for border in (rain[:12], rain[-12:], rain[:, :12], rain[:, -12:]):
        assert border.mean() == pytest.approx(rain.mean(), rel=0.35)


def test_blending_follows_the_published_models():
    additive = RainParameters(opacity=0.3, density=10, screen=0)
    black, gray = np.zeros((80, 80), np.uint8), np.full((80, 80), 60, np.uint8)
    streaks = add_rain(black, np.random.default_rng(2), additive).astype(int)
    assert 20 < streaks.max() < 195  # nothing is clipped on the gray picture
    assert np.abs(add_rain(gray, np.random.default_rng(2), additive).astype(int) - 60 - streaks).max() <= 1

    screen = RainParameters(opacity=0.3, density=10, screen=1)
    white = np.full((80, 80, 3), 255, np.uint8)
    assert np.array_equal(add_rain(white, np.random.default_rng(2), screen), white)


def test_no_rain_changes_nothing():
    clean = scene(50, 60, 3)
    rainy = add_rain(clean, np.random.default_rng(0), RainParameters(density=0, veil=0))
    assert np.array_equal(rainy, clean)
    assert not np.shares_memory(rainy, clean)


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (lambda rng: add_rain(np.zeros((8, 8, 3)), rng), TypeError, "uint8, not float64"),
        (lambda rng: add_rain([[1, 2]], rng), TypeError, "uint8, not list"),
        (lambda rng: add_rain(np.zeros((8, 8, 4), np.uint8), rng), ValueError, r"\(8, 8, 4\)"),
        (lambda rng: add_rain(np.zeros((0, 8, 3), np.uint8), rng), ValueError, r"\(0, 8, 3\)"),
        (lambda rng: RainParameters.sample(rng, "torrential"), ValueError, "torrential.*light, medium, heavy"),
        (lambda rng: RainParameters(opacity=1.5), ValueError, "opacity must lie between 0 and 1"),  # noqa: ARG005
        (lambda rng: RainParameters(length=float("nan")), ValueError, "length must lie"),  # noqa: ARG005
    ],
)
def test_errors_say_what_is_wrong(wrong, kind, said):
    with pytest.raises(kind, match=said):
        wrong(np.random.default_rng(0))


@pytest.fixture(scope="module")
def make_demo_data():
    """The script's main function."""
    specification = importlib.util.spec_from_file_location("make_demo_data", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return lambda *arguments: script.main([str(one) for one in arguments])


def test_demo_data(tmp_path, make_demo_data, capsys):
    out = tmp_path / "new" / "demo"
    assert make_demo_data("--out", out) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert 22 < manifest["test_psnr_y"] < 29
    assert 150 <= manifest["training_pairs"] <= 300
    assert f"{manifest['test_psnr_y']:.2f} dB" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["demo"]  # nothing half-made is left

    names = sorted(path.name for path in (out / "test" / "input").iterdir())
    assert names == sorted(path.name for path in (out / "test" / "target").iterdir())
    assert len(names) == manifest["test_pairs"]
    for name in names:
        rainy, clean = (cv2.imread(str(out / "test" / kind / name)) for kind in ("input", "target"))
        assert rainy.shape == clean.shape
        assert all(side % 8 for side in rainy.shape[:2])
    photographs = {name.rsplit("_", 1)[0] for name in names}
    training_lines = (out / "train_target.lmdb" / "meta_info.txt").read_text().splitlines()
    assert len(training_lines) == manifest["training_pairs"]
    assert not any(line.startswith(tuple(photographs)) for line in training_lines)

    before = (out / "train_input.lmdb" / "data.mdb").read_bytes()
    written = (out / "manifest.json").stat().st_mtime_ns
    assert make_demo_data("--out", out) == 0
    assert "already there" in capsys.readouterr().out
    assert (out / "manifest.json").stat().st_mtime_ns == written

    assert make_demo_data("--out", out, "--seed", 1) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert make_demo_data("--out", out, "--overwrite") == 0
    assert (out / "train_input.lmdb" / "data.mdb").read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["demo"]


def test_demo_data_deletes_nothing_else(tmp_path, make_demo_data, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    for options in ((), ("--overwrite",)):
        assert make_demo_data("--out", tmp_path, *options) == 1
        assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
