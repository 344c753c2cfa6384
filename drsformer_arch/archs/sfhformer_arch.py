"""SFHformer: blocks that mix pixels with small kernels on one half of the channels and in the spectrum on the other.

Jiang, Zhang, Gao, Deng: "When Fast Fourier Transform Meets Transformer for Image Restoration", ECCV 2024. Parameter
names are those of the authors' deraining network, MIT-licensed; they released no weights for it. Theirs for haze, low
light and motion blur belong to other networks of this name.

Kept as the authors compute it: the spectrum is convolved as it is stored, row 0 beside row 1, with zeros around it; its
global half passes GELU twice; with one group the weights of the groups are all 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs import five_levels
from drsformer_arch.archs.contract import Contract, Recognition
from drsformer_arch.archs.five_levels import FiveLevels, Projection
from drsformer_arch.archs.fourier import from_spectrum, spectrum
from drsformer_arch.archs.precision import in_full_precision

__all__ = ["SFHformer"]


def conv1x1(channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution under the key `0` that the checkpoints use."""
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1))


def depthwise(channels: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """Depth-wise convolution that keeps the size, with zeros around the map."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels)


class FourierUnit(nn.Module):
    """FFC: convolutions of the spectrum, one for each group, weighted at every frequency."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        parts = 2 * channels  # real and imaginary
        self.groups = groups
        self.bn = nn.BatchNorm2d(parts)
        self.fpe = depthwise(parts, 3)
        self.weight = conv1x1(parts, groups)
        self.fdc = nn.Conv2d(parts, groups * parts, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return from_spectrum(self.convolved(spectrum(x)), x.shape[3]).to(x.dtype)

    @in_full_precision
    def convolved(self, x: Tensor) -> Tensor:
        """x: (N, 2C, H, ⌊W/2⌋ + 1) → the same shape."""
        x = self.bn(x)
        x = x + self.fpe(x)  # positions among the frequencies
        weights = self.weight(x).softmax(dim=1)
        by_group = self.fdc(x).unflatten(1, (self.groups, -1))
        return F.gelu((weights.unsqueeze(2) * by_group).sum(dim=1))


class GlobalMixer(nn.Module):
    """The half of the mixer that sees the whole picture."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv_init = conv1x1(channels, 2 * channels)
        self.conv_fina = conv1x1(2 * channels, channels)
        self.FFC = FourierUnit(2 * channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = F.gelu(self.conv_init(x))
        return F.gelu(self.conv_fina(x + self.FFC(x)))


class LocalMixer(nn.Module):
    """The half of the mixer that sees neighbours: half of its channels the next ones, half those one further."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.CDilated_1 = depthwise(channels // 2, 3)
        self.CDilated_2 = depthwise(channels // 2, 3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        near, far = x.chunk(2, dim=1)
        return torch.cat((self.CDilated_1(near), self.CDilated_2(far)), dim=1)


class TokenMixer(nn.Module):
    """Local and global mixing side by side, then gates of the channels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv_init = conv1x1(channels, 2 * channels)
        self.mixer_local = LocalMixer(channels)
        self.mixer_gloal = GlobalMixer(channels, groups)  # spelled so in the checkpoints
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(2 * channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.Sigmoid(),
        )
        self.ca_conv = conv1x1(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        near, whole = self.conv_init(x).chunk(2, dim=1)
        x = F.gelu(torch.cat((self.mixer_local(near), self.mixer_gloal(whole)), dim=1))
        return self.ca_conv(self.ca(x) * x)


class MultiKernelFeedForward(nn.Module):
    """Feed-forward of which a quarter of the hidden channels each looks 0, 1, 2 and 3 pixels around."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_init = conv1x1(channels, 2 * channels)
        self.conv1_1 = nn.Sequential(depthwise(channels // 2, 3))
        self.conv1_2 = nn.Sequential(depthwise(channels // 2, 5))
        self.conv1_3 = nn.Sequential(depthwise(channels // 2, 7))
        self.conv_fina = conv1x1(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        own, near, far, farther = self.conv_init(x).chunk(4, dim=1)
        parts = (own, self.conv1_1(near), self.conv1_2(far), self.conv1_3(farther))
        return self.conv_fina(F.gelu(torch.cat(parts, dim=1)))


class Block(nn.Module):
    """Mixer, then feed-forward, each after batch normalisation, scaled by channel and beside the identity."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mixer = TokenMixer(channels, groups)
        self.ffn = MultiKernelFeedForward(channels)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = x + self.beta * self.mixer(self.norm1(x))
        return x + self.gamma * self.ffn(self.norm2(x))


class Layer(nn.Module):
    """One level: blocks one after the other."""

    def __init__(self, channels: int, depth: int, groups: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(channels, groups) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return self.blocks(x)


def downsample(channels: int) -> Projection:
    """Half the size, twice the channels."""
    return Projection(nn.Sequential(nn.Conv2d(channels, 2 * channels, 2, stride=2)))


def upsample(channels: int) -> Projection:
    """Twice the size, half the channels."""
    return Projection(nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2)))


LAYERS = ("layer1", "layer2", "layer3", "layer8", "layer9")  # down, middle and up


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read all arguments of SFHformer from its weights."""
    groups = next((len(value) for key, value in state.items() if key.endswith(".FFC.weight.0.weight")), 1)
    return five_levels.arguments_of(state, LAYERS) | {"groups": groups}


class SFHformer(FiveLevels):
    """Spatial-frequency hybrid transformer; returns the input picture plus a predicted residual.

    Sizes of the authors: s with depth (2, 2, 4, 2, 2), m (4, 4, 8, 4, 4), l (6, 6, 10, 6, 6).

    Args:
        in_chans, out_chans: channels of the picture, equal.
        embed_dim: channels of the five levels, in the proportion 1, 2, 4, 2, 1.
        depth: blocks of the five levels.
        embed_kernel_size: side of the first convolution, odd.
        groups: convolutions of the spectrum in each Fourier unit; 4 until May 2025, 1 since.

    Raises:
        ValueError: arguments that do not fit together.
    """

    contract = Contract(
        size_multiple=4,
        smallest_size=4,
        sees_all_pixels="Fourier units",
        recognition=Recognition(
            keys=("patch_embed.proj.weight", "skip2.weight", "patch_unembed.proj.0.weight", "upsample4.proj.0.weight"),
            arguments=arguments_of,
        ),
    )

    def __init__(  # noqa: PLR0917 - the order of the published class; users pass names
        self,
        in_chans: int = 3,
        out_chans: int = 3,
        embed_dim: Sequence[int] = (32, 64, 128, 64, 32),
        depth: Sequence[int] = (4, 4, 8, 4, 4),
        embed_kernel_size: int = 3,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_chans=in_chans,
            out_chans=out_chans,
            embed_dim=embed_dim,
            depth=depth,
            embed_kernel_size=embed_kernel_size,
            divisor=2,
        )
        channels = embed_dim[0]
        if groups < 1 or 4 * channels % groups:
            raise ValueError(f"groups must divide {4 * channels}, not be {groups}")
        self.patch_embed = Projection(nn.Conv2d(in_chans, channels, embed_kernel_size, padding=embed_kernel_size // 2))
        self.layer1, self.layer2, self.layer3, self.layer8, self.layer9 = (
            Layer(width, blocks, groups) for width, blocks in zip(embed_dim, depth, strict=True)
        )
        self.downsample1, self.downsample2 = downsample(channels), downsample(2 * channels)
        self.upsample3, self.upsample4 = upsample(4 * channels), upsample(2 * channels)
        self.skip2 = nn.Conv2d(4 * channels, 2 * channels, 1)
        self.skip1 = nn.Conv2d(2 * channels, channels, 1)
        self.patch_unembed = Projection(nn.Sequential(nn.Conv2d(channels, out_chans, 3, padding=1)))

    def forward(self, image: Tensor) -> Tensor:
        """Restore pictures.

        Args:
            image: (N, in_chans, H, W), RGB in [0, 1], H and W multiples of 4.

        Returns:
            The restored pictures, same shape, not clamped to [0, 1].

        Raises:
            ValueError: another number of channels or a size that is no multiple of 4.
        """
        self.check(image)
        fine = self.layer1(self.patch_embed(image))
        middle = self.layer2(self.downsample1(fine))
        x = self.layer3(self.downsample2(middle))
        x = self.layer8(self.skip2(torch.cat((self.upsample3(x), middle), dim=1)))
        x = self.layer9(self.skip1(torch.cat((self.upsample4(x), fine), dim=1)))
        return self.patch_unembed(x) + image
