"""Networks: torch only; they know nothing of options, data or files."""

from .drsformer_arch import DRSformer
from .restormer_arch import Restormer

__all__ = ["DRSformer", "Restormer"]
