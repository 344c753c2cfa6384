"""Slabs: the grouped convolutions of MSFN, two channels each, as depth-wise convolutions of reordered channels.

Replaces the forward of MSFN. Equal, because where the even and the odd channels lie in two slabs, a convolution that
mixes two adjacent channels is a depth-wise convolution of both slabs and their sum. Every library computes the grouped
ones slowly. The published weights are put into that order in every pass of training, and once for inference, where
`ArrangedFeedForward` holds them in it and nothing else, so that there is nothing they could disagree with. Alone 1.44
times as fast in inference; without it all others together are 0.66 times as fast, in training 0.73 times.
(docs/how_it_is_fast.md)
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs.drsformer_arch import MixedScaleFeedForward
from drsformer_arch.fast.depthwise import depthwise_conv
from drsformer_arch.fast.forms import FeedForwardForm


def even_and_odd_slabs(weight: Tensor, extra: Tensor | None = None) -> Tensor:
    """Order channels for MSFN: (h, ...) → (2m, ...), m = ceil(h/2), the even channels, then the odd ones.

    With an odd h the odd slab begins with one more channel, a copy of the last: `extra` (1, ...), default weight[-1:].

    >>> even_and_odd_slabs(torch.arange(5))
    tensor([0, 2, 4, 4, 1, 3])
    """
    odds = weight[1::2]
    if weight.shape[0] % 2:
        odds = torch.cat((weight[-1:] if extra is None else extra, odds))
    return torch.cat((weight[0::2], odds))


def from_slabs(slabs: Tensor, hidden: int) -> Tensor:
    """The inverse of `even_and_odd_slabs`: (2m, ...) → (h, ...)."""
    odd = hidden % 2
    weight = slabs.new_empty(hidden, *slabs.shape[1:])
    weight[0::2], weight[1::2] = slabs.chunk(2)[0], slabs.chunk(2)[1][odd:]
    return weight


def pairs_to_slabs(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rearrange the filters of MSFN's grouped convolution as depth-wise filters of the slabs.

    Args:
        weight: (h, 2, k, k); group j mixes the channels 2j and 2j+1 of the concatenation of 3x3 and 5x5 branch.

    Returns:
        Filters of the 3x3 and of the 5x5 branch, each (2m, 1, k, k). With an odd h, group m-1 mixes the last channel
        of the 3x3 branch with the first one of the 5x5 branch, and all later groups an odd with the next even channel.
    """
    first, second = weight.split(1, dim=1)
    odd, m = weight.shape[0] % 2, (weight.shape[0] + 1) // 2
    if not odd:
        return torch.cat((first[:m], second[:m])), torch.cat((first[m:], second[m:]))
    nothing = torch.zeros_like(first[:1])
    small = torch.cat((first[: m - 1], nothing, nothing, second[: m - 1]))
    return small, torch.cat((second[m - 1 :], first[m - 1 :]))


def pairs_from_slabs(small: Tensor, large: Tensor, hidden: int) -> Tensor:
    """The inverse of `pairs_to_slabs`: two times (2m, 1, k, k) → (h, 2, k, k)."""
    (small_even, small_odd), (large_even, large_odd) = small.chunk(2), large.chunk(2)
    if hidden % 2:
        first, second = torch.cat((small_even[:-1], large_odd)), torch.cat((small_odd[1:], large_even))
    else:
        first, second = torch.cat((small_even, large_even)), torch.cat((small_odd, large_odd))
    return torch.cat((first, second), dim=1)


class SumOfSlabs(torch.autograd.Function):
    """The even plus the odd slab, whose gradient stays in channels-last memory.

    The gradient of torch's split is put together in channels-first memory, which every depth-wise convolution that it
    comes to has to put back.
    """

    @staticmethod
    def forward(slabs: Tensor, unpaired: int) -> Tensor:
        """(N, 2m, H, W) → (N, m - unpaired, H, W), without the last even and the first odd channels."""
        m = slabs.shape[1] // 2
        return slabs[:, : m - unpaired] + slabs[:, m + unpaired :]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:  # noqa: ARG004
        """Keep what `backward` needs."""
        _, ctx.unpaired = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Gradient of the slabs, (N, 2m, H, W), from that of the output, (N, m - unpaired, H, W)."""
        channels, unpaired = gradient.shape[1], ctx.unpaired
        shape = (gradient.shape[0], 2 * (channels + unpaired), *gradient.shape[2:])
        of_slabs = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
        of_slabs[:, :channels] = gradient
        of_slabs[:, channels : channels + 2 * unpaired] = 0
        of_slabs[:, channels + 2 * unpaired :] = gradient
        return of_slabs, None


class HalfFeedForward(NamedTuple):
    """The weights of one half of MSFN's hidden channels, in slabs; the halves meet only in the sum at the end."""

    project_in: Tensor  # (2m, C, 1, 1)
    project_in_bias: Tensor | None
    small: Tensor  # (2m, 1, 3, 3)
    small_bias: Tensor | None
    large: Tensor  # (2m, 1, 5, 5)
    large_bias: Tensor | None
    small_pairs: Tensor  # (2m, 1, k, k), k = 3 in the first half and 5 in the second
    large_pairs: Tensor  # (2m, 1, k, k)
    pairs_bias: Tensor | None
    project_out: Tensor  # (C, h, 1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → (N, C, H, W), this half's share of the result."""
        x = F.conv2d(x, self.project_in, self.project_in_bias)
        odd = self.project_out.shape[1] % 2
        small = self.branch(x, self.small, self.small_bias, self.small_pairs, shift=odd)
        large = self.branch(x, self.large, self.large_bias, self.large_pairs, shift=0)
        mixed = torch.cat((small, large), dim=1)
        if self.pairs_bias is not None:
            mixed = mixed + self.pairs_bias[:, None, None]
        return F.conv2d(F.relu(mixed, inplace=True), self.project_out)

    @staticmethod
    def branch(x: Tensor, weight: Tensor, bias: Tensor | None, pairs: Tensor, shift: int) -> Tensor:
        """Apply one kernel size: (N, 2m, H, W) → (N, m - shift, H, W); `shift` leaves out what has no partner."""
        filtered = depthwise_conv(F.relu(depthwise_conv(x, weight, bias), inplace=True), pairs)
        return SumOfSlabs.apply(filtered, shift)


def halves_of(plain: MixedScaleFeedForward) -> tuple[HalfFeedForward, HalfFeedForward]:
    """Arrange the weights of MSFN in slabs; gradients flow through."""
    return half_of(plain, 0, plain.dwconv3x3_1), half_of(plain, 1, plain.dwconv5x5_1)


def half_of(plain: MixedScaleFeedForward, index: int, pairs: nn.Conv2d) -> HalfFeedForward:
    """Arrange the weights of the first (0) or the second (1) half of the hidden channels, which `pairs` mixes."""

    def part(whole: Any, dim: int = 0) -> Any:
        return None if whole is None else whole.chunk(2, dim)[index]

    def slabs(whole: Tensor | None, extra: Tensor | None = None) -> Any:
        return None if whole is None else even_and_odd_slabs(part(whole), extra)

    # The extra channel of an odd number belongs to the 3x3 branch but is summed with the 5x5 branch: a 3x3 filter in
    # the middle of a 5x5 one.
    small, small_bias = part(plain.dwconv3x3.weight), part(plain.dwconv3x3.bias)
    return HalfFeedForward(
        slabs(plain.project_in.weight),
        slabs(plain.project_in.bias),
        slabs(plain.dwconv3x3.weight),
        slabs(plain.dwconv3x3.bias),
        slabs(plain.dwconv5x5.weight, F.pad(small[-1:], (1, 1, 1, 1))),
        slabs(plain.dwconv5x5.bias, None if small_bias is None else small_bias[-1:]),
        *pairs_to_slabs(pairs.weight),
        pairs.bias,
        part(plain.project_out.weight, dim=1),
    )


def sum_of(halves: tuple[HalfFeedForward, HalfFeedForward], bias: Tensor | None, x: Tensor) -> Tensor:
    """Compute MSFN from its two halves and the bias of its last convolution, (N, C, H, W) → the same shape."""
    first, second = halves
    y = first(x) + second(x)
    return y if bias is None else y + bias[:, None, None]


class SlabFeedForward(FeedForwardForm, MixedScaleFeedForward):
    """MSFN that puts its weights into slabs in every pass."""

    replaces = MixedScaleFeedForward

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return sum_of(halves_of(self), self.project_out.bias, x)


class ArrangedFeedForward(FeedForwardForm):
    """MSFN that holds its weights in slabs and nothing else; saved and loaded under the published keys."""

    replaces = MixedScaleFeedForward
    halo = 4  # rows and columns around a pixel that its result depends on: two 5x5 convolutions
    bias: Tensor | None

    def prepare(self, dtype: torch.dtype | None, tile: int) -> None:
        """Arrange the weights of the plain module that this one was."""
        super().prepare(dtype, tile)
        plain = MixedScaleFeedForward.__new__(MixedScaleFeedForward)
        plain.__dict__ = dict(self.__dict__)
        self.channels, self.hidden = plain.project_in.in_channels, plain.dwconv3x3_1.out_channels
        self._modules = {}
        self.arrange(plain)
        self.to(dtype)

    def arrange(self, plain: MixedScaleFeedForward) -> None:
        """Take over the weights of a plain module."""
        for place, half in enumerate(halves_of(plain)):
            for name, value in half._asdict().items():
                self.register_buffer(f"{name}{place}", None if value is None else value.detach().clone(), False)
        bias = plain.project_out.bias
        self.register_buffer("bias", None if bias is None else bias.detach().clone(), False)

    def halves(self) -> tuple[HalfFeedForward, HalfFeedForward]:
        """Return the weights in slabs."""
        one, other = (
            HalfFeedForward(*(getattr(self, f"{name}{place}") for name in HalfFeedForward._fields)) for place in (0, 1)
        )
        return one, other

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        return sum_of(self.halves(), self.bias, self.enter(x))

    def published(self) -> dict[str, Tensor]:
        """Return the weights as the plain module's `state_dict` has them."""
        first, second = self.halves()

        def both(name: str) -> Tensor | None:
            parts = [getattr(half, name) for half in (first, second)]
            return None if parts[0] is None else torch.cat([from_slabs(part, self.hidden) for part in parts])

        state: dict[str, Any] = {
            "project_in.weight": both("project_in"),
            "project_in.bias": both("project_in_bias"),
            "dwconv3x3.weight": both("small"),
            "dwconv3x3.bias": both("small_bias"),
            "dwconv5x5.weight": both("large"),
            "dwconv5x5.bias": both("large_bias"),
            "dwconv3x3_1.weight": pairs_from_slabs(first.small_pairs, first.large_pairs, self.hidden),
            "dwconv3x3_1.bias": first.pairs_bias,
            "dwconv5x5_1.weight": pairs_from_slabs(second.small_pairs, second.large_pairs, self.hidden),
            "dwconv5x5_1.bias": second.pairs_bias,
            "project_out.weight": torch.cat((first.project_out, second.project_out), dim=1),
            "project_out.bias": self.bias,
        }
        return {key: value for key, value in state.items() if value is not None}

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:  # noqa: ARG002
        destination.update({prefix + key: value for key, value in self.published().items()})

    def _load_from_state_dict(  # noqa: PLR0917 - torch's signature
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],  # noqa: ARG002
        strict: bool,  # noqa: ARG002
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        plain = MixedScaleFeedForward(self.channels, self.hidden, bias=self.bias is not None)
        plain.to(self.halves()[0].project_in)
        own = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        try:
            plain.load_state_dict(self.published())
            result = plain.load_state_dict(own, strict=False)
        except RuntimeError as error:
            error_msgs.append(f"{prefix}: {error}")
            return
        missing_keys += [prefix + key for key in result.missing_keys]
        unexpected_keys += [prefix + key for key in result.unexpected_keys]
        self.arrange(plain)
