"""Restormer: the U-shaped transformer with attention between channels on which DRSformer is built; its baseline.

Zamir, Arora, Khan, Hayat, Khan, Yang: "Restormer: Efficient Transformer for High-Resolution Image Restoration",
CVPR 2022, arXiv 2111.09881. Parameter names are those of the published checkpoints, which are for academic use only.

`network_g: {type: Restormer, fast: false}` runs what is written here. Without that the fast forms run, which compute
the same (`drsformer_arch.fast`, held to this file by tests/fast/test_fast.py). Classes of a copy of it run as written.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from drsformer_arch.archs import u_shape
from drsformer_arch.archs.contract import Recognition, count_modules
from drsformer_arch.archs.precision import in_full_precision
from drsformer_arch.archs.u_shape import LayerNorm, Level, NormType, UShape

__all__ = ["Restormer"]


class TransposedAttention(nn.Module):
    """MDTA: attention between the channels of a head, at a cost that grows with the pixels, not their square (3.1)."""

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not split into {heads} heads")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape (equation 1)."""
        q, k, v = (
            rearrange(part, "n (head c) h w -> n head c (h w)", head=self.heads)
            for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        mixed = self.attention(q, k).to(v.dtype) @ v
        return self.project_out(rearrange(mixed, "n head c (h w) -> n (head c) h w", h=x.shape[2]))

    @in_full_precision
    def attention(self, q: Tensor, k: Tensor) -> Tensor:
        """Softmax of the cosines of queries and keys (N, heads, C/h, H·W): (N, heads, C/h, C/h)."""
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return (q @ rearrange(k, "n head c hw -> n head hw c") * self.temperature).softmax(dim=-1)


class GatedFeedForward(nn.Module):
    """GDFN: one half of the hidden channels gates the other (section 3.2)."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape (equation 2)."""
        gate, content = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * content)


class TransformerBlock(nn.Module):
    """MDTA, then GDFN, each after a norm and beside the identity."""

    attention: type[TransposedAttention] = TransposedAttention
    feed_forward: type[GatedFeedForward] = GatedFeedForward

    def __init__(self, channels: int, heads: int, hidden: int, bias: bool, norm_type: NormType) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, norm_type)
        self.attn = self.attention(channels, heads, bias)
        self.norm2 = LayerNorm(channels, norm_type)
        self.ffn = self.feed_forward(channels, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the arguments of Restormer, all but `use_checkpoint`, from its weights."""
    return u_shape.arguments_of(state) | {
        "num_refinement_blocks": count_modules(state, "refinement."),
        "dual_pixel_task": "skip_conv.weight" in state,
    }


class Restormer(UShape):
    """Restoration transformer with dense channel attention; returns the input picture plus a predicted residual.

    Args:
        inp_channels: channels of the picture.
        out_channels: the same number, as the picture is added to the output, except for the dual-pixel task.
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

    contract = dataclasses.replace(
        UShape.contract,
        recognition=Recognition(keys=("latent.0.ffn.dwconv.weight", *u_shape.KEYS), arguments=arguments_of),
    )

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
            hidden = int(channels * ffn_expansion_factor)
            return TransformerBlock(channels, heads, hidden, bias, LayerNorm_type)

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
        self.contract = dataclasses.replace(self.contract, bytes_per_pixel=180 * dim)

    def forward(self, image: Tensor) -> Tensor:
        """Restore pictures, see `UShape.forward`; for the dual-pixel task (N, 6, H, W) → (N, 3, H, W)."""
        if self.skip_conv is None:
            return super().forward(image)
        self.check(image)
        # Embedded a second time: that costs less than to hold the first embedding all the while.
        return self.output(self.features(image) + self.skip_conv(self.patch_embed(image)))
