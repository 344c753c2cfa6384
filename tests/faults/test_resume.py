"""Trainings that end at any iteration and go on: the end is that of an unbroken run, to the bit."""

import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from tests.conftest import RESUMES
from tests.runs import assert_same, drsformer, everything, losses, train_distributed, write

TOTAL = 8  # iterations; batches of 2 out of 10 pictures: an epoch of 5, of 3 with an effective batch of 4

ACCUMULATION = {"train": {"effective_batch_size": 4}}
EMA = {"train": {"ema_decay": 0.9}}
MIXUP = {"train": {"mixing_augs": {"mixup": True}}}
FLOAT16 = {"train": {"amp": "fp16"}}
BFLOAT16 = {"train": {"amp": "bf16"}}
WORKERS = {"datasets": {"train": {"num_worker_per_gpu": 2, "prefetch_mode": "cpu"}}}
STAGES = {"datasets": {"train": {"gt_sizes": [16, 32], "mini_batch_sizes": [2, 1], "iters": [3, 5]}}}
SYNTHESIS = {"datasets": {"train": {"type": "RainSynthesisDataset", "presets": ["rain200h"], "dataroot_lq": None}}}
MIXTURE = {"datasets": {"train": {"type": "MixedRainDataset", "dataroot_lq": None, "dataroot_gt": None}}}

# Name: changes of the options, processes of the two parts, iterations that are resumed.
ALL = range(1, TOTAL)
LONG = {
    "plain": ([], (1, 1), ALL),
    "2 workers": ([WORKERS], (1, 1), ALL),
    "accumulation": ([ACCUMULATION], (1, 1), ALL),
    "averaged weights": ([EMA], (1, 1), ALL),
    "mixup": ([MIXUP], (1, 1), ALL),
    "float16 with its scaler": ([FLOAT16], (1, 1), ALL),
    "bfloat16": ([BFLOAT16], (1, 1), ALL),
    "progressive stages": ([STAGES], (1, 1), ALL),
    "synthesis": ([SYNTHESIS], (1, 1), ALL),
    "mixture of sets": ([MIXTURE], (1, 1), ALL),
    "2 processes": ([], (2, 2), ALL),
    "2 processes, accumulation, averaged weights, mixup, stages, 2 workers": (
        [ACCUMULATION, EMA, MIXUP, STAGES, WORKERS],
        (2, 2),
        ALL,
    ),
    "2 processes, then 1": ([ACCUMULATION, EMA], (2, 1), ALL),
    "1 process, then 2": ([ACCUMULATION, EMA], (1, 2), ALL),
}
SHORT = {
    "accumulation, averaged weights, mixup, float16, stages, 2 workers": (
        [ACCUMULATION, EMA, MIXUP, FLOAT16, STAGES, WORKERS],
        (1, 1),
        [4],
    ),
    "2 processes, accumulation, averaged weights, bfloat16, mixture with synthesis": (
        [ACCUMULATION, EMA, BFLOAT16, MIXTURE],
        (2, 2),
        [5],
    ),
    "2 processes, then 1": ([ACCUMULATION, EMA], (2, 1), [4]),
}
# Another number of processes adds the same gradients in another order; Adam makes more of it where they are tiny.
TOLERANCE = {"loss": 2e-4, "weights": 2e-4}


def merge(options: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            merge(options.setdefault(key, {}), value)
        elif value is None:
            options.pop(key, None)
        else:
            options[key] = value


def changed(options: dict, changes: list[dict], pairs: Path) -> dict:
    options = deepcopy(options)
    paired = {key: value for key, value in options["datasets"]["train"].items() if key.startswith(("type", "dataroot"))}
    for change in changes:
        merge(options, change)
    train = options["datasets"]["train"]
    if "presets" in train:
        train["dataroot_gt"] = str(pairs / "target")
    if train["type"] == "MixedRainDataset":
        drawn = {"type": "RainSynthesisDataset", "presets": ["rain200l"], "dataroot_gt": str(pairs / "target")}
        train["sets"] = [{**paired, "weight": 2}, {**drawn, "weight": 1}]
    options["train"]["total_iter"] = TOTAL
    options["logger"] |= {"save_checkpoint_freq": 1, "save_best": "psnr"}
    options["val"]["val_freq"] = 3
    return options


def train(folder: Path, processes: int, *arguments: str) -> str:
    if processes == 1:
        return drsformer(folder, "train", "-opt", "small.yml", *arguments)
    return train_distributed(folder, processes, *arguments)


def tensors(content: object) -> Iterator[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        yield content.double()
    elif isinstance(content, dict):
        for value in content.values():
            yield from tensors(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from tensors(value)


def test_a_resumed_training_equals_an_unbroken_one(long_case, options, pairs, tmp_path, request):
    changes, (before, after), moments = long_case
    options = changed(options, changes, pairs)
    experiment, kept = tmp_path / "experiments/small", tmp_path / "whole"
    write(tmp_path, options)
    train(tmp_path, before)
    shutil.copytree(experiment, kept)
    whole = everything(experiment, TOTAL)
    assert len(whole["log"]) == TOTAL
    assert [one["iter"] for one in whole["validations"]] == [3, 6, TOTAL]
    largest = 0.0
    for moment in moments:
        shutil.rmtree(experiment)
        shutil.copytree(kept, experiment)
        for path in experiment.glob("*/*"):
            iteration = path.stem.rpartition("_")[2]
            if not iteration.isdigit() or int(iteration) > moment:
                path.unlink()
        if moment >= 3:
            best = kept / f"models/net_g_{whole['manifest']['best']['val']['psnr']['iter']}.pth"
            shutil.copy(best, experiment / "models/net_g_best.pth")
        said = train(tmp_path, after, "--auto_resume")
        assert list(losses(said)) == list(range(moment + 1, TOTAL + 1))
        listed = [line for line in said.splitlines() if "Option changed" in line]
        assert ["world_size" in line for line in listed] == [True] * (before != after)
        resumed = everything(experiment, TOTAL)
        for part in ("weights", "state", "best weights"):
            pairs_of_tensors = zip(tensors(whole[part]), tensors(resumed[part]), strict=True)
            largest = max(largest, *(float((one - other).abs().max()) for one, other in pairs_of_tensors))
        if before == after:
            assert_same(whole, resumed)
            continue
        for one, other in zip(whole["log"], resumed["log"], strict=True):
            assert other["batch"] == one["batch"]
            assert other["lr"] == one["lr"]
            assert other["l_pix"] == pytest.approx(one["l_pix"], rel=TOLERANCE["loss"])
        for one, other in zip(tensors(whole["weights"]), tensors(resumed["weights"]), strict=True):
            assert torch.allclose(one, other, rtol=0, atol=TOLERANCE["weights"])
    found = f"resumed at {', '.join(map(str, moments))}: largest difference {largest}"
    request.config.stash[RESUMES][request.node.callspec.id] = found
