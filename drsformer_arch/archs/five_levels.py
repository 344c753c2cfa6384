"""The shape that SFHformer and FADformer, of the same authors, share: two levels down, one in the middle, two up."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from drsformer_arch.archs.contract import InputError, RestorationNetwork, count_modules

PROPORTIONS = (1, 2, 4, 2, 1)  # of the levels' channels


class Projection(nn.Module):
    """Holds the layers of an embedding or of a resampling under the key `proj` that the checkpoints use."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.proj = nn.Sequential(*layers) if len(layers) > 1 else layers[0]

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → what the layers make of it."""
        return self.proj(x)


def arguments_of(state: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Any]:
    """Read the arguments of both networks from weights whose levels have these names."""
    channels, in_chans, kernel = state["patch_embed.proj.weight"].shape[:3]
    return {
        "in_chans": in_chans,
        "out_chans": in_chans,
        "embed_dim": [factor * channels for factor in PROPORTIONS],
        "depth": [count_modules(state, f"{layer}.blocks.") for layer in layers],
        "embed_kernel_size": kernel,
    }


class FiveLevels(RestorationNetwork):
    """Base of both networks.

    Args:
        in_chans, out_chans: channels of the picture, equal.
        embed_dim: channels of the five levels, in the proportion 1, 2, 4, 2, 1.
        depth: blocks of the five levels; a level without any passes its input on.
        embed_kernel_size: side of the first convolution, odd.
        divisor: the channels of the first level must be a multiple of it.

    Raises:
        ValueError: arguments that do not fit together.
    """

    def __init__(
        self,
        *,
        in_chans: int,
        out_chans: int,
        embed_dim: Sequence[int],
        depth: Sequence[int],
        embed_kernel_size: int,
        divisor: int,
    ) -> None:
        channels = embed_dim[0] if embed_dim else 0
        if list(embed_dim) != [factor * channels for factor in PROPORTIONS] or channels % divisor or channels <= 0:
            wanted = f"[e, 2e, 4e, 2e, e] with e a multiple of {divisor}"
            raise ValueError(f"embed_dim must be {wanted}, not {list(embed_dim)}")
        if len(depth) != len(PROPORTIONS) or min(depth) < 0:
            raise ValueError(f"depth must be five numbers of blocks, not {list(depth)}")
        if in_chans != out_chans:
            raise ValueError(f"in_chans ({in_chans}) and out_chans ({out_chans}) must be equal")
        if embed_kernel_size % 2 == 0:
            raise ValueError(f"embed_kernel_size must be odd, not {embed_kernel_size}")
        super().__init__()
        self.contract = dataclasses.replace(self.contract, picture_channels=in_chans)

    def check(self, image: Tensor) -> None:
        """Refuse pictures (N, C, H, W) that the network was not built for.

        Raises:
            ValueError: another number of channels, a size that is no multiple of its contract's, or too small.
        """
        channels, height, width = image.shape[1:]
        name, contract = type(self).__name__, self.contract
        if channels != contract.picture_channels:
            raise InputError(f"{name} was built for {contract.picture_channels} channels, the picture has {channels}")
        multiple, smallest = contract.size_multiple, contract.smallest_size
        if height % multiple or width % multiple or min(height, width) < smallest:
            wanted = f"multiples of {multiple}" + (f" and at least {smallest}" if smallest > multiple else "")
            raise InputError(f"height and width must be {wanted}, not {height}x{width}")
