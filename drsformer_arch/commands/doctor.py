"""`drsformer doctor`."""

import argparse
from typing import Any

from drsformer_arch.commands.common import add_command


def add(commands: Any) -> None:
    """Declare the command."""
    summary = "show what is installed, from where, what is registered, and what is wrong"
    add_command(commands, "doctor", summary).set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.bridge import doctor  # noqa: PLC0415 - works where BasicSR does not import

    return doctor.report()
