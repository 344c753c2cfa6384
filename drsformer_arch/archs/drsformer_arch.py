"""DRSformer: a U-shaped transformer that keeps only the strongest attention scores between channels.

Chen, Li, Li, Pan: "Learning A Sparse Transformer Network for Effective Image Deraining", CVPR 2023, arXiv 2303.11950.

The parameter names are those of the published checkpoints (924 tensors with MEFC, 730 without). Where the paper and the
published weights disagree, this file computes what the weights were trained for:

- MEFC applies a ReLU after the sum of a step and its input; the paper's equation omits it.
- MSFN shares one 1x1 convolution between its two branches; the paper's figure draws one per branch.
- "Learnable top-k" means that the mixture of four fixed k is learned, not k itself.

`network_g: {type: DRSformer, fast: false}` runs what is written here. Without that the fast forms run, which compute
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
from drsformer_arch.archs.contract import Recognition
from drsformer_arch.archs.precision import in_full_precision
from drsformer_arch.archs.u_shape import Checkpointed, LayerNorm, NormType, UShape

__all__ = ["DRSformer"]

TOP_K_SHARES = ((1, 2), (2, 3), (3, 4), (4, 5))  # k of the four sparse maps as fractions of the channels per head


def top_k(scores: Tensor, k: int) -> Tensor:
    """T_k (equation 3): the k largest scores of each row stay, the others become −inf; (..., C) → the same shape.

    >>> top_k(torch.tensor([0.1, 0.4, 0.3]), 2)
    tensor([  -inf, 0.4000, 0.3000])
    """
    largest, where = scores.topk(k, dim=-1)
    return torch.full_like(scores, float("-inf")).scatter(-1, where, largest)


class TopKSparseAttention(nn.Module):
    """TKSA: attention between the channels of a head that keeps the k largest scores of each row (section 3.2).

    Four sparse maps with growing k attend to the values, and their results are mixed with learned weights.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        if channels % heads or channels // heads < 2:
            raise ValueError(f"{channels} channels do not split into {heads} heads of at least 2 channels each")
        per_head = channels // heads
        self.heads = heads
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
        q, k, v = (
            rearrange(part, "n (head c) h w -> n head c (h w)", head=self.heads)
            for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        scores = self.scores(q, k)
        weights = (self.attn1, self.attn2, self.attn3, self.attn4)
        sparse = [  # equation 2
            (top_k(scores, kept).softmax(dim=-1) * weight).to(v.dtype)
            for kept, weight in zip(self.top_k, weights, strict=True)
        ]
        mixed = sum((attention @ v for attention in sparse[1:]), start=sparse[0] @ v)
        return self.project_out(rearrange(mixed, "n head c (h w) -> n (head c) h w", h=x.shape[2]))

    @in_full_precision
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Cosines of the channels of queries and keys (N, heads, C/h, H·W), scaled: (N, heads, C/h, C/h)."""
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return q @ rearrange(k, "n head c hw -> n head hw c") * self.temperature


class MixedScaleFeedForward(nn.Module):
    """MSFN: depth-wise branches of 3x3 and 5x5, whose halves cross before a second pair of them (section 3.3)."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()

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
        first3, second3 = F.relu(self.dwconv3x3(x), inplace=True).chunk(2, dim=1)
        first5, second5 = F.relu(self.dwconv5x5(x), inplace=True).chunk(2, dim=1)
        first = F.relu(self.dwconv3x3_1(torch.cat((first3, first5), dim=1)), inplace=True)
        second = F.relu(self.dwconv5x5_1(torch.cat((second3, second5), dim=1)), inplace=True)
        return self.project_out(torch.cat((first, second), dim=1))


class SparseTransformerBlock(nn.Module):
    """STB: TKSA, then MSFN, each after a norm and beside the identity."""

    def __init__(self, channels: int, heads: int, hidden: int, bias: bool, norm_type: NormType) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, norm_type)
        self.attn = TopKSparseAttention(channels, heads, bias)
        self.norm2 = LayerNorm(channels, norm_type)
        self.ffn = MixedScaleFeedForward(channels, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape (equation 1)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


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
STEPS = 4


class ExpertGate(nn.Module):
    """Weights of the experts in every step, from the mean of all pixels: softmax over the experts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca_fc = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, STEPS * len(EXPERTS)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → (N, steps, experts), float32 or better."""
        return self.gates(x.mean(dim=(2, 3), dtype=torch.promote_types(x.dtype, torch.float32)))

    @in_full_precision
    def gates(self, means: Tensor) -> Tensor:
        """means: (N, C) → (N, steps, experts)."""
        first: Any = self.ca_fc[0]
        logits = self.ca_fc(means.to(first.weight.dtype)).to(means.dtype)
        return rearrange(logits, "n (step expert) -> n step expert", expert=len(EXPERTS)).softmax(dim=-1)


class Expert(nn.Module):
    """One operation of the table `EXPERTS`, always with "same" padding and without bias."""

    def __init__(self, channels: int, kind: str, kernel: int) -> None:
        super().__init__()

        def depthwise_then_pointwise(dilation: int = 1) -> list[nn.Module]:
            padding = dilation * (kernel // 2)
            depthwise = nn.Conv2d(
                channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False
            )
            return [depthwise, nn.Conv2d(channels, channels, 1, bias=False)]

        self.op: nn.Module
        if kind == SEPARABLE:
            self.op = nn.Sequential(*depthwise_then_pointwise(), nn.ReLU(inplace=True), *depthwise_then_pointwise())
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
        self._out = nn.Sequential(nn.Conv2d(len(EXPERTS) * channels, channels, 1, bias=False), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (N, C, H, W), gates: (N, experts) → (N, C, H, W)."""
        of_experts = rearrange(gates.to(x.dtype), "n expert -> expert n 1 1 1")
        weighted = [expert(x) * gate for expert, gate in zip(self._ops, of_experts, strict=True)]
        return F.relu(self._out(torch.cat(weighted, dim=1)) + x, inplace=True)


class PointwiseReLU(nn.Module):
    """1x1 convolution and ReLU under the key `op`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return self.op(x)


class ExpertSteps(Checkpointed):
    """The body of MEFC: a 1x1 convolution, then the steps one after the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preprocess = PointwiseReLU(channels)
        self._ops = nn.ModuleList(ExpertStep(channels) for _ in range(STEPS))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (N, C, H, W), gates: (N, steps, experts) → (N, C, H, W)."""
        x = self.preprocess(x)
        for step, step_gates in zip(self._ops, gates.unbind(1), strict=True):
            x = self.run(step, x, step_gates)
        return x


class MixtureOfExpertsFeatureCompensator(nn.Module):
    """MEFC: gates from the input, then the gated experts (section 3.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((ExpertGate(channels), ExpertSteps(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        gate, steps = self.layers
        return steps(x, gate(x))


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the arguments of DRSformer, all but `use_checkpoint`, from its weights."""
    return u_shape.arguments_of(state) | {"with_mefc": "encoder_level0.layers.0.ca_fc.0.weight" in state}


class DRSformer(UShape):
    """Deraining transformer with sparse channel attention; returns the input picture plus a predicted residual.

    Args:
        inp_channels: channels of the picture.
        out_channels: the same number, as the picture is added to the output.
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

    contract = dataclasses.replace(
        UShape.contract, recognition=Recognition(keys=("latent.0.attn.attn1", *u_shape.KEYS), arguments=arguments_of)
    )

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

        def block(channels: int, heads: int) -> SparseTransformerBlock:
            hidden = int(channels * ffn_expansion_factor)
            return SparseTransformerBlock(channels, heads, hidden, bias, LayerNorm_type)

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
        self.contract = dataclasses.replace(self.contract, bytes_per_pixel=340 * dim)
