"""Check all networks on a device, for example a GPU, and measure them: one JSON file and one table.

    python scripts/check_device.py --device cuda --out results/gpu_check

Golden values, forms, mixed precision, breaks of torch.compile's graphs, seconds and peak memory, and a training by
Rain200H's option file on generated pictures. Needs torch, einops and numpy only, for the training BasicSR too; where
that is missing it is left out. Every check prints a line; exit code 1 if one fails. Writes gpu_check.json and
gpu_check.md.
"""

import argparse
import contextlib
import copy
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # golden values are part of the tests

from drsformer_arch.archs import NETWORKS, DRSformer  # noqa: E402
from drsformer_arch.archs.contract import outputs  # noqa: E402
from drsformer_arch.fast import ACCELERATED, accelerate, fuse, has_fast_form, plain  # noqa: E402
from drsformer_arch.restore.tiling import forward_scaled, inference_form, restore  # noqa: E402
from drsformer_arch.system import processor  # noqa: E402
from tests.golden_weights import (  # noqa: E402
    GOLDEN,
    golden_input,
    load_golden_weights,
    load_json,
    small_arguments,
)

KINDS = {kind.__name__.lower(): kind for kind in NETWORKS}
VARIANTS = sorted(path.stem for path in GOLDEN.glob("*_small*.json"))
SMALL = {"dim": 16, "num_blocks": (1, 1, 1, 1)}
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
RAIN200H = ROOT / "options/train/DRSformer/Rain200H.yml"
# What a processor trains in their place: all that the file says but the size.
SMALL_TRAINING = [
    "num_gpu=0",
    "network_g:dim=8",
    "network_g:num_blocks=[1, 1, 1, 1]",
    "datasets:train:gt_size=32",
    "train:effective_batch_size=4",
    "train:total_iter=8",
]
Result = tuple[str, dict[str, Any]]  # a line, and the numbers in it


class LeftOut(Exception):  # noqa: N818 - nothing is wrong
    """What a check needs is not there."""


def deviation(actual: Tensor, expected: Tensor | np.ndarray) -> float:
    """Largest difference relative to the largest value."""
    expected = torch.as_tensor(expected).double().cpu()
    return float((actual.detach().double().cpu() - expected).abs().max() / expected.abs().max())


def golden_case(name: str, device: torch.device) -> dict[str, float]:
    """Largest deviations of a network from its golden values, in every form that it has."""
    facts, golden = load_json(name), np.load(GOLDEN / f"{name}.npz")
    training = facts.get("mode") == "train"
    kind = KINDS[name.partition("_")[0]]
    given = golden_input(facts["input_shape"], facts["input_seed"]) * np.float32(facts.get("input_scale", 1))
    names = facts.get("outputs", ["output"])
    worst: dict[str, float] = {}
    for dtype, tolerance in TOLERANCES.items():
        errors = []
        net = load_golden_weights(kind(**facts["config"]), facts.get("weight_gain", 1.0)).train(training)
        net = net.to(device, dtype)
        for form in (plain, accelerate) if has_fast_form(net, ACCELERATED) else (plain,):
            image = given.to(device, dtype).requires_grad_()
            results = outputs(form(copy.deepcopy(net))(image))
            total = torch.zeros((), dtype=dtype, device=device)
            for index, (result, key) in enumerate(zip(results, names, strict=True)):
                errors.append(deviation(result, golden[key]))
                direction = np.random.RandomState(facts["input_seed"] + 1 + index).standard_normal(tuple(result.shape))
                total = total + (result * torch.from_numpy(direction).to(device, dtype)).sum()
            total.backward()
            if dtype == torch.float64:  # in float32 gradients at the kinks of ReLU follow the device
                errors.append(deviation(image.grad, golden["grad_input"]))
        with torch.no_grad():
            for rows in (0, 8) if has_fast_form(net) and not training else ():
                errors.append(deviation(outputs(fuse(net, tile=rows)(image))[0], golden[names[0]]))
        worst[str(dtype).removeprefix("torch.")] = max(errors)
        assert max(errors) <= tolerance, f"{name} in {dtype}: {errors}"
    return worst


def golden_values(args: argparse.Namespace) -> Result:
    found = {name: golden_case(name, args.device) for name in VARIANTS}
    worst = {key: max(case[key] for case in found.values()) for key in ("float64", "float32")}
    text = (
        f"{len(found)} networks, largest deviation {worst['float64']:.0e} in float64, {worst['float32']:.0e} in float32"
    )
    return text, found


def half_precision(args: argparse.Namespace) -> Result:
    device = args.device
    image = golden_input((1, 3, 128, 128), 5).to(device)
    net = load_golden_weights(DRSformer(**SMALL)).to(device).eval()  # plain
    with torch.no_grad():
        expected = net(image)
        found = {}
        for dtype in (torch.bfloat16, torch.float16):
            output = net.fused(dtype)(image)
            assert output.dtype == torch.float32
            assert output.isfinite().all()
            noise = (output - expected).square().mean() / (expected - image).square().mean()
            assert noise < 1e-2, f"{dtype}: noise {noise:.1e} of the predicted residual's power"
            found[str(dtype).removeprefix("torch.")] = float(noise)
    text = ", ".join(f"{name} {value:.0e}" for name, value in found.items())
    return f"noise relative to the residual's power: {text}", found


def mixed_precision_training(args: argparse.Namespace) -> Result:
    device = args.device
    image, target = golden_input((2, 3, 64, 64), 6).to(device), golden_input((2, 3, 64, 64), 7).to(device)
    losses = {}
    halves = (torch.bfloat16, torch.float16) if device.type == "cuda" else (torch.bfloat16,)  # of which CPUs are fast
    for dtype in (None, *halves):
        for use_checkpoint in (False, True):
            net = accelerate(load_golden_weights(DRSformer(**SMALL, use_checkpoint=use_checkpoint))).to(device)
            optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
            scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
            for _ in range(5):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    output = net(image)
                loss = (output.float() - target).abs().mean()
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            assert all(parameter.isfinite().all() for parameter in net.parameters()), dtype
            losses[f"{dtype}, checkpoint {use_checkpoint}"] = float(loss.detach())
    spread = max(losses.values()) / min(losses.values()) - 1
    assert spread < 0.02, losses
    precisions = ", ".join(["float32", *(str(dtype).removeprefix("torch.") for dtype in halves)])
    text = f"losses after 5 steps in {precisions}, with and without checkpointing, agree to {spread:.1%}"
    return text, losses


def compilation(args: argparse.Namespace) -> Result:
    device = args.device
    net = load_golden_weights(DRSformer(**SMALL)).to(device).fused(tile=0)
    start = time.perf_counter()
    compiled = torch.compile(net, dynamic=True, fullgraph=True)
    worst = 0.0
    with torch.no_grad():
        for height, width in ((256, 264), (280, 320), (320, 256)):
            image = torch.rand(1, 3, height, width, device=device)
            worst = max(worst, deviation(compiled(image), net(image)))
    assert worst < 1e-2, worst  # a near tie among scores may fall to the other side
    seconds = time.perf_counter() - start
    return f"one graph for three sizes, {seconds:.0f} s, deviation {worst:.0e}", {"seconds": seconds, "worst": worst}


def graph_breaks(args: argparse.Namespace) -> Result:
    found = {}
    for kind in NETWORKS:
        net = kind(**small_arguments()[kind.__name__]).to(args.device).eval()
        contract = net.contract
        side = contract.patch_size or max(64, contract.smallest_size)
        image = torch.rand(1, 3, side, side, device=args.device)
        forms = {"plain": net} | ({"fused": fuse(net, tile=0)} if has_fast_form(net) else {})
        for name, form in forms.items():
            torch._dynamo.reset()
            with torch.no_grad():
                explained = torch._dynamo.explain(form)(image)
            found[f"{kind.__name__}, {name}"] = explained.graph_break_count
    broken = [f"{name}: {count}" for name, count in found.items() if count]
    return f"breaks of the graphs of {len(found)} forms: {', '.join(broken) or 'none'}", found


def seconds_and_memory(run: Callable[[], Any], device: torch.device, rounds: int) -> tuple[float, float]:
    """Median seconds after two runs, and the peak of memory in MiB over what was held before."""
    before = processor.memory_held(device)
    processor.reset_peak_memory(device)
    seconds = []
    for _ in range(2 + rounds):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:]), (processor.peak_memory(device) - before) / 2**20


def speed_and_memory(args: argparse.Namespace) -> Result:
    """Seconds and memory of a picture in every form, and of a training step of one patch."""
    small, device = args.small, args.device
    side, patch = (64, 64) if small else (256, 128)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind in NETWORKS:
        torch.manual_seed(0)
        net = kind(**small_arguments()[kind.__name__] if small else {}).to(device).eval()
        picture = torch.rand(1, 3, side, side, device=device)
        rows = found[kind.__name__] = {}

        def measure(name: str, run: Callable[[], Any], rows: Any = rows) -> None:
            seconds, memory = seconds_and_memory(run, device, 1 if small else 5)
            rows[name] = {"seconds": seconds, "MiB": memory}

        for name, bf16, fast in (("plain", False, False), ("fused", False, True), ("fused, bf16", True, True)):
            form, autocast = inference_form(net, bf16=bf16, fast=fast)

            def infer(form: nn.Module = form, autocast: bool = autocast, picture: Tensor = picture) -> None:
                with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                    restore(form, picture)

            measure(name, infer)
            del form
        trained = accelerate(net.train())
        target = torch.rand(1, 3, patch, patch, device=device)
        for name, bf16 in (("training", False), ("training, bf16", True)):

            def step(net: nn.Module = trained, bf16: bool = bf16, target: Tensor = target) -> None:
                net.zero_grad(set_to_none=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    result = forward_scaled(net, target, net.contract.value_range)[0]
                (result.float() - target).abs().mean().backward()

            with contextlib.suppress(torch.OutOfMemoryError):
                measure(name, step)
        print(f"    {kind.__name__}: {json.dumps(rows)}", flush=True)
        del net, trained
    return f"{side} px pictures, training steps of one {patch} px patch: see the table", found


def training(args: argparse.Namespace) -> Result:
    """Train by Rain200H's option file on generated pictures, with its loader."""
    try:
        importlib.import_module("drsformer_arch.plugin")
    except ImportError as error:
        raise LeftOut(f"BasicSR is not installed here ({error})") from error
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options = ["name=rain200h", "train:total_iter=40", "logger:print_freq=4", "logger:use_tb_logger=false"]
    options += [f"datasets:{phase}:dataroot=datasets/quickstart/{phase[:5]}.lmdb" for phase in ("train",)]
    options += ["datasets:val:dataroot=datasets/quickstart/test.lmdb", *(SMALL_TRAINING if args.small else ())]
    command = [sys.executable, "-m", "drsformer_arch.cli", "train", "-opt", str(RAIN200H), "--force_yml", *options]
    with tempfile.TemporaryDirectory() as folder:
        for line in ([sys.executable, str(ROOT / "scripts/make_demo_data.py")], command):
            done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
        lines = Path(folder, "experiments/rain200h/training.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if "seconds_per_iter" in record][1:]
    seconds = statistics.median(record["seconds_per_iter"] for record in records)
    waiting = statistics.median(record["data_share"] for record in records)
    rate, memory = records[0]["batch"] / seconds, max(record["peak_memory_bytes"] for record in records) / 2**20
    found = {"samples per second": rate, "share of waiting for data": waiting, "MiB": memory}
    return f"{rate:.2f} samples per second, waits for data {waiting:.0%} of the time, {memory:.0f} MiB", found


CHECKS: tuple[Callable[[argparse.Namespace], Result], ...] = (
    golden_values,
    half_precision,
    mixed_precision_training,
    training,
    speed_and_memory,
    compilation,
    graph_breaks,  # the longest: where time is short, all else is known
)


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [f"{report['machine']}", "", "| check | result |", "|---|---|"]
    lines += [f"| {name} | {check['text']} |" for name, check in report["checks"].items()]
    rows = report["checks"].get("speed_and_memory", {}).get("found") or {}
    if rows:
        forms = ["plain", "fused", "fused, bf16", "training", "training, bf16"]
        lines += ["", f"| seconds, MiB | {' | '.join(forms)} |", "|---" * (len(forms) + 1) + "|"]
        for name, row in rows.items():
            cells = [f"{row[f]['seconds']:.4f}, {row[f]['MiB']:.0f}" if f in row else "out of memory" for f in forms]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--only", nargs="*", choices=[check.__name__ for check in CHECKS])
    parser.add_argument("--out", type=Path, help="folder of gpu_check.json and gpu_check.md")
    parser.add_argument("--note", action="append", default=[], metavar="TEXT", help="what was checked before")
    parser.add_argument("--small", action="store_true", help="measure small networks; always on a CPU")
    args = parser.parse_args()
    if args.device.type == "cuda" and not torch.cuda.is_available():
        print("error: torch finds no GPU; --device cpu checks this processor", file=sys.stderr)
        return 2
    args.small |= args.device.type == "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # golden values need float32
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else processor.model_name()
    checks: dict[str, dict[str, Any]] = {f"before, {n}": {"text": text} for n, text in enumerate(args.note, 1)}
    report = {
        "machine": f"{name}, Python {platform.python_version()}, torch {torch.__version__}",
        "small": args.small,
        "failed": False,
        "checks": checks,
    }
    for check in CHECKS:
        if args.only and check.__name__ not in args.only:
            continue
        start = time.perf_counter()
        found: dict[str, Any] = {}
        try:
            text, found = check(args)
        except LeftOut as error:
            text = f"left out: {error}"
        except Exception as error:
            report["failed"] = True
            traceback.print_exc()
            text = f"FAILED: {(str(error).splitlines() or [repr(error)])[0]}"
        checks[check.__name__] = {"text": text, "seconds": time.perf_counter() - start, "found": found}
        print(f"{check.__name__}: {text} ({checks[check.__name__]['seconds']:.0f} s)", flush=True)
        if args.out:  # after each: a time limit may end the script
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "gpu_check.json").write_text(json.dumps(report, indent=1))
            (args.out / "gpu_check.md").write_text(table(report))
    return int(report["failed"])


if __name__ == "__main__":
    sys.exit(main())
