"""NeRD-Rain: six passes through a U at three scales, tied together by implicit neural representations of the picture.

Chen, Pan, Dong: "Bidirectional Multi-Scale Implicit Neural Representations for Image Deraining", CVPR 2024,
arXiv 2404.01547. Parameter names are those of the authors' checkpoints; of their 947 tensors two are used by no
computation (`UNUSED_KEYS`) and are dropped when such a file is read. The blocks are Restormer's, with one key renamed.

Kept because the published weights were trained with it: pictures are made smaller by leaving pixels out and larger by
repeating them; the mid scale reads the sum of two pictures, not their mean; the third pass at full size reduces with
the convolution of the second. The representation's coordinates cancel out, as each pixel is compared with itself: what
is left of them is a constant, and the multi-layer perceptron of every pixel is written as the convolutions it is.

`network_g: {type: NeRDRain, fast: false}` runs what is written here. Without that the fast forms run, which compute
the same (`drsformer_arch.fast`).
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from drsformer_arch.archs import restormer_arch, spdnet_arch
from drsformer_arch.archs.contract import Contract, InputError, Recognition, RestorationNetwork, count_modules
from drsformer_arch.archs.u_shape import (
    ChannelReduction,
    Downsample,
    Level,
    NormType,
    PatchEmbedding,
    Upsample,
    shortest_factor,
)

__all__ = ["NeRDRain"]

COORDINATES = 18  # inputs of the representation that are zero at every pixel
CELL = 2.0  # both of its inputs that say how large a pixel is
HIDDEN = 256  # of the representation's layers


def every(step: int, x: Tensor) -> Tensor:
    """Keep the first of `step` rows and columns, (N, C, H, W) → (N, C, H/step, W/step)."""
    return x[:, :, ::step, ::step]


def repeated(x: Tensor) -> Tensor:
    """Show every pixel twice in each direction, (N, C, H, W) → (N, C, 2H, 2W)."""
    return repeat(x, "n c h w -> n c (h 2) (w 2)")


class DepthwiseConv(nn.Module):
    """Depth-wise 3x3 convolution under the key `main.0` that the checkpoints use."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias))

    @property
    def weight(self) -> Tensor:
        """Its weight, (C, 1, 3, 3)."""
        weight: Tensor = self.main[0].weight  # type: ignore[assignment]  # a convolution's
        return weight

    @property
    def bias(self) -> Tensor | None:
        """Its bias, (C,)."""
        bias: Tensor | None = self.main[0].bias  # type: ignore[assignment]  # a convolution's
        return bias

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return self.main(x)


class TransposedAttention(restormer_arch.TransposedAttention):
    """MDTA of Restormer, one key apart."""

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__(channels, heads, bias)
        self.qkv_dwconv = DepthwiseConv(3 * channels, bias)  # type: ignore[assignment]  # the same under another key


class GatedFeedForward(restormer_arch.GatedFeedForward):
    """GDFN of Restormer, one key apart."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__(channels, hidden, bias)
        self.dwconv = DepthwiseConv(2 * hidden, bias)  # type: ignore[assignment]  # the same under another key


class TransformerBlock(restormer_arch.TransformerBlock):
    """Block of Restormer, two keys apart."""

    attention = TransposedAttention
    feed_forward = GatedFeedForward


class MultiLayerPerceptron(nn.Module):
    """Holds the linear layers under the keys `layers.0`, `.2`, `.4` and `.6` that the checkpoints use."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        sizes = (inputs, HIDDEN, HIDDEN, HIDDEN, 3)
        layers: list[nn.Module] = []
        for given, made in itertools.pairwise(sizes):
            layers += [nn.Linear(given, made), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])


class ImplicitRepresentation(nn.Module):
    """INR: a perceptron paints every pixel from the 3x3 features around it, its coordinates and its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.imnet = MultiLayerPerceptron(9 * channels + COORDINATES + 2)

    def forward(self, features: Tensor) -> Tensor:
        """features: (N, C, H, W) → (N, 3, H, W)."""
        first, *others = (layer for layer in self.imnet.layers if isinstance(layer, nn.Linear))
        seen = 9 * features.shape[1]
        kernel = first.weight[:, :seen].unflatten(1, (-1, 3, 3))
        bias = first.bias + CELL * first.weight[:, seen + COORDINATES :].sum(dim=1)
        x = F.conv2d(features.to(kernel.dtype), kernel, bias, padding=1)
        for layer in others:
            x = F.conv2d(F.relu(x), layer.weight[:, :, None, None], layer.bias)
        return x


class BidirectionalFusion(spdnet_arch.PriorGuidance):
    """BF: two maps emphasise what they agree on as in SPDNet, and are added."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]  # the sum of what SPDNet takes apart
        """x, y: (N, C, H, W) each → the same shape; not symmetric."""
        guided_x, guided_y = super().forward(x, y)
        return guided_x + guided_y


class Pass(NamedTuple):
    """One pass through the U, by the words with which the checkpoints name its modules."""

    blocks: str  # encoder_level1_*, encoder_level2_*, latent_*, decoder_level2_*, decoder_level1_*
    resampling: str  # down1_2_*, down2_3_*, up3_2_*, up2_1_*
    reduction: str  # reduce_chan_level1_*; reduce_chan_level2_* is named after the blocks


SMALL = Pass("small", "small", "small")
MID1, MID2 = Pass("mid1", "mid", "mid1"), Pass("mid2", "mid2", "mid2")
MAX1, MAX2, MAX3 = Pass("max1", "max", "max1"), Pass("max2", "max2", "max2"), Pass("max3", "max3", "max2")
PASSES = (SMALL, MID1, MID2, MAX1, MAX2, MAX3)

UNUSED_KEYS = re.compile(r"^reduce_chan_level1_max3\.")


class Encoded(NamedTuple):
    """Features of a pass: (N, C, H, W), (N, 2C, H/2, W/2) and (N, 4C, H/4, W/4)."""

    level1: Tensor
    level2: Tensor
    latent: Tensor


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read all arguments of NeRD-Rain from its weights."""
    dim = state["patch_embed_max.proj.weight"].shape[0]
    levels = ("encoder_level1_small.", "encoder_level2_small.", "latent_small.")
    hidden = state["latent_small.0.ffn.project_in.weight"].shape[0] // 2
    return {
        "dim": dim,
        "num_blocks": [count_modules(state, level) for level in levels],
        "heads": [state[f"{level}0.attn.temperature"].shape[0] for level in levels],
        "ffn_expansion_factor": shortest_factor(4 * dim, hidden),
        "bias": "output_max.bias" in state,
        "LayerNorm_type": "WithBias" if "latent_small.0.norm1.body.bias" in state else "BiasFree",
    }


class NeRDRain(RestorationNetwork):
    """Bidirectional multi-scale network with implicit neural representations.

    NeRD-Rain has dim 48, NeRD-Rain-S 32.

    Args:
        inp_channels, out_channels: 3 and 3.
        dim: channels of the first level of every pass; the levels below have 2·dim and 4·dim.
        num_blocks: transformer blocks of the levels 1-3; the decoder mirrors the levels 1 and 2.
        heads: attention heads of the levels 1-3.
        ffn_expansion_factor: hidden channels of GDFN relative to its input.
        bias: biases in attention, feed-forward, channel reductions and output convolutions.
        LayerNorm_type: "WithBias" or "BiasFree".

    Raises:
        ValueError: arguments that do not fit together.
    """

    contract = Contract(
        size_multiple=16,
        smallest_size=16,
        sees_all_pixels="attention between channels",
        not_as_onnx="PyTorch's exporter does not come to an end with its four halvings and free sizes",
        window=256,
        output_scales=(1, 2, 4, 2, 2, 4, 4),
        unused_keys=UNUSED_KEYS,
        recognition=Recognition(
            keys=(
                "INR.imnet.layers.0.weight",
                "patch_embed_max.proj.weight",
                "latent_small.0.ffn.project_in.weight",
                "encoder_level1_small.0.attn.temperature",
                "encoder_level2_small.0.attn.temperature",
                "latent_small.0.attn.temperature",
            ),
            arguments=arguments_of,
        ),
    )

    def __init__(  # noqa: PLR0917 - the order of the published class; users pass names
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (2, 3, 3),
        heads: Sequence[int] = (1, 2, 4),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",
    ) -> None:
        if (inp_channels, out_channels) != (3, 3):
            raise ValueError(f"inp_channels and out_channels must be 3, not {inp_channels} and {out_channels}")
        if len(num_blocks) != 3 or len(heads) != 3:
            raise ValueError(f"num_blocks and heads need three entries each, not {num_blocks} and {heads}")
        super().__init__()

        def level(index: int) -> Level:
            channels = dim * 2**index
            hidden = int(channels * ffn_expansion_factor)
            block = (channels, heads[index], hidden, bias, LayerNorm_type)
            return Level(*(TransformerBlock(*block) for _ in range(num_blocks[index])))

        self.patch_embed_small = PatchEmbedding(3, dim)
        self.patch_embed_mid = PatchEmbedding(3, dim)
        self.patch_embed_max = PatchEmbedding(3, dim)
        for blocks, resampling, reduction in PASSES:
            self.add_module(f"encoder_level1_{blocks}", level(0))
            self.add_module(f"down1_2_{resampling}", Downsample(dim))
            self.add_module(f"encoder_level2_{blocks}", level(1))
            self.add_module(f"down2_3_{resampling}", Downsample(2 * dim))
            self.add_module(f"latent_{blocks}", level(2))
            self.add_module(f"up3_2_{resampling}", Upsample(4 * dim))
            self.add_module(f"reduce_chan_level2_{blocks}", ChannelReduction(4 * dim, bias))
            self.add_module(f"decoder_level2_{blocks}", level(1))
            self.add_module(f"up2_1_{resampling}", Upsample(2 * dim))
            if reduction == blocks:
                self.add_module(f"reduce_chan_level1_{blocks}", ChannelReduction(2 * dim, bias))
            self.add_module(f"decoder_level1_{blocks}", level(0))
        self.output_mid_context = nn.Conv2d(dim, dim, 3, padding=1, bias=bias)
        self.output_max_context1 = nn.Conv2d(dim, dim, 3, padding=1, bias=bias)
        self.output_max_context2 = nn.Conv2d(dim, dim, 3, padding=1, bias=bias)
        # From the latent features of a scale to its own size.
        self.upsmall2mid1, self.upsmall2mid2 = Upsample(4 * dim), Upsample(2 * dim)
        self.upmid2max1, self.upmid2max2 = Upsample(4 * dim), Upsample(2 * dim)
        self.INR, self.INR2 = ImplicitRepresentation(dim), ImplicitRepresentation(dim)
        self.BF1, self.BF2, self.BF3 = (BidirectionalFusion(4 * dim) for _ in range(3))
        self.output_small, self.output_mid, self.output_max = (
            nn.Conv2d(dim, 3, 3, padding=1, bias=bias) for _ in range(3)
        )

    def encode(self, which: Pass, x: Tensor) -> Encoded:
        """Go down the U of a pass, (N, C, H, W) → features of three levels."""
        level1 = self.get_submodule(f"encoder_level1_{which.blocks}")(x)
        x = self.get_submodule(f"down1_2_{which.resampling}")(level1)
        level2 = self.get_submodule(f"encoder_level2_{which.blocks}")(x)
        x = self.get_submodule(f"down2_3_{which.resampling}")(level2)
        return Encoded(level1, level2, self.get_submodule(f"latent_{which.blocks}")(x))

    def decode(self, which: Pass, latent: Tensor, encoded: Encoded) -> Tensor:
        """Go up the U of a pass with the skips of an encoder, (N, 4C, H/4, W/4) → (N, C, H, W)."""
        x = torch.cat((self.get_submodule(f"up3_2_{which.resampling}")(latent), encoded.level2), dim=1)
        x = self.get_submodule(f"reduce_chan_level2_{which.blocks}")(x)
        x = self.get_submodule(f"decoder_level2_{which.blocks}")(x)
        x = torch.cat((self.get_submodule(f"up2_1_{which.resampling}")(x), encoded.level1), dim=1)
        x = self.get_submodule(f"reduce_chan_level1_{which.reduction}")(x)
        return self.get_submodule(f"decoder_level1_{which.blocks}")(x)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Derain pictures.

        Args:
            image: (N, 3, H, W), RGB in [0, 1], H and W multiples of 16.

        Returns:
            Seven pictures, not clamped: the derained ones at full, half and quarter size; what the representations
            paint at half size, and half of what the mid scale reads there; what they paint at quarter size, and the
            rainy picture there. The loss uses the first four and the sixth.

        Raises:
            ValueError: another number of channels or a size that is no multiple of 16.
        """
        self.check(image)
        image_mid, image_small = every(2, image), every(4, image)

        # The representation of a coarse scale is what the next finer one begins with.
        small = self.encode(SMALL, self.patch_embed_small(image_small))
        painted_small = image_small + self.INR(self.upsmall2mid2(self.upsmall2mid1(small.latent)))
        read_mid = image_mid + repeated(painted_small)
        mid1 = self.encode(MID1, self.patch_embed_mid(read_mid))
        painted_mid = read_mid + self.INR2(self.upmid2max2(self.upmid2max1(mid1.latent)))

        max1 = self.encode(MAX1, self.patch_embed_max(image + repeated(painted_mid)))
        x = self.output_max_context1(self.decode(MAX1, max1.latent, max1))
        max2 = self.encode(MAX2, x)
        x = self.output_max_context2(self.decode(MAX2, max2.latent, max2))
        max3 = self.encode(MAX3, x)

        # Fine to coarse: latent features of a scale inform the one below.
        to_mid1, to_mid2 = every(2, self.BF1(max1.latent, max2.latent)), every(2, self.BF2(max2.latent, max3.latent))
        x = self.output_mid_context(self.decode(MID1, mid1.latent + to_mid1, mid1))
        mid2 = self.encode(MID2, x)
        to_small = every(2, self.BF3(mid1.latent, mid2.latent))

        # Coarse to fine: decoded features of a scale are added to the one above.
        small_features = self.decode(SMALL, small.latent + to_small, small)
        mid_features = self.decode(MID2, mid2.latent + to_mid2, mid2) + repeated(small_features)
        max_features = self.decode(MAX3, max3.latent, max3) + repeated(mid_features)
        return (
            image + self.output_max(max_features),
            image_mid + self.output_mid(mid_features),
            image_small + self.output_small(small_features),
            painted_mid,
            read_mid / 2,
            painted_small,
            image_small,
        )

    def check(self, image: Tensor) -> None:
        """Refuse pictures that the network was not built for, see `forward`."""
        channels, height, width = image.shape[1:]
        if channels != 3:
            raise InputError(f"NeRDRain takes 3 channels, the picture has {channels}")
        if height % 16 or width % 16:
            raise InputError(f"height and width must be multiples of 16, not {height}x{width}")
