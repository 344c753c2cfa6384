"""The examples run: the notebook of examples/derain.py, and a fine-tuning by examples/finetune.py."""

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbclient
import yaml
from PIL import Image

from drsformer_arch.data.prepare.preparation import prepare_dataset
from tests.runs import ENVIRONMENT

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_notebook_derains_and_scores(tmp_path):
    notebook = jupytext.read(EXAMPLES / "derain.py")
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("markdown") == 6
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**ENVIRONMENT, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output.get("text", "") for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs), "the figure is shown"
    before_and_after = re.findall(r"coffee_\d\.png: ([\d.]+) dB .*? ([\d.]+) dB", said)
    assert len(before_and_after) == 4
    assert all(float(after) > float(before) + 5 for before, after in before_and_after)
    to_float32, to_whole = (float(number) for number in re.findall(r"([\d.]+) dB to (?:float32|the whole)", said)[-2:])
    assert to_float32 > 50
    assert to_whole > 35
    assert Image.open(tmp_path / "derained.png").size == Image.open(tmp_path / "samples/test/input/chelsea_0.png").size
    assert len(list((tmp_path / "derained").iterdir())) == 4


def test_fine_tuning_says_whether_it_helped(pairs, tmp_path):
    for split in ("train", "test"):
        prepare_dataset("pairs", [pairs / "input", pairs / "target"], tmp_path / "mine", output="raw", split=split)

    def finetune(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, EXAMPLES / "finetune.py", *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        return done.returncode, done.stdout, done.stderr

    code, said, errors = finetune("mine", "--iterations", "2", "--batch", "2", "--patch", "32")
    assert code == 0, (said + errors)[-2000:]
    rows = re.findall(r"^(\w+) +([\d.]+) +([\d.]+)$", said, re.MULTILINE)
    assert len(rows) == 11
    before, after = map(float, rows[-1][1:])
    gain, word = re.search(r"([\d.]+) dB (better|worse)", said).groups()
    assert abs(after - before) - float(gain) < 0.011
    assert (word == "better") == (after >= before)
    assert yaml.safe_load((tmp_path / "finetuned.yml").read_text())["path"]["pretrain_network_g"] == "DRSformer-S"

    code, _, errors = finetune("nothing")
    assert code == 2
    assert errors.startswith("error: ")
    assert "nothing/test.lmdb" in errors
