"""The scores of the two published deraining protocols, as functions of two pictures."""

from drsformer_arch.metrics.deraining_metrics import PROTOCOL_DESCRIPTIONS as PROTOCOL_DESCRIPTIONS
from drsformer_arch.metrics.deraining_metrics import PROTOCOLS as PROTOCOLS
from drsformer_arch.metrics.deraining_metrics import SCORES as SCORES
from drsformer_arch.metrics.deraining_metrics import Metric as Metric
from drsformer_arch.metrics.deraining_metrics import Planes as Planes
from drsformer_arch.metrics.deraining_metrics import calculate_psnr_ddn as calculate_psnr_ddn
from drsformer_arch.metrics.deraining_metrics import calculate_psnr_rain200 as calculate_psnr_rain200
from drsformer_arch.metrics.deraining_metrics import calculate_ssim_ddn as calculate_ssim_ddn
from drsformer_arch.metrics.deraining_metrics import calculate_ssim_rain200 as calculate_ssim_rain200
