"""`drsformer evaluate`: scores of files against the reference programs and BasicSR, pairs by name, what goes wrong."""

import csv
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from basicsr.metrics import calculate_niqe, calculate_psnr, calculate_ssim
from skimage import data

from drsformer_arch.cli import main
from drsformer_arch.data.pairing.result_pairs import ResultPair, find_result_pairs
from drsformer_arch.evaluate import evaluation
from drsformer_arch.evaluate.evaluation import GROUPS, evaluate, score_pictures
from drsformer_arch.system.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "metric_pairs"
REFERENCE = json.loads((GOLDEN / "reference.json").read_text())
PHOTOGRAPH = np.ascontiguousarray(data.astronaut()[:210, :300])


def noisy(picture: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def save(path: Path, picture: np.ndarray) -> Path:
    """Write a picture, RGB or gray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1] if picture.shape[2] == 3 else picture)
    return path


def touch(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        save(folder / name, np.zeros((1, 1, 3), np.uint8))
    return folder


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["picture"]: row for row in csv.DictReader(file)}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Write three results, targets and rainy pictures of one name each."""
    for index, name in enumerate(("a", "b", "c")):
        clean = PHOTOGRAPH[index * 20 :]
        save(tmp_path / "target" / f"{name}.png", clean)
        save(tmp_path / "rainy" / f"{name}.png", noisy(noisy(clean, index), 9))
        save(tmp_path / "result" / f"{name}_DRSformer.png", noisy(clean, index))
    return tmp_path


@pytest.mark.parametrize("workers", [1, 2])
def test_files_have_the_scores_of_the_reference_programs(workers, tmp_path, capsys):
    for name in REFERENCE:
        for part, suffix in (("result", "_net"), ("target", "")):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / f"{name}{suffix}.png").write_bytes((GOLDEN / f"{name}_{part}.png").read_bytes())
    out = tmp_path / "scores" / "scores.csv"
    assert run(tmp_path / "result", tmp_path / "target", "-o", out, "--workers", workers) == 0
    rows = rows_of(out)
    assert [name.removesuffix("_net") for name in rows] == sorted(REFERENCE)
    for name, row in rows.items():
        for protocol in ("rain200", "ddn"):
            for what, expected in REFERENCE[name.removesuffix("_net")][f"{protocol}_protocol"].items():
                assert float(row[f"{what}_{protocol}"]) == pytest.approx(float(expected), abs=1e-6, rel=0), (name, what)
    text = capsys.readouterr().out
    mean = np.mean([x for one in REFERENCE.values() if (x := float(one["ddn_protocol"]["psnr"])) < math.inf])
    line = next(line for line in text.splitlines() if line.startswith("PSNR in dB, ddn "))
    assert line.split()[4:] == [f"{mean:.4f}", "12.5638", "noise_96x128_net"]
    assert "pairs: {}_net + {}\n" in text
    assert f"{len(rows)} of {len(rows)} pictures scored" in text
    assert f"PSNR in dB, ddn: 1 of {len(rows)} pictures equal their targets" in text


@pytest.mark.parametrize("size", [(15, 11), (210, 300), (400, 390)])
def test_rgb_scores_are_those_of_basicsr(size):
    target = np.resize(PHOTOGRAPH, (*size, 3))
    result = noisy(target)
    scores = score_pictures(result, target, ["rgb"])
    assert scores["psnr_rgb"] == calculate_psnr(result, target, crop_border=0)
    assert scores["ssim_rgb"] == pytest.approx(calculate_ssim(result, target, crop_border=0), abs=1e-12)


def test_gray_counts_as_three_equal_channels():
    gray, colour = PHOTOGRAPH[..., :1], noisy(PHOTOGRAPH)
    in_colour = np.repeat(gray, 3, axis=2)
    assert score_pictures(gray, colour, GROUPS) == score_pictures(in_colour, colour, GROUPS)
    both = score_pictures(gray, noisy(gray), GROUPS), score_pictures(in_colour, noisy(gray).repeat(3, 2), GROUPS)
    assert both[0] == pytest.approx(both[1], abs=1e-12)


def test_niqe_is_that_of_basicsr_and_needs_two_blocks(tmp_path, capsys):
    clean = data.astronaut()
    save(tmp_path / "result" / "large.png", clean)
    save(tmp_path / "result" / "narrow.png", clean[:95])
    save(tmp_path / "result" / "one.png", clean[:191, :191])
    save(tmp_path / "result" / "two.png", clean[:96, :192])
    save(tmp_path / "result" / "flat.png", np.full_like(clean, 7))
    assert run(tmp_path / "result", "-o", tmp_path / "scores.csv") == 0
    rows = rows_of(tmp_path / "scores.csv")
    for name in ("large", "two"):
        picture = cv2.imread(str(tmp_path / "result" / f"{name}.png"))
        assert float(rows[name]["niqe"]) == pytest.approx(calculate_niqe(picture, crop_border=0), abs=1e-8)
    assert {name for name, row in rows.items() if row["niqe"] == ""} == {"flat", "narrow", "one"}
    text = capsys.readouterr().out
    assert "NIQE: 3 of 5 pictures have none" in text
    assert "(flat, narrow, one)" in text
    assert "NIQE as BasicSR 1.4.2 computes it (Y, pristine parameters of the authors, 96x96 blocks)" in text


def test_rainy_pictures_are_scored_beside(folders, capsys):
    save(folders / "rainy" / "a.png", PHOTOGRAPH)  # equals its target: the gain is infinite
    out = folders / "scores.csv"
    arguments = ("--input", folders / "rainy", "--protocol", "rain200", "--niqe", "-o", out)
    assert run(folders / "result", folders / "target", *arguments) == 0
    assert (
        run(folders / "rainy", folders / "target", "--protocol", "rain200", "--niqe", "-o", folders / "rainy.csv") == 0
    )
    rows, of_rainy = rows_of(out), rows_of(folders / "rainy.csv")
    gains = []
    for name, row in of_rainy.items():
        for column in ("psnr_rain200", "ssim_rain200", "niqe"):
            assert rows[f"{name}_DRSformer"][f"input_{column}"] == row[column]
        gains.append(float(rows[f"{name}_DRSformer"]["psnr_rain200"]) - float(row["psnr_rain200"]))
    text = capsys.readouterr().out
    assert gains[0] == -math.inf
    assert f"  +{np.mean(gains[1:]):.4f}\n" in text
    assert "PSNR in dB, rain200: the gain is the mean over the 2 pictures" in text
    assert "SSIM, rain200: the" not in text


def test_16_bits_are_rounded_and_reported(folders, capsys):
    assert run(folders / "result", folders / "target", "-o", folders / "8.csv") == 0
    assert "16 bits" not in capsys.readouterr().out
    save(folders / "target" / "a.png", PHOTOGRAPH.astype(np.uint16) * 257 + np.uint16(100) * (PHOTOGRAPH < 255))
    assert run(folders / "result", folders / "target", "-o", folders / "16.csv") == 0
    assert (folders / "16.csv").read_text() == (folders / "8.csv").read_text()
    assert "16 bits: 1 of 3 pictures were rounded to 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("results", "targets", "partners", "rule"),
    [
        (["1.png", "sub/1.jpg"], ["sub/1.bmp", "1.jpg"], ["1.jpg", "sub/1.bmp"], "equal names"),
        (["rain-2.png", "rain-10.png"], ["norain-10.png", "norain-2.png"], ["norain-2.png", "norain-10.png"], None),
        (["rain-001_DRSformer.png"], ["norain-001.png"], ["norain-001.png"], "rain-{}_DRSformer + norain-{}"),
        (["001_quickstart_test.png", "002_quickstart_test.png"], ["001.png", "002.png"], ["001.png", "002.png"], None),
        (["norain-1x2.png"], ["norain-1.png"], ["norain-1.png"], "norain-{}x2 + norain-{}"),
        (["1x2.png", "2x2.png"], ["1.png", "2.png"], ["1.png", "2.png"], "{}x2 + {}"),
        (["1x2_IDT.png", "2x2_IDT.png"], ["norain-1.png", "norain-2.png"], ["norain-1.png", "norain-2.png"], None),
        (["rain-1.png"], ["1.png"], ["1.png"], None),
        (
            ["900_1.jpg", "900_14.jpg", "901_1.jpg"],
            ["900.jpg", "901.jpg"],
            ["900.jpg", "900.jpg", "901.jpg"],
            "{}_# + {}",
        ),
        (["900_1_net.png", "900_2_net.png"], ["900.jpg"], ["900.jpg", "900.jpg"], "{}_#_net + {}"),
        (["1_rain.png", "2_rain.png"], ["1_clean.png", "2_clean.png"], ["1_clean.png", "2_clean.png"], None),
        (["1_derain.png", "2_derain.png"], ["1.png", "2.png"], ["1.png", "2.png"], "{}_derain + {}"),
        (["real_1000_rain.png"], ["real_1000_gt.png"], ["real_1000_gt.png"], None),
        (["000.png", "001.png"], ["000gt.png", "001gt.png"], ["000gt.png", "001gt.png"], "{} + {}gt"),
    ],
)
def test_official_names_pair(results, targets, partners, rule, tmp_path):
    result, target = touch(tmp_path / "result", results), touch(tmp_path / "target", targets)
    (result / "._hidden.png").touch()
    pairs, notes = find_result_pairs(result, target, None)
    assert [pair.result for pair in pairs] == [result / name for name in results]
    assert [pair.target for pair in pairs] == [target / name for name in partners]
    assert len(notes) == 1
    assert rule is None or notes == [f"pairs: {rule}"]


@pytest.mark.parametrize(
    ("results", "rainy"),
    [
        (["rain-1_net.png"], ["rain-1.png"]),
        (["norain-1.png"], ["rain-1.png"]),
        (["norain-1.png"], ["norain-1x2.png"]),
        (["1_derain.png", "2_derain.png"], ["1_rain.png", "2_rain.png"]),
        (["900_1_net.png", "900_2_net.png"], ["900_1.png", "900_2.png"]),
    ],
)
def test_rainy_pictures_pair_with_results(results, rainy, tmp_path):
    result, given = touch(tmp_path / "result", results), touch(tmp_path / "rainy", rainy)
    pairs, _ = find_result_pairs(result, None, given)
    assert [pair.rainy for pair in pairs] == [given / name for name in rainy]


@pytest.mark.parametrize(
    ("results", "targets", "message"),
    [
        (["1_2_3.png"], ["1.png", "1_2.png"], "can be read in two ways: 1_2_3.png belongs to 1_2.png by {}_# + {}"),
        (["x.png", "y.png"], ["a.png", "b.png"], r"x.png and a.png, for example; names must be equal"),
        (
            ["1.png", "2.png", "3.png"],
            ["1.png", "2.png"],
            "1 of 3 results without a target (3.png); the others pair by",
        ),
        (["rain-1.png", "2.png"], ["norain-1.png", "5.png"], "1 of 2 results without a target (2.png)"),
        (["a/1.png"], ["b/1.png"], "no result in"),
        (["1.png", "1.jpg"], ["1.png"], "two results have one name"),
        (["1.png"], ["1.png", "1.jpg"], "two files for one name"),
    ],
)
def test_other_names_are_refused(results, targets, message, tmp_path):
    result, target = touch(tmp_path / "result", results), touch(tmp_path / "target", targets)
    with pytest.raises(UserError) as error:
        find_result_pairs(result, target, None)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_targets_are_left_out_on_request(folders, capsys):
    (folders / "target" / "b.png").unlink()
    arguments = (folders / "result", folders / "target", "--protocol", "ddn")
    assert run(*arguments) == 2
    assert "1 of 3 results without a target (b_DRSformer.png)" in capsys.readouterr().err
    assert run(*arguments, "--skip-missing") == 0
    text = capsys.readouterr().out
    assert "left out: 1 of 3 results without a target (b_DRSformer.png)" in text
    assert "2 of 2 pictures scored" in text


def test_bad_pictures_are_named_and_the_rest_goes_on(folders, capsys):
    assert run(folders / "result", folders / "target", "-o", folders / "all.csv") == 0
    (folders / "result" / "a_DRSformer.png").write_bytes(b"no picture")
    save(folders / "target" / "c.png", PHOTOGRAPH[:100])
    assert run(folders / "result", folders / "target", "-o", folders / "some.csv") == 1
    out, error = capsys.readouterr()
    assert f"{folders / 'result' / 'a_DRSformer.png'} cannot be read: it is damaged" in error
    sizes = f"{folders / 'result' / 'c_DRSformer.png'} is 300x170 but {folders / 'target' / 'c.png'} is 300x100"
    assert sizes in error
    assert error.count("\n") == 2
    assert "1 of 3 pictures scored" in out
    whole, some = rows_of(folders / "all.csv"), rows_of(folders / "some.csv")
    assert some["b_DRSformer"] == whole["b_DRSformer"]
    assert sizes in some["c_DRSformer"]["problem"]
    assert some["c_DRSformer"]["psnr_ddn"] == some["a_DRSformer"]["psnr_ddn"] == ""


def test_what_is_no_file_is_its_line_and_the_rest_goes_on(tmp_path, capsys):
    folder = save(tmp_path / "all/good.png", noisy(data.astronaut()[:64, :64])).parent
    os.mkfifo(folder / "pipe.png")
    (folder / "broken.png").symlink_to("/nowhere/x.png")
    (folder / "round.png").symlink_to("round.png")
    for command, out in (("evaluate", "scores.csv"), ("report", "page.html")):
        assert main([command, str(folder), str(folder), "-o", str(tmp_path / out)]) == 1
        said = capsys.readouterr().err
        assert said.count("error: ") == 3
        assert all(f"{name}.png is a" in said for name in ("pipe", "broken", "round"))
    assert set(rows_of(tmp_path / "scores.csv")) == {"good", "pipe", "broken", "round"}


def test_whatever_a_picture_raises_is_its_line(folders, monkeypatch, capsys):
    def reading(content: bytes, path: Path) -> np.ndarray:
        if path.parent.name == "target" and path.name in raised:
            raise raised[path.name]
        return decode(content, path)

    decode, raised = evaluation.decode, {"a.png": MemoryError(), "b.png": ZeroDivisionError("odd\n\x1b[31m tag")}
    monkeypatch.setattr(evaluation, "decode", reading)
    save(folders / "target" / "d.png", PHOTOGRAPH)
    no_rows = folders / "result" / "d_DRSformer.tif"
    tifffile.imwrite(no_rows, np.zeros((5, 5, 4), np.uint8), photometric="rgb", extrasamples=[1])
    with tifffile.TiffFile(no_rows, mode="r+") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(0)
    assert run(folders / "result", folders / "target", "-o", folders / "some.csv") == 1
    out, error = capsys.readouterr()
    assert error.splitlines()[:2] == [
        f"error: {folders / 'target' / 'a.png'}: not enough memory",
        rf"error: {folders / 'target' / 'b.png'}: ZeroDivisionError: odd \x1b[31m tag",
    ]
    assert error.count("\n") == 3
    assert "d_DRSformer.tif" in error
    assert "1 of 4 pictures scored" in out


def test_names_are_no_formulas_and_rows_stay_rows(tmp_path, capsys):
    names = ("=1+1", "@a", "+b\n-c", "d\r=e", "-1", "\x1b[2J\u202e")
    for name in names:
        save(tmp_path / "result" / f"{name}.png", PHOTOGRAPH[:20, :20])
    assert run(tmp_path / "result", "-o", tmp_path / "scores.csv") == 0
    assert sorted(rows_of(tmp_path / "scores.csv")) == sorted(
        ["'=1+1", "'@a", r"'+b\n-c", r"d\r=e", "-1", r"\x1b[2J\u202e"]
    )
    assert "\r" not in capsys.readouterr().out


class Watched(Sequence):
    """A sequence that remembers how far it was read."""

    def __init__(self, pair: ResultPair, count: int) -> None:
        self.pair, self.count, self.read = pair, count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError
        self.read = max(self.read, index + 1)
        return self.pair


class Deadly(type(Path())):
    """A sequence that kills the process that reads it, as a decoder's crash or the system does when memory runs out."""

    def read_bytes(self) -> bytes:
        os._exit(1)


def test_a_picture_that_kills_its_process_is_its_line(folders):
    pairs, _ = find_result_pairs(folders / "result", folders / "target", None)
    pairs = [pairs[0], pairs[1]._replace(result=Deadly(pairs[1].result)), pairs[2]]
    rows = list(evaluate(pairs, ["ddn"], workers=10**20))
    assert [row.pair for row in rows] == pairs
    assert rows[0].scores
    assert rows[2].scores
    assert rows[1].problem == f"{pairs[1].result}: the process that reads it dies (out of memory?)"


@pytest.mark.parametrize("workers", [1, 2])
def test_pictures_are_read_little_ahead_and_closing_stops(workers, folders):
    pair = find_result_pairs(folders / "result", folders / "target", None)[0][0]
    pairs = Watched(pair, 200)
    rows = evaluate(pairs, ["ddn"], workers=workers)
    assert [next(rows).pair for _ in range(3)] == [pair] * 3
    rows.close()
    assert pairs.read <= 3 + evaluation.AHEAD * workers


def test_a_run_that_ends_early_leaves_the_old_csv(folders, monkeypatch):
    score = evaluation._score

    def interrupted(pair: ResultPair, *settings: object) -> evaluation.PictureScores:
        if pair.name.startswith("c"):
            raise KeyboardInterrupt
        return score(pair, *settings)

    (folders / "scores.csv").write_text("before")
    monkeypatch.setattr(evaluation, "_score", interrupted)
    before = sorted(folders.iterdir())
    assert run(folders / "result", folders / "target", "-o", folders / "scores.csv") == 130
    assert (folders / "scores.csv").read_text() == "before"
    assert sorted(folders.iterdir()) == before


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_scores_are_printed_where_their_file_cannot_be_written(command, folders, monkeypatch, capsys):
    arguments = [command, str(folders / "result"), str(folders / "target"), "-o"]
    assert main([*arguments, "/dev/full"]) == 2
    out, error = capsys.readouterr()
    assert "3 of 3 pictures scored" in out
    assert "PSNR in dB, rain200" in out
    assert error == "error: No space left on device: /dev/full\n"
    link = folders / "link.html"
    link.symlink_to("missing/scores.html")
    monkeypatch.setattr(evaluation, "decode", None)  # nothing is read
    assert main([*arguments, str(link)]) == 2
    out, error = capsys.readouterr()
    assert "scored" not in out
    assert error == (
        f"error: {link} is a link into a folder that is not there: {folders / 'missing'}; make it, or remove the link\n"
    )


def test_two_files_are_a_pair_whatever_their_names(tmp_path, capsys):
    result, target = save(tmp_path / "x.png", noisy(PHOTOGRAPH)), save(tmp_path / "y.bmp", PHOTOGRAPH)
    assert run(result, "--protocol", "rgb", target) == 0
    assert f"{score_pictures(noisy(PHOTOGRAPH), PHOTOGRAPH, ['rgb'])['psnr_rgb']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}/result", "--protocol", "ddn"], "--protocol ddn compares with targets"),
        (["{0}/result", "{0}/target", "--niqe", "{0}/rainy"], "rainy; rainy pictures go to --input"),
        (["{0}/nowhere", "{0}/target"], "nowhere does not exist"),
        (["{0}/result", "{0}/empty"], "no picture"),
        (["{0}/result", "{0}/target", "--workers", "0"], "--workers must be 1 or more"),
        (["{0}/result", "{0}/target", "-o", "{0}/empty"], "is a folder; scores are written as CSV"),
        (["{0}/result", "{0}/target", "-o", "{0}/a.png"], "is the name of a picture"),
        (["{0}/result", "{0}/text.txt"], "is no picture"),
    ],
)
def test_mistakes_are_one_line(arguments, message, folders, capsys):
    (folders / "empty").mkdir()
    (folders / "text.txt").touch()
    assert run(*(one.format(folders) for one in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_unknown_scores_are_refused_at_once():
    with pytest.raises(UserError, match="did you mean 'rain200'"):
        evaluate([], ["rain20"])
