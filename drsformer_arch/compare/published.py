"""PSNR in dB and SSIM as the DRSformer paper publishes them for all five networks (CVPR 2023, table 1)."""

PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "DRSformer": {
        "Rain200L": (41.23, 0.9894),
        "Rain200H": (32.17, 0.9326),
        "DID-Data": (35.35, 0.9646),
        "DDN-Data": (34.35, 0.9588),
        "SPA-Data": (48.54, 0.9924),
    },
    "Restormer": {
        "Rain200L": (40.99, 0.9890),
        "Rain200H": (32.00, 0.9329),
        "DID-Data": (35.29, 0.9641),
        "DDN-Data": (34.20, 0.9571),
        "SPA-Data": (47.98, 0.9921),
    },
    "IDT": {
        "Rain200L": (40.74, 0.9884),
        "Rain200H": (32.10, 0.9344),
        "DID-Data": (34.89, 0.9623),
        "DDN-Data": (33.84, 0.9549),
        "SPA-Data": (47.35, 0.9930),
    },
    "SPDNet": {
        "Rain200L": (40.50, 0.9875),
        "Rain200H": (31.28, 0.9207),
        "DID-Data": (34.57, 0.9560),
        "DDN-Data": (33.15, 0.9457),
        "SPA-Data": (43.20, 0.9871),
    },
    "DualGCN": {
        "Rain200L": (40.73, 0.9886),
        "Rain200H": (31.15, 0.9125),
        "DID-Data": (34.37, 0.9620),
        "DDN-Data": (33.01, 0.9489),
        "SPA-Data": (44.18, 0.9902),
    },
}
