"""`drsformer setup-training`."""

import argparse
import sys
from typing import Any

from drsformer_arch.commands.common import add_command

EXAMPLES = """BasicSR's own setup.py fails from Python 3.13 on. This command builds BasicSR 1.4.2 from its own source
distribution, on any Python, and installs it with what it needs into the environment in which drsformer runs; where it
is there and works, nothing is done. It needs the network, or what pip has cached. Run it again if it was interrupted.
PIP_OPTION goes to `pip wheel` and `pip install`. An environment made by uv needs no pip of its own.

examples:
  drsformer setup-training
  drsformer setup-training -- --constraint constraints.txt
  drsformer setup-training -- --no-index --find-links wheels    # without network; wheels holds all that is needed
"""


def add(commands: Any) -> None:
    """Declare the command."""
    summary = "install what train and test need beside the rest: BasicSR"
    parser = add_command(commands, "setup-training", run, summary, EXAMPLES)
    parser.add_argument("pip_options", nargs="*", metavar="-- PIP_OPTION", help="options of pip, behind two hyphens")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.bridge import installation  # noqa: PLC0415 - --help needs none of this
    from drsformer_arch.system.packages import BASICSR  # noqa: PLC0415

    version = installation.working_version()
    if version is not None:
        print(f"BasicSR {version} is there and works: nothing to do")
        return 0
    installation.install(args.pip_options, lambda line: print(line, file=sys.stderr, flush=True))
    print(f"BasicSR {BASICSR} is installed: drsformer train and drsformer test work")
    return 0
