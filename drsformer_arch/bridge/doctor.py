"""`drsformer doctor`: what is installed, from where, what is registered, and what is wrong."""

import functools
import importlib
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from drsformer_arch import __version__
from drsformer_arch.system.errors import line_of

PACKAGES = (
    "basicsr",
    "torch",
    "torchvision",
    "numpy",
    "einops",
    "pydantic",
    "opencv-python",
    "lmdb",
    "zstandard",
    "pyyaml",
    "safetensors",
)
OPTIONAL = ("onnxruntime", "spandrel")  # for exported networks, for tools that load by spandrel
OPENCV_VARIANTS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
WANTED_BASICSR = "1.4.2"


def report(imports: Sequence[str] = ()) -> int:
    """Print the report.

    Args:
        imports: modules and files to import, see `outside.register_outside`.

    Returns:
        0 where nothing is wrong, 1 otherwise.
    """
    problems: list[str] = []
    print(f"Python {platform.python_version()} at {sys.executable} on {platform.platform()}")
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        problems.append("this Python is not supported: use 3.10, 3.11 or 3.12")
    checks: dict[str, Callable[[list[str]], None]] = {
        "packages": _list_packages,
        "copies of BasicSR": _check_copies,
        "torch": _check_torch,
        "the plugin": _check_plugin,
        "networks from outside": functools.partial(_list_networks_from_outside, imports),
    }
    for subject, check in checks.items():
        try:
            check(problems)
        except Exception as error:  # a broken installation raises anything; the other checks go on
            problems.append(line_of(error, subject))
    print("\nNo problems found." if not problems else "\nProblems:")
    for problem in problems:
        print(f"  - {problem}")
    return 1 if problems else 0


def _list_packages(_: list[str]) -> None:
    # Its own code says it: the metadata of an editable installation are those of the day it was made.
    print(f"  {'drsformer-basicsr':20} {__version__}")
    for name in PACKAGES:
        print(f"  {name:20} {_version(name) or 'not installed'}")
    optional = [f"{name} {version}" for name in OPTIONAL if (version := _version(name))]
    print(f"Optional: {', '.join([*optional, shutil.which('ffmpeg') or 'no ffmpeg (videos lose their sound)'])}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_copies(problems: list[str]) -> None:
    """Vendored copies of BasicSR and second OpenCV packages are behind many import errors."""
    copies = [Path(folder or ".", "basicsr") for folder in sys.path if Path(folder or ".", "basicsr").is_dir()]
    copies = list(dict.fromkeys(copy.resolve() for copy in copies))
    print("BasicSR found at: " + (", ".join(map(str, copies)) or "nowhere"))
    if len(copies) > 1:
        problems.append(f"several copies of BasicSR are on the path; the first wins: {', '.join(map(str, copies))}")
    version = _version("basicsr")
    if version != WANTED_BASICSR:
        problems.append(f"basicsr is {version or 'not installed'}: pip install basicsr=={WANTED_BASICSR}")
    opencv = [name for name in OPENCV_VARIANTS if _version(name)]
    if len(opencv) > 1:
        problems.append(
            f"several OpenCV packages share one folder and break each other; keep one of: {', '.join(opencv)}"
        )


def _check_torch(problems: list[str]) -> None:
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")
    except Exception as error:  # libraries that do not fit raise anything
        problems.append(line_of(error, "torch or torchvision does not import"))
        return
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(f"Devices: {', '.join(gpus) or 'CPU only'}, {torch.get_num_threads()} CPU threads")
    if torch.version.cuda and not gpus:
        print("  (torch is a CUDA build but sees no GPU; training runs on the CPU)")


def _check_plugin(problems: list[str]) -> None:
    try:
        plugin: Any = importlib.import_module("drsformer_arch.plugin")
        fast: Any = importlib.import_module("drsformer_arch.fast")
    except Exception as error:  # as above
        problems.append(line_of(error, "the plugin does not import"))
        return
    with importlib.import_module("torch").device("meta"):
        forms = [f"{kind.__name__} {fast.form_of(fast.accelerate(kind()))}" for kind in plugin.NETWORKS]
    print(f"Forms that run (network_g.fast: false runs the plain ones): {', '.join(forms)}")
    print("Registered by this package:")
    for registry, entries in plugin.OURS:
        known: dict[str, Any] = dict(iter(registry))
        for entry in entries:
            holder: Any = known.get(entry.__name__)
            name = entry.__name__ if holder is entry else f"{entry.__name__}_drsformer"
            print(f"  {registry._name:8} {name}")
            if holder is not None and holder is not entry:
                problems.append(f"{entry.__name__} is registered by {holder.__module__}; ours is {name}")


def _list_networks_from_outside(imports: Sequence[str], _: list[str]) -> None:
    importlib.import_module("drsformer_arch.bridge.outside").register_outside(imports)
    own: Any = importlib.import_module("drsformer_arch.archs").NETWORKS
    networks: Any = importlib.import_module("drsformer_arch.restore.outside").outside_networks()
    names = [f"{name} of {kind.__module__}" for name, kind in networks.items() if kind not in own]
    print(f"Networks from outside: {', '.join(names) or 'none'}")
