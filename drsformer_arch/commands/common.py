"""Options and messages that several subcommands share."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drsformer_arch.system import files
from drsformer_arch.system.errors import UserError

EXIT_SOME_FAILED = 1  # of many pictures; each was named


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    epilog: str | None = None,
    *,
    debug: str = "show the traceback of every error",
) -> argparse.ArgumentParser:
    """Declare a subcommand.

    Args:
        commands: of `argparse.ArgumentParser.add_subparsers`.
        name: of the command.
        run: what runs it; returns the exit code.
        summary: one line for the list of commands and the top of its own help.
        epilog: examples.
        debug: what its --debug does.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(name, help=summary, description=summary, epilog=epilog, formatter_class=formatter)
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help=debug)
    return parser


def add_imports(parser: argparse.ArgumentParser) -> None:
    """Declare `--import` of commands that use networks; `register_outside` takes what it collects."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        type=_from_here,
        default=[],
        metavar="MODULE_OR_FILE",
        help="import an own network (my_arch.py, or a module); this EXECUTES the file; may be repeated",
    )


def add_inference(parser: argparse.ArgumentParser) -> None:
    """Declare `--ensemble` and `--published-inference` of commands that run networks."""
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="take the mean over the eight symmetries of each picture: eight times as slow; of DRSformer-S, which "
        "learned rain as it falls, over the four upright ones",
    )
    parser.add_argument(
        "--published-inference",
        action="store_true",
        help="run networks as their authors did for their scores: NeRDRain in windows of 256 pixels, FADformer as the "
        "mean of four corners, the others as always",
    )


def _from_here(name: str) -> str:
    """Make the path of a file absolute, for any working directory; the name of a module stays as it is."""
    return str(Path.cwd() / files.expanded(name)) if name.endswith(".py") else name


def register_outside(imports: Sequence[str]) -> None:
    """Import what `--import` names; without it nothing is loaded.

    Raises:
        UserError: see `bridge.outside.register_outside`.
    """
    if imports:
        from drsformer_arch import plugin  # noqa: F401, PLC0415 - torch and BasicSR take seconds to load
        from drsformer_arch.bridge import outside  # noqa: PLC0415

        outside.register_outside(imports)


def refuse_no_page(path: Path, option: str) -> None:
    """Refuse what would write a page over a table or a picture.

    Raises:
        UserError: a folder, or a file of another kind by its name.
    """
    if path.is_dir() or not (files.is_stream(path) or path.suffix.lower() in (".html", ".htm")):
        raise UserError(f"{option} {path}: the page is one file, named .html")


def announce(text: str, out: Path | None) -> None:
    """Print what was done; to stderr where the result itself went to stdout."""
    print(text, file=sys.stderr if out is not None and files.is_stdout(out) else sys.stdout, flush=True)


def size_of(out: Path) -> str:
    """Say the size of a written file; a device or a pipe has none."""
    return "written" if files.is_stream(out) else f"{out.stat().st_size / 1e6:.1f} MB"


def print_out(text: str) -> None:
    """Print what a command is for, to the end; a reader that has seen enough (`| head`) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
