"""DRSformer image deraining: the networks here, `drsformer_arch.plugin` for BasicSR."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drsformer_arch.archs import IDT, DRSformer, DualGCN, Restormer, SPDNet

__all__ = ["IDT", "DRSformer", "DualGCN", "Restormer", "SPDNet", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Networks are loaded when asked for: `drsformer --help` and worker processes that only read need no torch."""
    if name in __all__:
        from drsformer_arch import archs  # noqa: PLC0415

        return getattr(archs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
