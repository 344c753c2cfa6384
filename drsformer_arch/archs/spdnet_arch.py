"""SPDNet: three stages of wavelet-domain residual branches, guided by the residue channel of the previous result.

Yi, Li, Dai, Fang, Zhang, Zeng: "Structure-Preserving Deraining with Residue Channel Prior Guidance", ICCV 2021,
arXiv 2108.09079. Parameter names are those of the authors' checkpoints. Of their 930 tensors 198 are used by no
computation (`UNUSED_KEYS`); they are dropped when such a file is read, the network does not have them.

Kept because the published weights were trained with it: pictures in 0 to 255; the wavelet's factor, which is not
exactly 1/2; bands that are written in one order and read in another; UP, which doubles the size of what already has it
and shrinks the result to its nearest pixels.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs.contract import Contract, InputError, Recognition, RestorationNetwork, count_modules
from drsformer_arch.archs.precision import in_full_precision

__all__ = ["SPDNet"]

HAAR = 0.7071067690849304**2  # the authors' filters hold 1/sqrt(2) in float32


def haar(x: Tensor) -> Tensor:
    """Haar transform, (N, C, H, W) → (N, 4C, ceil(H/2), ceil(W/2)).

    The channels are three details and the mean: first one detail of all C channels, then the next.
    """
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    a, b, c, d = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).unbind(2)  # of each 2x2 block, row by row
    bands = (a + b - c - d, a - b + c - d, a - b - c + d, a + b + c + d)
    return HAAR * torch.cat(bands, dim=1)


def inverse_haar(x: Tensor) -> Tensor:
    """Inverse transform, (N, 4C, H, W) → (N, C, 2H, 2W), of mean and details channel by channel."""
    mean, first, second, third = x.unflatten(1, (-1, 4)).unbind(2)
    blocks = (
        mean + first + second + third,
        mean + first - second - third,
        mean - first + second - third,
        mean - first - second + third,
    )
    return F.pixel_shuffle(HAAR * torch.stack(blocks, dim=2).flatten(1, 2), 2)


def nearest(x: Tensor, height: int, width: int) -> Tensor:
    """(N, C, h, w) → (N, C, height, width), as `F.interpolate` chooses the nearest pixels."""
    if not torch.compiler.is_compiling():
        return F.interpolate(x, size=(height, width), mode="nearest")
    # In a graph for all sizes the choice is spelled out: ONNX rounds otherwise and takes a neighbour here and there.
    rows, columns = (
        (torch.arange(length, dtype=torch.float32, device=x.device) * (given / length)).long()
        for length, given in ((height, x.shape[2]), (width, x.shape[3]))
    )
    return x.index_select(2, rows).index_select(3, columns)


def residue_channel(image: Tensor) -> Tensor:
    """The residue channel prior: largest minus smallest channel, (N, 3, H, W) → the same shape, channels equal."""
    return (image.max(dim=1, keepdim=True).values - image.min(dim=1, keepdim=True).values).expand_as(image)


class ConvReLU(nn.Module):
    """3x3 convolution with reflecting border, and ReLU."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, channels, H, W) → (N, out_channels, H, W)."""
        return F.relu(self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect")))


class SqueezeExcitation(nn.Module):
    """Scales the channels by what two linear layers make of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class ResidualBlock(nn.Module):
    """Two convolutions, each with a ReLU, and squeeze-and-excitation beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.module_body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.se = SqueezeExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return x + self.se(self.module_body(x))


class ResidualGroup(nn.Module):
    """Residual blocks and a convolution beside the identity, then ReLU."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.module_body = nn.Sequential(
            *(ResidualBlock(channels) for _ in range(blocks)), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return F.relu(x + self.module_body(x))


class Up(nn.Module):
    """Transposed convolution, ReLU, and the nearest pixels at the size of another feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv2d = nn.ConvTranspose2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """x: (N, C, h, w) → (N, C, H, W), the size of `like`."""
        x = F.relu(self.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect")))
        return nearest(x, *like.shape[2:])


class Fuse(nn.Module):
    """Adds a coarser feature map to a finer one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = Up(channels)
        self.rb = ResidualBlock(channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """coarse: (N, C, h, w), fine: (N, C, H, W) → (N, C, H, W)."""
        return F.relu(self.rb(self.up(coarse, fine) + fine))


class PriorGuidance(nn.Module):
    """Lets features of the picture and of the residue channel emphasise what they agree on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.key_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma1 = nn.Conv2d(2 * channels, 2, 3, padding=1)
        self.gamma2 = nn.Conv2d(2 * channels, 2, 3, padding=1)

    def forward(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """x, prior: (N, C, H, W) each → the same two, guided by each other."""
        agreement = torch.sigmoid(self.query_conv(x) * self.key_conv(prior))

        def guided(plain: Tensor, gamma: nn.Conv2d) -> Tensor:
            agreed = plain * agreement
            keep, add = gamma(torch.cat((plain, agreed), dim=1)).split(1, dim=1)
            return plain * keep + agreed * add

        return guided(x, self.gamma1), guided(prior, self.gamma2)


class PriorFeatures(nn.Module):
    """Features of the residue channel."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.conv_init1 = ConvReLU(3, channels // 2)
        self.conv_init2 = ConvReLU(channels // 2, channels)
        self.extra = ResidualGroup(channels, blocks)

    def forward(self, image: Tensor) -> Tensor:
        """image: (N, 3, H, W) → (N, C, H, W)."""
        return self.extra(self.conv_init2(self.conv_init1(residue_channel(image))))


class WaveletStage(nn.Module):
    """Residual branches at three scales, which Haar transforms connect."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.prior = PriorGuidance(channels)
        self.fuse_res = ConvReLU(2 * channels, channels)
        self.DWT_2 = ConvReLU(4 * channels, channels)
        self.DWT_3 = ConvReLU(4 * channels, channels)
        self.IDWT_2 = ConvReLU(channels, 4 * channels)
        self.IDWT_3 = ConvReLU(channels, 4 * channels)
        for scale in (1, 2, 3):
            for place in (1, 2, 3):
                self.add_module(f"branch{scale}_{place}", ResidualGroup(channels, blocks))
        self.fuse12 = Fuse(channels)
        self.fuse23 = Fuse(channels)

    def branch(self, scale: int, x: Tensor) -> Tensor:
        """The three groups of one scale, (N, C, H, W) → the same shape."""
        for place in (1, 2, 3):
            x = self.get_submodule(f"branch{scale}_{place}")(x)
        return x

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """x, prior: (N, C, H, W) each → (N, C, H, W)."""
        fine = self.fuse_res(torch.cat(self.prior(x, prior), dim=1))
        middle = self.DWT_2(haar(fine))
        coarse = self.DWT_3(haar(middle))
        coarse = inverse_haar(self.IDWT_3(self.branch(3, coarse)))
        middle = inverse_haar(self.IDWT_2(self.fuse23(coarse, self.branch(2, middle))))
        return self.fuse12(middle, self.branch(1, fine))


UNUSED_KEYS = re.compile(
    r"\.ins\.(weight|bias)$"
    r"|^sub[123]\.(down[23]|branch1_[12]_d|branch2_[12]_[ud]|branch3_[12]_u|fuse(12|23)\.conv)\."
    r"|^sub[123]\.I?DWT\.[hg][01]_(col|row)$"
)


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read all arguments of SPDNet from its weights."""
    blocks = count_modules(state, "res_extra1.extra.module_body.") - 1
    return {"n_feats": state["output1.weight"].shape[1], "n_resblocks": blocks}


class SPDNet(RestorationNetwork):
    """Structure-preserving deraining network; returns the pictures of its three stages, the last and best one first.

    Args:
        n_feats: channels of the features.
        n_resblocks: residual blocks of a group.

    Raises:
        ValueError: an odd number of channels.
    """

    contract = Contract(
        value_range=255.0,
        smallest_size=5,
        sees_all_pixels="squeeze-and-excitation",
        output_scales=(1, 1, 1),
        unused_keys=UNUSED_KEYS,
        recognition=Recognition(keys=("sub1.DWT_2.conv.weight", "output1.weight"), arguments=arguments_of),
    )

    def __init__(self, n_feats: int = 32, n_resblocks: int = 3) -> None:
        if n_feats % 2 or n_feats <= 0:
            raise ValueError(f"n_feats must be even, not {n_feats}")
        super().__init__()
        self.bytes_per_pixel = 136 * n_feats
        self.conv_init1 = ConvReLU(3, n_feats // 2)
        self.conv_init2 = ConvReLU(n_feats // 2, n_feats)
        self.res_extra1, self.res_extra2, self.res_extra3 = (PriorFeatures(n_feats, n_resblocks) for _ in range(3))
        self.sub1, self.sub2, self.sub3 = (WaveletStage(n_feats, n_resblocks) for _ in range(3))
        self.output1, self.output2, self.output3 = (nn.Conv2d(n_feats, 3, 3, padding=1) for _ in range(3))
        self.ag1 = ConvReLU(2 * n_feats, n_feats)
        self.ag2 = ConvReLU(3 * n_feats, n_feats)
        self.ag2_en = ConvReLU(2 * n_feats, n_feats)
        self.ag_en = ConvReLU(3 * n_feats, n_feats)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Derain pictures.

        Args:
            image: (N, 3, H, W), RGB in [0, 255], H and W at least 5.

        Returns:
            The pictures after the third, the second and the first stage, each the shape of `image`, not clamped.

        Raises:
            ValueError: another number of channels, or pictures too small for the third scale.
        """
        if image.shape[1] != 3:
            raise InputError(f"SPDNet takes 3 channels, the picture has {image.shape[1]}")
        smallest, (height, width) = self.contract.smallest_size, image.shape[2:]
        if min(height, width) < smallest:
            raise InputError(f"SPDNet takes {smallest}x{smallest} pixels or more, the picture has {height}x{width}")
        x = self.conv_init2(self.conv_init1(image))
        first = self.sub1(x, self.res_extra1(image))
        out1 = self.picture(self.output1, first)
        second = self.sub2(self.ag1(torch.cat((first, x), dim=1)), self.res_extra2(out1))
        out2 = self.picture(self.output2, self.ag2_en(torch.cat((second, first), dim=1)))
        third = self.sub3(self.ag2(torch.cat((second, first, x), dim=1)), self.res_extra3(out2))
        out3 = self.picture(self.output3, self.ag_en(torch.cat((third, second, first), dim=1)))
        return out3, out2, out1

    @staticmethod
    @in_full_precision
    def picture(layer: nn.Module, features: Tensor) -> Tensor:
        """(N, C, H, W) → (N, 3, H, W); not in bfloat16, whose 8 bits end at 256 levels."""
        return layer(features)
