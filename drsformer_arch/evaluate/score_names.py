"""Names of scores: their titles, units and directions, and the columns that hold them.

A column is named METRIC_PROTOCOL, such as `psnr_rain200`, `niqe` or `lpips`; that of the rainy picture begins with
`INPUT_PREFIX`, what was gained over it with `GAIN_PREFIX`.
"""

from drsformer_arch.metrics import PROTOCOL_DESCRIPTIONS

NIQE = "niqe"
NIQE_BLOCK = 96  # pixels
LPIPS = "lpips"
DESCRIPTIONS = {
    **PROTOCOL_DESCRIPTIONS,
    "rgb": "all samples of the RGB picture, SSIM as the mean of the three channels; not a protocol of the papers",
    NIQE: "NIQE as BasicSR 1.4.2 computes it (Y, pristine parameters of the authors, 96x96 blocks); lower is better",
    LPIPS: "LPIPS 0.1 of its authors' package, by the network of which the weights are; lower is better",
}
INPUT_PREFIX = "input_"  # of columns of the rainy pictures
GAIN_PREFIX = "gain_"  # of columns of what was gained over them

METRICS = {
    "psnr": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 4),
    NIQE: ("NIQE", "", 2),
    LPIPS: ("LPIPS", "", 4),
}  # name, unit, digits
LOWER_IS_BETTER = frozenset({NIQE, LPIPS})
