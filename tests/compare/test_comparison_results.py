"""Results of trainings on several machines are joined to what one comparison would have said."""

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from drsformer_arch.compare import differences, tables
from drsformer_arch.compare.groups import groups_of
from drsformer_arch.compare.measurement import Measurement, MethodScores
from drsformer_arch.plot import training_figure
from drsformer_arch.plot.figures import colours
from drsformer_arch.training import training_records

SCRIPT = Path(__file__).parents[2] / "scripts/comparison_results.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(SCRIPT.parent))  # as for a script that is run
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


def measured(label: str, network: str | None, seed: int, group: str = "") -> Measurement:
    rng = np.random.default_rng(seed)

    def scores(count: int) -> MethodScores:
        names = [f"{index:03d}" for index in range(count)]
        columns = rng.uniform(20, 30, count).round(4), rng.uniform(0.7, 0.9, count).round(6)
        return MethodScores(names, *(column.tolist() for column in columns), [0.25] * count, list(range(count)))

    costs = (1_400_000, 10**9, 2**30) if network else (0, 0, 0)
    return Measurement(label, network, *costs, {"Rain100L": scores(19), "Rain200H": scores(6)}, group or label)


def test_runs_of_a_group_share_a_colour_and_no_two_groups_do():
    lines = training_figure._lines_of(["a, seed1", "b", "a, seed2"], {"a, seed1": "a", "a, seed2": "a"})
    assert lines["a, seed1"]["color"] == lines["a, seed2"]["color"] != lines["b"]["color"]
    assert [line["linestyle"] for line in lines.values()] == ["-", "-", "--"]
    for count in (0, 1, 11, 60):
        assert len(set(colours(count))) == count


def write(folder: Path, rainy: Measurement, trained: Measurement) -> None:
    """Keep a training as the script does."""
    folder.mkdir(parents=True, exist_ok=True)
    alone = [rainy, trained._replace(label=trained.group)]
    (folder / "comparison.csv").write_bytes(tables.csv_of_means(alone))
    (folder / "pictures.csv").write_bytes(tables.csv_of_pictures(alone))
    cv2.imwrite(str(folder / "regions.png"), np.zeros((450, 190, 3), np.uint8))
    (folder / training_records.NAME).unlink(missing_ok=True)
    for iteration in (1, 2, 3):
        step = {"iter": iteration, "epoch": 0, "lr": 1e-3, "l_pix": 0.1, "seconds_per_iter": iteration + 0.5}
        training_records.append(folder, step)
    training_records.append(folder, {"iter": 3, "data_set": "Rain100L", "psnr": 30.0})


def test_joined_results_say_what_one_comparison_says(script, tmp_path):
    rainy = measured("rainy input", None, 0)
    trained = [
        measured("comparison_DRSformer_seed1", "DRSformer", 1, "DRSformer"),
        measured("comparison_DRSformer_seed2", "DRSformer", 2, "DRSformer"),
        measured("comparison_IDT_seed1", "IDT", 3, "IDT"),
    ]
    for result in trained:
        write(tmp_path / "kept" / result.label, rainy, result)
    whole = [rainy, *trained]
    unfinished = tmp_path / "kept/comparison_SPDNet_seed1"
    unfinished.mkdir()
    (unfinished / "pictures.csv").write_text("method,network\n")  # as another training keeps it
    assert script.read_all(tmp_path / "kept") == (whole, [])
    said, _ = script.join(tmp_path / "kept", tmp_path / "out")
    assert tables.markdown_table(whole, []) in said
    assert differences.markdown(differences.pairs_of(groups_of(whole), tables.data_sets(whole))) in said
    assert "| DRSformer, 2 trainings | 2.50, of the training itself, whatever ran beside it |" in said
    for name in ("cost.png", "differences.png", "training.png", "regions.jpg"):
        assert cv2.imread(str(tmp_path / "out" / name)) is not None

    (tmp_path / "kept/steps.txt").write_text("processor: x\n\n| IDT | 0.50 ± 0.01 | 2.00 ± 0.10 |\n")
    said, _ = script.join(tmp_path / "kept", tmp_path / "out")
    assert "| IDT | 1.40 M | 1.0 G | 2.000 | " in said
    assert "| DRSformer, 2 trainings | 1.40 M | 1.0 G | 0.250 | " in said
    assert said.endswith("\n| IDT | 0.50 |")


def doubled(text: str) -> str:
    return text + text.splitlines(keepends=True)[-1]


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("pictures.csv", doubled, "IDT has not the pictures that the rainy input has"),
        ("pictures.csv", lambda text: text[: text.rindex("\nIDT,") + 1], "IDT has not the pictures"),
        ("pictures.csv", lambda text: text.replace("IDT,Rain200H,005,", "IDT,Rain200H,005,nan,"), "no numbers"),
        ("pictures.csv", lambda text: text.replace("IDT,Rain200H,005,", "IDT,Rain200H,005,x"), "could not convert"),
        ("pictures.csv", lambda text: text.replace("Rain200H", "Other"), "has no scores on Rain200H"),
        ("pictures.csv", lambda _: "", "has no scores"),
        ("comparison.csv", lambda _: "", "not of the rainy input and IDT alone"),
        ("comparison.csv", lambda text: text.replace(",IDT,", ",Restormer,"), "not of the rainy input and IDT alone"),
        ("comparison.csv", lambda _: None, "No such file"),
        ("comparison.csv", lambda _: "method\nx\n", "data_set"),
        ("comparison.csv", lambda text: text.replace("1400000", "1500000"), "another size of IDT"),
        ("training.jsonl", lambda _: None, "no record of a validation"),
        ("regions.png", lambda _: "", "no picture of the regions"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_and_the_rest_is_read(script, tmp_path, file, change, said):
    rainy = measured("rainy input", None, 0)
    for seed in (2, 3, 9):
        write(tmp_path / f"comparison_IDT_seed{seed}", rainy, measured("", "IDT", seed, "IDT"))
    damaged = tmp_path / "comparison_IDT_seed3" / file
    text = change("" if file == "regions.png" else damaged.read_text())
    damaged.unlink()
    if text is not None:
        damaged.write_text(text)
    results, (line,) = script.read_all(tmp_path)
    assert [result.label[-1] for result in results[1:]] == ["2", "9"]
    assert "comparison_IDT_seed3" in line
    assert said in line


def test_a_training_that_is_only_tried_is_joined(script, tmp_path):
    """One of fewer iterations than it logs, as the head of run_comparison.sh proposes."""
    folder = tmp_path / "comparison_IDT_seed1"
    write(folder, measured("rainy input", None, 0), measured("", "IDT", 1, "IDT"))
    (folder / training_records.NAME).unlink()
    training_records.append(folder, {"iter": 4, "data_set": "Rain100L", "psnr": 20.0})
    said, problems = script.join(tmp_path, tmp_path / "out")
    assert said.endswith("| IDT | not known |")
    assert not problems


def test_other_pictures_other_names_and_nothing_at_all_are_refused(script, tmp_path, capsys, monkeypatch):
    write(tmp_path / "comparison_IDT_seed1", measured("rainy input", None, 0), measured("", "IDT", 1, "IDT"))
    write(tmp_path / "comparison_IDT_seed2", measured("rainy input", None, 9), measured("", "IDT", 2, "IDT"))
    write(tmp_path / "comparison_IDT_seed4", measured("rainy input", None, 0), measured("", "IDT", 4, "IDT"))
    for path in (tmp_path / "comparison_IDT_seed4").glob("*.csv"):  # a data set by another name
        path.write_text(path.read_text().replace("Rain200H", "Other"))
    write(tmp_path / "mine", measured("rainy input", None, 0), measured("", "IDT", 2, "IDT"))
    _, problems = script.read_all(tmp_path)
    assert problems[0].endswith("comparison_IDT_seed2: scored on other pictures than comparison_IDT_seed1")
    assert problems[1].endswith("comparison_IDT_seed4: scored on other pictures than comparison_IDT_seed1")
    assert problems[2] == "mine is not called comparison_NETWORK_seedN"
    monkeypatch.chdir(tmp_path)
    assert script.main(["join", ".", "-o", "joined"]) == 1
    said = capsys.readouterr()
    assert "| IDT | 1.40 M |" in said.out
    assert said.err.count("\n") == 3
    for arguments, said in (
        (["join", "out"], "nothing is kept in out"),
        (["keep", "nonsense"], "nonsense is not called comparison_NETWORK_seedN"),
        (["keep", "comparison_IDT_seed3"], "was comparison_IDT_seed3 trained here?"),
        (["join", ".", "-o", "mine/regions.png"], "mine/regions.png"),
    ):
        assert script.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
