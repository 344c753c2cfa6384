"""The `drsformer` command: parses arguments and calls; every mistake of a user ends in one line."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from drsformer_arch.errors import TrainingStopped, UserError
from drsformer_arch.options import MODEL_TYPES

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped on request with its state saved; run again with --auto_resume
EXIT_INTERRUPTED = 130
EXAMPLES = """examples:
  drsformer train -opt options/quickstart.yml
  drsformer train -opt options/train/DRSformer/Rain200H.yml --force_yml train:effective_batch_size=16
  drsformer train -opt options/train/DRSformer/Rain200H.yml --auto_resume
  drsformer test -opt options/test/DRSformer/Rain200H.yml
  drsformer doctor
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drsformer",
        description="Image deraining with DRSformer inside BasicSR.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in {
        "train": "train from an option file; results go to ./experiments",
        "test": "test trained weights from an option file; results go to ./results",
    }.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("-opt", required=True, metavar="FILE", help="option file (YAML)")
        command.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none")
        command.add_argument("--debug", action="store_true", help="a few iterations with everything logged")
        command.add_argument(
            "--force_yml",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY:KEY=VALUE",
            help="options that override the file's",
        )
        if name == "train":
            command.add_argument("--auto_resume", action="store_true", help="go on from the newest training state")
    commands.add_parser("doctor", help="show what is installed, from where, what is registered, and what is wrong")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0: done; 2: a mistake in the input, explained on stderr; 75: stopped on request, go on with --auto_resume;
        130: interrupted without saving.
    """
    args = _parser().parse_args(arguments)
    try:
        if args.command == "doctor":
            from drsformer_arch import doctor  # noqa: PLC0415 - works where BasicSR does not import

            return doctor.report()
        return _run_pipeline(args)
    except TrainingStopped as stopped:
        print(f"Stopped after iteration {stopped.iteration}; its state is saved. Go on with --auto_resume.")
        return EXIT_STOPPED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
    return EXIT_USER_ERROR


def _run_pipeline(args: argparse.Namespace) -> int:
    from drsformer_arch import run  # noqa: PLC0415 - torch and BasicSR take seconds; --help must not

    is_train = args.command == "train"
    resumes = getattr(args, "auto_resume", False)
    distributed = args.launcher != "none"
    options = run.prepare(args.opt, args.force_yml, is_train=is_train, distributed=distributed, resumes=resumes)
    if is_train and options["model_type"] in MODEL_TYPES:  # other models know no stop that saves
        signal.signal(signal.SIGINT, _request_stop)
        signal.signal(signal.SIGTERM, _request_stop)
    # BasicSR's pipelines parse sys.argv themselves; overrides were applied already.
    flags = [flag for flag in ("--auto_resume", "--debug") if getattr(args, flag.lstrip("-"), False)]
    sys.argv = ["drsformer", "-opt", args.opt, "--launcher", args.launcher, *flags]
    run.start(options, root=os.getcwd(), is_train=is_train)
    return 0


def _request_stop(number: int, _frame: Any) -> None:
    from drsformer_arch.models.derain_model import stop_requested  # noqa: PLC0415 - loaded by now

    if stop_requested.is_set() and number == signal.SIGINT:
        raise KeyboardInterrupt
    stop_requested.set()
    name = signal.Signals(number).name
    again = " (Ctrl-C again: stop at once)" if number == signal.SIGINT else ""
    print(f"{name}: saving after this iteration, then stopping{again}", file=sys.stderr, flush=True)
