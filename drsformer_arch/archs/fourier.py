"""Spectra as feature maps: what the networks compute on in the frequency domain.

A half spectrum of C channels is a real map of 2C channels, the real and the imaginary part of each in turn. Transforms
need float32 or better.
"""

import torch
from torch import Tensor

from drsformer_arch.archs.precision import in_full_precision


@in_full_precision
def spectrum(x: Tensor) -> Tensor:
    """Transform maps (N, C, H, W) to their orthonormal half spectra (N, 2C, H, ⌊W/2⌋ + 1), frequency 0 first."""
    parts = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
    return parts.movedim(-1, 2).flatten(1, 2)


@in_full_precision
def from_spectrum(x: Tensor, width: int) -> Tensor:
    """Transform half spectra (N, 2C, H, ⌊width/2⌋ + 1) back to maps (N, C, H, width).

    What a network made of a spectrum belongs to no real map any more. It is read as the authors' calls read it: the
    complex inverse along the height, then the real inverse along the width, which sees only the real part of column 0
    and, where the width is even, of the last one.
    """
    parts = x.unflatten(1, (-1, 2)).movedim(2, -1).contiguous()
    columns = torch.fft.ifft(torch.view_as_complex(parts), dim=-2, norm="ortho")
    return torch.fft.irfft(columns, n=width, dim=-1, norm="ortho")
