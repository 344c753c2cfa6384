"""Spoiled files by the thousand: a command ends with its result or with one line, and a sound file beside is served."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ENVIRONMENT

ROOT = Path(__file__).parents[2]
# Family of tests/faults/fuzz.py: how many cases, and with --long.
SHORT = {"pictures": 50, "weights": 40, "logs": 40, "stores": 40, "videos": 8, "archives": 4}
LONG = {**dict.fromkeys(SHORT, 1000), "videos": 100, "archives": 100}


@pytest.mark.parametrize("family", SHORT)
def test_spoiled_files(family, long, tmp_path, count_faults):
    count = (LONG if long else SHORT)[family]
    command = [
        sys.executable,
        "-m",
        "tests.faults.fuzz",
        family,
        "--count",
        str(count),
        "--folder",
        str(tmp_path / "f"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, errors="replace", check=False, timeout=3600
    )
    assert done.returncode == 0, f"{family}: the process ended with {done.returncode}: {done.stderr[-3000:]}"
    counted = json.loads(done.stdout.strip().splitlines()[-1])
    count_faults(f"spoiled {family}", counted["tried"], counted["tried"] - len(counted["problems"]))
    assert not counted["problems"], counted["problems"]
