"""PSNR in dB and SSIM as the DRSformer paper publishes them for all five networks (CVPR 2023, table 1)."""

_DATA_SETS = ("Rain200L", "Rain200H", "DID-Data", "DDN-Data", "SPA-Data")
_TABLE = {
    "DRSformer": ((41.23, 0.9894), (32.17, 0.9326), (35.35, 0.9646), (34.35, 0.9588), (48.54, 0.9924)),
    "Restormer": ((40.99, 0.9890), (32.00, 0.9329), (35.29, 0.9641), (34.20, 0.9571), (47.98, 0.9921)),
    "IDT": ((40.74, 0.9884), (32.10, 0.9344), (34.89, 0.9623), (33.84, 0.9549), (47.35, 0.9930)),
    "SPDNet": ((40.50, 0.9875), (31.28, 0.9207), (34.57, 0.9560), (33.15, 0.9457), (43.20, 0.9871)),
    "DualGCN": ((40.73, 0.9886), (31.15, 0.9125), (34.37, 0.9620), (33.01, 0.9489), (44.18, 0.9902)),
}
PUBLISHED = {network: dict(zip(_DATA_SETS, row, strict=True)) for network, row in _TABLE.items()}
