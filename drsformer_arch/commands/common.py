"""What several subcommands share."""

import argparse
from typing import Any

from drsformer_arch.errors import UserError

EXIT_SOME_FAILED = 1  # of many pictures; each was named


def add_command(
    commands: Any,
    name: str,
    summary: str,
    epilog: str | None = None,
    *,
    debug: str = "show the traceback of every error",
) -> argparse.ArgumentParser:
    """Declare a subcommand; its module says with `set_defaults(run=...)` what runs it.

    Args:
        commands: of `argparse.ArgumentParser.add_subparsers`.
        name: of the command.
        summary: one line for the list of commands and the top of its own help.
        epilog: examples.
        debug: what its --debug does.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=epilog,
    )
    parser.add_argument("--debug", action="store_true", help=debug)
    return parser


def whole_number(option: str, text: str) -> int:
    """The value of an option that may also be a word.

    Raises:
        UserError: it is neither.
    """
    if not text.isdecimal():
        raise UserError(f"{option} must be a whole number or auto, not {text}")
    return int(text)
