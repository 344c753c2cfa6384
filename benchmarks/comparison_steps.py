"""Seconds of one iteration of each training of docs/comparison.md, and of one picture by its network, side by side.

The trainings themselves run one after the other, beside other work or on several machines, so that their own records
do not compare. Here the option files of `options/comparison` build their networks, losses and optimizers as they do in
a training, and take steps in turns, on equal patches, which cost as much as others. Loading and validation are left
out. Then the networks derain a picture in turns, in the form in which `drsformer derain` runs them.

    python benchmarks/comparison_steps.py                     # one thread, as they were trained: 3 minutes
    python benchmarks/comparison_steps.py --threads 8 --rounds 10
    python benchmarks/comparison_steps.py | tee docs/comparison/steps.txt     for scripts/comparison_results.py

Prints medians and half the range of the rounds.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from arguments import positive
from speed import Run, machine, take_turns

from drsformer_arch import plugin  # noqa: F401 - registers the networks with BasicSR
from drsformer_arch.options.reading import read_options
from drsformer_arch.restore.inference import infer
from drsformer_arch.restore.tiling import inference_form
from drsformer_arch.system import processor
from drsformer_arch.training.derain_model import DerainModel

FILES = sorted((Path(__file__).resolve().parent.parent / "options/comparison").glob("*.yml"))
BATCH, PATCH = 8, 64  # as those files have it
SIDE = 384  # of the picture: as many pixels as 481x321, which most of the comparison's have, and a few less


def model_of(file: Path, folder: str, device: torch.device) -> DerainModel:
    """Build what an option file trains, as BasicSR does for one process."""
    options, _ = read_options(file, is_train=True)
    paths = dict.fromkeys(("models", "training_states", "visualization"), folder)
    started: dict[str, Any] = {"num_gpu": int(device.type == "cuda"), "is_train": True, "dist": False}
    return DerainModel({**options, **started, "rank": 0, "world_size": 1, "path": options["path"] | paths})


def stepper(model: DerainModel, device: torch.device) -> Run:
    """Make the function that takes a training step with one picture, as input and target of a whole batch."""

    def step(picture: torch.Tensor) -> None:
        batch = picture.expand(BATCH, -1, -1, -1)
        model.feed_data({"lq": batch, "gt": batch})
        model.optimize_parameters(1)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def derainer(model: DerainModel, device: torch.device) -> Run:
    """Make the function that derains a picture."""
    net, _ = inference_form(model.get_bare_model(model.net_g).eval(), bf16=False)

    def derain(picture: torch.Tensor) -> None:
        with torch.inference_mode():
            infer(net, picture)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return derain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.kept = args.device.type == "cpu" and processor.keep_freed_memory(processor.UNLIMITED)
    print("\n".join(f"{key}: {value}" for key, value in machine(args).items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        models = {file.stem: model_of(file, folder, args.device) for file in FILES}
        steps = {name: stepper(model, args.device) for name, model in models.items()}
        iterations = take_turns(steps, [PATCH], "training", args)[PATCH]
        nets = {name: derainer(model, args.device) for name, model in models.items()}
        pictures = take_turns(nets, [SIDE], "deraining", args)[SIDE]
    print(f"\n| network | s per iteration | s per picture of {SIDE}x{SIDE} |\n|---|---|---|")
    for name in models:
        print(f"| {name} | {measured(iterations[name])} | {measured(pictures[name])} |")


def measured(seconds: Sequence[float]) -> str:
    """Write the median and half the range."""
    return f"{statistics.median(seconds):.2f} ± {(max(seconds) - min(seconds)) / 2:.2f}"


if __name__ == "__main__":
    main()
