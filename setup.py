"""Refuse Pythons that BasicSR cannot be built on, in words; all metadata are in pyproject.toml."""

import sys

from setuptools import setup

if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    # BasicSR 1.4.2 cannot be built on Python 3.13: its setup.py reads locals() after exec().
    sys.exit(
        f"drsformer-basicsr needs Python 3.10, 3.11 or 3.12 (BasicSR 1.4.2 does not build on newer ones); "
        f"this is Python {sys.version_info[0]}.{sys.version_info[1]}."
    )

setup()
