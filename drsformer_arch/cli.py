"""The `drsformer` command: parses arguments and calls; every mistake of a user ends in one line."""

import argparse
import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from drsformer_arch.commands import (
    compare,
    derain,
    doctor,
    evaluate,
    export,
    options,
    pipelines,
    plot,
    prepare,
    report,
    samples,
    setup_training,
    split_scenes,
)
from drsformer_arch.system import packages, terminal
from drsformer_arch.system.errors import (
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    GIVEN_UP,
    UserError,
    debugging,
    is_debugging,
    printable,
    show_traceback,
)

COMMANDS = (
    pipelines,
    options,
    samples,
    prepare,
    split_scenes,
    derain,
    compare,
    evaluate,
    report,
    plot,
    export,
    doctor,
    setup_training,
)
EXAMPLES = """examples:
  drsformer samples -o datasets/quickstart --lmdb
  drsformer options train/DRSformer/Rain200H > my.yml
  drsformer train -opt my.yml
  drsformer train -opt my.yml --force_yml train:effective_batch_size=16
  drsformer train -opt my.yml --auto_resume
  drsformer test -opt my_test.yml
  drsformer prepare rain200h Downloads/Rain200H.zip -o datasets/Rain200H --lmdb
  drsformer derain rainy.jpg photographs/ -o derained -w net_g_latest.pth
  drsformer compare options/test/*/Rain200H.yml -o results/rain200h
  drsformer evaluate derained clean --input rainy -o scores.csv
  drsformer report derained clean --input rainy -o results.html
  drsformer plot experiments/small experiments/large -o training.png
  drsformer export net_g_latest.pth -o derain.onnx
  drsformer doctor
  drsformer setup-training
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drsformer",
        description="Image deraining with DRSformer inside BasicSR.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0: done; 1: some files could not be used, or trouble of the machine, after which running again may help; 2: a
        mistake in the input (1 and 2 are explained on stderr); 75: stopped on request, go on with --auto_resume; 130:
        interrupted without saving.
    """
    note = os.environ.get(GIVEN_UP)
    if note and Path(note).exists():  # launchers start again what running again cannot cure, whatever its code was
        sys.exit(EXIT_USER_ERROR)
    code: Any = None
    try:
        with terminal.guarded():
            args = _parse(arguments)
            with debugging(args.debug), _ending_tidily(args.command):
                code = _run(args)
    except SystemExit as end:  # argparse's
        code = end.code
        raise
    finally:
        if note and code == EXIT_USER_ERROR:
            Path(note).touch()
    return code


@contextlib.contextmanager
def _ending_tidily(command: str) -> Iterator[None]:
    """Let SIGTERM and a closed terminal end a command as Ctrl-C does, so that nothing half-written stays."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if command in pipelines.SUMMARIES or threading.current_thread() is not threading.main_thread():
        numbers = []  # trainings have their own handlers, and only the main thread can have any
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores SIGHUP

    def interrupt(number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not end the tidying
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    given = sys.argv[1:] if arguments is None else arguments
    for text in itertools.takewhile(lambda text: text != "--", given):
        if text.startswith("--") and text.endswith("=--"):  # to argparse before Python 3.13 that is an empty list
            parser.error(f"argument {text[:-3]}: expected a value, not --")
    args, rest = parser.parse_known_args(given)
    if hasattr(args, "operands") and not any(text.startswith("-") for text in rest):
        args.operands += rest  # argparse does not see that `prepare DATASET SRC` may stand before and after options
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _run(args: argparse.Namespace) -> int:
    try:
        return args.run(args)
    except KeyboardInterrupt:
        again = " What is finished stays; the same command goes on." if args.command == "prepare" else ""
        print(f"Interrupted.{again}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if lacking := packages.missing(error):
            show_traceback(error)
            _explain(printable(lacking))
            return EXIT_USER_ERROR
        from drsformer_arch.bridge.trouble import EXIT_TROUBLE, trouble_of  # noqa: PLC0415 - not needed where all goes well

        trouble = trouble_of(error)
        if trouble is None and not isinstance(error, UserError | OSError):
            raise
        show_traceback(error)
        if trouble is not None:
            if not is_debugging():
                sys.unraisablehook = lambda _: None  # what was half made complains when it is taken down
            again = "; --auto_resume goes on from the last checkpoint" if args.command == "train" else ""
            print(f"error: {trouble}{again}", file=sys.stderr)
            return EXIT_TROUBLE
        if isinstance(error, OSError):
            _explain(printable(f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")))
        else:
            _explain(str(error))
    return EXIT_USER_ERROR


def _explain(mistake: str) -> None:
    """Print a mistake; of the processes that a launcher started, the first that finds one does."""
    note = os.environ.get(GIVEN_UP)
    if note:
        try:
            Path(note).touch(exist_ok=False)
        except FileExistsError:
            return
        except OSError:  # the launcher has ended
            pass
    print(f"error: {mistake}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
