"""FADformer: blocks that mix in the spectrum, gated by what the residue channel of the rainy picture tells.

Gao, Jiang, Zhang, Deng: "Efficient Frequency-Domain Image Deraining with Contrastive Regularization", ECCV 2024.
Parameter names are those of the authors' checkpoints. Two of the tensors of each block are used by no computation
(`UNUSED_KEYS`) and are dropped when such a file is read; without them the network has the paper's 6.958 M parameters.

Kept as the authors compute it: the second half of what a mixer's first convolution makes is thrown away; the gates of
the last block make a prior that nobody reads.
"""

import re
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

__all__ = ["FADformer"]


def conv(channels: int, out_channels: int, kernel: int = 1, groups: int = 1) -> nn.Conv2d:
    """Convolution that keeps the size, with the map mirrored around it."""
    return nn.Conv2d(
        channels,
        out_channels,
        kernel,
        padding=kernel // 2,
        padding_mode="reflect" if kernel > 1 else "zeros",
        groups=groups,
    )


def keyed(layer: nn.Module) -> nn.Sequential:
    """A layer under the key `0` that the checkpoints use."""
    return nn.Sequential(layer)


class FourierUnit(nn.Module):
    """FFC: a 1x1 convolution of the spectrum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        parts = 2 * channels  # real and imaginary
        self.conv_layer = nn.Conv2d(parts, parts, 1, bias=False)
        self.bn = nn.BatchNorm2d(parts)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return from_spectrum(self.convolved(spectrum(x)), x.shape[3]).to(x.dtype)

    @in_full_precision
    def convolved(self, x: Tensor) -> Tensor:
        """x: (N, 2C, H, ⌊W/2⌋ + 1) → the same shape."""
        return F.relu(self.bn(self.conv_layer(x)))


class GlobalMixer(nn.Module):
    """Mixes two maps in the spectrum, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_init_1 = keyed(conv(channels, channels))
        self.conv_init_2 = keyed(conv(channels, channels))
        self.FFC = FourierUnit(2 * channels)
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, near: Tensor, far: Tensor) -> Tensor:
        """near, far: (N, C, H, W) each → (N, 2C, H, W)."""
        x = torch.cat((F.gelu(self.conv_init_1(near)), F.gelu(self.conv_init_2(far))), dim=1)
        return F.relu(self.bn(self.FFC(x) + x))


class TokenMixer(nn.Module):
    """Neighbours by two kernels, the whole picture by the spectrum, then gates of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_init = keyed(conv(channels, 2 * channels))
        self.dw_conv_1 = keyed(conv(channels, channels, 3, groups=channels))
        self.dw_conv_2 = keyed(conv(channels, channels, 5, groups=channels))
        self.mixer_gloal = GlobalMixer(channels)  # spelled so in the checkpoints
        self.ca_conv = nn.Sequential(
            conv(2 * channels, channels), conv(channels, channels, 3, groups=channels), nn.GELU()
        )
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.GELU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x, _ = F.gelu(self.conv_init(x)).chunk(2, dim=1)
        x = self.ca_conv(self.mixer_gloal(F.gelu(self.dw_conv_1(x)), F.gelu(self.dw_conv_2(x))))
        return self.ca(x) * x


class PriorGatedFeedForward(nn.Module):
    """Feed-forward whose two halves are gated at every pixel by the prior, which it hands on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_init = keyed(conv(channels, 2 * channels))
        self.conv_dw = keyed(conv(2 * channels, 2 * channels, 3, groups=2 * channels))
        self.mask_in = keyed(conv(1, channels // 2))
        self.mask_dw_conv_1 = keyed(conv(channels // 4, 1, 3))
        self.mask_dw_conv_2 = keyed(conv(channels // 4, 1, 5))
        self.mask_out = keyed(conv(2, 1))
        self.conv_fina = keyed(conv(2 * channels, channels))

    def forward(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, H, W), prior: (N, 1, H, W) → the same two shapes."""
        return self.gated(self.conv_init(x), prior)

    def gated(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """All after the first convolution, x: (N, 2C, H, W), prior: (N, 1, H, W) → (N, C, H, W), (N, 1, H, W)."""
        near, far = F.gelu(self.conv_dw(F.gelu(x))).chunk(2, dim=1)
        gate_near, gate_far = F.gelu(self.mask_in(prior)).chunk(2, dim=1)
        gate_near, gate_far = (
            torch.sigmoid(self.mask_dw_conv_1(gate_near)),
            torch.sigmoid(self.mask_dw_conv_2(gate_far)),
        )
        x = F.gelu(self.conv_fina(torch.cat((near * gate_near, far * gate_far), dim=1)))
        return x, F.gelu(self.mask_out(torch.cat((gate_near, gate_far), dim=1)))


class Block(nn.Module):
    """Mixer, then feed-forward, each after batch normalisation and beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mixer = TokenMixer(channels)
        self.ffn = PriorGatedFeedForward(channels)

    def forward(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, H, W), prior: (N, 1, H, W) → the same two shapes."""
        x = x + self.mixer(self.norm1(x))
        more, prior = self.ffn(self.norm2(x), prior)
        return x + more, prior


class Layer(nn.Module):
    """One level: blocks one after the other."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels) for _ in range(depth))

    def forward(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, H, W), prior: (N, 1, H, W) → the same two shapes."""
        for block in self.blocks:
            x, prior = block(x, prior)
        return x, prior


def downsample(channels: int) -> Projection:
    """Half the size, twice the channels."""
    return Projection(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def upsample(channels: int, out_channels: int) -> Projection:
    """Twice the size."""
    return Projection(conv(channels, 4 * out_channels, 3), nn.PixelShuffle(2))


def downsample_prior() -> Projection:
    """Half the size, one channel."""
    return Projection(nn.PixelUnshuffle(2), nn.Conv2d(4, 1, 3, padding=1, bias=False))


def residue_channel(image: Tensor) -> Tensor:
    """The residue channel prior: largest minus smallest channel, (N, C, H, W) → (N, 1, H, W)."""
    return image.amax(dim=1, keepdim=True) - image.amin(dim=1, keepdim=True)


LAYERS = ("layer1", "layer2", "layer3", "layer4", "layer5")  # down, middle and up

UNUSED_KEYS = re.compile(r"\.mixer\.mixer_gloal\.conv_mid\.0\.(weight|bias)$")


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read all arguments of FADformer from its weights."""
    return five_levels.arguments_of(state, LAYERS)


class FADformer(FiveLevels):
    """Frequency-aware deraining transformer; returns the input picture plus a predicted residual.

    The published size is the default; the authors' mini has embed_dim (24, 48, 96, 48, 24) and depth (2, 3, 4, 3, 2).

    Args:
        in_chans, out_chans: channels of the picture, equal.
        embed_dim: channels of the five levels, in the proportion 1, 2, 4, 2, 1, the first a multiple of 4.
        depth: blocks of the five levels.
        embed_kernel_size: side of the first convolution, odd.

    Raises:
        ValueError: arguments that do not fit together.
    """

    contract = Contract(
        size_multiple=4,
        smallest_size=12,
        sees_all_pixels="Fourier units",
        corners=4,
        unused_keys=UNUSED_KEYS,
        recognition=Recognition(
            keys=("patch_embed.proj.weight", "down_rcp1.proj.1.weight", "skip2.weight"), arguments=arguments_of
        ),
    )

    def __init__(
        self,
        in_chans: int = 3,
        out_chans: int = 3,
        embed_dim: Sequence[int] = (32, 64, 128, 64, 32),
        depth: Sequence[int] = (4, 8, 10, 8, 4),
        embed_kernel_size: int = 3,
    ) -> None:
        super().__init__(
            in_chans=in_chans,
            out_chans=out_chans,
            embed_dim=embed_dim,
            depth=depth,
            embed_kernel_size=embed_kernel_size,
            divisor=4,
        )
        channels = embed_dim[0]
        self.patch_embed = Projection(conv(in_chans, channels, embed_kernel_size))
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = (
            Layer(width, blocks) for width, blocks in zip(embed_dim, depth, strict=True)
        )
        self.downsample1, self.downsample2 = downsample(channels), downsample(2 * channels)
        self.down_rcp1, self.down_rcp2 = downsample_prior(), downsample_prior()
        self.upsample1, self.upsample2 = upsample(4 * channels, 2 * channels), upsample(2 * channels, channels)
        self.up_rcp1, self.up_rcp2 = upsample(1, 1), upsample(1, 1)
        self.skip2 = conv(4 * channels, 2 * channels)
        self.skip1 = conv(2 * channels, channels)
        self.patch_unembed = Projection(conv(channels, out_chans, 3), conv(out_chans, out_chans, 3))
        # Nobody reads the prior after the last block: what makes it gets no gradient, for which wrappers of several
        # processes would wait.
        last = next((layer.blocks[-1] for layer in reversed(self.layers()) if len(layer.blocks)), None)
        if isinstance(last, Block):
            last.ffn.mask_out.requires_grad_(False)

    def layers(self) -> list[Layer]:
        """The five levels, from the first to the last."""
        return [self.layer1, self.layer2, self.layer3, self.layer4, self.layer5]

    def forward(self, image: Tensor) -> Tensor:
        """Restore pictures.

        Args:
            image: (N, in_chans, H, W), RGB in [0, 1], H and W multiples of 4, at least 12.

        Returns:
            The restored pictures, same shape, not clamped to [0, 1].

        Raises:
            ValueError: another number of channels, a size that is no multiple of 4, or one below 12.
        """
        self.check(image)
        fine, prior = self.layer1(self.patch_embed(image), residue_channel(image))
        middle, prior = self.layer2(self.downsample1(fine), self.down_rcp1(prior))
        x, prior = self.layer3(self.downsample2(middle), self.down_rcp2(prior))
        x = self.skip2(torch.cat((self.upsample1(x), middle), dim=1))
        x, prior = self.layer4(x, self.up_rcp1(prior))
        x = self.skip1(torch.cat((self.upsample2(x), fine), dim=1))
        x, _ = self.layer5(x, self.up_rcp2(prior))
        return self.patch_unembed(x) + image
