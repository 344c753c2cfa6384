"""Promises of the rain generator, of its statistics, and of the comparison with real sets."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from drsformer_arch.rain.layers import Curtain, Streaks
from drsformer_arch.rain.rain_presets import RAINS, RainParameters
from drsformer_arch.rain.rain_statistics import rain_statistics
from drsformer_arch.rain.rain_synthesis import add_rain

ROOT = Path(__file__).parents[2]
SHAPES = [(120, 90, 3), (97, 121), (16, 16, 3), (1, 1, 3), (3, 200)]

# Quartiles of real pairs of Rain100L (the rain of Rain200L), Rain200H and Rain800, by benchmarks/rain.py.
REAL_QUARTILES = {
    "rain200l": {"intensity": (4.63, 7.35), "lean": (4.86, 16.09), "length": (24.2, 40.2), "psnr": (23.3, 28.0)},
    "rain200h": {"intensity": (31.3, 60.0), "lean": (2.61, 6.07), "length": (26.6, 48.0), "psnr": (11.5, 16.7)},
    "rain800": {"intensity": (12.6, 20.2), "lean": (0.51, 18.1), "length": (9.21, 17.8), "psnr": (20.8, 25.3)},
}


def script(path: str):
    """Return the main function of a script, taking arguments of any kind."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return lambda *arguments: module.main([str(one) for one in arguments])


def scene(*shape: int) -> np.ndarray:
    """Make a smooth picture of all brightnesses."""
    noise = np.random.default_rng(7).uniform(0, 1, shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def photographs() -> list[np.ndarray]:
    """Read photographs, (321, 481, 3) RGB."""
    cut = [(data.astronaut(), 60, 10), (data.coffee(), 40, 90), (data.chelsea()[:, :, ::-1], 0, 0)]
    pictures = [picture[top : top + 321, left : left + 481] for picture, top, left in cut]
    return [
        cv2.copyMakeBorder(one, 0, 321 - one.shape[0], 0, 481 - one.shape[1], cv2.BORDER_REFLECT) for one in pictures
    ]


@pytest.mark.parametrize("preset", [None, *RAINS])
def test_same_seed_same_bytes_whatever_the_global_random_state(preset):
    clean = scene(61, 83, 3)

    def rained(seed, globally):
        np.random.seed(globally)
        rng = np.random.default_rng(seed)
        return add_rain(clean, rng, RainParameters.sample(rng, preset)).tobytes()

    assert rained(5, globally=1) == rained(5, globally=2)
    assert rained(5, globally=1) != rained(6, globally=1)


def test_no_rain_is_an_equal_copy():
    clean = scene(61, 83, 3)
    rng = np.random.default_rng(3)
    dry = add_rain(clean, rng, RainParameters.sample(rng, "none"))
    assert np.array_equal(dry, clean)
    assert not np.shares_memory(dry, clean)


@pytest.mark.parametrize("preset", RAINS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_preset_rains_on_every_shape_and_leaves_its_input_alone(preset, shape):
    clean = scene(*shape) if min(shape[:2]) > 1 else np.full(shape, 90, np.uint8)
    clean.setflags(write=False)
    before = clean.tobytes()
    rng = np.random.default_rng(3)
    rainy = add_rain(clean, rng, RainParameters.sample(rng, preset))
    assert (rainy.shape, rainy.dtype) == (clean.shape, np.uint8)
    if preset != "rain800":  # levels and JPEG darken
        assert np.all(rainy >= clean)
    if min(shape[:2]) > 50:
        assert np.abs(rainy.astype(int) - clean).mean() > 0.5
    assert clean.tobytes() == before


@pytest.mark.parametrize("preset", ["rain200l", "rain200h", "rain800"])
def test_imitations_lie_within_the_quartiles_of_the_real_sets(preset):
    pictures, measured = photographs(), []
    for seed in range(36):
        rng = np.random.default_rng(seed)
        clean = pictures[seed % len(pictures)]
        measured.append(rain_statistics(add_rain(clean, rng, RainParameters.sample(rng, preset)), clean))
    for name, (low, high) in REAL_QUARTILES[preset].items():
        median = np.median([getattr(one, name) for one in measured])
        assert low <= median <= high, f"{name} {median:.2f}"


def test_stronger_rain_differs_more():
    clean = scene(160, 160, 3)

    def mean_error(strength):
        rng = np.random.default_rng(0)
        drawn = [add_rain(clean, rng, RainParameters.sample(rng, strength)) for _ in range(12)]
        return np.mean([np.mean((rainy.astype(float) - clean) ** 2) for rainy in drawn])

    assert 2 * mean_error("light") < mean_error("medium") < mean_error("heavy") / 2


@pytest.mark.parametrize("angle", [-35, 0, 20])
@pytest.mark.parametrize("length", [16, 40])
def test_statistics_recover_what_was_drawn(angle, length):
    clean = data.astronaut()[60:380]
    bars = Streaks(angle=angle, wobble=0, length=length, length_spread=0, ripple=0, fade=0, density=12, brightness=0.4)
    rain = rain_statistics(add_rain(clean, np.random.default_rng(1), RainParameters(layers=(bars,))), clean)
    assert rain.direction == pytest.approx(angle, abs=1.5)
    assert rain.length == pytest.approx(length, rel=0.15)
    assert rain.width == pytest.approx(1.41 * bars.width, rel=0.25)  # of a normal profile

    noise = Curtain(angle=angle, length=length, mean=0.3, contrast=0.06)
    rain = rain_statistics(
        add_rain(np.zeros_like(clean), np.random.default_rng(1), RainParameters(layers=(noise,))), 0 * clean
    )
    assert rain.direction == pytest.approx(angle, abs=1.5)
    assert rain.length == pytest.approx(length, rel=0.15)
    assert rain.intensity == pytest.approx(0.3 * 255, rel=0.05)


def test_statistics_tell_crossing_rain_and_no_rain():
    black = np.zeros((300, 300, 3), np.uint8)

    def rain(*angles):
        layers = tuple(Streaks(angle=angle, density=10) for angle in angles)
        return rain_statistics(add_rain(black, np.random.default_rng(0), RainParameters(layers=layers)), black)

    assert rain(25, -25).coherence < 0.7
    assert rain(10, 10).coherence > 0.8
    assert abs(rain(25, -25).direction) < 4
    assert rain(-30).lean == pytest.approx(30, abs=2)

    none = rain()
    assert (none.intensity, none.strongest, none.psnr) == (0, 0, float("inf"))
    assert np.all(np.isnan([none.direction, none.coherence, none.length, none.width, none.lean]))


@pytest.mark.parametrize("preset", ["rain200l", "rain200h", "rain800"])
def test_patches_rain_like_whole_pictures(preset):
    parameters = RainParameters.sample(np.random.default_rng(2), preset)

    def residuals(side, count):
        gray = np.full((side, side, 3), 70, np.uint8)
        rains = [add_rain(gray, np.random.default_rng([side, seed]), parameters) for seed in range(count)]
        return np.stack([rain[:, :, 1].astype(float) - 70 for rain in rains])

    whole, patches, tiny = residuals(480, 10), residuals(64, 300), residuals(16, 1000)
    for some in (patches, tiny):
        assert some.mean() == pytest.approx(whole.mean(), rel=0.08, abs=0.5)
        assert some.std() == pytest.approx(whole.std(), rel=0.08)
        assert np.percentile(some, 99) == pytest.approx(np.percentile(whole, 99), rel=0.08)
        border = np.abs(np.concatenate([some[:, :3].ravel(), some[:, :, -3:].ravel()]))
        assert border.mean() == pytest.approx(np.abs(whole).mean(), rel=0.12)


def test_composition_follows_the_published_models():
    streaks = Streaks(brightness=0.3, density=4)
    black, gray, white = (np.full((80, 80), value, np.uint8) for value in (0, 60, 255))

    def rained(clean, **values):
        return add_rain(clean, np.random.default_rng(2), RainParameters(**values)).astype(float)

    alone = rained(black, layers=(streaks,))
    assert 20 < alone.max() < 195  # nothing is clipped on the gray picture
    assert np.abs(rained(gray, layers=(streaks,)) - (60 + alone)).max() <= 1
    assert np.abs(rained(gray, layers=(streaks,), screen=1) - (60 + alone * (1 - 60 / 255))).max() <= 1
    assert np.abs(rained(gray, layers=(streaks,), screen=0.5) - (60 + alone * (1 - 0.5 * 60 / 255))).max() <= 1
    assert np.array_equal(rained(white, layers=(streaks,), screen=1), white)
    assert np.array_equal(rained(white, layers=(streaks,)), white)

    two = RainParameters(layers=(streaks, streaks))
    assert add_rain(black, np.random.default_rng(2), two).sum() > 1.5 * alone.sum()
    assert rained(black, layers=(Streaks(brightness=1, density=50, ceiling=0.2),)).max() == 51
    assert np.array_equal(rained(gray, layers=(Streaks(density=0),)), gray)

    assert np.all(rained(gray, veil=1) == round(0.85 * 255))
    assert np.array_equal(rained(white, veil=1), white)
    ramp = np.arange(256, dtype=np.uint8)[None]
    levels = np.clip((ramp / 255 - 0.1) / 0.7, 0, 1) ** 1.5 * 255
    assert np.abs(rained(ramp, black=0.1, white=0.8, gamma=1.5) - levels).max() <= 0.51

    noise = rained(np.zeros((400, 400), np.uint8), layers=(Curtain(mean=0.4, contrast=0.1),)) / 255
    assert (noise.mean(), noise.std()) == pytest.approx((0.4, 0.1), rel=0.05)


def test_no_rain_changes_nothing():
    clean = scene(50, 60, 3)
    rainy = add_rain(clean, np.random.default_rng(0), RainParameters())
    assert np.array_equal(rainy, clean)
    assert not np.shares_memory(rainy, clean)


@pytest.mark.parametrize("preset", ["heavy", "rain200h"])
def test_sixteen_bits_get_the_same_rain(preset):
    clean = scene(60, 70, 3)

    def rained(picture):
        rng = np.random.default_rng(4)
        return add_rain(picture, rng, RainParameters.sample(rng, preset))

    fine = rained(clean.astype(np.uint16) * 257)
    assert fine.dtype == np.uint16
    assert np.abs(fine / 257 - rained(clean)).max() <= 0.51


def test_jpeg():
    photograph = data.astronaut()[100:196, 180:276]
    pictures = [photograph, photograph[:, :, 0], photograph.astype(np.uint16) * 257]

    def compressed(picture, quality, seed=0):
        return add_rain(picture, np.random.default_rng(seed), RainParameters(jpeg_quality=quality))

    for picture in pictures:
        unit = 257 if picture.dtype == np.uint16 else 1
        errors = [np.abs(compressed(picture, quality) / unit - picture / unit).mean() for quality in (100, 75, 20)]
        assert 0 < errors[0] < 2 < errors[1] < errors[2] < 15
        assert compressed(picture, 75).shape == picture.shape
    # Blue keeps the fewest bits, which shows that the channels are taken for RGB.
    red, _, blue = np.abs(compressed(photograph, 20).astype(float) - photograph).mean(axis=(0, 1))
    assert blue > 1.2 * red

    # In a patch, the grid of blocks starts anywhere: edges between blocks show up at other columns for other seeds.
    slope = np.tile(np.linspace(0, 60, 96).astype(np.uint8), (96, 1))
    edges = set()
    for seed in range(12):
        steps = np.abs(np.diff(compressed(slope, 5, seed).astype(float), axis=1)).mean(axis=0)
        edges.add(int(np.argmax([steps[phase::8].sum() for phase in range(8)])))
    assert len(edges) > 3


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (lambda rng: add_rain(np.zeros((4, 4)), rng), TypeError, "uint8 or uint16, not float64"),
        (lambda rng: add_rain([[1, 2]], rng), TypeError, "not list"),
        (lambda rng: add_rain(np.zeros((4, 4, 4), np.uint8), rng), ValueError, r"\(4, 4, 4\)"),
        (lambda rng: add_rain(np.zeros((0, 4, 3), np.uint8), rng), ValueError, r"\(0, 4, 3\)"),
        (lambda rng: RainParameters.sample(rng, "rain200x"), ValueError, "did you mean 'rain200"),
        (lambda rng: Streaks(brightness=1.5), ValueError, "brightness must lie between 0 and 1"),  # noqa: ARG005
        (lambda rng: Streaks(length=float("nan")), ValueError, "length must lie"),  # noqa: ARG005
        (lambda rng: RainParameters(jpeg_quality=0), ValueError, "jpeg_quality must lie"),  # noqa: ARG005
        (lambda rng: RainParameters(black=0.6, white=0.5), ValueError, "white must lie above black"),  # noqa: ARG005
        (lambda rng: rain_statistics(np.zeros((9, 9), np.uint8), np.zeros((9, 8), np.uint8)), ValueError, "shape"),  # noqa: ARG005
    ],
)
def test_errors_say_what_is_wrong(wrong, kind, said):
    with pytest.raises(kind, match=said):
        wrong(np.random.default_rng(0))


@pytest.fixture(scope="module")
def pairs_of_rain200l(tmp_path_factory) -> Path:
    """Write 12 pairs with rain of the preset, as folders and side by side (clean half right)."""
    root = tmp_path_factory.mktemp("rain200l")
    for part in ("rainy", "clean", "both"):
        (root / part).mkdir()
    for seed in range(12):
        clean = np.ascontiguousarray(photographs()[seed % 3][: 160 + 8 * seed])
        rng = np.random.default_rng(seed + 1000)
        rainy = add_rain(clean, rng, RainParameters.sample(rng, "rain200l"))
        for part, picture in (("rainy", rainy), ("clean", clean), ("both", np.hstack((rainy, clean)))):
            cv2.imwrite(str(root / part / f"{seed}.png"), picture[:, :, ::-1])
    return root


def test_comparison_tells_like_from_unlike(pairs_of_rain200l, tmp_path, capsys):
    compare = script("benchmarks/rain.py")
    folders = ("--rainy", pairs_of_rain200l / "rainy", "--clean", pairs_of_rain200l / "clean")
    both = ("--side-by-side", pairs_of_rain200l / "both", "--clean-half", "right")
    figure = tmp_path / "figure.png"
    reports = []
    for source in ((*folders, "--figure", figure), both):
        assert compare("--preset", "rain200l", "--draws", 2, *source) == 0
        out = capsys.readouterr().out
        reports.append([line for line in out.splitlines() if line.startswith("|")])
        assert "NO" not in out
    assert len(reports[0]) == 9
    assert reports[0] == reports[1]
    assert cv2.imread(str(figure)).shape == (5 * 256, 6 * 256, 3)

    assert compare("--preset", "rain200h", "--draws", 1, *folders, "--limit", 5) == 1
    out = capsys.readouterr().out
    assert "5 pairs, 1 x rain" in out
    assert "| NO |" in next(line for line in out.splitlines() if line.startswith("| PSNR"))


def test_comparison_refuses_bad_input_in_one_line(pairs_of_rain200l, tmp_path, capsys):
    compare = script("benchmarks/rain.py")
    odd, few, small = (tmp_path / name for name in ("odd", "few", "small"))
    for folder, picture in ((odd, scene(20, 31, 3)), (few, scene(20, 30, 3))):
        folder.mkdir()
        cv2.imwrite(str(folder / "0.png"), picture)
    small.mkdir()
    for seed in range(12):
        cv2.imwrite(str(small / f"{seed}.png"), scene(20, 30, 3))
    rainy, clean = pairs_of_rain200l / "rainy", pairs_of_rain200l / "clean"
    for options, said in (
        (("--side-by-side", tmp_path / "none"), "none"),
        (("--side-by-side", odd), "31 pixels wide"),
        (("--rainy", few, "--clean", clean), "no partner"),
        (("--rainy", small, "--clean", clean), "30x20 and 481x"),
        (("--rainy", clean, "--clean", clean, "--limit", 1), "no rain"),
        (("--rainy", rainy, "--clean", clean, "--limit", 1, "--figure", tmp_path), str(tmp_path)),
    ):
        assert compare("--preset", "rain800", "--draws", 1, *options) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert said in error
        assert error.count("\n") == 1
