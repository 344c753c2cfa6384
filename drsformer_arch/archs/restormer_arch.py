"""Restormer: the U-shaped transformer with attention between channels on which DRSformer is built; its baseline.

Zamir, Arora, Khan, Hayat, Khan, Yang: "Restormer: Efficient Transformer for High-Resolution Image Restoration",
CVPR 2022, arXiv 2111.09881. Parameter names are those of the published checkpoints, which are for academic use only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.fast.channel_attention import ChannelAttention
from drsformer_arch.fast.depthwise import DepthwiseConv2d

from .contract import count_modules
from .u_shape import Level, NormType, TransformerBlock, UShapedTransformer

__all__ = ["Restormer"]


class GatedFeedForward(nn.Module):
    """GDFN: one half of the hidden channels gates the other (paper, section 3.2)."""

    halo = 1  # rows above and below that a row of the result depends on

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = DepthwiseConv2d(2 * hidden, 3, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        gate, content = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * content)


class Restormer(UShapedTransformer):
    """Restoration transformer with dense channel attention; returns the input picture plus a predicted residual.

    Args:
        inp_channels, out_channels: channels of the picture; equal, as the picture is added to the output, except for
            the dual-pixel task.
        dim: channels at full size; level i of the U shape has dim·2^(i-1) channels at 1/2^(i-1) of the size.
        num_blocks: transformer blocks of the levels 1-4; the decoder mirrors the levels 1-3.
        num_refinement_blocks: blocks at full size and 2·dim channels after the decoder.
        heads: attention heads of the levels 1-4.
        ffn_expansion_factor: hidden channels of GDFN relative to its input.
        bias: biases in attention, feed-forward, channel reductions and the output convolution.
        LayerNorm_type: "WithBias" or "BiasFree".
        dual_pixel_task: defocus deblurring from the two views of a dual-pixel camera (6 channels in, 3 out): the
            embedding instead of the picture is added at the end.
        use_checkpoint: in training, compute blocks again in the backward pass instead of storing what they hold.

    Raises:
        ValueError: arguments that do not fit together.
    """

    def __init__(  # noqa: PLR0917 - the order of the published class; users pass names
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",
        dual_pixel_task: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        if inp_channels != out_channels and not dual_pixel_task:
            raise ValueError(f"inp_channels ({inp_channels}) and out_channels ({out_channels}) must be equal")

        def block(channels: int, heads: int) -> TransformerBlock:
            attention = ChannelAttention(channels, heads, bias)  # MDTA
            feed_forward = GatedFeedForward(channels, int(channels * ffn_expansion_factor), bias)
            return TransformerBlock(channels, attention, feed_forward, feed_forward.halo, LayerNorm_type)

        super().__init__(
            inp_channels=inp_channels,
            out_channels=out_channels,
            dim=dim,
            num_blocks=num_blocks,
            heads=heads,
            bias=bias,
            make_block=block,
            encoder_level0=nn.Identity(),
            refinement=Level(*(block(2 * dim, heads[0]) for _ in range(num_refinement_blocks))),
            use_checkpoint=use_checkpoint,
        )
        self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=bias) if dual_pixel_task else None

    def reconstruct(self, image: Tensor) -> Tensor:
        """The result for pictures of the right size."""
        if self.skip_conv is None:
            return super().reconstruct(image)
        return self.output(self.decoded(image).to(image.dtype) + self.skip_conv(self.embedded(image)))

    @classmethod
    def arguments_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """All but `use_checkpoint` follow from keys and shapes."""
        state["latent.0.ffn.dwconv.weight"]
        return super().arguments_of(state) | {
            "num_refinement_blocks": count_modules(state, "refinement."),
            "dual_pixel_task": "skip_conv.weight" in state,
        }
