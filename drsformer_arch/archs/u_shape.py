"""The parts that Restormer's family shares: norm, resampling, and the U of four levels.

Zamir, Arora, Khan, Hayat, Khan, Yang: "Restormer: Efficient Transformer for High-Resolution Image Restoration",
CVPR 2022, arXiv 2111.09881, figure 2. A network gives the U its blocks; everything here has the keys of the published
checkpoints.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from drsformer_arch.archs.contract import Contract, InputError, RestorationNetwork, count_modules
from drsformer_arch.archs.precision import at_least_float32

NormType = Literal["WithBias", "BiasFree"]
Network = TypeVar("Network", bound="UShape")


class LayerNormBody(nn.Module):
    """Holds the affine parameters under the key `body` that the checkpoints use."""

    def __init__(self, channels: int, with_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if with_bias else None


class LayerNorm(nn.Module):
    """Normalises the channels of every pixel: biased variance, 1e-5 inside the root.

    `BiasFree` divides by the deviation without subtracting the mean, and has no bias.
    """

    def __init__(self, channels: int, norm_type: NormType) -> None:
        super().__init__()
        if norm_type not in ("WithBias", "BiasFree"):
            raise ValueError(f"LayerNorm_type must be 'WithBias' or 'BiasFree', not {norm_type!r}")
        self.body = LayerNormBody(channels, with_bias=norm_type == "WithBias")

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        pixels = rearrange(x, "n c h w -> n (h w) c")
        weight, bias = self.body.weight, self.body.bias
        if bias is not None:
            pixels = F.layer_norm(pixels, weight.shape, weight, bias, eps=1e-5)
        else:
            precise = at_least_float32(pixels)
            deviation = torch.sqrt(precise.var(dim=-1, keepdim=True, correction=0) + 1e-5)
            pixels = (precise / deviation * weight).to(x.dtype)
        return rearrange(pixels, "n hw c -> n c hw").reshape(x.shape)


class Checkpointed(nn.Module):
    """Runs inner blocks; in training they can be computed again in the backward pass instead of stored."""

    checkpointing = False

    def run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """The block's result; with checkpointing only its inputs are kept for the backward pass."""
        if self.checkpointing and torch.is_grad_enabled():
            result: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
            return result
        return block(*inputs)


class Level(Checkpointed, nn.Sequential):
    """One level of the U: blocks one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        for block in self:
            x = self.run(block, x)
        return x


class PatchEmbedding(nn.Module):
    """3x3 convolution from pictures to features, never with a bias."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, in_channels, H, W) → (N, channels, H, W)."""
        return self.proj(x)


class Downsample(nn.Module):
    """Half the size, twice the channels: 3x3 convolution, pixel-unshuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → (N, 2C, H/2, W/2)."""
        return self.body(x)


class Upsample(nn.Module):
    """Twice the size, half the channels: 3x3 convolution, pixel-shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → (N, C/2, 2H, 2W)."""
        return self.body(x)


class ChannelReduction(nn.Conv2d):
    """1x1 convolution from up-sampled and skipped features together to half of their channels."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__(channels, channels // 2, 1, bias=bias)


class UShape(RestorationNetwork):
    """Encoder and decoder of four levels with skips; the input picture is added to the output.

    Level i has dim·2^(i-1) channels at 1/2^(i-1) of the size. Level 1 decodes at 2·dim: its skip is not reduced.

    Args:
        make_block: (channels, heads) → a block of the network, (N, C, H, W) → the same shape.
        encoder_level0: follows the embedding.
        refinement: follows the decoder, at 2·dim channels.
        use_checkpoint: in training, compute blocks again in the backward pass instead of storing what they hold.
        others: see the networks.
    """

    contract = Contract(size_multiple=8, sees_all_pixels="attention between channels")  # three halvings

    def __init__(
        self,
        *,
        inp_channels: int,
        out_channels: int,
        dim: int,
        num_blocks: Sequence[int],
        heads: Sequence[int],
        bias: bool,
        make_block: Callable[[int, int], nn.Module],
        encoder_level0: nn.Module,
        refinement: nn.Module,
        use_checkpoint: bool,
    ) -> None:
        super().__init__()
        if len(num_blocks) != 4 or len(heads) != 4:
            raise ValueError(f"num_blocks and heads need four entries each, not {num_blocks} and {heads}")
        self.contract = dataclasses.replace(self.contract, picture_channels=inp_channels)

        def level(channels: int, index: int) -> Level:
            return Level(*(make_block(channels, heads[index]) for _ in range(num_blocks[index])))

        self.patch_embed = PatchEmbedding(inp_channels, dim)
        self.encoder_level0 = encoder_level0
        self.encoder_level1 = level(dim, 0)
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = level(2 * dim, 1)
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = level(4 * dim, 2)
        self.down3_4 = Downsample(4 * dim)
        self.latent = level(8 * dim, 3)
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = ChannelReduction(8 * dim, bias)
        self.decoder_level3 = level(4 * dim, 2)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = ChannelReduction(4 * dim, bias)
        self.decoder_level2 = level(2 * dim, 1)
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = level(2 * dim, 0)
        self.refinement = refinement
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)
        self.checkpoint_blocks(use_checkpoint)

    def checkpoint_blocks(self, use_checkpoint: bool) -> None:
        """Let all blocks be computed again in the backward pass, or stored; call it again after adding some."""
        for module in self.modules():
            if isinstance(module, Checkpointed):
                module.checkpointing = use_checkpoint

    def forward(self, image: Tensor) -> Tensor:
        """Restore pictures.

        Args:
            image: (N, inp_channels, H, W), RGB in [0, 1], H and W multiples of 8.

        Returns:
            The restored pictures, same shape, not clamped to [0, 1].

        Raises:
            ValueError: another number of channels or a size that is no multiple of 8.
        """
        self.check(image)
        return self.output(self.features(image)) + image

    def features(self, image: Tensor) -> Tensor:
        """(N, inp_channels, H, W) → (N, 2·dim, H, W): the way through the U, everything but the last convolution."""
        x = self.encoder_level1(self.encoder_level0(self.patch_embed(image)))
        skips = [x]  # no name outlives its use: of large pictures every map that is held counts
        x = self.encoder_level2(self.down1_2(x))
        skips.append(x)
        x = self.encoder_level3(self.down2_3(x))
        skips.append(x)
        x = self.latent(self.down3_4(x))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat((self.up4_3(x), skips.pop()), dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat((self.up3_2(x), skips.pop()), dim=1)))
        x = self.decoder_level1(torch.cat((self.up2_1(x), skips.pop()), dim=1))
        return self.refinement(x)

    def check(self, image: Tensor) -> None:
        """Refuse pictures that the network was not built for, see `forward`."""
        channels, height, width = image.shape[1:]
        wanted, multiple = self.contract.picture_channels, self.contract.size_multiple
        if channels != wanted:
            raise InputError(f"{type(self).__name__} was built for {wanted} channels, the picture has {channels}")
        if height % multiple or width % multiple:
            raise InputError(f"height and width must be multiples of {multiple}, not {height}x{width}")

    def fused(self: Network, dtype: torch.dtype | None = None, tile: int | None = None) -> Network:
        """Return the same function for inference, faster and in less memory, see `drsformer_arch.fast.fuse`."""
        from drsformer_arch.fast import fuse  # noqa: PLC0415 - the plain networks need no fast form

        return fuse(self, dtype, tile)


KEYS = (
    "patch_embed.proj.weight",
    "latent.0.ffn.project_in.weight",
    "encoder_level1.0.attn.temperature",
    "encoder_level2.0.attn.temperature",
    "encoder_level3.0.attn.temperature",
    "latent.0.attn.temperature",
    "output.weight",
)  # of all weights of this family


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the arguments that all networks of this family have from weights that have `KEYS`."""
    dim, inp_channels = state["patch_embed.proj.weight"].shape[:2]
    levels = ("encoder_level1.", "encoder_level2.", "encoder_level3.", "latent.")
    hidden = state["latent.0.ffn.project_in.weight"].shape[0] // 2
    return {
        "inp_channels": inp_channels,
        "out_channels": state["output.weight"].shape[0],
        "dim": dim,
        "num_blocks": [count_modules(state, level) for level in levels],
        "heads": [state[f"{level}0.attn.temperature"].shape[0] for level in levels],
        "ffn_expansion_factor": shortest_factor(8 * dim, hidden),
        "bias": "output.bias" in state,
        "LayerNorm_type": "WithBias" if "latent.0.norm1.body.bias" in state else "BiasFree",
    }


def shortest_factor(channels: int, hidden: int) -> float:
    """The factor with the fewest decimals that makes `hidden` of `channels`, rounded down.

    >>> shortest_factor(48, 127)
    2.65
    """
    for decimals in range(6):
        factor = math.ceil(hidden / channels * 10**decimals) / 10**decimals
        if int(channels * factor) == hidden:
            return factor
    return (hidden + 0.5) / channels
