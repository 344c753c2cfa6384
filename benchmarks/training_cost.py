"""Hours and cost of training DRSformer with the published recipe, from what a step takes where this runs.

The training step of one patch (forward, backward) and the optimizer's step are measured here, on the GPU where there
is one. Other hardware is a factor of yours: how many times as fast it is as this. A price is yours, too.

    hours = iterations x (pictures per iteration x seconds per patch / GPUs + seconds of the optimizer) / factor / 3600
    cost  = hours x GPUs x price per hour of one GPU

Assumed: a patch takes the same time in a batch as alone, GPUs share an iteration without loss, loading and validation
cost nothing. The memory is that of one patch; what a GPU holds at once decides `batch_size_per_gpu`, not the total.

    python benchmarks/training_cost.py                                        # hours on this machine
    python benchmarks/training_cost.py --factor 40 --price 2 --gpus 4         # on four GPUs, each 40 times as fast
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from arguments import positive

from drsformer_arch import DRSformer
from drsformer_arch.fast import accelerate
from drsformer_arch.options.reading import load_yaml
from drsformer_arch.system import processor
from drsformer_arch.training.lr_scheduler import build_optimizer
from drsformer_arch.training.memory import activation_bytes

RECIPES = Path(__file__).resolve().parent.parent / "options/train/DRSformer"
WARM_UP = 1


def median_seconds(step: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Take the median of several calls after a first one."""
    seconds = []
    for _ in range(WARM_UP + rounds):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


def measure(recipe: dict[str, Any], device: torch.device, bf16: bool, rounds: int) -> tuple[float, float, float]:
    """Measure seconds of one patch, seconds of the optimizer, GiB of weights, gradients, moments and one patch."""
    arguments = {key: value for key, value in recipe["network_g"].items() if key != "type"}
    patch = recipe["datasets"]["train"]["gt_size"]
    net = accelerate(DRSformer(**arguments))
    state = 4 * sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
    kept = activation_bytes(lambda: accelerate(DRSformer(**arguments)), 1, patch, bf16=bf16)
    gib = (state + kept) / 2**30
    net.to(device)
    optimizer_options = dict(recipe["train"]["optim_g"])
    optimizer = build_optimizer(optimizer_options.pop("type"), list(net.parameters()), optimizer_options)
    rainy, clean = torch.rand(2, 1, 3, patch, patch, device=device)

    def forward_and_backward() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = net(rainy)
        (output.float() - clean).abs().mean().backward()

    def optimizer_step() -> None:
        torch.nn.utils.clip_grad_norm_(net.parameters(), recipe["train"]["grad_clip"])
        optimizer.step()

    return (
        median_seconds(forward_and_backward, device, rounds),
        median_seconds(optimizer_step, device, rounds),
        gib,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factor", type=float, default=1, help="how many times as fast one GPU is as this (1)")
    parser.add_argument("--price", type=float, help="of one GPU for an hour, in any currency")
    parser.add_argument("--gpus", type=positive, default=1)
    parser.add_argument("--bf16", action="store_true", help="with amp: bf16")
    parser.add_argument("--rounds", type=positive, default=5)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        processor.tune()
    print(f"Measured on: {device.type}, {torch.get_num_threads()} threads, {'bf16' if args.bf16 else 'float32'}")
    measured: dict[bool, tuple[float, float, float]] = {}
    print(
        "| data set | MEFC | s per patch | s optimizer | GiB, one patch | hours | cost |\n|---|---|---|---|---|---|---|"
    )
    for path in sorted(RECIPES.glob("*.yml")):
        recipe = load_yaml(path)
        mefc = recipe["network_g"]["with_mefc"]
        if mefc not in measured:
            measured[mefc] = measure(recipe, device, args.bf16, args.rounds)
        patch, optimizer, gib = measured[mefc]
        pictures = recipe["train"]["effective_batch_size"] / args.gpus
        hours = recipe["train"]["total_iter"] * (pictures * patch + optimizer) / args.factor / 3600
        cost = "" if args.price is None else f"{hours * args.gpus * args.price:,.0f}"
        mark = "yes" if mefc else "no"
        print(f"| {path.stem} | {mark} | {patch:.2f} | {optimizer:.2f} | {gib:.1f} | {hours:,.0f} | {cost} |")


if __name__ == "__main__":
    main()
