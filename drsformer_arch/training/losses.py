"""Losses that BasicSR lacks, under `train.pixel_opt`.

All see pictures in [0, 1], whatever the network's own value range is.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NegativeSSIMLoss(nn.Module):
    """-SSIM, the loss of IDT: 11x11 Gaussian window of deviation 1.5, borders padded with zeros, data range 1.

    Mean over pictures, channels and pixels (Wang et al., IEEE TIP 2004).

    Args:
        loss_weight: factor of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare (N, C, H, W) pictures, RGB in [0, 1] → scalar in [-loss_weight, loss_weight]."""
        x = torch.arange(11, dtype=pred.dtype, device=pred.device) - 5
        window = torch.exp(-x.square() / (2 * 1.5**2))
        window = torch.outer(window, window) / window.sum() ** 2
        maps = torch.cat((pred, target, pred * pred, target * target, pred * target), dim=1)
        means = F.conv2d(maps, window.expand(maps.shape[1], 1, 11, 11), padding=5, groups=maps.shape[1])
        mean_a, mean_b, square_a, square_b, product = means.chunk(5, dim=1)
        variances = square_a - mean_a.square() + square_b - mean_b.square()
        covariance = product - mean_a * mean_b
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
        return -self.loss_weight * (luminance * (2 * covariance + c2) / (variances + c2)).mean()


class PSNRLoss(nn.Module):
    """-PSNR in dB, mean over pictures (HINet, Chen et al., CVPR Workshops 2021).

    A picture with little rain counts as much as one with a lot, as it does in the mean of a benchmark.

    Args:
        loss_weight: factor of the loss.
        eps: added to the mean squared error of a picture: it bounds the gradient of pictures that are nearly right.
            1e-4 levels off above 40 dB.

    Raises:
        ValueError: eps is not positive.
    """

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-8) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be positive, not {eps}")
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare (N, C, H, W) pictures, RGB in [0, 1] → scalar, at least 10·log10(eps)·loss_weight."""
        errors = (pred - target).square().flatten(1).mean(dim=1)
        return self.loss_weight * 10 * (errors + self.eps).log10().mean()


class MultiOutputMSELoss(nn.Module):
    """Sum of the mean squared errors of all outputs of a network, the loss of SPDNet.

    Args:
        loss_weight: factor of the loss. 255² = 65025 gives the numbers of pictures in 0 to 255.
    """

    takes_all_outputs = True  # other losses get a network's best output only

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """Compare outputs and target, each (N, C, H, W), RGB in [0, 1] → scalar."""
        return self.loss_weight * torch.stack([F.mse_loss(output, target) for output in pred]).sum()


class EdgeLoss(nn.Module):
    """Charbonnier distance of the Laplacians of two pictures (MPRNet, Zamir et al., CVPR 2021; NeRD-Rain).

    The Laplacian is what a picture loses when it is blurred, halved by leaving out every second row and column, filled
    up with zeros and blurred again.

    Args:
        loss_weight: factor of the loss.
        eps: added inside the root.
    """

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare (N, C, H, W) pictures, RGB in [0, 1] → scalar, at least 0."""
        return self.loss_weight * (self.laplacian(pred - target).square() + self.eps).sqrt().mean()

    @classmethod
    def laplacian(cls, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        kept = torch.zeros_like(x)
        kept[:, :, ::2, ::2] = 4 * cls.blur(x)[:, :, ::2, ::2]
        return x - cls.blur(kept)

    @staticmethod
    def blur(x: Tensor) -> Tensor:
        """5x5 kernel (1, 5, 8, 5, 1)/20 in both directions, border pixels repeated: (N, C, H, W) → the same shape."""
        kernel = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05], device=x.device)
        window = torch.outer(kernel, kernel).to(x.dtype).expand(x.shape[1], 1, 5, 5)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), window, groups=x.shape[1])


def spectral_distances(difference: Tensor, convention: str) -> Tensor:
    """Mean absolute values of the unnormalised Fourier transforms of pictures, one each.

    Args:
        difference: (N, C, H, W) of two batches; in float32 or better.
        convention: "modulus" of the complex frequencies, or "parts": real and imaginary parts as numbers of their own.

    Returns:
        (N,), at least 0.
    """
    half = torch.fft.rfft2(difference)
    sizes = half.abs() if convention == "modulus" else (half.real.abs() + half.imag.abs()) / 2
    # The other half of the frequencies is conjugate to this one, but for column 0 and, of an even width, the last.
    width, columns = difference.shape[3], half.shape[3]
    total = 2 * sizes.sum(dim=(1, 2, 3)) - sizes[..., 0].sum(dim=(1, 2))
    if width % 2 == 0:
        total = total - sizes[..., columns - 1].sum(dim=(1, 2))
    return total / difference[0].numel()


class FFTLoss(nn.Module):
    """Mean absolute difference of the unnormalised Fourier transforms of two pictures.

    Args:
        loss_weight: factor of the loss.
        convention: "modulus": of the complex difference at every frequency, as NeRD-Rain has it; "parts": real and
            imaginary parts are numbers of their own, as SFHformer has it.

    Raises:
        ValueError: another convention.
    """

    def __init__(self, loss_weight: float = 1.0, convention: Literal["modulus", "parts"] = "modulus") -> None:
        super().__init__()
        if convention not in ("modulus", "parts"):
            raise ValueError(f"convention must be 'modulus' or 'parts', not {convention!r}")
        self.loss_weight = loss_weight
        self.convention = convention

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare (N, C, H, W) pictures, RGB in [0, 1] → scalar, at least 0."""
        return self.loss_weight * spectral_distances(pred - target, self.convention).mean()


class FrequencyContrastiveLoss(nn.Module):
    """Contrastive regularisation in the frequency domain (FCR of FADformer, Gao et al., ECCV 2024).

    How far a result is from its target, relative to how far it is from rainy pictures of the batch: its own and one
    other, drawn at random. The authors' code needs three pictures in a batch; here two take each other, and one
    takes itself alone.

    Args:
        loss_weight: factor of the loss.
    """

    takes_rainy_pictures = True  # other losses see results and targets only

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, rainy: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Compare pictures.

        Args:
            pred: results, (N, C, H, W), RGB in [0, 1].
            target: of the same shape.
            rainy: of the same shape.
            negatives: (N, M), the rainy pictures that each result is compared with; drawn where there are none.

        Returns:
            A scalar, at least 0.
        """
        if negatives is None:
            negatives = self.draw(len(pred)).to(pred.device)
        to_target = spectral_distances(pred - target, "modulus")
        to_rainy = [spectral_distances(pred - rainy[chosen], "modulus") for chosen in negatives.unbind(1)]
        return self.loss_weight * (to_target[:, None] / (torch.stack(to_rainy, dim=1) + 1e-7)).mean()

    @staticmethod
    def draw(count: int) -> Tensor:
        """Draw for each picture of a batch itself and, where there is one, another one: (count, 2) or (1, 1)."""
        own = torch.arange(count)[:, None]
        if count == 1:
            return own
        return torch.cat((own, (own + torch.randint(1, count, (count, 1))) % count), dim=1)


def pyramid_level(target: Tensor, like: Tensor) -> Tensor:
    """Make a target as small as an output of a network, by halves of a Gaussian pyramid.

    Each blurs with (1, 4, 6, 4, 1)/16 in both directions, mirrored at the border, and takes means of 2x2 pixels
    (NeRD-Rain, Chen et al., CVPR 2024).

    Args:
        target: (N, C, H, W).
        like: an output, (N, C, H/2^n, W/2^n).

    Returns:
        The shape of `like`.

    Raises:
        ValueError: `like` is of no such size.
    """
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=target.dtype, device=target.device) / 16
    level = target
    while level.shape[2:] != like.shape[2:]:
        if level.shape[2] <= like.shape[2] or min(level.shape[2:]) < 4:
            raise ValueError(
                f"outputs of {tuple(like.shape[2:])} are no halves of targets of {tuple(target.shape[2:])}"
            )
        window = torch.outer(kernel, kernel).expand(level.shape[1], 1, 5, 5)
        level = F.conv2d(F.pad(level, (2, 2, 2, 2), mode="reflect"), window, groups=level.shape[1])
        level = F.avg_pool2d(level, 2)
    return level
