"""DRSformer: a U-shaped transformer that keeps only the strongest attention scores between channels.

Chen, Li, Li, Pan: "Learning A Sparse Transformer Network for Effective Image Deraining", CVPR 2023, arXiv 2303.11950.
Only torch and einops are needed: the file can be copied into another project as it is.

The parameter names are those of the published checkpoints (924 tensors with MEFC, 730 without). Where the paper and the
published weights disagree, this file computes what the weights were trained for:

- MEFC applies a ReLU after the sum of a step and its input; the paper's equation omits it.
- MSFN shares one 1x1 convolution between its two branches; the paper's figure draws one per branch.
- "Learnable top-k" means that the mixture of four fixed k is learned, not k itself.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["DRSformer"]

TOP_K_SHARES = ((1, 2), (2, 3), (3, 4), (4, 5))  # k of the four sparse maps as fractions of the channels per head
SEPARABLE, DILATED, POOL = "separable", "dilated", "pool"
EXPERTS = (  # kind and kernel size, in the order of the checkpoint
    (SEPARABLE, 1),
    (SEPARABLE, 3),
    (SEPARABLE, 5),
    (SEPARABLE, 7),
    (DILATED, 3),
    (DILATED, 5),
    (DILATED, 7),
    (POOL, 3),
)
MEFC_STEPS = 4
NormType = Literal["WithBias", "BiasFree"]


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors become float32; float32 and float64 pass through."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class LayerNormBody(nn.Module):
    """Holds the affine parameters under the key `body` that the checkpoints use."""

    def __init__(self, channels: int, with_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if with_bias else None


class LayerNorm(nn.Module):
    """Normalises the channels of every pixel (biased variance, eps 1e-5 inside the root).

    `BiasFree` divides by the deviation without subtracting the mean, and has no bias (Restormer, arXiv 2111.09881).
    """

    def __init__(self, channels: int, norm_type: NormType) -> None:
        super().__init__()
        if norm_type not in ("WithBias", "BiasFree"):
            raise ValueError(f"LayerNorm_type must be 'WithBias' or 'BiasFree', not {norm_type!r}")
        self.body = LayerNormBody(channels, with_bias=norm_type == "WithBias")

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        pixels = at_least_float32(x).permute(0, 2, 3, 1)
        weight, bias = self.body.weight, self.body.bias
        if bias is not None:
            pixels = F.layer_norm(pixels, weight.shape, weight, bias, eps=1e-5)
        else:
            variance = pixels.var(dim=-1, keepdim=True, correction=0)
            pixels = pixels * torch.rsqrt(variance + 1e-5) * weight
        return pixels.permute(0, 3, 1, 2)


class TopKSparseAttention(nn.Module):
    """TKSA: attention between channels that keeps the k largest scores of each row (paper, section 3.2).

    The scores are a (C/h) x (C/h) map per head. Four softmax maps with growing k are mixed with learned weights. As
    the k largest scores are among the k+1 largest, one descending order of each row serves all four maps; and as
    everything after the softmax is linear, the maps are summed before the one product with the values.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        if channels % heads or channels // heads < 2:
            raise ValueError(f"{channels} channels do not split into {heads} heads of at least 2 channels each")
        self.heads = heads
        per_head = channels // heads
        self.top_k = tuple(per_head * numerator // denominator for numerator, denominator in TOP_K_SHARES)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)
        self.attn1 = nn.Parameter(torch.tensor([0.2]))
        self.attn2 = nn.Parameter(torch.tensor([0.2]))
        self.attn3 = nn.Parameter(torch.tensor([0.2]))
        self.attn4 = nn.Parameter(torch.tensor([0.2]))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        height, width = x.shape[-2:]
        qkv = rearrange(self.qkv_dwconv(self.qkv(x)), "n (part h c) y x -> part n h c (y x)", part=3, h=self.heads)
        query, key, value = qkv.unbind(0)
        # Sums over all pixels and the choice of the top k need float32, also inside torch.autocast.
        with torch.autocast(x.device.type, enabled=False):
            query = F.normalize(at_least_float32(query), dim=-1)
            key = F.normalize(at_least_float32(key), dim=-1)
            attention = self.sparse_softmax(query @ key.transpose(-2, -1) * self.temperature)
        mixed = attention.to(value.dtype) @ value
        return self.project_out(rearrange(mixed, "n h c (y x) -> n (h c) y x", y=height, x=width))

    def sparse_softmax(self, scores: Tensor) -> Tensor:
        """Weighted sum of the four sparse softmax maps; scores: (N, heads, C/h, C/h), attends along the last axis."""
        largest, where = scores.topk(max(self.top_k), dim=-1)
        mixture = torch.zeros_like(largest)
        for k, weight in zip(self.top_k, (self.attn1, self.attn2, self.attn3, self.attn4), strict=True):
            mixture = mixture + weight * F.pad(largest[..., :k].softmax(dim=-1), (0, largest.shape[-1] - k))
        return torch.zeros_like(scores).scatter(-1, where, mixture)


class MixedScaleFeedForward(nn.Module):
    """MSFN: feed-forward with crossing 3x3 and 5x5 depth-wise branches (paper, section 3.3)."""

    def __init__(self, channels: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)

        def conv(inputs: int, outputs: int, kernel: int, groups: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)

        self.project_in = conv(channels, 2 * hidden, 1, groups=1)
        self.dwconv3x3 = conv(2 * hidden, 2 * hidden, 3, groups=2 * hidden)
        self.dwconv5x5 = conv(2 * hidden, 2 * hidden, 5, groups=2 * hidden)
        # Each group mixes two adjacent channels of the concatenated branches.
        self.dwconv3x3_1 = conv(2 * hidden, hidden, 3, groups=hidden)
        self.dwconv5x5_1 = conv(2 * hidden, hidden, 5, groups=hidden)
        self.project_out = conv(2 * hidden, channels, 1, groups=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = self.project_in(x)
        small_a, small_b = F.relu(self.dwconv3x3(x)).chunk(2, dim=1)
        large_a, large_b = F.relu(self.dwconv5x5(x)).chunk(2, dim=1)
        small = F.relu(self.dwconv3x3_1(torch.cat((small_a, large_a), dim=1)))
        large = F.relu(self.dwconv5x5_1(torch.cat((small_b, large_b), dim=1)))
        return self.project_out(torch.cat((small, large), dim=1))


class SparseTransformerBlock(nn.Module):
    """STB: x + TKSA(LN(x)), then x + MSFN(LN(x)) (paper, equation 1)."""

    def __init__(self, channels: int, heads: int, expansion: float, bias: bool, norm_type: NormType) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, norm_type)
        self.attn = TopKSparseAttention(channels, heads, bias)
        self.norm2 = LayerNorm(channels, norm_type)
        self.ffn = MixedScaleFeedForward(channels, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class ExpertGate(nn.Module):
    """Weights of the experts in every step, from the globally pooled input: softmax over the experts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca_fc = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, MEFC_STEPS * len(EXPERTS)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → (N, steps, experts)."""
        with torch.autocast(x.device.type, enabled=False):
            logits = self.ca_fc(at_least_float32(x).mean(dim=(-2, -1)))
            return rearrange(logits, "n (step expert) -> n step expert", step=MEFC_STEPS).softmax(dim=-1)


class Expert(nn.Module):
    """One operation of MEFC's `EXPERTS` table, always with "same" padding and without bias."""

    def __init__(self, channels: int, kind: str, kernel: int) -> None:
        super().__init__()

        def depthwise_then_pointwise(dilation: int = 1) -> list[nn.Module]:
            padding = dilation * (kernel // 2)
            return [
                nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
            ]

        self.op: nn.Module
        if kind == SEPARABLE:
            self.op = nn.Sequential(*depthwise_then_pointwise(), nn.ReLU(), *depthwise_then_pointwise())
        elif kind == DILATED:
            self.op = nn.Sequential(*depthwise_then_pointwise(dilation=2))
        else:
            self.op = nn.AvgPool2d(kernel, stride=1, padding=kernel // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return self.op(x)


class ExpertStep(nn.Module):
    """All experts side by side, each scaled by its gate, fused by a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList(Expert(channels, kind, kernel) for kind, kernel in EXPERTS)
        self._out = nn.Sequential(nn.Conv2d(len(EXPERTS) * channels, channels, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (N, C, H, W), gates: (N, experts) → (N, C, H, W)."""
        gates = gates.to(x.dtype)
        weighted = [expert(x) * gates[:, i, None, None, None] for i, expert in enumerate(self._ops)]
        return F.relu(self._out(torch.cat(weighted, dim=1)) + x)


class PointwiseReLU(nn.Module):
    """1x1 convolution and ReLU under the key `op`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return self.op(x)


class ExpertSteps(nn.Module):
    """The body of MEFC: a 1x1 convolution, then the steps one after the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preprocess = PointwiseReLU(channels)
        self._ops = nn.ModuleList(ExpertStep(channels) for _ in range(MEFC_STEPS))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (N, C, H, W), gates: (N, steps, experts) → (N, C, H, W)."""
        x = self.preprocess(x)
        for step, step_gates in zip(self._ops, gates.unbind(1), strict=True):
            x = step(x, step_gates)
        return x


class MixtureOfExpertsFeatureCompensator(nn.Module):
    """MEFC: gates from the input, then the gated experts (paper, section 3.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((ExpertGate(channels), ExpertSteps(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        gate, steps = self.layers
        return steps(x, gate(x))


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


class DRSformer(nn.Module):
    """Deraining transformer with sparse channel attention; returns the input picture plus a predicted residual.

    Args:
        inp_channels, out_channels: channels of the picture; equal, as the picture is added to the output.
        dim: channels at full size; level i of the U shape has dim·2^(i-1) channels at 1/2^(i-1) of the size.
        num_blocks: transformer blocks of the levels 1-4; the decoder mirrors the levels 1-3.
        heads: attention heads of the levels 1-4; every head needs two channels or more.
        ffn_expansion_factor: hidden channels of MSFN relative to its input.
        bias: biases in attention, feed-forward, channel reductions and the output convolution.
        LayerNorm_type: "WithBias" or "BiasFree".
        with_mefc: the mixture of experts before the encoder and after the decoder. The published weights for
            Rain200L and SPA-Data have none, all others have it.

    Raises:
        ValueError: arguments that do not fit together.
    """

    size_multiple = 8  # three halvings: models and inference pad pictures to a multiple of it

    def __init__(  # noqa: PLR0917 - the order of the published class; users pass names
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",
        with_mefc: bool = True,
    ) -> None:
        super().__init__()
        if inp_channels != out_channels:
            raise ValueError(f"inp_channels ({inp_channels}) and out_channels ({out_channels}) must be equal")
        if len(num_blocks) != 4 or len(heads) != 4:
            raise ValueError(f"num_blocks and heads need four entries each, not {num_blocks} and {heads}")
        self.inp_channels = inp_channels

        def level(channels: int, index: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    SparseTransformerBlock(channels, heads[index], ffn_expansion_factor, bias, LayerNorm_type)
                    for _ in range(num_blocks[index])
                )
            )

        self.patch_embed = PatchEmbedding(inp_channels, dim)
        self.encoder_level0 = MixtureOfExpertsFeatureCompensator(dim) if with_mefc else nn.Identity()
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
        self.decoder_level1 = level(2 * dim, 0)  # twice level 1's channels: the skip is not reduced here
        self.refinement = MixtureOfExpertsFeatureCompensator(2 * dim) if with_mefc else nn.Identity()
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        """Derain pictures.

        Args:
            image: (N, inp_channels, H, W), RGB in [0, 1], H and W multiples of 8.

        Returns:
            The derained pictures, same shape, not clamped to [0, 1].

        Raises:
            ValueError: another number of channels or a size that is no multiple of 8.
        """
        channels, height, width = image.shape[1:]
        if channels != self.inp_channels:
            raise ValueError(f"DRSformer was built for {self.inp_channels} channels, the picture has {channels}")
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(f"height and width must be multiples of {self.size_multiple}, not {height}x{width}")

        level1 = self.encoder_level1(self.encoder_level0(self.patch_embed(image)))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        x = self.latent(self.down3_4(level3))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat((self.up4_3(x), level3), dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat((self.up3_2(x), level2), dim=1)))
        x = self.decoder_level1(torch.cat((self.up2_1(x), level1), dim=1))
        return self.output(self.refinement(x)) + image
