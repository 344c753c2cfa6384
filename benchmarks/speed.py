"""Time and memory of the networks, side by side: the plain DRSformer, its fast forms, and Restormer.

All forms hold the same weights and run one after the other in every round of one process; the tables give medians, the
range of the rounds, and ratios of medians. Memory is measured in a process of its own for each figure, with the
system's allocator as it is: the peak over what the process held once the weights were there.

    python benchmarks/speed.py                        # CPU: about half an hour
    python benchmarks/speed.py --device cuda
    python benchmarks/speed.py --forms plain fused --sizes 256 --train-sizes --memory-sizes

Forms need nothing but torch, except compiled (a C++ compiler, minutes per size), onnxruntime and openvino (their
packages, and onnxscript). Writes speed.md, speed.json and speed.png (with matplotlib) to --out.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from arguments import positive
from torch.utils._python_dispatch import TorchDispatchMode

from drsformer_arch import DRSformer, Restormer
from drsformer_arch.fast import accelerate, fuse
from drsformer_arch.restore.export import ForPictures, write_onnx
from drsformer_arch.system import processor

PLAIN = "plain"
INFERENCE = [PLAIN, "fast", "fused", "bf16", "plain-restormer", "restormer", "restormer-bf16"]
TRAINING = [PLAIN, "fast", "checkpoint", "plain-restormer", "restormer"]
OPTIONAL = ["compiled", "onnxruntime", "openvino"]
TITLES = {
    PLAIN: "DRSformer, plain",
    "fast": "DRSformer, `accelerate`",
    "fused": "DRSformer, `fused()`",
    "bf16": "DRSformer, `fused(torch.bfloat16)`",
    "checkpoint": "DRSformer, `accelerate`, `use_checkpoint`",
    "compiled": "DRSformer, `torch.compile`",
    "onnxruntime": "DRSformer, ONNX Runtime",
    "openvino": "DRSformer, OpenVINO",
    "plain-restormer": "Restormer, plain",
    "restormer": "Restormer, `fused()`; in training `accelerate`",
    "restormer-bf16": "Restormer, `fused(torch.bfloat16)`",
}
Run = Callable[[torch.Tensor], Any]


def network(form: str, training: bool, device: torch.device) -> torch.nn.Module:
    """The network of a form; all of one kind hold the same weights."""
    torch.manual_seed(0)
    net = Restormer() if "restormer" in form else DRSformer(use_checkpoint=form == "checkpoint")
    net.to(device).train(training)
    if form.startswith(PLAIN):
        return net
    if training or form == "fast":
        return accelerate(net)
    bf16 = torch.bfloat16 if form.endswith("bf16") else None
    return fuse(net, bf16, tile=0 if form in OPTIONAL else None)


def runner(form: str, training: bool, device: torch.device, threads: int) -> Run:
    """A function that takes pictures and runs the form on them once, to the end."""
    net = network(form, training, device)
    if form == "onnxruntime":
        return onnxruntime_runner(net, threads)
    if form == "openvino":
        return openvino_runner(net, threads)
    call = torch.compile(net, dynamic=True) if form == "compiled" else net

    def run(pictures: torch.Tensor) -> None:
        if training:
            net.zero_grad(set_to_none=True)
            call(pictures).abs().mean().backward()
        else:
            with torch.inference_mode():
                call(pictures)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def exported(net: torch.nn.Module, folder: str) -> str:
    """The network as an ONNX file for pictures of any size."""
    path = f"{folder}/net.onnx"
    write_onnx(ForPictures(net, pads=False), Path(path), {})
    return path


def onnxruntime_runner(net: torch.nn.Module, threads: int) -> Run:
    import onnxruntime  # noqa: PLC0415 - optional

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(exported(net, folder), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pictures: session.run(None, {name: pictures.numpy()})


def openvino_runner(net: torch.nn.Module, threads: int) -> Run:
    import openvino  # noqa: PLC0415 - optional

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    with tempfile.TemporaryDirectory() as folder:
        model = openvino.compile_model(openvino.Core().read_model(exported(net, folder)), "CPU", settings)
    return lambda pictures: model([pictures.numpy()])


def pictures_of(size: int, device: torch.device) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(size)).to(device)


def measure_times(forms: list[str], sizes: list[int], training: bool, args: argparse.Namespace) -> dict:
    """Measure the seconds of every round: {size: {form: [seconds]}}; the forms take turns."""
    runs: dict[str, Run] = {}
    for form in forms:
        try:
            runs[form] = runner(form, training, args.device, args.threads)
        except Exception as error:
            if form not in OPTIONAL:  # those must not end the measurement of the others
                raise
            print(f"{form} is left out: {str(error).splitlines()[0]}", flush=True)
    return take_turns(runs, sizes, "training" if training else "inference", args)


def take_turns(runs: dict[str, Run], sizes: list[int], what: str, args: argparse.Namespace) -> dict:
    """Measure the seconds of every round of each run: {size: {name: [seconds]}}."""
    times: dict[int, dict[str, list[float]]] = {}
    for size in sizes:
        pictures = pictures_of(size, args.device)
        times[size] = {name: [] for name in runs}
        for number in range(args.rounds + args.warmup):
            for name, run in runs.items():
                gc.collect()
                start = time.perf_counter()
                run(pictures)
                if number >= args.warmup:
                    times[size][name].append(time.perf_counter() - start)
        figures = ", ".join(f"{name} {statistics.median(times[size][name]):.3f}" for name in runs)
        print(f"{what} {size}: {figures} s", flush=True)
    return times


def peak_memory(run: Run, size: int, device: torch.device) -> int:
    """Measure the bytes that one run in a new process needs at its peak over what was there: weights, libraries.

    On Linux the process's resident memory, on GPUs what torch allocated.
    """
    pictures = pictures_of(size, device)
    gc.collect()
    before = processor.memory_held(device)
    processor.reset_peak_memory(device)
    run(pictures)
    return processor.peak_memory(device) - before


def measure_memory(
    names: list[str], sizes: list[int], script: str, last: list[str], args: argparse.Namespace
) -> dict[int, dict[str, int]]:
    """Measure peak memory, {size: {name: bytes}}, each in a new process with the system's default allocator.

    Args:
        names: of what runs; a process is `script --one NAME SIZE`.
        sizes: of the pictures.
        script: prints bytes as its last word.
        last: further words for `--one`.
        args: device and threads, which the process gets.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    memory: dict[int, dict[str, int]] = {}
    for size in sizes:
        for name in names:
            command = [sys.executable, script, "--one", name, str(size), *last]
            command += ["--device", str(args.device), "--threads", str(args.threads)]
            done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"memory of {name} at {size}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
                continue
            memory.setdefault(size, {})[name] = int(done.stdout.split()[-1])
            print(f"memory {' '.join(last)} {size} {name}: {memory[size][name] / 2**30:.2f} GiB", flush=True)
    return memory


class OperatorCalls(TorchDispatchMode):
    """Counts the operators that compute or copy; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        returned = function._schema.returns
        if not all(one.alias_info is not None and not one.alias_info.is_write for one in returned):
            self.count += 1
        return function(*arguments, **(options or {}))


def operator_calls(form: str, training: bool) -> int:
    """Count the operators that one picture of 64x64 takes: about the kernels that a GPU launches."""
    run = runner(form, training, torch.device("cpu"), 1)
    with OperatorCalls() as calls:
        run(pictures_of(64, torch.device("cpu")))
    return calls.count


def machine(args: argparse.Namespace) -> dict[str, str]:
    """Describe the machine that the figures were measured on."""
    known = processor.flags()
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in known]
    described = {
        "processor": f"{processor.model_name()}, {args.threads} threads, {' '.join(flags)}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "allocator": "freed memory is kept, which helps the plain form most" if args.kept else "as the system has it",
        "rounds": str(args.rounds),
    }
    if args.device.type == "cuda":
        described["GPU"] = torch.cuda.get_device_name(args.device)
    return described


def table(what: str, times: dict, memory: dict, calls: dict) -> list[str]:
    """Markdown: seconds with their range and ratio to the plain form, peak memory, operator calls."""
    sizes = sorted({*times, *memory})
    forms = [
        form for form in TITLES if any(form in values.get(size, {}) for values in (times, memory) for size in sizes)
    ]
    head = [what, *(f"{size}x{size}" for size in sizes), *(f"memory {size}" for size in memory), "operator calls"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for form in forms:
        cells = [TITLES[form]]
        for size in sizes:
            seconds = times.get(size, {}).get(form)
            cells.append(cell(seconds, times[size].get(PLAIN)) if seconds else "")
        for values in memory.values():
            needed, share = values.get(form), values.get(PLAIN)
            ratio = f" ({needed / share:.2f})" if needed and share and form != PLAIN else ""
            cells.append(f"{needed / 2**30:.2f} GiB{ratio}" if needed else "")
        cells.append(f"{calls[form]:,}" if form in calls else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cell(seconds: list[float], plain: list[float] | None) -> str:
    """Median, half the range in percent, and how many times as fast as the plain form."""
    median = statistics.median(seconds)
    spread = (max(seconds) - min(seconds)) / 2 / median
    ratio = f", **{statistics.median(plain) / median:.2f}x**" if plain and seconds is not plain else ""
    return f"{median:.3f} s ±{spread:.0%}{ratio}"


def plot(times: dict, path: Path) -> None:
    """Time against pixels, both logarithmic."""
    import matplotlib  # noqa: PLC0415 - optional

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    sizes = sorted(times)
    for form, title in TITLES.items():
        if all(form in times[size] for size in sizes):
            style = "--" if "restormer" in form else "-"
            label = title.replace("`", "").replace("torch.", "")
            medians = [statistics.median(times[size][form]) for size in sizes]
            axes.plot([size * size / 1e6 for size in sizes], medians, style, marker="o", markersize=4, label=label)
    axes.set(xscale="log", yscale="log", xlabel="size of the picture", ylabel="seconds per picture")
    axes.set_xticks([size * size / 1e6 for size in sizes], [f"{size}x{size}" for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 256, 512])
    parser.add_argument("--train-sizes", type=int, nargs="*", default=[64, 128])
    parser.add_argument("--memory-sizes", type=int, nargs="*", default=[512])
    parser.add_argument("--train-memory-sizes", type=int, nargs="*", default=[128])
    parser.add_argument("--forms", nargs="*", choices=TITLES, help=f"default: all but {', '.join(OPTIONAL)}")
    parser.add_argument("--default-allocator", dest="kept", action="store_false", help="time with it, too")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        form, size, training = args.one[0], int(args.one[1]), args.one[2] == "training"
        print(peak_memory(runner(form, training, args.device, args.threads), size, args.device))
        return
    args.kept = args.kept and processor.keep_freed_memory(processor.UNLIMITED)
    described = machine(args)
    print("\n".join(f"{key}: {value}" for key, value in described.items()), flush=True)
    chosen = args.forms or [*INFERENCE, *TRAINING]
    inference = [form for form in TITLES if form in chosen and form in [*INFERENCE, *OPTIONAL]]
    training = [form for form in TITLES if form in chosen and form in TRAINING]
    results = {
        "machine": described,
        "inference": measure_times(inference, args.sizes, False, args),
        "training": measure_times(training, args.train_sizes, True, args),
        "inference_memory": measure_memory(inference, args.memory_sizes, __file__, ["inference"], args),
        "training_memory": measure_memory(training, args.train_memory_sizes, __file__, ["training"], args),
        "inference_calls": {form: operator_calls(form, False) for form in inference if form not in OPTIONAL},
        "training_calls": {form: operator_calls(form, True) for form in training},
    }
    lines = [f"{key}: {value}  " for key, value in described.items()] + [""]
    lines += [*table("inference", results["inference"], results["inference_memory"], results["inference_calls"]), ""]
    lines += table("training step", results["training"], results["training_memory"], results["training_calls"])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "speed.md").write_text("\n".join(lines) + "\n")
    (args.out / "speed.json").write_text(json.dumps(results, indent=1))
    print("\n".join(["", *lines]))
    if not args.sizes:
        return
    try:
        plot(results["inference"], args.out / "speed.png")
    except ImportError:
        print("no plot: pip install matplotlib")


if __name__ == "__main__":
    main()
