"""Option files with any value anywhere: accepted or refused in one line that names the file, and nothing is made."""

import datetime
import math
import random
from pathlib import Path

import yaml

from drsformer_arch.bridge.option_checks import prepare
from drsformer_arch.system.errors import UserError
from tests.faults.mutation import spoiled_values

TRIED, TRIED_LONG = 120, 3000
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 7, 10**9, 2**70, -(2**63), 0.5, -0.5, 1e30, 1e-30, math.nan, math.inf),
    *("", "x", "../x", "~", "~nobody/x", "a\0b", "\u202ex", "x" * 5000, "auto", "cuda", "AdamW", "SGD", "MultiStepLR"),
    *("L1Loss", "calculate_niqe", "calculate_psnr", "DRSformer", "PairedImageDataset", "MixedRainDataset"),
    *([], [1], [0], [-1], [1, 2], [[1]], ["a"], [None], {}, {"type": "x"}, {"type": ["x"]}, {"a": 1}, {1: 2}),
    *(datetime.date(2020, 1, 1), b"x", 1.0),
]
KEYS = ("extra", "tpye", 1, True, "a\x1bb")


def test_any_value_anywhere(options, tmp_path, monkeypatch, fault, long):
    monkeypatch.chdir(tmp_path)
    options["path"] = {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None}
    options["logger"] |= {"keep_checkpoints": 2, "save_best": "psnr", "wandb": {"project": None}}
    options["val"] |= {"tile": 48, "tile_overlap": 16, "save_img": True, "suffix": None}
    options["train"] |= {"ema_decay": 0.9, "effective_batch_size": [2], "mixing_augs": {"mixup": True}}
    options["datasets"]["train"] |= {"mini_batch_sizes": [2], "gt_sizes": [32], "iters": [8]}
    prepare(write(options), [], is_train=True, distributed=False)
    rng = random.Random(0)
    for _ in range(TRIED_LONG if long else TRIED):
        path = write(spoiled_values(options, rng, VALUES, KEYS))
        with fault("option file with any value anywhere"):
            try:
                prepare(path, [], is_train=True, distributed=False)
            except UserError as error:
                said = str(error)
                assert said.startswith(path), said
                assert said.isprintable(), said
                assert len(said) < 600, said
                assert "cannot be used" not in said, said  # a check names the option
            assert [file.name for file in tmp_path.iterdir()] == [path]


def write(options: dict) -> str:
    Path("any.yml").write_text(yaml.safe_dump(options))
    return "any.yml"
