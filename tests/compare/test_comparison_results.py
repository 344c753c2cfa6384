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
from drsformer_arch.system.errors import UserError
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


def test_joined_results_say_what_one_comparison_says(script, tmp_path):
    rainy = measured("rainy input", None, 0)
    trained = [
        measured("comparison_DRSformer_seed1", "DRSformer", 1, "DRSformer"),
        measured("comparison_DRSformer_seed2", "DRSformer", 2, "DRSformer"),
        measured("comparison_IDT_seed1", "IDT", 3, "IDT"),
    ]
    for result in trained:
        folder = tmp_path / "kept" / result.label
        folder.mkdir(parents=True)
        alone = [rainy, result._replace(label=result.group)]
        (folder / "comparison.csv").write_bytes(tables.csv_of_means(alone))
        (folder / "pictures.csv").write_bytes(tables.csv_of_pictures(alone))
        cv2.imwrite(str(folder / "regions.png"), np.zeros((450, 190, 3), np.uint8))
        for iteration in (1, 2, 3):
            step = {"iter": iteration, "epoch": 0, "lr": 1e-3, "l_pix": 0.1, "seconds_per_iter": iteration + 0.5}
            training_records.append(folder, step)
        training_records.append(folder, {"iter": 3, "data_set": "Rain100L", "psnr": 30.0})
    whole = [rainy, *trained]
    unfinished = tmp_path / "kept/comparison_SPDNet_seed1"
    unfinished.mkdir()
    (unfinished / "pictures.csv").write_text("method,network\n")  # as another training keeps it
    assert script.read_all(tmp_path / "kept") == whole
    said = script.join(tmp_path / "kept", tmp_path / "out")
    assert tables.markdown_table(whole, []) in said
    assert differences.markdown(differences.pairs_of(groups_of(whole), tables.data_sets(whole))) in said
    assert "| DRSformer, 2 trainings | 2.50 |" in said
    for name in ("cost.png", "differences.png", "training.png", "regions.jpg"):
        assert cv2.imread(str(tmp_path / "out" / name)) is not None

    other = [measured("rainy input", None, 9), trained[2]._replace(label="IDT")]
    (folder / "pictures.csv").write_bytes(tables.csv_of_pictures(other))
    with pytest.raises(UserError, match="IDT_seed1: scored on other pictures than comparison_DRSformer_seed1"):
        script.read_all(tmp_path / "kept")
    with pytest.raises(UserError, match="nothing is kept"):
        script.read_all(tmp_path / "out")
