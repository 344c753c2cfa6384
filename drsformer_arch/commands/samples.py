"""`drsformer samples`."""

import argparse
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import add_command
from drsformer_arch.system.errors import UserError

EXAMPLES = """The result is FOLDER/train and FOLDER/test, 200 and 8 pairs, with rainy pictures in input/ and clean ones
in target/; the same ones for the same seed. The photographs come with scikit-image (pip install scikit-image).

examples:
  drsformer samples -o samples
  drsformer samples -o datasets/quickstart --lmdb    # what the option file quickstart reads
"""


def add(commands: Any) -> None:
    """Declare the command."""
    summary = "make pairs to try everything with: rain drawn on photographs"
    parser = add_command(commands, "samples", run, summary, EXAMPLES)
    parser.add_argument("-o", dest="folder", type=Path, default=Path("samples"), metavar="FOLDER", help="%(default)s")
    parser.add_argument("--lmdb", action="store_true", help="write the stores train.lmdb and test.lmdb, too")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of pictures and rain, 0 or more (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace samples that are there already")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.data.prepare.sample_data import write_samples  # noqa: PLC0415 - OpenCV takes a while to load

    if args.seed < 0:
        raise UserError("--seed must be 0 or more")
    samples, was_there = write_samples(args.folder, args.seed, stores=args.lmdb, overwrite=args.overwrite)
    print(f"{samples.describe(args.folder)}{'; already there' if was_there else ''}")
    return 0
