"""The metrics against the reference programs, an independent library, values worked out by hand, and their promises."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from drsformer_arch.metrics import (
    PROTOCOL_DESCRIPTIONS,
    PROTOCOLS,
    calculate_psnr_ddn,
    calculate_psnr_rain200,
    calculate_ssim_ddn,
    calculate_ssim_rain200,
)
from drsformer_arch.metrics.deraining_metrics import _downsample

PAIRS = Path(__file__).parents[1] / "golden" / "metric_pairs"
REFERENCE = json.loads((PAIRS / "reference.json").read_text())
METRICS = [metric for protocol in PROTOCOLS.values() for metric in protocol.values()]
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)


def random_pair(*shape, seed=0):
    """Draw a random picture and the same with moderate noise, so that no score is trivial."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, shape)
    noisy = np.clip(picture + rng.integers(-40, 41, shape), 0, 255)
    return picture.astype(np.uint8), noisy.astype(np.uint8)


def block_means(plane, factor):
    """Reduce a plane by the definition of the down-sampling, spelled out pixel by pixel."""
    height, width = plane.shape

    def mirrored(i, size):
        i %= 2 * size
        return min(i, 2 * size - 1 - i)

    offsets = [offset - (factor - 1) // 2 for offset in range(factor)]
    return np.array(
        [
            [
                sum(plane[mirrored(y + dy, height), mirrored(x + dx, width)] for dy in offsets for dx in offsets)
                / factor**2
                for x in range(0, width, factor)
            ]
            for y in range(0, height, factor)
        ]
    )


def library_ssim(plane, plane2):
    return structural_similarity(
        plane, plane2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )


@pytest.mark.parametrize("pair", REFERENCE)
def test_golden_pairs_match_the_reference_programs(pair):
    result, target = (cv2.imread(str(PAIRS / f"{pair}_{part}.png")) for part in ("result", "target"))
    for protocol, metrics in PROTOCOLS.items():
        for name, metric in metrics.items():
            expected = float(REFERENCE[pair][f"{protocol}_protocol"][name])
            assert metric(img=result, img2=target) == pytest.approx(expected, abs=1e-6, rel=0), (protocol, name)


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(11, 11, 1), (37, 52, 1), (383, 400, 1), (385, 501, 2), (641, 643, 3)]
)
def test_random_pictures_match_an_independent_implementation(height, width, factor):
    pair = random_pair(height, width, 3)
    # Whole numbers first and the division last: another arithmetic than the package's, with no constant in common.
    lumas = [p.astype(np.int64) @ [24966, 128553, 65481] / 255000 + 16 for p in pair]
    rounded = [np.floor(luma + 0.5) for luma in lumas]
    reduced = [block_means(luma, factor) for luma in lumas]

    psnr, psnr_rounded = (20 * math.log10(255 / np.sqrt(np.mean((y - y2) ** 2))) for y, y2 in (lumas, rounded))
    assert calculate_psnr_ddn(*pair) == pytest.approx(psnr, abs=1e-9)
    assert calculate_ssim_ddn(*pair) == pytest.approx(library_ssim(*reduced), abs=1e-9)
    # Half-way values of Y, a few in a million random colors, may be rounded the other way by this arithmetic.
    assert calculate_psnr_rain200(*pair) == pytest.approx(psnr_rounded, abs=1e-5)
    assert calculate_ssim_rain200(*pair) == pytest.approx(library_ssim(*rounded), abs=1e-6)


def test_values_worked_out_by_hand():
    def flat(*bgr):
        return np.full((11, 11, 3), bgr, np.uint8)

    # Black has Y = 16, white Y = 235; without variance only the first factor of SSIM is left, with C1 = 2.55² = 6.5025.
    black, white = flat(0, 0, 0), flat(255, 255, 255)
    for metrics in PROTOCOLS.values():
        assert metrics["psnr"](black, white) == pytest.approx(20 * math.log10(255 / 219), abs=1e-12)
        assert metrics["ssim"](black, white) == pytest.approx(7526.5025 / 55487.5025, abs=1e-12)
    # One step of red adds 65.481 / 255 = 0.26 to Y: seen by ddn, rounded away by rain200.
    red = flat(0, 0, 1)
    assert calculate_psnr_ddn(red, black) == pytest.approx(20 * math.log10(255**2 / 65.481), abs=1e-9)
    assert calculate_psnr_rain200(red, black) == math.inf
    assert calculate_ssim_rain200(red, black) == 1


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8), (12, 12), (13, 22), (23, 11)])
def test_downsampling_is_a_box_mean_of_every_nth_pixel(height, width, factor):
    plane = np.random.default_rng(factor).uniform(16, 235, (height, width))
    np.testing.assert_allclose(_downsample(plane, factor), block_means(plane, factor), rtol=1e-14)


@each_metric
def test_identity_symmetry_and_range(metric):
    picture, noisy = random_pair(45, 390, 3)
    assert metric(picture, picture.copy()) == (math.inf if "psnr" in metric.__name__ else 1)
    score = metric(picture, noisy)
    assert type(score) is float
    assert score == metric(noisy, picture)
    assert 0 < score < (30 if "psnr" in metric.__name__ else 1)


@each_metric
def test_layouts_describe_the_same_pictures(metric):
    pair = random_pair(33, 40, 3)
    score = metric(*pair)
    assert metric(*(p[..., ::-1] for p in pair), channel_order="rgb") == score
    assert metric(*(p[..., ::-1] for p in pair)) != score
    assert metric(*(p.transpose(2, 0, 1) for p in pair), input_order="CHW") == score

    gray = [p[..., 0] for p in pair]
    score = metric(*(np.stack([p] * 3, axis=-1) for p in gray))
    assert metric(*gray) == metric(*gray, input_order="CHW", channel_order="rgb") == score
    assert metric(*(p[..., None] for p in gray)) == score
    assert metric(*(p[None] for p in gray), input_order="CHW") == score


@each_metric
def test_crop_border_equals_cropped_pictures(metric):
    pair = random_pair(390, 400, 3)  # cropped by 4, the short side falls below 384, where ddn begins to down-sample
    assert metric(*pair, crop_border=4) == metric(*(p[4:-4, 4:-4] for p in pair))


def test_protocols_are_complete_and_named():
    assert set(PROTOCOLS) == set(PROTOCOL_DESCRIPTIONS) == {"rain200", "ddn"}
    for protocol, metrics in PROTOCOLS.items():
        for name, metric in metrics.items():
            assert metric.protocol == protocol
            assert metric.__name__ == f"calculate_{name}_{protocol}"  # the name it gets in option files


PICTURE = np.zeros((16, 20, 3), np.uint8)


@each_metric
@pytest.mark.parametrize(
    ("img", "img2", "options", "message"),
    [
        (PICTURE, PICTURE[:, :-1], {}, r"\(16, 20, 3\).*\(16, 19, 3\)"),
        (PICTURE, PICTURE[..., 0], {}, r"\(16, 20, 3\).*\(16, 20\)"),
        (PICTURE / 255, PICTURE, {}, r"^img must be uint8.*float64"),
        (PICTURE, PICTURE.astype(np.uint16), {}, r"^img2 must be uint8.*uint16"),
        (PICTURE, PICTURE, {"input_order": "CHW"}, r"1 or 3 channels.*'CHW'.*\(16, 20, 3\)"),
        (PICTURE[..., :2], PICTURE[..., :2], {}, r"1 or 3 channels.*\(16, 20, 2\)"),
        (PICTURE[None], PICTURE[None], {}, r"1 or 3 channels.*\(1, 16, 20, 3\)"),
        (PICTURE, PICTURE, {"input_order": "hwc"}, "input_order must be 'HWC' or 'CHW', not 'hwc'"),
        (PICTURE, PICTURE, {"channel_order": "gbr"}, "channel_order must be 'bgr' or 'rgb', not 'gbr'"),
        (PICTURE, PICTURE, {"crop_border": 8}, "crop_border 8 leaves nothing of 16 x 20"),
        (PICTURE, PICTURE, {"crop_border": -1}, "crop_border must not be negative"),
    ],
)
def test_wrong_input_is_refused(metric, img, img2, options, message):
    with pytest.raises(ValueError, match=message) as error:
        metric(img, img2, **options)
    assert "\n" not in str(error.value)


@each_metric
def test_unknown_option_is_refused(metric):
    with pytest.raises(TypeError, match="test_y_channel"):
        metric(PICTURE, PICTURE, test_y_channel=True)


@pytest.mark.parametrize("metric", [calculate_ssim_rain200, calculate_ssim_ddn])
def test_ssim_refuses_pictures_smaller_than_its_window(metric):
    assert metric(PICTURE, PICTURE, crop_border=2) == 1
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, these are 10 x 14"):
        metric(PICTURE, PICTURE, crop_border=3)
