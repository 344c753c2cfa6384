"""DRSformer image deraining: the networks and `Restorer` here, `drsformer_arch.plugin` for BasicSR."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drsformer_arch.archs import IDT, DRSformer, DualGCN, FADformer, NeRDRain, Restormer, SFHformer, SPDNet
    from drsformer_arch.restore.restorer import Restorer

__all__ = [
    "IDT",
    "DRSformer",
    "DualGCN",
    "FADformer",
    "NeRDRain",
    "Restorer",
    "Restormer",
    "SFHformer",
    "SPDNet",
    "__version__",
]
__version__ = "0.2.0"

# One limit for all: OpenCV reads its own when it is loaded. What is wrong with it, `picture_headers.max_pixels` says.
if os.environ.get("DRSFORMER_MAX_PIXELS", "").strip().isdecimal():
    for _name in ("OPENCV_IO_MAX_IMAGE_PIXELS", "OPENCV_IO_MAX_IMAGE_WIDTH", "OPENCV_IO_MAX_IMAGE_HEIGHT"):
        os.environ.setdefault(_name, os.environ["DRSFORMER_MAX_PIXELS"].strip())


def __getattr__(name: str) -> Any:
    """Networks are loaded when asked for: `drsformer --help` and worker processes that only read need no torch."""
    if name == "Restorer":
        from drsformer_arch.restore.restorer import Restorer  # noqa: PLC0415

        return Restorer
    if name in __all__:
        from drsformer_arch import archs  # noqa: PLC0415

        return getattr(archs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
