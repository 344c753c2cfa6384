"""A network in one file, for `import: my_arch.py` or `--import my_arch.py`: it registers itself, as BasicSR's do."""

from torch import Tensor, nn

from drsformer_arch.plugin import ARCH_REGISTRY


@ARCH_REGISTRY.register()
class TwoConvolutions(nn.Module):
    """Predicts the rain by two convolutions, and subtracts it."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.rain = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, rainy: Tensor) -> Tensor:
        """rainy: (N, 3, H, W), RGB in [0, 1] → the same shape."""
        return rainy - self.rain(rainy)
