"""Metadata of the package; tools are configured in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    # BasicSR 1.4.2 cannot be built on Python 3.13: its setup.py reads locals() after exec().
    sys.exit(
        f"drsformer-basicsr needs Python 3.10, 3.11 or 3.12 (BasicSR 1.4.2 does not build on newer ones); "
        f"this is Python {sys.version_info[0]}.{sys.version_info[1]}."
    )

ONNX = ["onnx", "onnxruntime", "onnxscript"]
SPANDREL = ["spandrel"]
TEST = ["pytest", "scikit-image", "playwright", *ONNX, *SPANDREL]

setup(
    name="drsformer-basicsr",
    version="0.1.0",
    description="DRSformer (CVPR 2023) image deraining as a plugin for BasicSR",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["drsformer_arch", "drsformer_arch.*"]),
    install_requires=[
        "torch>=2.6",  # torch.load with weights_only=True by default
        "torchvision",
        "basicsr==1.4.2",
        "einops",
        "opencv-python",
        "numpy>=2",
        "pyyaml",
        "lmdb",
        "safetensors",
        "tqdm",
        "matplotlib",
        "pillow",
        "tifffile",
        "zstandard",
        "imagecodecs",
        "setuptools",  # BasicSR imports distutils, which Python 3.12 only has through setuptools
    ],
    extras_require={
        "onnx": ONNX,
        "spandrel": SPANDREL,
        "test": TEST,
        "dev": [*TEST, "ruff", "mypy", "types-PyYAML", "import-linter"],
    },
    package_data={"drsformer_arch": ["page/assets/*", "weights/*"]},
    entry_points={"console_scripts": ["drsformer=drsformer_arch.cli:main"]},
)
