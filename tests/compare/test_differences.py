"""Differences of networks: intervals against distributions worked out by hand, counts, seeds, missing pictures."""

import csv
import io
import math

import pytest

from drsformer_arch.compare import differences
from drsformer_arch.compare.comparison_page import facts_of_comparison
from drsformer_arch.compare.differences import Pair, difference, interval_of_mean, pairs_of
from drsformer_arch.compare.figures import intervals, most_different, quality_against_cost
from drsformer_arch.compare.groups import groups_of
from drsformer_arch.compare.measurement import Measurement, MethodScores
from drsformer_arch.compare.tables import csv_of_means, latex_table, markdown_table


def measured(label: str, psnr: dict[str, float], group: str = "") -> Measurement:
    names = list(psnr)
    scores = MethodScores(names, list(psnr.values()), [0.9] * len(names), [0.5] * len(names), list(range(len(names))))
    network = None if label == "rainy input" else "DRSformer"
    return Measurement(label, network, 10**6, 10**9, 2**30, {"a": scores}, group)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # A resample of n draws of which a share p are 1 has B(n, p) ones. n = 10, p = 1/2: P(≤ 1) = 11/1024 = 1.1 %,
        # P(≤ 2) = 5.5 %, so that 2.5 % is reached at 2 of 10, and by symmetry 97.5 % at 8 of 10.
        ([0.0] * 5 + [1.0] * 5, (0.2, 0.8)),
        # n = 4, p = 1/4: P(0) = 32 %, P(≤ 2) = 94.9 %, P(≤ 3) = 99.6 %.
        ([0.0, 4.0, 0.0, 0.0], (0.0, 3.0)),
        ([0.0, 1.0], (0.0, 1.0)),
        ([0.5, 0.5, 0.5], (0.5, 0.5)),
    ],
)
def test_intervals_are_those_of_distributions_worked_out_by_hand(values, expected):
    assert interval_of_mean(values) == pytest.approx(expected)
    assert interval_of_mean(values) == interval_of_mean(values)  # to the bit


def test_pictures_are_paired_and_counted():
    one = {"a": 30.0, "b": 31.0, "c": 32.0, "d": math.inf, "e": math.inf, "only": 99.0}
    other = {"e": math.inf, "d": 30.0, "c": 32.004, "b": 30.0, "a": 29.0}
    found = difference(one, other, 2)
    assert found.mean == pytest.approx((1 + 1 - 0.004) / 3)  # of those that are finite
    assert (found.better, found.equal, found.worse) == (3, 2, 0)  # infinity beats 30 dB, and equals itself
    assert not found.is_clear  # -0.004 three times is a resample of 27
    assert difference({"a": 30.0}, {"a": 29.0}, 2).interval is None
    assert difference({"a": math.inf}, {"a": 29.0}, 2) is None


def test_seeds_are_one_network_and_missing_pictures_are_left_out_of_their_pairs():
    results = [
        measured("rainy input", {"1": 20.0, "2": 20.0, "3": 20.0, "4": 20.0}),
        measured("ours (1)", {"1": 30.0, "2": 31.0, "3": 32.0, "4": 33.0}, "ours"),
        measured("ours (2)", {"1": 30.4, "2": 31.4, "3": 32.4, "4": 33.4}, "ours"),
        measured("theirs", {"1": 30.0, "2": 31.0, "4": 33.0}),
    ]
    groups = groups_of(results)
    assert [group.title for group in groups] == ["rainy input", "ours, 2 trainings", "theirs"]
    assert groups[1].mean("a", "psnr") == pytest.approx(31.7)
    assert groups[1].spread("a", "psnr") == pytest.approx(0.4 / math.sqrt(2))
    table = markdown_table(results, [])
    assert "| ours, 2 trainings | 1.00 M | 1.0 G | 0.500 | 1.00 GiB | **31.70** ± 0.28 / **0.9000** ± 0.0000 |" in table
    assert r"\textbf{31.70}\,$\pm$\,0.28" in latex_table(results)

    pairs = pairs_of(groups, ["a"])
    (pair,) = pairs
    assert (pair.pictures, pair.left_out) == (3, 1)
    assert pair.of["psnr"].mean == pytest.approx(0.2)
    assert pair.of["psnr"].interval == pytest.approx((0.2, 0.2))
    shown = differences.markdown(pairs)
    label = "ours \N{MINUS SIGN} theirs"
    assert f"| {label} | a | 3 (1 left out) | +0.20 [+0.20, +0.20] | 3 / 0 / 0 |" in shown
    assert "+0.0000 [+0.0000, +0.0000] | 0 / 3 / 0 |" in shown
    assert "10,000 resamples" in shown
    assert r" & $+0.20 [+0.20, +0.20]$" in differences.latex(pairs)
    (row, _) = csv.DictReader(io.StringIO(differences.csv(pairs).decode()))
    assert (row["method"], row["other"], row["left_out"], row["low"]) == ("ours", "theirs", "1", "0.200000")
    assert dict(differences.facts(pairs))[f"{label} on a"].startswith("3 (1 left out) pictures: PSNR +0.20 [")
    rows = list(csv.DictReader(io.StringIO(csv_of_means(results).decode())))
    assert [row["group"] for row in rows] == ["rainy input", "ours", "ours", "theirs"]
    assert float(rows[1]["psnr_low_db"]) < 31.5 < float(rows[1]["psnr_high_db"])

    assert intervals(pairs).startswith(b"\x89PNG")
    assert quality_against_cost(results).startswith(b"\x89PNG")
    assert most_different(results, "a") != 2  # one of them lacks it
    assert most_different(results[:1], "a") == 0  # no network has the set


def test_bold_is_a_difference_of_enough_pictures_that_is_seen():
    def differing(by: float, pictures: int) -> list[Pair]:
        one, other = ({str(n): 30 + n + more for n in range(pictures)} for more in (by, 0.0))
        return pairs_of(groups_of([measured("one", one), measured("other", other)]), ["a"])

    assert "**+0.20 [+0.20, +0.20]**" in differences.markdown(differing(0.2, 10))
    assert r"\boldmath$+0.20 [+0.20, +0.20]$" in differences.latex(differing(0.2, 10))
    assert "**" not in differences.markdown(differing(0.2, 9))
    assert "| +0.00 [+0.00, +0.00] | 0 / 10 / 0 |" in differences.markdown(differing(0.001, 10))


def test_seeds_are_averaged_over_the_pictures_that_all_have():
    seeds = [
        measured("x (1)", {"1": 30.0, "2": 32.0, "hard": 10.0}, "x"),
        measured("x (2)", {"1": 31.0, "2": 33.0}, "x"),
    ]
    (group,) = groups_of(seeds)
    assert group.mean("a", "psnr") == pytest.approx(31.5)
    assert group.spread("a", "psnr") == pytest.approx(1 / math.sqrt(2))
    apart = [measured("y (1)", {"1": 30.0}, "y"), measured("y (2)", {"2": 30.0}, "y")]
    assert facts_of_comparison([], apart, [], [])[0][0] == "Conditions"
    assert "| y, 2 trainings | 1.00 M | 1.0 G | 0.500 | 1.00 GiB |  |" in markdown_table(apart, [])
    perfect = groups_of([measured(f"x ({n})", {"1": math.inf}, "x") for n in (1, 2)])[0]
    assert perfect.mean("a", "psnr") == math.inf
    assert perfect.spread("a", "psnr") is None
