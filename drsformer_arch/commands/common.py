"""What several subcommands share."""

import argparse
from typing import Any

from drsformer_arch.errors import UserError

EXIT_SOME_FAILED = 1  # of many pictures; each was named


def add_command(commands: Any, name: str, summary: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Declare a subcommand; its module says with `set_defaults(run=...)` what runs it."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=epilog,
    )


def whole_number(option: str, text: str) -> int:
    """The value of an option that may also be a word.

    Raises:
        UserError: it is neither.
    """
    if not text.isdecimal():
        raise UserError(f"{option} must be a whole number or auto, not {text}")
    return int(text)
