"""A small network: dilated convolutions predict the rain, which is subtracted. An example, no published network."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from drsformer_arch.archs.contract import Contract, Recognition, count_modules


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the constructor's arguments off weights, for files that do not name them."""
    return {"channels": len(state["first.weight"]), "depth": count_modules(state, "body.")}


class DilatedNet(nn.Module):
    """Residual convolutions, each seeing twice as far as the one before.

    Args:
        channels: of the maps inside.
        depth: residual convolutions.
    """

    # What training, inference and export should know; a network without a contract takes RGB in [0, 1] of any size.
    contract = Contract(
        smallest_size=8,  # smaller pictures are padded
        bytes_per_pixel=1024,  # of memory at the peak, by which `--tile auto` decides
        recognition=Recognition(keys=("first.weight", "body.0.weight", "last.weight"), arguments=arguments_of),
    )

    def __init__(self, channels: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=2**level, dilation=2**level) for level in range(depth)
        )
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> Tensor:
        """rainy: (N, 3, H, W), RGB in [0, 1] → the same shape."""
        x = self.first(rainy).relu()
        for convolution in self.body:
            x = x + convolution(x).relu()
        return rainy - self.last(x)
