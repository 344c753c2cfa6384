"""What Restormer (arXiv 2111.09881) and DRSformer share: norm, block, resampling and the U shape around them."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from drsformer_arch.fast.channel_attention import ChannelAttention
from drsformer_arch.fast.tiles import WIDER, Tiled, at_least_float32, is_one_tile, replace_by_tiles, tiles

from .contract import RestorationNetwork, count_modules

NormType = Literal["WithBias", "BiasFree"]
Network = TypeVar("Network", bound="UShapedTransformer")


class LayerNormBody(nn.Module):
    """Holds the affine parameters under the key `body` that the checkpoints use."""

    def __init__(self, channels: int, with_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if with_bias else None


class LayerNorm(nn.Module):
    """Normalises the channels of every pixel (biased variance, eps 1e-5 inside the root), in float32 or better.

    `BiasFree` divides by the deviation without subtracting the mean, and has no bias (Restormer, arXiv 2111.09881).
    """

    def __init__(self, channels: int, norm_type: NormType) -> None:
        super().__init__()
        if norm_type not in ("WithBias", "BiasFree"):
            raise ValueError(f"LayerNorm_type must be 'WithBias' or 'BiasFree', not {norm_type!r}")
        self.body = LayerNormBody(channels, with_bias=norm_type == "WithBias")

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape and type."""
        weight, bias = self.body.weight, self.body.bias
        last = x.permute(0, 2, 3, 1)
        if bias is not None:
            # It sums in float32 whatever the type of its arguments, which must all be the same on GPUs.
            last = F.layer_norm(last, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps=1e-5)
        else:
            precise = at_least_float32(last)
            variance = precise.var(dim=-1, keepdim=True, correction=0)
            last = (precise * torch.rsqrt(variance + 1e-5) * weight).to(x.dtype)
        return last.permute(0, 3, 1, 2)


class TransformerBlock(Tiled, nn.Module):
    """x + attention(LN(x)), then x + feed-forward(LN(x)).

    Args:
        attention: attention between channels.
        feed_forward: maps (N, C, H, W) to the same shape.
        halo: rows and columns around a pixel that its result of the feed-forward depends on.
    """

    def __init__(
        self, channels: int, attention: ChannelAttention, feed_forward: nn.Module, halo: int, norm_type: NormType
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, norm_type)
        self.attn = attention
        self.norm2 = LayerNorm(channels, norm_type)
        self.ffn = feed_forward
        self.halo = halo

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W), overwritten where it is computed in tiles → the same shape."""
        return replace_by_tiles(lambda part: part + self.ffn(self.norm2(part)), self.attend(x), self.halo, self.tile)

    def attend(self, x: Tensor) -> Tensor:
        """x + attention(LN(x)), likewise."""
        tile, halo = WIDER * self.tile, self.attn.halo
        if is_one_tile(x, tile):
            return x + self.attn(self.norm1(x))
        # The maps need all pixels: a first round over the tiles is for them, a second one applies them.
        parts = tiles(x, halo, tile)
        weights = self.attn.weights(self.attn.correlations(self.norm1(part), *inside) for part, *inside in parts)
        return replace_by_tiles(lambda part: part + self.attn.apply_weights(self.norm1(part), weights), x, halo, tile)


class Checkpointed(nn.Module):
    """Runs inner blocks; in training they can be computed again in the backward pass instead of stored."""

    checkpointing = False

    def run(self, block: nn.Module, *inputs: Tensor, **named: Any) -> Tensor:
        """The block's result; with checkpointing only its inputs are kept for the backward pass."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
        return block(*inputs, **named)


class Level(Checkpointed, nn.Sequential):
    """Blocks one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        for block in self:
            x = self.run(block, x)
        return x


class Arrangeable(nn.Module):
    """Computes from its parameters, in every pass, weights in another order; for inference that is done once."""

    def arranged(self) -> nn.Module:
        """A module that computes the same and holds the weights of this moment in their final order.

        It holds nothing else, so that there is nothing they could disagree with, and is saved and loaded under the
        keys of this one.
        """
        raise NotImplementedError


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


class UShapedTransformer(RestorationNetwork):
    """Encoder and decoder of four levels with skips; the input picture is added to the output.

    Level i has dim·2^(i-1) channels at 1/2^(i-1) of the size; level 1 decodes at 2·dim, its skip is not reduced.

    Args:
        make_block: (channels, heads) → a block of the network.
        encoder_level0: follows the embedding.
        refinement: follows the decoder, at 2·dim channels.
        use_checkpoint: compute the blocks again in the backward pass instead of storing what they hold.
        others: see the networks.
    """

    size_multiple = 8  # three halvings

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
        self.inp_channels = self.picture_channels = inp_channels
        self.bytes_per_pixel = 52 * dim  # of the fused form at 512x512, on CPUs; larger pictures take less
        self.feature_dtype: torch.dtype | None = None  # set by the fused form

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
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = level(4 * dim, 2)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(2 * dim, 1)
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = level(2 * dim, 0)
        self.refinement = refinement
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)
        for module in self.modules():
            if isinstance(module, Checkpointed):
                module.checkpointing = use_checkpoint

    def forward(self, image: Tensor) -> Tensor:
        """Derain pictures.

        Args:
            image: (N, inp_channels, H, W), RGB in [0, 1], H and W multiples of 8.

        Returns:
            The derained pictures, same shape, not clamped to [0, 1].

        Raises:
            ValueError: another number of channels or a size that is no multiple of 8.
        """
        name = type(self).__name__
        channels, height, width = image.shape[1:]
        if channels != self.inp_channels:
            raise ValueError(f"{name} was built for {self.inp_channels} channels, the picture has {channels}")
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(f"height and width must be multiples of {self.size_multiple}, not {height}x{width}")
        return self.reconstruct(image)

    def reconstruct(self, image: Tensor) -> Tensor:
        """The result for pictures of the right size; first and last convolution keep the image's type."""
        return self.output(self.decoded(image).to(image.dtype)) + image

    def embedded(self, image: Tensor) -> Tensor:
        """(N, inp_channels, H, W) → (N, dim, H, W), in channels-last memory."""
        return self.patch_embed(image.contiguous(memory_format=torch.channels_last))

    def decoded(self, image: Tensor) -> Tensor:
        """(N, inp_channels, H, W) → (N, 2·dim, H, W): everything but the last convolution.

        No name outlives its use: on large pictures every tensor that is held counts.
        """
        x = self.embedded(image)
        x = self.encoder_level0(x if self.feature_dtype is None else x.to(self.feature_dtype))
        x = self.encoder_level1(x)
        skips = [x]
        x = self.encoder_level2(self.down1_2(x))
        skips.append(x)
        x = self.encoder_level3(self.down2_3(x))
        skips.append(x)
        x = self.latent(self.down3_4(x))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat((self.up4_3(x), skips.pop()), dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat((self.up3_2(x), skips.pop()), dim=1)))
        x = self.decoder_level1(torch.cat((self.up2_1(x), skips.pop()), dim=1))
        return self.refinement(x)

    def fused(self: Network, dtype: torch.dtype | None = None, tile: int | None = None) -> Network:
        """The same function for inference: weights arranged once, the inside of blocks computed in tiles, in place.

        The result is a network of its own: training this one on does not change it. It is saved and loaded under the
        same keys.

        Args:
            dtype: of the features and convolutions, for example torch.bfloat16; normalisation, attention scores,
                gates, the first and the last convolution keep the type of this network. Default: all keep it.
            tile: side of a feed-forward's tile in pixels of each level, half that of the other parts; 0 computes whole
                pictures, for export and torch.compile. Default: 128 on CPUs, where tiles in the cache are also
                faster, and 512 elsewhere, where only memory gains.
        """
        if tile is None:
            tile = 128 if self.output.weight.device.type == "cpu" else 512
        net = copy.deepcopy(self).eval().requires_grad_(False)
        net.feature_dtype = dtype
        for module in list(net.modules()):
            if isinstance(module, Tiled):
                module.tile = tile
            for name, child in list(module.named_children()):
                if isinstance(child, Arrangeable):
                    setattr(module, name, child.arranged().to(dtype))
                elif isinstance(child, nn.Conv2d) and name not in ("proj", "output", "skip_conv"):
                    child.to(dtype)
        return net

    @classmethod
    def arguments_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The arguments that both networks have."""
        dim, inp_channels = state["patch_embed.proj.weight"].shape[:2]
        levels = [*(f"encoder_level{i}." for i in (1, 2, 3)), "latent."]
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
    """The factor with the fewest decimals that makes `hidden` of `channels`, rounded down."""
    for decimals in range(6):
        factor = math.ceil(hidden / channels * 10**decimals) / 10**decimals
        if int(channels * factor) == hidden:
            return factor
    return (hidden + 0.5) / channels
