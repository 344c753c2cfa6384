"""Losses that BasicSR lacks, under `train.pixel_opt`.

All see pictures in [0, 1], whatever the network's own value range is.
"""

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
