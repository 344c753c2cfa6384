"""The repository's option files, as BasicSR's own loader and pipelines read them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from basicsr.utils.options import ordered_yaml

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "options").rglob("*.yml"), *(ROOT / "examples").rglob("*.yml")])
# What BasicSR 1.4.2 reads with [] of every file, of a training's and of a test's, with one of our model's.
READ = ["name", "num_gpu", "datasets", "path", "network_g:type", "val:save_img"]
READ_BY_TRAININGS = [
    *("train:total_iter", "train:optim_g:type", "train:scheduler:type", "val:val_freq", "logger:print_freq"),
    *("logger:save_checkpoint_freq", "logger:use_tb_logger", "datasets:train:batch_size_per_gpu"),
    "datasets:train:num_worker_per_gpu",
]
READ_BY_TESTS = ["val:suffix"]


def values(section: object, where: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(section, dict | list):
        for key, inner in section.items() if isinstance(section, dict) else enumerate(section):
            yield from values(inner, f"{where}:{key}")
    else:
        yield where, section


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_basicsr_reads_numbers_as_numbers_and_finds_its_keys(path):
    options = yaml.load(path.read_text(), Loader=ordered_yaml()[0])  # as its parse_options does
    for where, value in values(options):
        assert not (isinstance(value, str) and re.fullmatch(r"[-+.\d]+([eE][-+]?\d+)?", value)), f"{where}: {value!r}"
    is_train = "train" in options
    for keys in [*READ, *(READ_BY_TRAININGS if is_train else READ_BY_TESTS)]:
        section = options
        for key in keys.split(":"):
            assert key in section, f"{keys} is missing"
            section = section[key]
    assert all({"name", "type"} <= section.keys() for section in options["datasets"].values())
