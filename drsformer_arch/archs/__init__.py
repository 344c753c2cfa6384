"""Networks: torch only; they know nothing of options, data or files."""

from drsformer_arch.archs.drsformer_arch import DRSformer

__all__ = ["DRSformer"]
