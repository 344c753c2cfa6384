"""Memory that training DRSformer needs: weights, gradients and AdamW's moments, plus what is kept for backward.

Activations are counted: the bytes of all distinct tensors that autograd saves in one forward pass, parameters excluded.
They grow in proportion to batch and pixels. A GPU needs a little more (workspace, fragmentation, its context).

    python scripts/measure_training_memory.py [--patch 128] [--batch 1] [--without-mefc] [--bf16]
"""

import argparse

import torch

from drsformer_arch import DRSformer


def activation_bytes(net: torch.nn.Module, batch: int, patch: int, bf16: bool) -> int:
    """Bytes that one forward pass keeps for its backward pass."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holding the storage keeps its address from being used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    precision = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
    with precision, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.rand(batch, 3, patch, patch))
    return sum(storage.nbytes() for storage in kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--without-mefc", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    net = DRSformer(with_mefc=not args.without_mefc)
    state = 4 * sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
    activations = activation_bytes(net, args.batch, args.patch, args.bf16)
    print(
        f"patch {args.patch}, batch {args.batch}, {'bf16' if args.bf16 else 'float32'}, "
        f"{'without' if args.without_mefc else 'with'} MEFC: weights, gradients, moments {state / 2**20:.0f} MiB, "
        f"activations {activations / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
