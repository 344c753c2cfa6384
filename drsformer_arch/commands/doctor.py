"""`drsformer doctor`."""

import argparse
from typing import Any

from drsformer_arch.commands.common import add_command, add_imports, print_out

EXAMPLES = """What it prints is for an issue, as it is: your own folder is ~ in it. The exit code is 1 where something
is wrong; what is missing and not needed for everything is no problem, and the line that installs it stands there.

examples:
  drsformer doctor
  drsformer doctor --import my_arch.py
"""


def add(commands: Any) -> None:
    """Declare the command."""
    summary = "show what is installed, from where, what is registered, and what is wrong"
    parser = add_command(commands, "doctor", run, summary, EXAMPLES)
    add_imports(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.bridge import doctor  # noqa: PLC0415 - works where BasicSR does not import

    text, code = doctor.report(args.imports)
    print_out(text)
    return code
