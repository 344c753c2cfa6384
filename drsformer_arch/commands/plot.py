"""`drsformer plot`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import EXIT_SOME_FAILED, add_command, announce

EXAMPLES = """EXPERIMENT is a folder of ./experiments, also of a training that still runs. Scores are drawn over the
iterations and over the time of training, in which pauses before resumes do not count. One that cannot be read is
named, the rest is drawn, and the exit code is 1.

examples:
  drsformer plot experiments/small experiments/large -o training.png
  drsformer plot experiments/* --only PSNR loss
"""


def add(commands: Any) -> None:
    """Declare the command."""
    summary = "draw loss, learning rate and validation scores of trainings in one figure"
    parser = add_command(commands, "plot", run, summary, EXAMPLES)
    parser.add_argument("experiments", nargs="+", type=Path, metavar="EXPERIMENT")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="quantities whose names hold one of these words")
    parser.add_argument("-o", dest="out", type=Path, default=Path("training.png"), metavar="FILE", help="%(default)s")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.plot.curves import only, read_all  # noqa: PLC0415
    from drsformer_arch.plot.training_figure import MOST_PANELS, draw  # noqa: PLC0415
    from drsformer_arch.system.errors import UserError  # noqa: PLC0415 - --help needs none of this
    from drsformer_arch.system.files import is_stream, write_atomically  # noqa: PLC0415

    if args.out.suffix != ".png" and not is_stream(args.out):
        raise UserError(f"-o {args.out}: the figure is a .png file")
    curves, problems = read_all(args.experiments)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if args.only:
        curves = only(curves, args.only)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out, draw(curves))
    runs, panels = len({curve.run for curve in curves}), len({(curve.name, curve.over) for curve in curves})
    more = f"; {panels - MOST_PANELS} more quantities are left out" if panels > MOST_PANELS else ""
    shown = f"{runs} training{'s' * (runs > 1)}, {min(panels, MOST_PANELS)} panel{'s' * (panels > 1)}"
    announce(f"{args.out}: {shown}{more}", args.out)
    return EXIT_SOME_FAILED if problems else 0
