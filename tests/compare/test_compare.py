"""`drsformer compare`: what it writes is what the parts give when run by hand."""

import csv
import io
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from drsformer_arch import archs
from drsformer_arch.cli import main
from drsformer_arch.compare import figures, measurement
from drsformer_arch.compare.comparison import distinct_labels
from drsformer_arch.compare.figures import quality_against_cost
from drsformer_arch.compare.measurement import (
    ComparedSet,
    Measurement,
    Method,
    MethodScores,
    Settings,
    attempt,
    count_macs,
)
from drsformer_arch.compare.tables import csv_of_means, csv_of_pictures, latex_table, markdown_table
from drsformer_arch.metrics import calculate_psnr_rain200, calculate_ssim_rain200
from drsformer_arch.restore.restorer import Restorer
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.escapes import csv_line
from tests.golden_weights import load_golden_weights
from tests.runs import PROCESSES, drsformer, write


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, Path]:
    nets = {
        "DRSformer": archs.DRSformer(dim=8, num_blocks=(1, 1, 1, 1)),
        "DualGCN": archs.DualGCN(channels=8, num_levels=1),
    }
    for name, net in nets.items():
        torch.save(load_golden_weights(net, 0.3).state_dict(), tmp_path / f"{name}.pth")
    return {name: tmp_path / f"{name}.pth" for name in nets}


def test_what_can_be_compared_is_and_the_rest_is_named(pairs, weights, tmp_path, monkeypatch, capsys):
    """An option file, checkpoints of two seeds, files that are none, and a damaged picture."""
    monkeypatch.setattr(measurement, "PROCESSES", PROCESSES)  # these have imported torch already
    shutil.copytree(pairs, tmp_path / "pairs", ignore=shutil.ignore_patterns("*.lmdb"))
    pairs = tmp_path / "pairs"
    (pairs / "input" / "00.png").write_bytes(b"damaged")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    option_file = {
        "name": "one",
        "model_type": "DerainModel",
        "num_gpu": 0,
        "datasets": {"test": {"name": "other", "type": "PairedRainDataset", "dataroot": str(pairs)}},
        "network_g": {"type": "DRSformer", "dim": 8, "num_blocks": [1, 1, 1, 1]},
        "path": {"pretrain_network_g": str(weights["DRSformer"])},
        "val": {"metrics": {"psnr": {"type": "calculate_psnr_rain200"}}},
    }
    (tmp_path / "one.yml").write_text(yaml.safe_dump(option_file))
    out = tmp_path / "out"
    out.mkdir()
    (out / "comparison.csv").symlink_to("/dev/full")
    files = [str(tmp_path / name) for name in ("nowhere.yml", "broken.pth", "one.yml")]
    shutil.copy(weights["DualGCN"], tmp_path / "again.pth")
    files += [f"DualGCN={weights['DualGCN']}", f"DualGCN={tmp_path / 'again.pth'}"]
    settings = ["--data", f"Rain200H={pairs}", "--protocol", "rain200", "--limit", "3", "-o", str(out)]
    page = tmp_path / "page.html"
    assert main(["compare", *files, *settings, "--report", str(page)]) == 1
    said = capsys.readouterr()
    assert "32.17 / 0.9326" in said.out  # the published scores stand beside
    assert "Pictures: the first 2 of Rain200H" in said.out
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert lines[3:] == [f"error: {out / 'comparison.csv'} cannot be written: No space left on device"]
    for line, name in zip(lines[:3], ("nowhere.yml", "00.png", "broken.pth"), strict=True):
        assert name in line
        assert name in (out / "comparison.md").read_text()

    assert "| DualGCN, 2 trainings |" in said.out
    assert "| DRSformer \N{MINUS SIGN} DualGCN | Rain200H | 2 |" in said.out
    rows = list(csv.DictReader((out / "pictures.csv").open()))
    methods = ("DRSformer", "DualGCN (1)", "DualGCN (2)")
    assert [(row["method"], row["picture"]) for row in rows] == [
        (method, name) for method in ("rainy input", *methods) for name in ("01", "02")
    ]
    for row in rows:
        result = cv2.imread(str(out / "pictures" / row["method"] / "Rain200H" / f"{row['picture']}.png"))
        target = cv2.imread(str(pairs / "target" / f"{row['picture']}.png"))
        assert float(row["psnr_db"]) == pytest.approx(calculate_psnr_rain200(result, target), abs=1e-4)
        assert float(row["ssim"]) == pytest.approx(calculate_ssim_rain200(result, target), abs=1e-6)
        if row["method"] == "rainy input":
            assert (result == cv2.imread(str(pairs / "input" / f"{row['picture']}.png"))).all()
    for name in ("comparison.md", "comparison.tex", "quality_cost.png", "differences.tex", "differences.png"):
        assert (out / name).stat().st_size > 100
    assert cv2.imread(str(out / "crops.png")) is not None
    shown = page.read_text()
    assert all(f'data-name="{name} by {method}"' in shown for name in ("01", "02") for method in methods)
    assert 'data-name="00' not in shown
    assert "<dt>DRSformer \N{MINUS SIGN} DualGCN on Rain200H</dt><dd>2 pictures: PSNR " in shown
    for method, title in (("DRSformer", "DRSformer"), ("DualGCN (1)", "DualGCN, 2 trainings")):
        psnr = [float(row["psnr_db"]) for row in rows if row["method"] == method]
        assert f"<dt>{title} on Rain200H</dt><dd>PSNR {sum(psnr) / 2:.2f}" in shown


def test_equal_names_of_weights_are_told_apart_by_their_experiments(pairs, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measurement, "PROCESSES", PROCESSES)
    files = [tmp_path / "experiments" / name / "models" / "net_g_latest.pth" for name in weights]
    for file, path in zip(files, weights.values(), strict=True):
        file.parent.mkdir(parents=True)
        shutil.copy(path, file)
    for name, role in (("gt", "target"), ("LQ", "input")):  # as other projects call them
        (tmp_path / "named" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "named" / name).symlink_to(pairs / role)
    (tmp_path / "named" / "extra").mkdir()
    settings = ["--data", f"a={tmp_path / 'named'}", "--protocol", "ddn", "--limit", "1", "-o", str(tmp_path / "out")]
    assert main(["compare", *map(str, files), *settings]) == 0
    said = capsys.readouterr().out
    assert "\n| DRSformer_net_g_latest | " in said
    assert "\n| DualGCN_net_g_latest | " in said


def test_every_command_runs_shipped_weights_in_tiles_and_upright(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "PROCESSES", PROCESSES)
    for part in ("input", "target"):  # a picture larger than a tile
        (tmp_path / "large" / part).mkdir(parents=True)
        small = np.asarray(Image.open(pairs / part / "00.png"))
        large = np.tile(small, (-(-330 // small.shape[0]), -(-340 // small.shape[1]), 1))[:330, :340]
        Image.fromarray(large).save(tmp_path / "large" / part / "00.png")
    pairs = tmp_path / "large"
    rainy = pairs / "input" / "00.png"
    data = ["--data", f"a={pairs}", "--protocol", "rain200", "-o", str(tmp_path / "compared")]
    assert main(["compare", "DRSformer-S", "--ensemble", *data]) == 0
    compared = tmp_path / "compared" / "pictures" / "DRSformer-S" / "a" / "00.png"
    assert main(["derain", str(rainy), "-o", str(tmp_path / "derained.png"), "--ensemble"]) == 0
    test = {
        "name": "one",
        "model_type": "DerainModel",
        "num_gpu": 0,
        "datasets": {"test": {"name": "a", "type": "PairedRainDataset", "dataroot": str(pairs)}},
        "network_g": {"type": "DRSformer", "dim": 20, "num_blocks": [1, 1, 1, 1], "with_mefc": False},
        "path": {"pretrain_network_g": "DRSformer-S"},
        "val": {"save_img": True, "ensemble": True, "metrics": {"psnr": {"type": "calculate_psnr_rain200"}}},
    }
    drsformer(tmp_path, "test", "-opt", write(tmp_path, test, "one.yml"))
    (tested,) = (tmp_path / "results").rglob("00*.png")

    derain, picture = Restorer(tile=320, overlap=64), np.asarray(Image.open(rainy)).astype(np.uint8)
    by_default = Restorer()
    assert np.array_equal(by_default(picture), derain(picture))
    assert by_default.note_on_tiles() is None
    whole = Restorer(tile=0)(picture)
    assert np.abs(whole.astype(float) - derain(picture)).mean() > 0.1
    assert np.array_equal(Restorer(published_inference=True)(picture), whole)
    flips = [picture, picture[:, ::-1], picture[::-1], picture[::-1, ::-1]]
    results = [derain(np.ascontiguousarray(flipped)).astype(float) for flipped in flips]
    results = [results[0], results[1][:, ::-1], results[2][::-1], results[3][::-1, ::-1]]
    mean = np.mean(results, axis=0)  # of clipped results: at white and black they differ
    assert np.abs(results[0] - mean).mean() > 1
    for file in (compared, tmp_path / "derained.png", tested):
        assert np.abs(np.asarray(Image.open(file)) - mean).mean() < 0.5


def test_files_of_equal_names_get_the_shortest_part_of_their_paths_that_differs():
    files = ["one/rain/models/net_g_latest.pth", "two/rain/models/net_g_latest.pth", "two/snow/models/net_g_latest.pth"]
    with pytest.raises(UserError, match=r"a/net\.pth is given twice"):
        distinct_labels(["a/net.pth", "./a/net.pth"], ["net", "net"])
    labels = distinct_labels([*files, "a/derain.pth", "b.yml"], [*["net_g_latest"] * 3, "derain", "IDT"])
    assert labels == ["one_rain_net_g_latest", "two_rain_net_g_latest", "snow_net_g_latest", "derain", "IDT"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{weights}"], "name them with --data"),
        (["{weights}", "--data", "{pairs}"], "write NAME=FOLDER"),
        (["{weights}", "--data", "../a={pairs}", "--protocol", "ddn"], "names a file or folder, which '../a' cannot"),
        (["{weights}", "--data", "a={pairs}"], "--data needs --protocol rain200 or ddn"),
        (["{weights}", "--data", "a=/nowhere", "--protocol", "ddn"], "no folder /nowhere"),
        (["missing.pth", "--data", "a={pairs}", "--protocol", "ddn"], "no file missing.pth"),
        (["{weights}", "{weights}", "--data", "a={pairs}", "--protocol", "ddn"], "is given twice"),
        (["a={weights}", "a={weights}", "--data", "a={pairs}", "--protocol", "ddn"], "is given twice"),
        (["../a={weights}", "--data", "a={pairs}", "--protocol", "ddn"], "names a file or folder, which '../a' cannot"),
        (["rainy input={weights}", "--data", "a={pairs}", "--protocol", "ddn"], "choose other names: NAME=FILE"),
        (["{weights}", "--data", "a={pairs}", "--protocol", "ddn", "--limit", "0"], "--limit must be 1 or more"),
        (["{weights}", "--data", "a=~nobody/x", "--protocol", "ddn"], "no folder ~nobody/x"),
        (["~nobody/x.pth", "--data", "a={pairs}", "--protocol", "ddn"], "no file ~nobody/x.pth"),
        (["{weights}", "--data", "A={pairs}", "a={pairs}", "--protocol", "ddn"], "have the same name 'a'"),
        (["{weights}", "--protocol", "ddn"], "--protocol ddn is for --data"),
        (["{weights}", "--data", "a={pairs}", "--protocol", "ddn", "--report", "a.csv"], "one file, named .html"),
        (
            ["{weights}", "--data", "a={pairs}", "--protocol", "ddn", "--device", "none"],
            "device none cannot be used here",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, message, pairs, weights, capsys):
    filled = [one.format(weights=weights["DualGCN"], pairs=pairs) for one in arguments]
    assert main(["compare", *filled, "-o", str(weights["DualGCN"].parent / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("below", ["input/out", "target", ""])
def test_results_are_not_written_among_pictures(below, pairs, weights, capsys):
    before = sorted(pairs.rglob("*"))
    settings = ["--data", f"a={pairs}", "--protocol", "ddn", "-o", str(pairs / below)]
    assert main(["compare", str(weights["DualGCN"]), *settings]) == 2
    assert "lies in the data set a" in capsys.readouterr().err
    assert sorted(pairs.rglob("*")) == before


def test_files_of_one_name_are_one_network_and_an_earlier_comparison_leaves_nothing(
    pairs, weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(measurement, "PROCESSES", PROCESSES)
    settings = ["--data", f"a={pairs}", "--protocol", "ddn", "--limit", "1", "-o", str(tmp_path / "out")]
    assert main(["compare", *map(str, weights.values()), *settings]) == 0
    assert f"Weights of DualGCN: {weights['DualGCN']}." in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("differences.*"))) == 3
    assert main(["compare", *(f"x={file}" for file in weights.values()), *settings]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: x (2): a DualGCN of ")
    assert line.endswith("; files of one name are trainings of one network")
    assert not list((tmp_path / "out").glob("differences.*"))


def test_option_files_that_give_one_name_to_different_pictures_are_refused(pairs, weights, tmp_path, capsys):
    for name, clean, protocol in (("1", "target", "ddn"), ("2", "input", "ddn"), ("3", "input", "rain200")):
        data = {"name": "a", "type": "PairedRainDataset"}
        data |= {"dataroot_lq": str(pairs / "input"), "dataroot_gt": str(pairs / clean)}
        options = {
            "name": name,
            "model_type": "DerainModel",
            "num_gpu": 0,
            "datasets": {"test": data},
            "network_g": {"type": "DualGCN", "channels": 8, "num_levels": 1},
            "path": {"pretrain_network_g": str(weights["DualGCN"])},
            "val": {"metrics": {"psnr": {"type": f"calculate_psnr_{protocol}"}}},
        }
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(options))
    for one, other in ("12", "23"):
        files = [f"{name}={tmp_path / name}.yml" for name in (one, other)]
        assert main(["compare", *files, "-o", str(tmp_path / "out")]) == 2
        assert f"{other}: its data set a has other pictures or another protocol" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_was_measured_is_kept_where_a_figure_fails(pairs, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measurement, "PROCESSES", PROCESSES)
    monkeypatch.setattr(figures, "crops", lambda *_: 1 / 0)
    out = tmp_path / "out"
    files = [str(weights["DualGCN"]), "--data", f"a={pairs}", "--protocol", "ddn", "--limit", "1", "-o", str(out)]
    assert main(["compare", *files, "--report", str(tmp_path / "page.html")]) == 1
    assert f"error: {out / 'crops.png'}: ZeroDivisionError" in capsys.readouterr().err
    assert {file.name for file in out.iterdir()} >= {"comparison.md", "pictures.csv", "quality_cost.png"}
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_tables_mark_the_best_and_what_was_published():
    def scores(psnr: float, ssim: float) -> MethodScores:
        return MethodScores(["a"], [psnr], [ssim], [0.5], [0])

    results = [
        Measurement("rainy input", None, 0, 0, 0, {"Rain200H-test": scores(13, 0.4)}),
        Measurement("DRSformer", "DRSformer", 33_655_424, 10**9, 2**30, {"Rain200H-test": scores(32.174, 0.93)}),
        Measurement("IDT", "IDT", 16_416_463, 10**9, 2**30, {"Rain200H-test": scores(31, 0.9344)}),
    ]
    lines = markdown_table(results, []).splitlines()
    assert lines[2].endswith("| 13.00 / 0.4000 |")
    assert lines[3] == ("| DRSformer | 33.66 M | 1.0 G | 0.500 | 1.00 GiB | **32.17** / 0.9300 (32.17 / 0.9326) |")
    assert lines[4].endswith("| 31.00 / **0.9344** (32.10 / 0.9344) |")
    assert scores(30, 1)._replace(psnr=[30, math.inf]).mean("psnr") == 30  # the other picture equals its target
    table = latex_table(results)
    assert r"\textbf{32.17}" in table
    assert r"\textbf{0.9344}" in table
    assert r"\textbf{13" not in table
    restormer = results[1]._replace(network="Restormer", scores={"Rain100L": scores(30, 0.9)})
    assert "(38.99 / ?)" in markdown_table([restormer], [])  # its paper has no SSIM there
    assert r"{\scriptsize (38.99)} & {\scriptsize (?)}" in latex_table([restormer])


def test_pictures_of_one_name_in_two_folders_stay_two_and_a_bad_set_is_named(pairs, tmp_path):
    for part in ("input", "target"):
        for folder, name in (("a", "01"), ("b", "02")):
            (tmp_path / "pairs" / part / folder).mkdir(parents=True)
            shutil.copy(pairs / part / f"{name}.png", tmp_path / "pairs" / part / folder / "1.png")
    sets = [
        ComparedSet(name, {"name": name, "type": "PairedRainDataset", "dataroot": str(root)}, "ddn")
        for name, root in (("none", tmp_path), ("two", tmp_path / "pairs"))
    ]
    method = Method(measurement.RAINY_INPUT, None, None, None, {}, tuple(sets))
    measured, left_out, problems = measurement.measure_input(method, Settings(tmp_path / "out", None, "cpu"))
    assert measured.scores.keys() == {"two"}
    assert measured.scores["two"].names == ["a/1", "b/1"]
    assert left_out == {"two": set()}
    assert len(problems) == 1
    assert "data set none" in problems[0]
    for name, source in (("a/1", "01"), ("b/1", "02")):
        result = cv2.imread(str(tmp_path / "out/pictures" / measurement.RAINY_INPUT / "two" / f"{name}.png"))
        assert (result == cv2.imread(str(pairs / "input" / f"{source}.png"))).all()


def test_a_network_that_returns_no_numbers_has_no_scores(pairs, tmp_path):
    net = load_golden_weights(archs.DualGCN(channels=8, num_levels=1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e20)
    torch.save(net.state_dict(), tmp_path / "large.pth")
    pictures = ComparedSet("a", {"name": "a", "type": "PairedRainDataset", "dataroot": str(pairs)}, "ddn")
    method = Method("large", str(tmp_path / "large.pth"), None, None, {}, (pictures,))
    line = attempt(method, Settings(tmp_path, 1, "cpu"), {"a": set()})
    said = f"large ({tmp_path / 'large.pth'}): 00.png of a: the network returns NaN or infinite values"
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("name", "in_csv", "in_markdown", "in_latex"),
    [
        ("=1+1", "'=1+1", "=1+1", "=1+1"),
        ("\t@x", r"\t@x", r"\\t@x", r"\textbackslash{}t@x"),
        (" \uff0dx", "' \uff0dx", " \uff0dx", " \uff0dx"),
        ("a;-b\rc", r"a;'-b\rc", r"a;-b\\rc", r"a;-b\textbackslash{}rc"),
        ("-1.5", "-1.5", "-1.5", "-1.5"),
        (
            "a|b\n<c>_d_e",
            r"a|b\n<c>_d_e",
            r"a\|b\\n&lt;c>\_d_e",
            r"a\textbar{}b\textbackslash{}n\textless{}c\textgreater{}\_d\_e",
        ),
        ("[x](y)*_`$", "[x](y)*_`$", r"\[x\](y)\*\_\`\$", r"{[}x{]}(y){*}\_{`}\$"),
        (
            r"\&%#{}~^",
            r"\&%#{}~^",
            r"\\&amp;%\#{}\~^",
            r"\textbackslash{}\&\%\#\{\}\textasciitilde{}\textasciicircum{}",
        ),
        ("\x1b[31m\u202e\udcff", r"\x1b[31m\u202e\udcff", r"\\x1b\[31m\\u202e\\udcff", None),
    ],
)
def test_names_are_text_in_every_table_and_figure(name, in_csv, in_markdown, in_latex):
    assert csv_line([name, 1, -2.5]) == f"{in_csv},1,-2.5\n".encode()
    results = [
        Measurement(label, network, 1, 0, 0, {name: MethodScores([name], [30.0], [0.9], [0.1], [0])})
        for label, network in ((name, None), (f"{name}2", "IDT"))
    ]
    table = markdown_table(results, [name])
    assert f"| {in_markdown} |" in table
    assert f"| {in_markdown}: PSNR" in table
    assert table.endswith(f"\n{in_markdown}\n")
    if in_latex:
        assert f"\n{in_latex} & " in latex_table(results)
        assert f"{{c}}{{{in_latex}}}" in latex_table(results)
    assert len(latex_table(results).splitlines()) == 10
    assert len(table.splitlines()) == 7
    for content in (csv_of_means(results), csv_of_pictures(results)):
        rows = list(csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")))
        assert len(rows) == 3
        assert len({len(row) for row in rows}) == 1
    quality_against_cost(results)


def test_macs_count_products_in_place_and_attention():
    """What MEFC adds (per step and pixel 251 C in depth-wise kernels, 19 C² in products), and IDT's attention."""
    counts = [count_macs(archs.DRSformer(dim=8, num_blocks=(1, 1, 1, 1), with_mefc=mefc)) for mefc in (True, False)]
    expected = 0
    for channels in (8, 16):
        expected += (4 * (251 * channels + 19 * channels**2) + channels**2) * 256**2
        expected += channels * 64 + 64 * 32  # gates
    assert counts[0] - counts[1] == expected

    net = archs.IDT(embed_dim=8)
    with sdpa_kernel(SDPBackend.MATH):  # there attention is two products, which torch counts
        by_products = count_macs(net)
    assert count_macs(net) == by_products


def test_macs_are_those_of_the_layers():
    net = archs.DualGCN(channels=8, num_levels=1)
    convolutions = sum(
        parameter[..., 0, 0].numel() * parameter.shape[-1] ** 2
        for name, parameter in net.named_parameters()
        if parameter.dim() == 4 and "mix_" not in name
    )
    graphs = 3 * (2 * 4 * 4 + 2 * 4 * 2)  # products over all pixels in each of the three units
    mixtures = 3 * (2 * 4 * 4 + 4 * 2 * 2)  # of the channel graphs, independent of the pixels
    assert count_macs(net) == (convolutions + graphs) * 256**2 + mixtures
