"""What each technique of `drsformer_arch.fast` gives: alone, with channels-last memory, and what is lost without it.

One DRSformer takes the forms one after the other in every round of one process, so all hold the same weights. The
tables of `accelerate`, in inference and in training, give seconds, and how many times as fast that is as something:

- alone: the plain network with this technique, as the plain network;
- with channels-last memory, which changes what most of the others gain: both, as channels-last memory alone;
- all but this: as all techniques together. Below 1 the technique is missed.

Another table is of the steps from the plain network to `fused(torch.bfloat16)`, each compared with the one before.
Depth-wise gradients alone are those of all depth-wise convolutions of the plain network; every other technique has them
in the convolutions that it computes. Inference needs none.

    python benchmarks/techniques.py                     # CPU: about half an hour
    python benchmarks/techniques.py --size 512 --train-size 0 --rounds 8

Writes techniques.md and techniques.json to --out.
"""

import argparse
import contextlib
import gc
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from arguments import positive
from speed import machine, pictures_of
from torch import Tensor, nn

from drsformer_arch import DRSformer
from drsformer_arch.fast import accelerate, depthwise, fuse, plain
from drsformer_arch.fast.channel_attention import FoldedTopKAttention
from drsformer_arch.fast.channels_last import ChannelsLastEmbedding, ChannelsLastNorm
from drsformer_arch.fast.experts import FoldedExpertStep
from drsformer_arch.fast.forms import FastForm
from drsformer_arch.fast.slabs import SlabFeedForward
from drsformer_arch.system import processor

Form = type[FastForm]
CHANNELS_LAST = "channels-last memory"
TECHNIQUES: dict[str, tuple[Form, ...]] = {
    CHANNELS_LAST: (ChannelsLastEmbedding, ChannelsLastNorm),
    "folded attention": (FoldedTopKAttention,),
    "slabs": (SlabFeedForward,),
    "folded experts": (FoldedExpertStep,),
}
EVERY = tuple(form for forms in TECHNIQUES.values() for form in forms)
GRADIENTS = "depth-wise gradients"  # no form: the others use them
PLAIN, ALL = "plain", "all"
ALONE, WITH, WITHOUT = "alone", "with", "without"
FUSED = ("plain", "`accelerate`", "arranged weights: `fused(tile=0)`", "tiles: `fused()`", "`fused(torch.bfloat16)`")
NO_KERNEL = 10**6  # columns, more than any kernel has


class Variant(NamedTuple):
    """The techniques that are used."""

    forms: tuple[Form, ...] = ()
    gradients: bool | None = None  # depth-wise ones: in no, in every convolution; None: where the forms have them


class Depthwise(nn.Conv2d):
    """A depth-wise convolution of the plain network with the other gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return depthwise.depthwise_conv(x, self.weight, self.bias, self.dilation[0])


def variants(training: bool) -> dict[str, Variant]:
    """List all that is measured of `accelerate`, by "plain", "all", or the way and the technique."""
    found = {PLAIN: Variant(), ALL: Variant(EVERY)}
    for name, forms in TECHNIQUES.items():
        found[f"{ALONE} {name}"] = Variant(forms)
        if name != CHANNELS_LAST:
            found[f"{WITH} {name}"] = Variant((*TECHNIQUES[CHANNELS_LAST], *forms))
        found[f"{WITHOUT} {name}"] = Variant(tuple(form for form in EVERY if form not in forms))
    if training:
        found[f"{ALONE} {GRADIENTS}"] = Variant(gradients=True)
        found[f"{WITH} {GRADIENTS}"] = Variant(TECHNIQUES[CHANNELS_LAST], gradients=True)
        found[f"{WITHOUT} {GRADIENTS}"] = Variant(EVERY, gradients=False)
    return found


@contextlib.contextmanager
def computing(net: nn.Module, variant: Variant) -> Iterator[None]:
    """Let a plain network use these techniques, for a while."""
    convolutions = [module for module in net.modules() if type(module) is nn.Conv2d]
    changed = [one for one in convolutions if variant.gradients and 1 < one.groups == one.in_channels]
    changed = [one for one in changed if one.out_channels == one.groups]
    for convolution in changed:
        convolution.__class__ = Depthwise
    accelerate(net, variant.forms)
    no_gradients = mock.patch.object(depthwise, "WIDEST_FAST_COLUMNS", NO_KERNEL)
    try:
        with no_gradients if variant.gradients is False else contextlib.nullcontext():
            yield
    finally:
        plain(net)
        for convolution in changed:
            convolution.__class__ = nn.Conv2d


def seconds_of(net: nn.Module, pictures: Tensor, training: bool) -> float:
    """Time one inference or one training step, in seconds."""
    gc.collect()
    start = time.perf_counter()
    if training:
        net.zero_grad(set_to_none=True)
        net(pictures).abs().mean().backward()
    else:
        with torch.inference_mode():
            net(pictures)
    if pictures.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(training: bool, size: int, args: argparse.Namespace) -> dict[str, list[float]]:
    """Measure the seconds of every round of all variants, and in inference of the steps to the fused forms."""
    torch.manual_seed(0)
    net = DRSformer(**({"dim": 16, "num_blocks": (1, 1, 1, 1)} if args.small else {}))
    net.to(args.device).train(training)
    fused: dict[str, nn.Module] = {}
    if not training:
        fused = dict(zip(FUSED[2:], (fuse(net, tile=0), fuse(net), fuse(net, torch.bfloat16)), strict=True))
    pictures = pictures_of(size, args.device)
    every = variants(training)
    times: dict[str, list[float]] = {name: [] for name in [*every, *fused]}
    for number in range(args.rounds + args.warmup):
        for name, variant in every.items():
            with computing(net, variant):
                seconds = seconds_of(net, pictures, training)
            times[name].append(seconds)
        for name, other in fused.items():
            times[name].append(seconds_of(other, pictures, training))
        print(f"{'training' if training else 'inference'} {size}: round {number + 1}", flush=True)
    return {name: seconds[args.warmup :] for name, seconds in times.items()}


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def spread(times: dict[str, list[float]]) -> str:
    """Tell in a line how far the rounds of a variant lie apart."""
    halves = [(max(seconds) - min(seconds)) / 2 / statistics.median(seconds) for seconds in times.values()]
    return f"Rounds of one variant differ by ±{statistics.median(halves):.1%}, at most ±{max(halves):.1%}."


def cell(seconds: float, before: float) -> str:
    """Seconds, and how many times as fast as what took `before`."""
    return f"{seconds:.3f} s, **{before / seconds:.2f}x**"


def table(what: str, times: dict[str, float]) -> list[str]:
    """Markdown: what the techniques give, alone, with channels-last memory, and left out of all."""
    lines = [f"| {what} | alone | with channels-last memory | all but this |", "|---|---|---|---|"]
    last = times[f"{ALONE} {CHANNELS_LAST}"]
    for name in [*TECHNIQUES, GRADIENTS]:
        if f"{ALONE} {name}" in times:
            alone, without = times[f"{ALONE} {name}"], times[f"{WITHOUT} {name}"]
            both = times.get(f"{WITH} {name}")
            with_last = cell(both, last) if both else ""
            lines.append(f"| {name} | {cell(alone, times[PLAIN])} | {with_last} | {cell(without, times[ALL])} |")
    lines.append(f"| all | {cell(times[ALL], times[PLAIN])} | | |")
    lines.append(f"| none: the plain network | {times[PLAIN]:.3f} s | | |")
    return lines


def steps_table(times: dict[str, float]) -> list[str]:
    """Markdown: the steps from the plain network to bf16."""
    seconds = [times[PLAIN], times[ALL], *(times[name] for name in FUSED[2:])]
    lines = ["| inference, step | against plain | against the step before |", "|---|---|---|"]
    for name, now, before in zip(FUSED, seconds, [seconds[0], *seconds], strict=False):
        lines.append(f"| {name} | {cell(now, seconds[0])} | {before / now:.2f}x |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/techniques"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--size", type=int, default=256, help="of pictures in inference; 0: no inference")
    parser.add_argument("--train-size", type=int, default=128, help="of patches in training; 0: no training")
    parser.add_argument("--default-allocator", dest="kept", action="store_false", help="time with it")
    parser.add_argument("--small", action="store_true", help="a small network, to try the script")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.kept = args.kept and processor.keep_freed_memory(processor.UNLIMITED)
    described = machine(args)
    print("\n".join(f"{key}: {value}" for key, value in described.items()), flush=True)
    results: dict[str, dict] = {"machine": described}
    lines = [f"{key}: {value}  " for key, value in described.items()]
    if args.size:
        results["inference"] = times = measure(False, args.size, args)
        lines += ["", *table(f"inference, {args.size}x{args.size}", medians(times)), "", *steps_table(medians(times))]
        lines += ["", spread(times)]
    if args.train_size:
        results["training"] = times = measure(True, args.train_size, args)
        lines += ["", *table(f"training step, {args.train_size}x{args.train_size}", medians(times)), "", spread(times)]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "techniques.md").write_text("\n".join(lines) + "\n")
    (args.out / "techniques.json").write_text(json.dumps(results, indent=1))
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
