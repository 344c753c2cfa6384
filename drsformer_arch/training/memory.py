"""Count the memory that a training step needs, without taking it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from drsformer_arch.archs.contract import contract_of
from drsformer_arch.restore.tiling import forward_scaled


def activation_bytes(build: Callable[[], nn.Module], batch: int, side: int, *, bf16: bool) -> int:
    """Count the bytes that one forward pass keeps for its backward pass: all distinct tensors but parameters.

    They grow in proportion to batch and pixels. Tensors have shapes here and no values, so that nothing is computed.

    Args:
        build: makes the network.
        batch: patches.
        side: of the square patches in pixels.
        bf16: with 16-bit autocast, of either kind.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = build().train()
        contract = contract_of(net)
        parameters = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}  # holding the storage keeps its address from being used again

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in parameters:
                kept[storage._cdata] = storage
            return tensor

        precision = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
        with precision, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            forward_scaled(net, torch.empty(batch, contract.picture_channels, side, side), contract.value_range)
        return sum(storage.nbytes() for storage in kept.values())
