"""`drsformer compare`."""

import argparse
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import EXIT_SOME_FAILED, add_command, add_imports, add_inference, refuse_no_page
from drsformer_arch.system.errors import UserError

EXAMPLES = """Every network runs in a process of its own. OUT gets comparison.md, .csv and .tex (with the
published numbers in parentheses), differences.csv, .tex and .png (how much every two networks differ on the same
pictures, with intervals), pictures.csv, quality_cost.png, crops.png and all result pictures. A network, a data set or a
picture that fails is named, the rest goes on, and the exit code is 1.

examples:
  drsformer compare options/test/DRSformer/Rain200H.yml options/test/Restormer/Rain200H.yml -o results/rain200h
  drsformer compare ours=seed1.yml ours=seed2.yml theirs=seed1_of_theirs.yml -o results/seeds
  drsformer compare weights/*.pth --data Rain100L=datasets/Rain100L/test --protocol rain200 --limit 20
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "compare", run, "compare networks on the same pictures: quality, time, memory, side by side", EXAMPLES
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="test option files, or weight files (with --data); NAME=FILE names one, several of a name are seeds",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FOLDER",
        help="pairs to run all of them on: a store, or a folder with input and target, lq and gt, rainy and clean, ...",
    )
    parser.add_argument("--protocol", choices=["rain200", "ddn"], help="of the scores on --data")
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        default=Path("results/compare"),
        metavar="OUT",
        help="folder to make (results/compare)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures of each data set")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the GPU where there is one")
    add_inference(parser)
    add_imports(parser)
    parser.add_argument("--report", type=Path, metavar="PAGE.html", help="write a page that shows all results")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.compare.comparison import compare  # noqa: PLC0415 - torch and BasicSR take seconds to load

    if args.limit is not None and args.limit < 1:
        raise UserError("--limit must be 1 or more")
    if args.report is not None:
        refuse_no_page(args.report, "--report")
    table, problems = compare(
        args.files,
        args.data,
        protocol=args.protocol,
        out=args.out,
        limit=args.limit,
        device=args.device,
        page=args.report,
        imports=args.imports,
        ensemble=args.ensemble,
        published_inference=args.published_inference,
    )
    print(table)
    print(f"written to {args.out}")
    return EXIT_SOME_FAILED if problems else 0
