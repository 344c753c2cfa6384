"""Packages that may be missing, and the one line that says how to get them."""

import importlib.util
import re

BASICSR = "1.4.2"  # what this package is a plugin for
SETUP_TRAINING = "drsformer setup-training"

# Modules that an import may lack. Which package has one is said where its name is another.
BASE = ("torch", "einops", "numpy", "safetensors", "pydantic", "cv2", "PIL", "yaml", "lmdb", "tqdm")
OF_SOME = ("tifffile", "zstandard", "imagecodecs", "matplotlib", "scipy")  # commands, or kinds of files
OF_BASICSR = ("torchvision", "addict", "future", "requests", "skimage", "tensorboard", "yapf", "setuptools")
EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "spandrel": "spandrel", "lpips": "lpips"}
_PACKAGES = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "tensorboard": "tb-nightly",
}
_LIBRARY = re.compile(r"\b(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
_LIBRARIES_OF_OPENCV = ("libGL", "libgthread", "libglib")


def is_installed(module: str) -> bool:
    """Tell whether a top-level module can be found, without importing it."""
    # A folder of its name on Python's path, such as ./wandb of earlier runs, is found too, but has no origin.
    return getattr(importlib.util.find_spec(module), "origin", None) is not None


def package_of(module: str) -> str:
    """Name the package that has a top-level module."""
    return _PACKAGES.get(module, module)


def cure(module: str) -> str | None:
    """Say in one line that a module's package is missing and what installs it; None for a module that is not ours."""
    package = package_of(module)
    if module == "basicsr":
        return f"this needs BasicSR {BASICSR}, which is not installed; this installs it: {SETUP_TRAINING}"
    if module in OF_BASICSR:
        return f"BasicSR needs the package {package}, which is not installed; this installs it: {SETUP_TRAINING}"
    if module in EXTRAS:
        kind = {"onnx": "ONNX", "lpips": "LPIPS"}.get(EXTRAS[module], EXTRAS[module])
        return f"{kind} needs the package {package}: pip install 'drsformer-basicsr[{EXTRAS[module]}]'"
    if module in BASE or module in OF_SOME:
        return f"drsformer needs the package {package}: pip install {package}"
    return None


def missing(error: BaseException) -> str | None:
    """Say in one line which package or library of the system an import lacked, and what installs it; else None."""
    if not isinstance(error, ImportError):
        return None
    library = _LIBRARY.search(str(error))
    if library:
        is_of_opencv = library[1].startswith(_LIBRARIES_OF_OPENCV)
        hint = "; on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0" if is_of_opencv else ""
        return f"the library {library[1]} is missing{hint}"
    return cure((error.name or "").partition(".")[0]) if isinstance(error, ModuleNotFoundError) else None


def require(module: str) -> None:
    """Refuse to go on without a module's package.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what installs it.
    """
    if not is_installed(module):
        raise ModuleNotFoundError(cure(module) or f"No module named {module!r}", name=module)
