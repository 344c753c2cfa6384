"""The scores of the two published deraining protocols, as functions of two pictures."""

from drsformer_arch.metrics.deraining_metrics import (
    PROTOCOL_DESCRIPTIONS,
    PROTOCOLS,
    SCORES,
    Metric,
    Planes,
    calculate_psnr_ddn,
    calculate_psnr_rain200,
    calculate_ssim_ddn,
    calculate_ssim_rain200,
)

__all__ = [
    "PROTOCOLS",
    "PROTOCOL_DESCRIPTIONS",
    "SCORES",
    "Metric",
    "Planes",
    "calculate_psnr_ddn",
    "calculate_psnr_rain200",
    "calculate_ssim_ddn",
    "calculate_ssim_rain200",
]
