"""Batch norms of inference, folded into the convolutions beside them.

Replaces the blocks of SFHformer and FADformer. Equal, because in inference a batch norm is a factor and a summand for
each channel, and a 1x1 convolution before or after it is linear, without a border: of both together one convolution
remains. So do two 1x1 convolutions in a row, and the scale of a channel at the end. Weights are folded anew in every
pass, from the parameters as they are: matrices are small, maps are not. Of convolutions half of whose result is thrown
away only the other half is computed, and with one group of frequencies no weights of groups. Norms that zeros or a sum
come after stay. (docs/how_it_is_fast.md)
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drsformer_arch.archs import fadformer_arch, sfhformer_arch
from drsformer_arch.archs.fourier import from_spectrum, spectrum
from drsformer_arch.archs.precision import in_full_precision
from drsformer_arch.fast.forms import FastForm


class Pointwise(NamedTuple):
    """A 1x1 convolution: weight (C_out, C_in) and bias (C_out,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x: (N, C_in, H, W) → (N, C_out, H, W)."""
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)

    def after(self, first: "Pointwise") -> "Pointwise":
        """Apply another one first."""
        return Pointwise(self.weight @ first.weight, self.weight @ first.bias + self.bias)

    def after_norm(self, norm: nn.BatchNorm2d) -> "Pointwise":
        """Apply a norm first."""
        scale, shift = scale_and_shift(norm)
        return Pointwise(self.weight * scale, self.weight @ shift + self.bias)

    def scaled(self, factors: Tensor, shift: Tensor | float = 0.0) -> "Pointwise":
        """Multiply each channel of the result, and add to it."""
        return Pointwise(self.weight * factors[:, None], self.bias * factors + shift)

    def rows(self, rows: slice) -> "Pointwise":
        """Compute some channels of the result only."""
        return Pointwise(self.weight[rows], self.bias[rows])


def pointwise(layer: Any) -> Pointwise:
    """Read a 1x1 convolution, or a sequence that is one."""
    conv: Any = layer[0] if isinstance(layer, nn.Sequential) else layer
    weight: Tensor = conv.weight.flatten(1)
    return Pointwise(weight, weight.new_zeros(len(weight)) if conv.bias is None else conv.bias)


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Read the factor and the summand of each channel that a norm amounts to in inference, (C,) each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


class FoldedSFHformerBlock(FastForm, sfhformer_arch.Block):
    """Block of SFHformer with both norms, both scales and one convolution of the global half folded."""

    replaces = sfhformer_arch.Block

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return sfhformer_arch.Block(module.norm1.num_features, module.mixer.mixer_gloal.FFC.groups)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → the same shape."""
        if self.training:
            return super().forward(x)
        x = x + self.mixed(x)
        ffn = self.ffn
        own, near, far, farther = pointwise(ffn.conv_init).after_norm(self.norm2)(x).chunk(4, dim=1)
        parts = torch.cat((own, ffn.conv1_1(near), ffn.conv1_2(far), ffn.conv1_3(farther)), dim=1)
        return x + pointwise(ffn.conv_fina).scaled(self.gamma.flatten())(F.gelu(parts))

    def mixed(self, x: Tensor) -> Tensor:
        """The mixer after its norm, with its scale: (N, C, H, W) → the same shape."""
        mixer, channels = self.mixer, x.shape[1]
        first = pointwise(mixer.conv_init).after_norm(self.norm1)
        whole = pointwise(mixer.mixer_gloal.conv_init).after(first.rows(slice(channels, None)))(x)
        whole = F.gelu(whole)
        whole = F.gelu(mixer.mixer_gloal.conv_fina(whole + self.transformed(whole)))
        near = mixer.mixer_local(first.rows(slice(channels))(x))
        x = F.gelu(torch.cat((near, whole), dim=1))
        return pointwise(mixer.ca_conv).scaled(self.beta.flatten())(mixer.ca(x) * x)

    def transformed(self, x: Tensor) -> Tensor:
        """The Fourier unit, (N, C, H, W) → the same shape."""
        unit = self.mixer.mixer_gloal.FFC
        if unit.groups > 1:
            return unit(x)
        return from_spectrum(self.convolved(spectrum(x)), x.shape[3]).to(x.dtype)

    @in_full_precision
    def convolved(self, x: Tensor) -> Tensor:
        """The convolutions of a spectrum with one group, (N, C, H, W) → the same shape."""
        unit = self.mixer.mixer_gloal.FFC
        x = unit.bn(x)
        return F.gelu(unit.fdc(x + unit.fpe(x)))


class FoldedFADformerBlock(FastForm, fadformer_arch.Block):
    """Block of FADformer with three of its norms folded, and without what its mixer throws away."""

    replaces = fadformer_arch.Block

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        return fadformer_arch.Block(module.norm1.num_features)

    def forward(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, H, W), prior: (N, 1, H, W) → the same two shapes."""
        if self.training:
            return super().forward(x, prior)
        x = x + self.mixed(x)
        more, prior = self.ffn.gated(pointwise(self.ffn.conv_init).after_norm(self.norm2)(x), prior)
        return x + more, prior

    def mixed(self, x: Tensor) -> Tensor:
        """The mixer after its norm: (N, C, H, W) → the same shape."""
        mixer, whole = self.mixer, self.mixer.mixer_gloal
        x = F.gelu(pointwise(mixer.conv_init).after_norm(self.norm1).rows(slice(x.shape[1]))(x))
        near, far = F.gelu(mixer.dw_conv_1(x)), F.gelu(mixer.dw_conv_2(x))
        x = torch.cat((F.gelu(whole.conv_init_1(near)), F.gelu(whole.conv_init_2(far))), dim=1)
        transformed = from_spectrum(self.convolved(spectrum(x)), x.shape[3]).to(x.dtype)
        x = mixer.ca_conv(F.relu(whole.bn(transformed + x)))
        return mixer.ca(x) * x

    @in_full_precision
    def convolved(self, x: Tensor) -> Tensor:
        """The convolution of a spectrum and its norm, (N, C, H, W) → the same shape."""
        unit = self.mixer.mixer_gloal.FFC
        scale, shift = scale_and_shift(unit.bn)
        return F.relu(pointwise(unit.conv_layer).scaled(scale, shift)(x))
