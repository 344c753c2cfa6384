"""The `drsformer` command: parses arguments and calls; every mistake of a user ends in one line."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drsformer_arch.errors import TrainingStopped, UserError
from drsformer_arch.options import MODEL_TYPES

EXIT_SOME_FAILED = 1  # of many pictures; each was named
EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped on request with its state saved; run again with --auto_resume
EXIT_INTERRUPTED = 130
DATA_SETS = ("rain200l", "rain200h", "did", "ddn", "spa", "rain100l", "rain100h", "rain800", "rain13k", "pairs")
EXAMPLES = """examples:
  drsformer train -opt options/quickstart.yml
  drsformer train -opt options/train/DRSformer/Rain200H.yml --force_yml train:effective_batch_size=16
  drsformer train -opt options/train/DRSformer/Rain200H.yml --auto_resume
  drsformer test -opt options/test/DRSformer/Rain200H.yml
  drsformer prepare rain200h Downloads/Rain200H.zip -o datasets/Rain200H --lmdb
  drsformer derain rainy.jpg photographs/ -o derained -w net_g_latest.pth
  drsformer compare options/test/*/Rain200H.yml -o results/rain200h
  drsformer doctor
"""
DERAIN_EXAMPLES = """INPUT is pictures, folders (searched recursively) or patterns. Results keep their names below OUT,
their format, depth, transparency, colour profile and EXIF notes. Nothing is overwritten without --overwrite. A picture
that cannot be read is named, the rest goes on, and the exit code is 1.

examples:
  drsformer derain rainy.jpg -o clean.jpg -w weights.pth
  drsformer derain photographs/ -o derained -w weights.pth --precision bf16
  drsformer derain 'holiday/*.png' -o derained -w weights.pth --tile 512 --format jpg
"""
COMPARE_EXAMPLES = """Every network runs in a process of its own. OUT gets comparison.md, .csv and .tex (with the
published numbers in parentheses), pictures.csv, quality_cost.png, crops.png and all result pictures.

examples:
  drsformer compare options/test/DRSformer/Rain200H.yml options/test/Restormer/Rain200H.yml -o results/rain200h
  drsformer compare weights/*.pth --data Rain100L=datasets/Rain100L/test --protocol rain200 --limit 20
"""
PREPARE_EXAMPLES = """DATASET is one of {names}. SRC is a folder
or an archive (.zip, .tar, .tar.gz, ...) and is only read; every layout in which the set circulates is recognised.
Without --lmdb the result is DST/train and DST/test, folders with input/ and target/. The same command goes on after an
interruption.

examples:
  drsformer prepare rain200l Downloads/Rain200L -o datasets/Rain200L --lmdb
  drsformer prepare ddn DDN-Data.zip -o datasets/DDN-Data --lmdb raw
  drsformer prepare pairs photos/rainy photos/clean -o datasets/mine --lmdb basicsr
  drsformer prepare pairs photos -o datasets/mine --pattern 'rain/{{}}x2' 'norain/{{}}'
  drsformer prepare --verify datasets/Rain200L/train.lmdb
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
    _add_prepare(commands)
    _add_derain(commands)
    _add_compare(commands)
    commands.add_parser("doctor", help="show what is installed, from where, what is registered, and what is wrong")
    return parser


def _command(commands: Any, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=epilog,
    )


def _add_prepare(commands: Any) -> None:
    prepare = _command(
        commands,
        "prepare",
        "check the pairs of a data set and lay them out for training",
        PREPARE_EXAMPLES.format(names=", ".join(DATA_SETS)),
    )
    prepare.add_argument("what", nargs="*", metavar="DATASET SRC", help="which data set and where (pairs: two folders)")
    prepare.add_argument("-o", dest="destination", type=Path, metavar="DST", help="folder for the result")
    prepare.add_argument(
        "--lmdb",
        nargs="?",
        const="compressed",
        default="folder",
        choices=["compressed", "raw", "basicsr"],
        help="write stores instead of folders: compressed (smaller than PNG; the default), raw (read fastest), or "
        "basicsr (BasicSR's own layout, for its own data sets)",
    )
    prepare.add_argument("--split", choices=["train", "test"], help="which split SRC is, where its folders do not say")
    prepare.add_argument(
        "--pattern", nargs=2, metavar=("RAINY", "CLEAN"), help="of names without extension (pairs only), see below"
    )
    prepare.add_argument("--skip-bad", action="store_true", help="leave out bad pairs and list them in the manifest")
    prepare.add_argument("--overwrite", action="store_true", help="replace DST's splits once the new ones are finished")
    prepare.add_argument("--workers", type=int, metavar="N", help="processes (one more than cores)")
    prepare.add_argument("--shard-size", type=float, metavar="MIB", help="MiB of source files per LMDB file")
    prepare.add_argument(
        "--verify", type=Path, metavar="STORE", help="compare every byte of a store with its checksums"
    )


def _add_derain(commands: Any) -> None:
    derain = _command(commands, "derain", "derain pictures and folders of pictures", DERAIN_EXAMPLES)
    derain.add_argument("inputs", nargs="+", metavar="INPUT")
    derain.add_argument(
        "-o", dest="out", type=Path, required=True, metavar="OUT", help="folder, or file for one picture"
    )
    derain.add_argument("-w", "--weights", type=Path, required=True, metavar="FILE", help="own or published weights")
    derain.add_argument("--overwrite", action="store_true", help="replace results that exist")
    derain.add_argument(
        "--tile", default="auto", help="side of tiles in pixels; 0: whole pictures; auto (default): as memory allows"
    )
    derain.add_argument("--overlap", type=int, default=32, metavar="PIXELS", help="of tiles (%(default)s)")
    derain.add_argument(
        "--memory", type=float, metavar="GIB", help="that --tile auto may use; default: 70 %% of the free"
    )
    derain.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    derain.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the GPU where there is one")
    derain.add_argument("--batch", type=int, default=1, metavar="N", help="pictures of equal size computed together")
    derain.add_argument(
        "--format", choices=["png", "jpg", "webp", "bmp", "tif"], help="of results; default: the source's"
    )
    derain.add_argument("--depth", type=int, choices=[8, 16], help="bits per channel; default: the source's")


def _add_compare(commands: Any) -> None:
    compare = _command(
        commands,
        "compare",
        "compare networks on the same pictures: quality, time, memory, side by side",
        COMPARE_EXAMPLES,
    )
    compare.add_argument("files", nargs="+", metavar="FILE", help="test option files, or weight files (with --data)")
    compare.add_argument(
        "--data", nargs="+", action="extend", default=[], metavar="NAME=FOLDER", help="pairs to run all of them on"
    )
    compare.add_argument("--protocol", choices=["rain200", "ddn"], help="of the scores on --data")
    compare.add_argument("-o", dest="out", type=Path, default=Path("results/compare"), metavar="OUT")
    compare.add_argument("--limit", type=int, metavar="N", help="only the first N pictures of each data set")
    compare.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the GPU where there is one")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0: done; 1: some pictures could not be derained; 2: a mistake in the input, explained on stderr; 75: stopped on
        request, go on with --auto_resume;
        130: interrupted without saving.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    if args.command == "prepare" and not any(one.startswith("-") for one in rest):
        args.what += rest  # argparse does not see that DATASET and SRC may stand before and after options
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if args.command == "doctor":
            from drsformer_arch import doctor  # noqa: PLC0415 - works where BasicSR does not import

            return doctor.report()
        run_command = {"prepare": _prepare, "derain": _derain, "compare": _compare}.get(args.command, _run_pipeline)
        return run_command(args)
    except TrainingStopped as stopped:
        print(f"Stopped after iteration {stopped.iteration}; its state is saved. Go on with --auto_resume.")
        return EXIT_STOPPED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        again = " What is finished stays; the same command goes on." if args.command == "prepare" else ""
        print(f"Interrupted.{again}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
    return EXIT_USER_ERROR


def _prepare(args: argparse.Namespace) -> int:
    from drsformer_arch.data import prepare, store  # noqa: PLC0415 - OpenCV takes a while to load

    if args.verify is not None:
        if args.what:
            raise UserError("--verify takes a store and nothing else")
        pairs, missing = store.verify(args.verify)
        without = f"; {len(missing)} shards are missing" if missing else ""
        print(f"{args.verify}: {pairs:,} pairs, every byte as it was written{without}")
        return 0
    for value, name in ((args.what, "DATASET"), (args.what[1:], "SRC"), (args.destination, "-o DST")):
        if not value:
            raise UserError(f"{name} is missing; drsformer prepare --help shows examples")
    if (args.workers is not None and args.workers < 1) or not 0 < (args.shard_size or 1) < float("inf"):
        raise UserError("--workers and --shard-size must be above 0")
    results = prepare.prepare(
        args.what[0],
        [Path(source) for source in args.what[1:]],
        args.destination,
        output=args.lmdb,
        split=args.split,
        patterns=args.pattern and tuple(args.pattern),
        skip_bad=args.skip_bad,
        overwrite=args.overwrite,
        workers=args.workers,
        shard_size=args.shard_size and int(args.shard_size * 2**20),
    )
    for result in results:
        skipped = f", {result.skipped:,} skipped (see its manifest.jsonl)" if result.skipped else ""
        print(f"{result.path}: {result.pairs:,} pairs{skipped}{', complete already' if result.was_there else ''}")
    return 0


def _derain(args: argparse.Namespace) -> int:
    from drsformer_arch import processor  # noqa: PLC0415 - --help needs none of this
    from drsformer_arch.inference.derain import derain, find_jobs  # noqa: PLC0415

    tile = args.tile if args.tile == "auto" else _whole_number("--tile", args.tile)
    if args.batch < 1 or args.overlap < 0 or (args.memory is not None and args.memory <= 0):
        raise UserError("--batch must be 1 or more, --overlap 0 or more, --memory above 0")
    suffix = None if args.format is None else f".{args.format}"
    jobs = find_jobs(args.inputs, args.out, suffix, overwrite=args.overwrite)

    from drsformer_arch.inference.restorer import Restorer  # noqa: PLC0415 - torch takes seconds to load

    restorer = Restorer(
        args.weights,
        device=args.device,
        precision=args.precision,
        tile=tile,
        overlap=args.overlap,
        memory=args.memory and int(args.memory * 2**30),
    )
    if restorer.device.type == "cpu":
        processor.tune()
    problems = derain(jobs, restorer, batch=args.batch, depth=args.depth)
    print(f"{len(jobs) - len(problems)} of {len(jobs)} pictures derained with {restorer.describe()}")
    return EXIT_SOME_FAILED if problems else 0


def _whole_number(option: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{option} must be a whole number or auto, not {text}")
    return int(text)


def _compare(args: argparse.Namespace) -> int:
    from drsformer_arch.report.compare import compare  # noqa: PLC0415 - torch and BasicSR take seconds to load

    if args.limit is not None and args.limit < 1:
        raise UserError("--limit must be 1 or more")
    chosen = {"protocol": args.protocol, "out": args.out, "limit": args.limit, "device": args.device}
    print(compare(args.files, args.data, **chosen))
    print(f"written to {args.out}")
    return 0


def _run_pipeline(args: argparse.Namespace) -> int:
    from drsformer_arch import run  # noqa: PLC0415 - torch and BasicSR take seconds; --help must not

    is_train = args.command == "train"
    resumes = getattr(args, "auto_resume", False)
    distributed = args.launcher != "none"
    options = run.prepare(args.opt, args.force_yml, is_train=is_train, distributed=distributed, resumes=resumes)
    if is_train and options["model_type"] in MODEL_TYPES:  # other models know no stop that saves
        signal.signal(signal.SIGINT, _request_stop)
        signal.signal(signal.SIGTERM, _request_stop)
    run.use_processor(options)
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


if __name__ == "__main__":
    sys.exit(main())
