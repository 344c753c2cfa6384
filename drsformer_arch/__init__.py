"""DRSformer image deraining: the networks here, `drsformer_arch.plugin` for BasicSR."""

from drsformer_arch.archs import DRSformer

__all__ = ["DRSformer", "__version__"]
__version__ = "0.1.0"
