"""`drsformer doctor`: what is installed, from where, what is registered, and what is wrong, as a block for an issue."""

import functools
import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from drsformer_arch import __version__
from drsformer_arch.system import packages, processor
from drsformer_arch.system.errors import line_of

OPENCV_VARIANTS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
TENSORBOARD_VARIANTS = ("tb-nightly", "tensorboard")
# Extras: modules, and what they are for.
EXTRAS = {
    "onnx": (("onnx", "onnxruntime", "onnxscript"), "export to ONNX, derain with ONNX files"),
    "lpips": (("lpips",), "LPIPS as a score"),
    "spandrel": (("spandrel",), "tools that load weights with spandrel"),
}
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")  # of a processor's flags
VARIABLES = re.compile("DRSFORMER_.*|OMP_.*|MKL_.*|KMP_.*|MALLOC_.*|CUDA_.*|PYTORCH_.*|TORCH_.*|NCCL_.*|PYTHONPATH")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
GIBIBYTE = 2**30

Report = list[str]  # lines


def report(imports: Sequence[str] = ()) -> tuple[str, int]:
    """Look at everything.

    Args:
        imports: modules and files to import, see `outside.register_outside`.

    Returns:
        A plain text, in which the user's folder is ~, and the exit code: 0 where nothing is wrong, 1 otherwise.
    """
    lines: Report = [
        f"drsformer-basicsr {__version__} at {Path(__file__).parents[1]}",
        f"Python {platform.python_version()} at {sys.executable} on {platform.platform()}",
    ]
    problems: list[str] = []
    checks: dict[str, Callable[[Report, list[str]], None]] = {
        "packages": _list_packages,
        "training": _check_basicsr,
        "torch": _check_torch,
        "networks": _list_forms,
        "networks from outside": functools.partial(_list_networks_from_outside, imports),
        "the plugin": _check_plugin,
        "extras": _list_extras,
        "the environment": _list_variables,
    }
    for subject, check in checks.items():
        try:
            check(lines, problems)
        except Exception as error:  # a broken installation raises anything; the other checks go on
            problems.append(line_of(error, subject))
    lines += ["", *(["Problems:", *(f"  - {problem}" for problem in problems)] if problems else ["No problems found."])]
    return _without_home("\n".join(lines) + "\n"), 1 if problems else 0


def _without_home(text: str) -> str:
    home = os.path.expanduser("~")  # stays ~ where the system knows no user, as in some containers
    for path in (home, os.path.realpath(home)) if os.path.isabs(home) else ():
        text = text if path == "/" else re.sub(rf"(?<![\w/.-]){re.escape(path)}(?![\w.-])", "~", text)
    return text


def _version(*names: str) -> str | None:
    """The version of the first package of some that is installed."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _versions(modules: Sequence[str]) -> tuple[list[str], list[str]]:
    """Packages with their versions, and modules of those that are not installed."""
    there, lacking = [], []
    for module in modules:
        name = packages.package_of(module)
        variants = {"opencv-python": OPENCV_VARIANTS, "tb-nightly": TENSORBOARD_VARIANTS}.get(name, (name,))
        if packages.is_installed(module):
            there.append(f"{name} {_version(*variants) or 'of unknown version'}")
        else:
            lacking.append(module)
    return there, lacking


def _list_packages(lines: Report, problems: list[str]) -> None:
    there, lacking = _versions((*packages.BASE, *packages.OF_SOME))
    lines.append(f"Packages: {', '.join(there)}")
    problems += [cure for module in lacking if (cure := packages.cure(module))]
    opencv = [name for name in OPENCV_VARIANTS if _version(name)]
    if len(opencv) > 1:
        problems.append(
            f"several OpenCV packages share one folder and break each other; keep one of: {', '.join(opencv)}"
        )


def _check_basicsr(lines: Report, problems: list[str]) -> None:
    """Vendored copies of BasicSR are behind many import errors."""
    if not packages.is_installed("basicsr"):
        lines.append(f"Training (train, test): not set up; this sets it up: {packages.SETUP_TRAINING}")
        return
    version = _version("basicsr")
    copies = [Path(folder or ".", "basicsr") for folder in sys.path if Path(folder or ".", "basicsr").is_dir()]
    copies = list(dict.fromkeys(copy.resolve() for copy in copies))
    there, lacking = _versions(packages.OF_BASICSR)
    lines.append(f"Training: BasicSR {version} at {', '.join(map(str, copies)) or 'nowhere'}; {', '.join(there)}")
    problems += [cure for module in lacking if (cure := packages.cure(module))]
    if len(copies) > 1:
        problems.append(f"several copies of BasicSR are on the path; the first wins: {', '.join(map(str, copies))}")
    if version != packages.BASICSR:
        problems.append(
            f"basicsr is {version or 'a folder that is not installed'}, not {packages.BASICSR}: take it away, then "
            f"{packages.SETUP_TRAINING}"
        )


def _check_torch(lines: Report, problems: list[str]) -> None:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # libraries that do not fit raise anything
        problems.append(packages.missing(error) or line_of(error, "torch does not import"))
        return
    able = [flag for flag in FLAGS if flag in processor.flags()]
    memory, free = processor.whole_memory(), processor.free_memory(torch.device("cpu"))
    lines.append(
        f"Processor: {processor.model_name()}{' with ' * bool(able)}{', '.join(able)}; {processor.usable_cores()} of "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; {memory / GIBIBYTE:.1f} GiB of memory, "
        f"{free / GIBIBYTE:.1f} free"
    )
    build = next((f"{name} {made}" for name, made in _builds(torch) if made), "CPUs only")
    count = torch.cuda.device_count()
    lines.append(f"GPU: {'' if count else 'none seen'}{_gpus(torch, count)} (torch is built for {build})")
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        lines.append("  Apple's GPU is there: --device mps, which nobody has tried")
    if NVIDIA_DRIVER.exists() and not count and torch.version.cuda:
        problems.append(
            f"there is an NVIDIA driver, but torch (CUDA {torch.version.cuda}) sees no GPU: the driver may be too old "
            f"for it, or CUDA_VISIBLE_DEVICES hides it; pytorch.org has builds for older drivers"
        )


def _builds(torch: Any) -> list[tuple[str, str | None]]:
    return [("CUDA", torch.version.cuda), ("ROCm", getattr(torch.version, "hip", None))]


def _gpus(torch: Any, count: int) -> str:
    described = []
    for index in range(count):
        facts = torch.cuda.get_device_properties(index)
        described.append(
            f"{index}: {facts.name}, {facts.total_memory / GIBIBYTE:.1f} GiB, capability {facts.major}.{facts.minor}"
        )
    return "; ".join(described)


def _list_forms(lines: Report, _: list[str]) -> None:
    if not packages.is_installed("torch"):  # told already
        return
    fast: Any = importlib.import_module("drsformer_arch.fast")
    networks: Any = importlib.import_module("drsformer_arch.archs").NETWORKS
    with importlib.import_module("torch").device("meta"):
        forms = [f"{kind.__name__} {fast.form_of(fast.accelerate(kind()))}" for kind in networks]
    lines.append(f"Forms that run (network_g.fast: false runs the plain ones): {', '.join(forms)}")


def _check_plugin(lines: Report, problems: list[str]) -> None:
    if not packages.is_installed("basicsr"):
        return
    try:
        plugin: Any = importlib.import_module("drsformer_arch.plugin")
    except Exception as error:  # libraries that do not fit raise anything
        problems.append(packages.missing(error) or line_of(error, "the plugin does not import"))
        return
    lines.append("Registered with BasicSR by this package:")
    strangers = []
    for registry, entries in plugin.OURS:
        known: dict[str, Any] = dict(iter(registry))
        names = []
        for entry in entries:
            holder: Any = known.get(entry.__name__)
            names.append(entry.__name__ if holder is entry else f"{entry.__name__}_drsformer")
            if holder is not None and holder is not entry:
                problems.append(f"{entry.__name__} is registered by {holder.__module__}; ours is {names[-1]}")
        lines.append(f"  {registry._name + ':':8} {', '.join(names)}")
        strangers += [
            f"{registry._name} {name} of {module}"
            for name, entry in known.items()
            if entry not in entries and (module := entry.__module__).split(".")[0] not in {"basicsr", "drsformer_arch"}
        ]
    lines.append(f"Registered by others: {', '.join(strangers) or 'nothing'}")


def _list_networks_from_outside(imports: Sequence[str], lines: Report, _: list[str]) -> None:
    if imports:
        importlib.import_module("drsformer_arch.plugin")  # whose names come first
        importlib.import_module("drsformer_arch.bridge.outside").register_outside(imports)
    own: Any = importlib.import_module("drsformer_arch.archs").NETWORKS
    networks: Any = importlib.import_module("drsformer_arch.restore.outside").outside_networks()
    names = [f"{name} of {kind.__module__}" for name, kind in networks.items() if kind not in own]
    lines.append(f"Networks from outside: {', '.join(names) or 'none'}")


def _list_extras(lines: Report, _: list[str]) -> None:
    lines.append("Extras:")
    for extra, (modules, purpose) in EXTRAS.items():
        there, lacking = _versions(modules)
        cure = f"{', '.join(lacking)} missing ({purpose}): pip install 'drsformer-basicsr[{extra}]'"
        lines.append(f"  {', '.join([*there, *([cure] if lacking else [])])}")
    wandb = _version("wandb")
    lines.append(f"  wandb {wandb}" if wandb else "  wandb missing (logger.wandb of option files): pip install wandb")
    lacking = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    cure = "apt-get install ffmpeg (Debian, Ubuntu), brew install ffmpeg (macOS)"
    lines.append(
        f"  {' and '.join(lacking)} missing (without, videos lose their sound): {cure}"
        if lacking
        else f"  ffmpeg at {shutil.which('ffmpeg')}"
    )
    if packages.is_installed("playwright"):  # whoever runs the tests; pages open in any browser
        browsers = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", os.path.expanduser("~/.cache/ms-playwright")))
        found = any(browsers.glob("chromium*")) or any(map(shutil.which, ("chromium", "google-chrome")))
        lines.append(f"  Chromium {'is there' if found else 'missing (tests of pages): playwright install chromium'}")


def _list_variables(lines: Report, _: list[str]) -> None:
    given = [f"{name}={value}" for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)]
    lines.append(f"Environment: {', '.join(given) or 'nothing that matters here is set'}")
