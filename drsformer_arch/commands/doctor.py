"""`drsformer doctor`."""

import argparse
from typing import Any

from drsformer_arch.commands.common import add_command, add_imports


def add(commands: Any) -> None:
    """Declare the command."""
    summary = "show what is installed, from where, what is registered, and what is wrong"
    parser = add_command(commands, "doctor", run, summary)
    add_imports(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.bridge import doctor  # noqa: PLC0415 - works where BasicSR does not import

    return doctor.report(args.imports)
