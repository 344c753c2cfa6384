"""DRSformer: a U-shaped transformer that keeps only the strongest attention scores between channels.

Chen, Li, Li, Pan: "Learning A Sparse Transformer Network for Effective Image Deraining", CVPR 2023, arXiv 2303.11950.
Only torch is needed: this folder can be copied into another project as it is.

The parameter names are those of the published checkpoints (924 tensors with MEFC, 730 without). Where the paper and the
published weights disagree, this file computes what the weights were trained for:

- MEFC applies a ReLU after the sum of a step and its input; the paper's equation omits it.
- MSFN shares one 1x1 convolution between its two branches; the paper's figure draws one per branch.
- "Learnable top-k" means that the mixture of four fixed k is learned, not k itself.

Features are kept in channels-last memory. There a matrix product over the channels of all pixels needs no copy, and
depth-wise convolutions and norms are several times as fast on CPUs.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .depthwise import DepthwiseConv2d, depthwise_conv
from .mefc import MixtureOfExpertsFeatureCompensator
from .msfn import MixedScaleFeedForward
from .transformer_parts import NormType, TransformerBlock, UShapedTransformer, at_least_float32, picture, pixels

__all__ = ["DRSformer"]

TOP_K_SHARES = ((1, 2), (2, 3), (3, 4), (4, 5))  # k of the four sparse maps as fractions of the channels per head


def channel_scores(query: Tensor, key: Tensor, heads: int, temperature: Tensor) -> Tensor:
    """Cosines between the channels of two feature maps, each over all pixels, times a temperature.

    Args:
        query, key: (N, C, H, W).
        heads: groups of channels; only channels of the same group are compared.
        temperature: (heads, 1, 1).

    Returns:
        (N, heads, C/heads, C/heads), float32 or better: sums over all pixels need it.
    """
    query, key = (at_least_float32(pixels(part)) for part in (query, key))

    def norms(x: Tensor) -> Tensor:
        # The smallest norm is that of F.normalize. The root of the clamped sum has a gradient at zero.
        return x.square().sum(dim=1).clamp_min(1e-24).sqrt().unflatten(1, (heads, -1))

    # Head by head, as one product over all heads would copy query and key.
    by_head = zip(query.unflatten(2, (heads, -1)).unbind(2), key.unflatten(2, (heads, -1)).unbind(2), strict=True)
    products = torch.stack([q.transpose(1, 2) @ k for q, k in by_head], dim=1)
    return products / (norms(query)[..., :, None] * norms(key)[..., None, :]) * temperature


class TopKSparseAttention(nn.Module):
    """TKSA: attention between channels that keeps the k largest scores of each row (paper, section 3.2).

    The scores are a (C/h) x (C/h) map per head. Four softmax maps with growing k are mixed with learned weights. As
    the k largest scores are among the k+1 largest, one descending order of each row serves all four maps; and as
    everything after the softmax is linear, the maps and the output projection are multiplied before the one product
    with the values.
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
        self.qkv_dwconv = DepthwiseConv2d(3 * channels, 3, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)
        self.attn1 = nn.Parameter(torch.tensor([0.2]))
        self.attn2 = nn.Parameter(torch.tensor([0.2]))
        self.attn3 = nn.Parameter(torch.tensor([0.2]))
        self.attn4 = nn.Parameter(torch.tensor([0.2]))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        height, width = x.shape[-2:]
        parts = self.projections(x)
        query, key = next(parts), next(parts)
        # The choice of the top k needs float32, also inside torch.autocast.
        with torch.autocast(x.device.type, enabled=False):
            attention = self.sparse_softmax(channel_scores(query, key, self.heads, self.temperature))
            projection = at_least_float32(self.project_out.weight).flatten(1).unflatten(1, (self.heads, -1))
            weights = torch.einsum("ohc,nhcd->nhdo", projection, attention).flatten(1, 2)
        del query, key
        value = next(parts)
        mixed = pixels(value) @ weights.to(value.dtype)
        if self.project_out.bias is not None:
            mixed = mixed + self.project_out.bias
        return picture(mixed, height, width)

    def projections(self, x: Tensor) -> Iterator[Tensor]:
        """Query, key and value, each (N, C, H, W), one after the other: they are not needed at the same time."""

        def parts(layer: nn.Conv2d) -> Iterator[tuple[Tensor, Tensor | None]]:
            return zip(layer.weight.chunk(3), (None,) * 3 if layer.bias is None else layer.bias.chunk(3), strict=True)

        for pointwise, depthwise in zip(parts(self.qkv), parts(self.qkv_dwconv), strict=True):
            yield depthwise_conv(F.conv2d(x, *pointwise), *depthwise)

    def sparse_softmax(self, scores: Tensor) -> Tensor:
        """Weighted sum of the four sparse softmax maps; scores: (N, heads, C/h, C/h), attends along the last axis."""
        largest, where = scores.topk(max(self.top_k), dim=-1)
        mixture = torch.zeros_like(largest)
        for k, weight in zip(self.top_k, (self.attn1, self.attn2, self.attn3, self.attn4), strict=True):
            mixture = mixture + weight * F.pad(largest[..., :k].softmax(dim=-1), (0, largest.shape[-1] - k))
        return torch.zeros_like(scores).scatter(-1, where, mixture)


class DRSformer(UShapedTransformer):
    """Deraining transformer with sparse channel attention; returns the input picture plus a predicted residual.

    Args:
        inp_channels, out_channels: channels of the picture; equal, as the picture is added to the output.
        dim: channels at full size; level i of the U shape has dim·2^(i-1) channels at 1/2^(i-1) of the size.
        num_blocks: transformer blocks of the levels 1-4; the decoder mirrors the levels 1-3.
        heads: attention heads of the levels 1-4; every head needs two channels or more.
        ffn_expansion_factor: hidden channels of MSFN relative to its input.
        bias: biases in attention, feed-forward, channel reductions and the output convolution.
        LayerNorm_type: "WithBias" or "BiasFree".
        use_checkpoint: in training, compute blocks again in the backward pass instead of storing what they hold: a
            fraction of the memory for about a third more time. Results are the same.
        with_mefc: the mixture of experts before the encoder and after the decoder. The published weights for
            Rain200L and SPA-Data have none, all others have it.

    Raises:
        ValueError: arguments that do not fit together.
    """

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
        use_checkpoint: bool = False,
    ) -> None:
        if inp_channels != out_channels:
            raise ValueError(f"inp_channels ({inp_channels}) and out_channels ({out_channels}) must be equal")

        def block(channels: int, heads: int) -> TransformerBlock:
            """STB (paper, equation 1)."""
            attention = TopKSparseAttention(channels, heads, bias)
            feed_forward = MixedScaleFeedForward(channels, int(channels * ffn_expansion_factor), bias)
            return TransformerBlock(channels, attention, feed_forward, feed_forward.halo, LayerNorm_type)

        super().__init__(
            inp_channels=inp_channels,
            out_channels=out_channels,
            dim=dim,
            num_blocks=num_blocks,
            heads=heads,
            bias=bias,
            make_block=block,
            encoder_level0=MixtureOfExpertsFeatureCompensator(dim) if with_mefc else nn.Identity(),
            refinement=MixtureOfExpertsFeatureCompensator(2 * dim) if with_mefc else nn.Identity(),
            use_checkpoint=use_checkpoint,
        )
