"""Old and new code timed side by side: two checkouts of this repository, the same weights, the same pictures.

Each checkout computes in a process of its own, and only one of the two computes at a time: in every round both take
their turn, and who is first changes from round to round. The table gives medians, their ratio, and the mean difference
of the rounds with its 95 % interval. A case is timed in several pairs of processes, as each process has its own luck
with the places of its memory; what a process frees, it keeps for the next layer. Memory is measured as in
`speed.py`: the peak over what a fresh process held once the weights were there, with the system's allocator.

    git worktree add ../old COMMIT
    python benchmarks/commits.py --old ../old                         # CPU: two to three hours
    python benchmarks/commits.py --old ../old --cases fused-256 train-128 --rounds 24 --threads 2
    python benchmarks/commits.py --old ../old --cases --memory        # only memory

A case is [train-]FORM[-restormer]-SIZE, for example bf16-512, train-checkpoint-128, plain-restormer-256; train-128 is
train-fast-128. Forms: plain (in checkouts whose networks are fast as they are: the literal networks of their tests),
fast, fused, bf16, and checkpoint for training. Writes commits.md and commits.json to --out.
"""

import argparse
import contextlib
import gc
import importlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arguments import positive

import drsformer_arch
from drsformer_arch import DRSformer, Restormer

try:
    from drsformer_arch.system import processor
except ImportError:  # checkouts before the rooms
    from drsformer_arch import processor  # type: ignore[attr-defined, no-redef]  # where it was

Ask = Callable[[str], float]
CPU = torch.device("cpu")
SIDES = ("old", "new")
CASES = [
    *(f"{form}-{size}" for size in (256, 512) for form in ("fast", "fused", "bf16", "plain")),
    *(f"train-{form}-{size}" for size in (64, 128) for form in ("fast", "checkpoint", "plain")),
    *(f"{form}-restormer-{size}" for size in (256, 512) for form in ("fast", "fused", "bf16", "plain")),
    *(f"train-{form}-restormer-{size}" for size in (64, 128) for form in ("fast", "checkpoint", "plain")),
]
MEMORY_CASES = [
    *(f"{form}-512" for form in ("fast", "fused", "bf16", "plain")),
    *(f"train-{form}-128" for form in ("fast", "checkpoint", "plain")),
]
FORMS = {False: ("plain", "fast", "fused", "bf16"), True: ("plain", "fast", "checkpoint")}  # by training


class Case(NamedTuple):
    """A computation that is timed: network, pictures, inference or training."""

    form: str
    restormer: bool
    training: bool
    size: int

    @classmethod
    def of(cls, name: str) -> "Case":
        """Return the case of this name.

        Raises:
            ValueError: there is none.
        """
        training = name.startswith("train-")
        *words, size = name.removeprefix("train-").split("-")
        restormer = words[-1:] == ["restormer"]
        (form,) = words[: len(words) - restormer] or ["fast"]
        if form not in FORMS[training]:
            raise ValueError(f"{form} is not one of {', '.join(FORMS[training])}")
        return cls(form, restormer, training, int(size))


def network(case: Case, small: bool, same_weights: bool) -> torch.nn.Module:
    """The network of a case as this process's checkout has it."""
    try:
        accelerate = importlib.import_module("drsformer_arch.fast").accelerate
    except ImportError:  # networks that are fast as they are
        accelerate = None
    arguments = {"dim": 16, "num_blocks": (1, 1, 1, 1)} if small else {}
    kind = Restormer if case.restormer else DRSformer
    torch.manual_seed(0)
    if case.form == "plain" and accelerate is None:
        name = kind.__name__
        literal = getattr(importlib.import_module(f"tests.literal_{name.lower()}"), f"Literal{name}")
        net = literal(**arguments)
        if same_weights:  # it draws its own in another order
            torch.manual_seed(0)
            net.load_state_dict(kind(**arguments).state_dict())
        return net.train(case.training)
    net = kind(use_checkpoint=case.form == "checkpoint", **arguments).train(case.training)
    if case.form in ("fused", "bf16"):
        return net.fused(torch.bfloat16 if case.form == "bf16" else None)
    return net if accelerate is None or case.form == "plain" else accelerate(net)


def run(net: torch.nn.Module, pictures: torch.Tensor, training: bool) -> torch.Tensor | None:
    """Run one inference, whose result is returned, or one training step."""
    if not training:
        with torch.inference_mode():
            return net(pictures)
    net.zero_grad(set_to_none=True)
    net(pictures).abs().mean().backward()
    return None


def extent(net: torch.nn.Module, pictures: torch.Tensor, training: bool) -> float:
    """Return a number by which old and new are compared: mean of the residual, or of the gradients.

    Rounding alone can make a difference of 1e-3: where it changes which attention scores are the largest.
    """
    result = run(net, pictures, training)
    if result is not None:
        return (result - pictures).double().abs().mean().item()
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    return sum(gradient.double().abs().mean().item() for gradient in gradients) / len(gradients)


def work(args: argparse.Namespace) -> None:
    """Serve as a worker: answer every line that comes in, "time" (seconds), "extent" or "memory" (bytes), by one."""
    source = Path(drsformer_arch.__file__).resolve().parent.parent
    if source != Path(args.worker).resolve():
        raise SystemExit(f"{args.worker} is no checkout: the package came from {source}")
    memory = args.memory is not None
    if not memory:  # as in the other process
        processor.keep_freed_memory(processor.UNLIMITED)
    case = Case.of(args.cases[0])
    net = network(case, args.small, same_weights=not memory)
    pictures = torch.rand(1, 3, case.size, case.size, generator=torch.Generator().manual_seed(case.size))
    for line in sys.stdin:
        gc.collect()
        if line.strip() == "extent":
            answer: float = extent(net, pictures, case.training)
        elif line.strip() == "memory":
            before = processor.memory_held(CPU)
            processor.reset_peak_memory(CPU)
            run(net, pictures, case.training)
            answer = processor.peak_memory(CPU) - before
        else:
            start = time.perf_counter()
            run(net, pictures, case.training)
            answer = time.perf_counter() - start
        print(json.dumps(answer), flush=True)


@contextlib.contextmanager
def worker(checkout: Path, case: str, args: argparse.Namespace, memory: bool = False) -> Iterator[Ask]:
    """A process that computes one case with the code of one checkout; it waits until it is asked."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment["PYTHONPATH"] = str(checkout)
    command = [sys.executable, __file__, "--worker", str(checkout), "--cases", case, "--threads", str(args.threads)]
    command += ["--memory"] * memory + ["--small"] * args.small
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(what: str) -> float:
        try:
            process.stdin.write(f"{what}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        except (OSError, ValueError):
            raise RuntimeError(f"the process of {checkout.name} ended") from None

    try:
        yield ask
    finally:
        process.kill()
        process.communicate()


def measure_times(case: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the seconds of every round, {side: [seconds]}, and what the results are compared by."""
    measured: dict[str, Any] = {"old": [], "new": [], "extent": {}}
    for start in range(args.restarts):
        rounds = len(range(start, args.rounds, args.restarts))
        with worker(args.old, case, args) as old, worker(args.new, case, args) as new:
            workers = dict(zip(SIDES, (old, new), strict=True))
            for side, ask in workers.items():
                measured["extent"][side] = ask("extent")  # the first run, which warms up, too
                for _ in range(args.warmup - 1):
                    ask("time")
            for number in range(rounds):
                for side in SIDES if (number + start) % 2 == 0 else reversed(SIDES):
                    measured[side].append(workers[side]("time"))
    return measured


def measure_memory(case: str, args: argparse.Namespace) -> dict[str, float]:
    """Measure peak memory in bytes, {side: bytes}, each in a fresh process."""
    memory = {}
    for side, checkout in zip(SIDES, (args.old, args.new), strict=True):
        with worker(checkout, case, args, memory=True) as ask:
            memory[side] = ask("memory")
    return memory


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; from about four values on it means something."""
    if len(values) < 2:
        return values[0], math.nan
    z, freedom = 1.959964, len(values) - 1
    # Expansion of the quantile of t around that of the normal distribution (Abramowitz and Stegun 26.7.5).
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return statistics.mean(values), t * statistics.stdev(values) / math.sqrt(len(values))


def time_row(case: str, measured: dict[str, Any]) -> str:
    """Medians, their ratio, the mean difference of the rounds with its interval, and by how much results differ."""
    old, new = (statistics.median(measured[side]) for side in SIDES)
    rounds = zip(measured["old"], measured["new"], strict=True)
    mean, half = mean_and_interval([math.log(after / before) for before, after in rounds])
    middle, low, high = (f"{math.expm1(value):+.1%}" for value in (mean, mean - half, mean + half))
    differ = abs(measured["extent"]["new"] / measured["extent"]["old"] - 1)
    return f"| {case} | {old:.3f} s | {new:.3f} s | {new / old:.3f} | {middle} ({low} to {high}) | {differ:.1e} |"


def memory_row(case: str, memory: dict[str, float]) -> str:
    cells = " | ".join(f"{memory[side] / 2**30:.2f} GiB" for side in SIDES)
    return f"| {case} | {cells} | {memory['new'] / memory['old']:.3f} |"


def report(results: dict[str, Any]) -> str:
    """All that was measured as Markdown."""
    lines = [f"{key}: {value}  " for key, value in results["machine"].items()]
    if results["times"]:
        lines += ["", "| case | old | new | new/old | difference, 95 % interval | results differ |", "|---" * 6 + "|"]
        lines += [time_row(case, measured) for case, measured in results["times"].items()]
    if results["memory"]:
        lines += ["", "| peak memory | old | new | new/old |", "|---" * 4 + "|"]
        lines += [memory_row(case, memory) for case, memory in results["memory"].items()]
    return "\n".join(lines) + "\n"


def commit_of(checkout: Path) -> str:
    """The short id of the commit that is checked out, "-dirty" where its files were changed."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="a checkout of the old code")
    parser.add_argument(
        "--new", type=Path, default=Path(__file__).parents[1], help="one of the new code; default: this one"
    )
    parser.add_argument("--out", type=Path, default=Path("results/commits"))
    parser.add_argument("--cases", nargs="*", default=CASES, help="what is timed; default: everything")
    parser.add_argument(
        "--memory", nargs="*", metavar="CASE", help="measure the memory of these; none named: 512, train 128"
    )
    parser.add_argument("--rounds", type=positive, default=12)
    parser.add_argument("--warmup", type=int, default=2, help="runs of each process before its rounds")
    parser.add_argument(
        "--restarts", type=positive, default=3, help="pairs of processes that share the rounds of a case"
    )
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--small", action="store_true", help="small networks, to try the script")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        work(args)
        return
    if args.old is None:
        parser.error("--old is missing")
    args.old, args.new = args.old.resolve(), args.new.resolve()
    memory_cases = MEMORY_CASES if args.memory == [] else args.memory or []
    for case in [*args.cases, *memory_cases]:
        try:
            Case.of(case)
        except ValueError as error:
            parser.error(f"{case}: {error}")
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in processor.flags()]
    described = {
        "old, new": f"{commit_of(args.old)}, {commit_of(args.new)}",
        "processor": f"{processor.model_name()}, {args.threads} threads, {' '.join(flags)}",
        "torch": torch.__version__,
        "rounds": f"{args.rounds}, of {args.restarts} pairs of processes",
    }
    results: dict[str, Any] = {"machine": described, "times": {}, "memory": {}}
    print("\n".join(f"{key}: {value}" for key, value in described.items()), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for key, cases in (("times", args.cases), ("memory", memory_cases)):
        for case in cases:
            try:
                measured = measure_times(case, args) if key == "times" else measure_memory(case, args)
            except RuntimeError as error:
                print(f"{case} is left out: {error}", flush=True)
                continue
            results[key][case] = measured
            print(time_row(case, measured) if key == "times" else memory_row(case, measured), flush=True)
            (args.out / "commits.md").write_text(report(results))
            (args.out / "commits.json").write_text(json.dumps(results, indent=1))
    print(f"\n{report(results)}")
    if not results["times"] and not results["memory"]:
        raise SystemExit("nothing was measured")


if __name__ == "__main__":
    main()
