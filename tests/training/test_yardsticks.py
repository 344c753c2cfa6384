"""The frozen yardsticks of DRSformer-S: drawn pictures stay what they were, and training draws none of their kind."""

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from drsformer_arch import Restorer
from drsformer_arch.rain import line_patterns
from drsformer_arch.rain.line_patterns import (
    HELD_OUT_ANGLES,
    HELD_OUT_FAMILIES,
    HELD_OUT_PERIODS,
    draw_pattern,
    draw_training_pattern,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def scripts():
    """Import a module of scripts/ by its name."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def yardsticks(scripts):
    return scripts("yardsticks")


def test_drawn_patterns_are_those_that_were_frozen(yardsticks):
    frozen = yardsticks.load()
    assert len(frozen["patterns"]) == 50
    for number in range(0, 50, 3):
        clean, rainy = yardsticks.pattern(number)
        expected = frozen["patterns"][clean.name]
        assert yardsticks.digest(clean.clean) == expected["clean"]
        assert yardsticks.digest(rainy.rainy) == expected["rainy"]
    kinds = Counter((one["family"], one["held_out"]) for one in frozen["patterns"].values())
    assert all(sum(kinds[family, held] for held in (True, False)) == 10 for family in line_patterns.FAMILIES)
    assert all(kinds[family, True] == (10 if family in HELD_OUT_FAMILIES else 6) for family in line_patterns.FAMILIES)


def test_photographs_are_those_that_were_frozen_and_nothing_trains_on_them(yardsticks, scripts):
    frozen = yardsticks.load()["photographs"]
    assert len(list(yardsticks.check_pairs("photographs", frozen, yardsticks.photographs()))) == len(frozen) >= 4
    package_photographs = scripts("package_photographs")
    trained = {Path(photograph.file).stem for photograph in package_photographs.PHOTOGRAPHS}
    assert trained & set(frozen) == {"rocket"}  # of the validation part, options/DRSformer-S/scenes.json


def test_another_picture_is_refused(yardsticks):
    frozen = yardsticks.load()["photographs"]
    pairs = list(yardsticks.photographs())
    for wrong in (pairs[1:], [pairs[0]._replace(name="other"), *pairs], [pairs[0]._replace(clean=pairs[1].clean)]):
        with pytest.raises(yardsticks.UserError, match="not be comparable"):
            list(yardsticks.check_pairs("photographs", frozen, wrong))


def test_scores_stand_beside_those_of_the_first_generation(scripts, monkeypatch, tmp_path, capsys):
    score = scripts("score_yardsticks")
    first = json.loads(score.FIRST.read_text())
    assert list(first) == list(score.PARTS)
    assert [len(scores) for scores in first.values()] == [19, 31, 6, 19, 31, 11, 50, 50, 1, 20]
    assert score.summary("rain100l", first["rain100l"])["mean"] == pytest.approx(33.96, abs=0.005)

    def brighter(picture):
        return np.where(picture < 255, picture + 1, 254).astype(np.uint8)

    monkeypatch.setattr(score, "Restorer", lambda *_, **__: brighter)
    saved = tmp_path / "scores.json"
    assert score.main(["--only", "photographs", "--save", str(saved)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| photographs")]
    assert len(set(rows)) == 3
    # One step of 255 off everywhere: 48.13 dB of R, G and B, rounded luma changes by a little less.
    assert all(48 < both["derained"] < 50 for both in json.loads(saved.read_text())["photographs"].values())
    assert any("| 11 | of 42 dB | 6 | 11 |" in row for row in rows)
    for arguments, said in ((["--only", "rain100l"], "needs --data"), (["--only", "reel"], "did you mean 'real'")):
        assert score.main(arguments) == 2
        assert said in capsys.readouterr().err


def test_the_shipped_weights_score_what_is_written(scripts, yardsticks):
    score = scripts("score_yardsticks")
    written = json.loads(score.FIRST.with_name("seventh_scores.json").read_text())
    first = json.loads(score.FIRST.read_text())
    assert {part: list(scores) for part, scores in written.items()} == {part: list(first[part]) for part in first}
    restorer = Restorer()
    for number in (7, 22, 40):  # left alone, taken for rain, and left alone since the fourth generation
        clean, rainy = yardsticks.pattern(number)
        for part, picture in (("patterns", clean.clean), ("rainy_patterns", rainy.rainy)):
            measured = score.psnr(restorer(picture), clean.clean)
            assert measured == pytest.approx(written[part][clean.name]["derained"], abs=0.05)
    for page in ("README.md", "drsformer_arch/weights/README.md"):
        rows = [row for row in (SCRIPTS.parent / page).read_text().splitlines() if row.startswith("| ")]
        for part, start in (
            ("rain100l", "Rain100L (light)"),
            ("rain800", "Rain800 (mixed)"),
            ("rain200h", "Rain200H (heavy)"),
        ):
            (row,) = (row for row in rows if row.startswith(f"| {start}"))
            assert f" {score.summary(part, written[part])['mean']:.2f} dB / " in row


def test_training_draws_nothing_that_is_held_out(monkeypatch):
    looks = []

    def noted(rng, family, angles, period, **options):
        looks.append((family, angles, period, options["bright"]))
        return draw_pattern(rng, family, angles, period, **options)

    monkeypatch.setattr(line_patterns, "draw_pattern", noted)
    rng = np.random.default_rng(0)
    for _ in range(400):
        assert draw_training_pattern(rng, 16, 24).shape == (16, 24, 3)
    for family, angles, period, _ in looks:
        assert family not in HELD_OUT_FAMILIES
        assert not HELD_OUT_PERIODS[0] <= period <= HELD_OUT_PERIODS[1]
        for angle in angles:
            for turned in (angle, -angle, 90 - angle, angle - 90):  # as mirrored and transposed patches have it
                assert not HELD_OUT_ANGLES[0] <= abs((turned + 90) % 180 - 90) <= HELD_OUT_ANGLES[1]
    assert len({family for family, *_ in looks}) == 3
    assert 0.4 < np.mean([bright for *_, bright in looks]) < 0.6


def test_lines_are_as_asked():
    """The distance from line to line and their direction, measured."""
    for angle, period in ((0, 20.0), (90, 20.0), (45, 30.0)):
        rng = np.random.default_rng(3)
        picture = draw_pattern(rng, "stripes", (angle,), period, bright=True, height=240, width=240)
        spectrum = np.abs(np.fft.rfft2(picture.mean(axis=2) - picture.mean()))
        y, x = np.unravel_index(spectrum.argmax(), spectrum.shape)
        frequency = np.hypot(np.fft.fftfreq(240)[y], x / 240)
        assert 1 / frequency == pytest.approx(period, rel=0.08)
        across = np.degrees(np.arctan2(np.fft.fftfreq(240)[y], x / 240))
        assert abs((across - angle + 90) % 180 - 90) < 3
