"""DualGCN: graph convolutions over pixels and over channels, with dilated convolutions between them.

Fu, Qi, Zha, Zhu, Ding: "Rain Streak Removal via Dual Graph Convolutional Network", AAAI 2021. The authors released
TensorFlow code; the parameter names are ours (326 tensors). There is no down-sampling: any size will do.

Both graphs pool over all pixels, so that tiles give other results than the whole picture. What their softmaxes do is
unusual but what the authors' code does: each runs over all entries of a matrix together.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from drsformer_arch.archs.contract import Contract, InputError, Recognition, RestorationNetwork, count_modules
from drsformer_arch.archs.precision import in_full_precision

__all__ = ["DualGCN"]


def softmax_over_all(x: Tensor) -> Tensor:
    """(N, A, B) → the same shape: one softmax per picture over all A·B entries."""
    return x.flatten(1).softmax(dim=1).view_as(x)


def pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, H·W, C)."""
    return rearrange(x, "n c h w -> n (h w) c")


class SpatialGraph(nn.Module):
    """Graph convolution over the pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, channels // 2, 1)
        self.nu = nn.Conv2d(channels, channels // 2, 1)
        self.xi = nn.Conv2d(channels, channels // 2, 1)
        self.out = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape; the residual is left to the caller."""
        theta, nu, xi = (pixels(layer(x)) for layer in (self.theta, self.nu, self.xi))
        related = self.related(theta, nu, xi).to(x.dtype)
        return self.out(rearrange(related, "n (h w) c -> n c h w", h=x.shape[2]))

    @in_full_precision
    def related(self, theta: Tensor, nu: Tensor, xi: Tensor) -> Tensor:
        """Three times (N, H·W, C/2) → the same shape: every pixel as a sum of all pixels."""
        return theta @ (rearrange(softmax_over_all(nu), "n hw c -> n c hw") @ softmax_over_all(xi))


class DilatedConvolutions(nn.Module):
    """Two pairs of 3x3 convolutions, the second pair dilated by 3, fused with their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=3, dilation=3)
        self.conv4 = nn.Conv2d(channels, channels, 3, padding=3, dilation=3)
        self.fuse = nn.Conv2d(5 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        plain = F.relu(self.conv1(x))
        dilated = F.relu(self.conv3(x))
        parts = (x, plain, F.relu(self.conv2(plain)), dilated, F.relu(self.conv4(dilated)))
        return F.relu(self.fuse(torch.cat(parts, dim=1)))


class ChannelGraph(nn.Module):
    """Graph convolution over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.zeta = nn.Conv2d(channels, half, 1)
        self.kappa = nn.Conv2d(channels, quarter, 1)
        self.mix_c = nn.Conv2d(half, half, 1)
        self.mix_n = nn.Conv2d(quarter, quarter, 1)
        self.out = nn.Conv2d(quarter, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape; the residual is left to the caller."""
        related = self.related(pixels(self.zeta(x)), pixels(self.kappa(x))).to(x.dtype)
        return self.out(rearrange(related, "n (h w) c -> n c h w", h=x.shape[2]))

    @in_full_precision
    def related(self, zeta: Tensor, kappa: Tensor) -> Tensor:
        """(N, H·W, C/2), (N, H·W, C/4) → (N, H·W, C/4); the logits grow with the number of pixels."""
        states = softmax_over_all(rearrange(kappa, "n hw c -> n c hw") @ zeta)
        states = F.relu(states + F.linear(states, self.mix_c.weight.flatten(1), self.mix_c.bias))
        states = F.linear(rearrange(states, "n c d -> n d c"), self.mix_n.weight.flatten(1), self.mix_n.bias)
        return zeta @ states


class Unit(nn.Module):
    """Spatial graph, dilated convolutions and channel graph, with a residual around each graph and around all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sgcn = SpatialGraph(channels)
        self.dcm = DilatedConvolutions(channels)
        self.cgcn = ChannelGraph(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        local = self.dcm(x + self.sgcn(x))
        return local + self.cgcn(local) + x


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read all arguments of DualGCN from its weights."""
    channels, in_channels = state["head.0.weight"].shape[:2]
    return {"in_channels": in_channels, "channels": channels, "num_levels": count_modules(state, "encoder.")}


class DualGCN(RestorationNetwork):
    """Dual graph convolutional network; returns the input picture plus a predicted residual.

    Args:
        in_channels: channels of the picture.
        channels: of the features, divisible by 4.
        num_levels: units before and after the one in the middle.

    Raises:
        ValueError: a number of channels that 4 does not divide.
    """

    contract = Contract(
        sees_all_pixels="graph convolutions",
        recognition=Recognition(keys=("middle.sgcn.theta.weight", "head.0.weight"), arguments=arguments_of),
    )

    def __init__(self, in_channels: int = 3, channels: int = 72, num_levels: int = 5) -> None:
        if channels % 4 or channels <= 0:
            raise ValueError(f"channels must be a multiple of 4, not {channels}")
        super().__init__()
        self.contract = dataclasses.replace(self.contract, picture_channels=in_channels, bytes_per_pixel=136 * channels)
        self.head = nn.ModuleList(
            (nn.Conv2d(in_channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1))
        )
        self.encoder = nn.ModuleList(Unit(channels) for _ in range(num_levels))
        self.middle = Unit(channels)
        self.fuse = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1) for _ in range(num_levels))
        self.decoder = nn.ModuleList(Unit(channels) for _ in range(num_levels))
        self.tail = nn.ModuleList(
            (nn.Conv2d(2 * channels, channels, 3, padding=1), nn.Conv2d(channels, in_channels, 3, padding=1))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Derain pictures.

        Args:
            image: (N, in_channels, H, W), RGB in [0, 1], any size.

        Returns:
            The derained pictures, same shape, not clamped to [0, 1].

        Raises:
            ValueError: another number of channels.
        """
        if image.shape[1] != (wanted := self.contract.picture_channels):
            raise InputError(f"DualGCN was built for {wanted} channels, the picture has {image.shape[1]}")
        first = self.head[0](image)
        x = second = self.head[1](first)
        skips = []
        for unit in self.encoder:
            x = unit(x)
            skips.append(x)
        x = self.middle(x)
        for unit, fuse, skip in zip(reversed(self.decoder), reversed(self.fuse), reversed(skips), strict=True):
            x = unit(fuse(torch.cat((x, skip), dim=1)))
        x = F.relu(self.tail[0](torch.cat((x, second), dim=1))) + first
        return image + self.tail[1](x)
