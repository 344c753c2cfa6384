"""Published PSNR in dB and SSIM of networks on data sets, and how they came about."""

_DATA_SETS = ("Rain200L", "Rain200H", "DID-Data", "DDN-Data", "SPA-Data")
_TABLE = {
    "DRSformer": ((41.23, 0.9894), (32.17, 0.9326), (35.35, 0.9646), (34.35, 0.9588), (48.54, 0.9924)),
    "Restormer": ((40.99, 0.9890), (32.00, 0.9329), (35.29, 0.9641), (34.20, 0.9571), (47.98, 0.9921)),
    "IDT": ((40.74, 0.9884), (32.10, 0.9344), (34.89, 0.9623), (33.84, 0.9549), (47.35, 0.9930)),
    "SPDNet": ((40.50, 0.9875), (31.28, 0.9207), (34.57, 0.9560), (33.15, 0.9457), (43.20, 0.9871)),
    "DualGCN": ((40.73, 0.9886), (31.15, 0.9125), (34.37, 0.9620), (33.01, 0.9489), (44.18, 0.9902)),
    "NeRDRain": ((41.71, 0.9903), (32.40, 0.9373), (35.53, 0.9659), (34.45, 0.9596), (49.58, 0.9940)),
    "SFHformer": ((41.85, 0.9908), (32.33, 0.9351), (35.44, 0.9655), (34.38, 0.9594), (50.11, 0.9942)),
    "FADformer": ((41.80, 0.9906), (32.48, 0.9359), (35.48, 0.9657), (34.42, 0.9602), (49.21, 0.9934)),
}
_RAIN13K = ("Rain100H", "Rain100L", "Test100", "Test2800", "Test1200")
PUBLISHED: dict[str, dict[str, tuple[float, float | None]]] = {
    network: dict(zip(_DATA_SETS, row, strict=True)) for network, row in _TABLE.items()
}
PUBLISHED["Restormer"] |= {
    name: (psnr, None) for name, psnr in zip(_RAIN13K, (31.46, 38.99, 32.00, 34.18, 33.19), strict=True)
}
# How the numbers came about, for whoever compares.
_BY_DRSFORMER = "by the DRSformer paper (CVPR 2023, table 1)"
NOTES = {
    **dict.fromkeys(("DRSformer", "IDT", "SPDNet", "DualGCN"), _BY_DRSFORMER),
    "Restormer": f"{_BY_DRSFORMER}; on the test sets of Rain13K by its own paper, PSNR only",
    "NeRDRain": "by its authors' README, of pictures of 8 bits that were put together from windows of 256 pixels",
    "SFHformer": "by its authors' README, of results and luma that were not rounded, cut to multiples of 8",
    "FADformer": "by its authors' README, of results and luma that were not rounded, put together from four corners; "
    "on DID-Data and DDN-Data of saved pictures",
}
