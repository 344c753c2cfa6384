"""`drsformer prepare`."""

import argparse
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import add_command
from drsformer_arch.system.errors import UserError, printable

DATA_SETS = ("rain200l", "rain200h", "did", "ddn", "spa", "rain100l", "rain100h", "rain800", "rain13k", "pairs")
EXAMPLES = """DATASET is one of {names}. SRC is a folder
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


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "prepare",
        run,
        "check the pairs of a data set and lay them out for training",
        EXAMPLES.format(names=", ".join(DATA_SETS)),
    )
    parser.add_argument(
        "operands", nargs="*", metavar="DATASET SRC", help="which data set and where (pairs: two folders)"
    )
    parser.add_argument("-o", dest="destination", type=Path, metavar="DST", help="folder for the result")
    parser.add_argument(
        "--lmdb",
        nargs="?",
        const="compressed",
        default="folder",
        choices=["compressed", "raw", "basicsr"],
        help="write stores instead of folders: compressed (smaller than PNG; the default), raw (read fastest), or "
        "basicsr (BasicSR's own layout, for its own data sets)",
    )
    parser.add_argument("--split", choices=["train", "test"], help="which split SRC is, where its folders do not say")
    parser.add_argument(
        "--pattern", nargs=2, metavar=("RAINY", "CLEAN"), help="of names without extension (pairs only), see below"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out bad pairs and list them in the manifest")
    parser.add_argument("--overwrite", action="store_true", help="replace DST's splits once the new ones are finished")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (one more than cores)")
    parser.add_argument("--shard-size", type=float, metavar="MIB", help="MiB of source files per LMDB file")
    parser.add_argument("--verify", type=Path, metavar="STORE", help="compare every byte of a store with its checksums")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.data.prepare.preparation import prepare_dataset  # noqa: PLC0415 - OpenCV takes a while to load
    from drsformer_arch.data.store.store import verify_store  # noqa: PLC0415 - OpenCV takes a while to load

    if args.verify is not None:
        if args.operands:
            raise UserError("--verify takes a store and nothing else")
        pairs, missing = verify_store(args.verify)
        without = f"; {len(missing)} shards are missing" if missing else ""
        print(f"{printable(args.verify)}: {pairs:,} pairs, every byte as it was written{without}")
        return 0
    for value, name in ((args.operands, "DATASET"), (args.operands[1:], "SRC"), (args.destination, "-o DST")):
        if not value:
            raise UserError(f"{name} is missing; drsformer prepare --help shows examples")
    if (args.workers is not None and args.workers < 1) or not 0 < (args.shard_size or 1) < float("inf"):
        raise UserError("--workers and --shard-size must be above 0")
    results = prepare_dataset(
        args.operands[0],
        [Path(source) for source in args.operands[1:]],
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
        complete = ", complete already" if result.was_there else ""
        print(f"{printable(result.path)}: {result.pairs:,} pairs{skipped}{complete}")
    return 0
