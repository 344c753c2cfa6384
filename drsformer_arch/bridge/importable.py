"""Make `import basicsr` work on a current stack: whatever imports BasicSR imports this module first.

It imports next to nothing of this package, so that data sets in worker processes load no networks for its sake.

Raises:
    ModuleNotFoundError: BasicSR is not installed; the message says what installs it.
    UserError: it is installed and fails, as beside a torchvision that does not fit torch.
"""

import importlib.util
import sys
from types import ModuleType

from drsformer_arch.system import packages
from drsformer_arch.system.errors import UserError, line_of


def _provide_functional_tensor() -> None:
    """Stand in for a module that `basicsr.data.degradations` imports and torchvision has removed in 0.17."""
    name = "torchvision.transforms.functional_tensor"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        from torchvision.transforms.functional import rgb_to_grayscale  # noqa: PLC0415 - torchvision is slow to import

        module = ModuleType(name)
        module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]  # made here
        sys.modules[name] = module


def _provide_distutils() -> None:
    """Provide what `basicsr.archs.arch_util` imports: Python 3.12 has distutils only through setuptools."""
    if importlib.util.find_spec("distutils") is None:
        import setuptools  # noqa: F401, PLC0415 - its import puts distutils into place


packages.require("basicsr")
packages.require("torchvision")
try:
    _provide_functional_tensor()
    _provide_distutils()
    import basicsr  # noqa: F401 - here, for one line in place of a traceback through BasicSR
except Exception as error:  # libraries that do not fit raise anything
    if packages.missing(error):
        raise
    raise UserError(f"{line_of(error, 'BasicSR does not import')}; drsformer doctor shows what is installed") from error
