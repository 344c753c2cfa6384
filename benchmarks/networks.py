"""Time and memory of all networks at their published sizes, in the forms in which they run.

    python benchmarks/networks.py                     # CPU: about half an hour
    python benchmarks/networks.py --device cuda
    python benchmarks/networks.py --networks SFHformer-l FADformer --sizes 256 --memory-sizes

Forms: plain, as the network's file says; fast, by `accelerate`, as it trains; fused, by `fuse`, as it infers; bf16,
fused with features in bfloat16, or under autocast where that is not offered. A form that a network does not have is
left out. Weights are drawn, which changes neither time nor memory; pictures are put together from patches where the
network is for one size.

All forms of one network run one after the other in every round of one process. Medians, half the range of the rounds,
and ratios to the plain form; memory as in `speed.py`. Writes networks.md and networks.json to --out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from arguments import positive
from speed import PLAIN, Run, cell, machine, measure_memory, peak_memory, take_turns

from drsformer_arch.archs import IDT, DRSformer, DualGCN, FADformer, NeRDRain, Restormer, SFHformer, SPDNet
from drsformer_arch.archs.contract import RestorationNetwork
from drsformer_arch.compare.measurement import count_macs
from drsformer_arch.fast import accelerate, form_of
from drsformer_arch.restore.tiling import inference_form, restore
from drsformer_arch.system import processor

PUBLISHED: dict[str, tuple[type[RestorationNetwork], dict[str, Any]]] = {
    "DRSformer": (DRSformer, {}),
    "Restormer": (Restormer, {}),
    "IDT": (IDT, {}),
    "SPDNet": (SPDNet, {}),
    "DualGCN": (DualGCN, {}),
    "NeRD-Rain": (NeRDRain, {}),
    "NeRD-Rain-S": (NeRDRain, {"dim": 32}),
    "SFHformer-s": (SFHformer, {"depth": (2, 2, 4, 2, 2)}),
    "SFHformer-m": (SFHformer, {}),
    "SFHformer-l": (SFHformer, {"depth": (6, 6, 10, 6, 6)}),
    "FADformer": (FADformer, {}),
    "FADformer-mini": (FADformer, {"embed_dim": (24, 48, 96, 48, 24), "depth": (2, 3, 4, 3, 2)}),
}
FORMS = (PLAIN, "fast", "fused", "bf16")


def network(name: str) -> torch.nn.Module:
    """Build a network of published size, plain, for inference."""
    torch.manual_seed(0)
    kind, arguments = PUBLISHED[name]
    return kind(**arguments).eval()


def runner(name: str, form: str, device: torch.device) -> Run | None:
    """Make the function that restores pictures by a form of a network; None where the network has no such form."""
    net, autocast = network(name).to(device), False
    if form == "fast":
        if form_of(accelerate(net)) == PLAIN:
            return None
    elif form != PLAIN:
        net, autocast = inference_form(accelerate(net), bf16=form == "bf16")
        if form == "fused" and form_of(net) == PLAIN:
            return None

    def run(pictures: torch.Tensor) -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            restore(net, pictures)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def rows(name: str, results: dict[str, Any]) -> list[str]:
    """Format the lines of a network."""
    lines = []
    for form in results["forms"]:
        times = [results["seconds"][size] for size in results["seconds"]]
        cells = [cell(of_size[form], of_size[PLAIN] if form != PLAIN else None) for of_size in times]
        needed = [results["memory"][size].get(f"{name}:{form}") for size in results["memory"]]
        cells += [f"{value / 2**30:.2f} GiB" if value else "" for value in needed]
        head = f"{name}, {form}"
        if form == PLAIN:
            head += f" ({results['parameters'] / 1e6:.2f} M, {results['macs'] / 1e9:.0f} GMACs at 256x256)"
        lines.append(f"| {' | '.join([head, *cells])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/networks"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--memory-sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--networks", nargs="*", choices=PUBLISHED, default=list(PUBLISHED))
    parser.add_argument("--default-allocator", dest="kept", action="store_false", help="time with it, too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        name, form = args.one[0].split(":")
        run = runner(name, form, args.device)
        assert run is not None
        print(peak_memory(run, int(args.one[1]), args.device))
        return
    args.kept = args.kept and processor.keep_freed_memory(processor.UNLIMITED)
    described = machine(args)
    print("\n".join(f"{key}: {value}" for key, value in described.items()), flush=True)
    results: dict[str, Any] = {"machine": described, "networks": {}}
    head = [
        "one picture",
        *(f"{size}x{size}" for size in args.sizes),
        *(f"memory {size}" for size in args.memory_sizes),
    ]
    lines = [f"{key}: {value}  " for key, value in described.items()]
    lines += ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.networks:
        runs = {form: run for form in FORMS if (run := runner(name, form, args.device))}
        net = network(name)
        results["networks"][name] = {
            "parameters": sum(parameter.numel() for parameter in net.parameters()),
            "macs": count_macs(net),
            "forms": list(runs),
            "seconds": take_turns(runs, args.sizes, name, args),
            "memory": measure_memory([f"{name}:{form}" for form in runs], args.memory_sizes, __file__, [], args),
        }
        lines += rows(name, results["networks"][name])
        (args.out / "networks.md").write_text("\n".join(lines) + "\n")  # after each network: it takes long
        (args.out / "networks.json").write_text(json.dumps(results, indent=1))
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
