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

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from drsformer_arch.fast.channel_attention import ChannelAttention
from drsformer_arch.fast.experts import MixtureOfExpertsFeatureCompensator
from drsformer_arch.fast.slabs import MixedScaleFeedForward

from .u_shape import NormType, TransformerBlock, UShapedTransformer

__all__ = ["DRSformer"]

TOP_K_SHARES = ((1, 2), (2, 3), (3, 4), (4, 5))  # k of the four sparse maps as fractions of the channels per head


class TopKSparseAttention(ChannelAttention):
    """TKSA: attention between channels that keeps the k largest scores of each row (paper, section 3.2).

    Four softmax maps with growing k are mixed with learned weights. As the k largest scores are among the k+1 largest,
    one descending order of each row serves all four maps.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        if channels // heads < 2:
            raise ValueError(f"{channels} channels do not split into {heads} heads of at least 2 channels each")
        super().__init__(channels, heads, bias)
        per_head = channels // heads
        self.top_k = tuple(per_head * numerator // denominator for numerator, denominator in TOP_K_SHARES)
        self.attn1 = nn.Parameter(torch.tensor([0.2]))
        self.attn2 = nn.Parameter(torch.tensor([0.2]))
        self.attn3 = nn.Parameter(torch.tensor([0.2]))
        self.attn4 = nn.Parameter(torch.tensor([0.2]))

    def attention(self, scores: Tensor) -> Tensor:
        """Weighted sum of the four sparse softmax maps; scores: (N, heads, C/h, C/h), attends along the last axis."""
        largest, where = scores.topk(max(self.top_k), dim=-1)
        ranks = torch.arange(largest.shape[-1], device=scores.device)
        dropped = torch.stack([ranks >= k for k in self.top_k])
        maps = largest.unsqueeze(-2).masked_fill(dropped, float("-inf")).softmax(dim=-1)
        mixture = torch.cat((self.attn1, self.attn2, self.attn3, self.attn4)) @ maps
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

    @classmethod
    def arguments_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """All but `use_checkpoint` follow from keys and shapes."""
        state["latent.0.attn.attn1"]
        return super().arguments_of(state) | {"with_mefc": "encoder_level0.layers.0.ca_fc.0.weight" in state}
