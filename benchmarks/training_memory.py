"""Memory that training needs: weights, gradients and the optimizer's moments, plus what is kept for backward.

Activations are counted (`drsformer_arch.training.memory`). A GPU needs more (workspace, fragmentation, its context):
how many patches fit, of the divisors of an effective batch, is an estimate
(`drsformer_arch.options.recipes.largest_batch`).

    python benchmarks/training_memory.py                         # every network, a patch of its recipe's size
    python benchmarks/training_memory.py --networks DRSformer --patch 64 --batch 4 --bf16
"""

import argparse
from functools import partial

from arguments import positive

from drsformer_arch import archs
from drsformer_arch.fast import accelerate
from drsformer_arch.options.recipes import largest_batch
from drsformer_arch.training.memory import activation_bytes

NETWORKS = {kind.__name__: kind for kind in archs.NETWORKS}
PATCHES = {"DualGCN": 100}  # of the recipes; all others 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--patch", type=positive, help="default: as the network's recipe")
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--effective", type=positive, default=16, help="pictures per step (%(default)s)")
    parser.add_argument("--without-mefc", action="store_true", help="of DRSformer")
    parser.add_argument("--bf16", action="store_true", help="only this precision; default: both")
    args = parser.parse_args()
    for name in args.networks:
        options = {"with_mefc": False} if name == "DRSformer" and args.without_mefc else {}
        build = partial(NETWORKS[name], **options)
        net, patch = build(), args.patch or PATCHES.get(name, 128)
        state = 4 * sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
        for bf16 in (True,) if args.bf16 else (False, True):
            activations = activation_bytes(lambda: accelerate(build()), args.batch, patch, bf16=bf16)  # noqa: B023
            print(
                f"{name}, patch {patch}, batch {args.batch}, {'bf16' if bf16 else 'float32'}: weights, gradients, "
                f"moments {state / 2**20:.0f} MiB, activations {activations / 2**20:.0f} MiB"
            )
            each = activations / args.batch / 2**30
            fits = [f"{gpu} GB: {largest_batch(gpu, each, args.effective)}" for gpu in (8, 12, 24, 48)]
            print(f"    estimated batch_size_per_gpu for an effective batch of {args.effective}: {', '.join(fits)}")


if __name__ == "__main__":
    main()
