"""`drsformer report`."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drsformer_arch.commands.common import EXIT_SOME_FAILED, add_command, announce, refuse_no_page, size_of
from drsformer_arch.system.errors import UserError

if TYPE_CHECKING:
    from drsformer_arch.evaluate.summary import PictureScores, Summary
    from drsformer_arch.page.page import Exhibit

EXAMPLES = """One HTML file without server or network: every picture before and after, its residual and scores, a table
to sort, and training curves. RESULT, TARGET and RAINY are folders (searched recursively) or single pictures, paired by
names as `drsformer evaluate` does. A picture or experiment that cannot be read is named, the rest goes on, and the exit
code is 1.

examples:
  drsformer report results/Rain200H datasets/Rain200H/test/target --input datasets/Rain200H/test/input -o rain200h.html
  drsformer report derained --input photographs -o photographs.html                  (no targets: what was removed)
  drsformer report -o training.html --experiment experiments/small experiments/large
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "report", run, "write a page that shows results and training curves in a browser", EXAMPLES
    )
    parser.add_argument("result", type=Path, nargs="?", metavar="RESULT", help="default: none, only training curves")
    parser.add_argument("target", type=Path, nargs="?", metavar="TARGET", help="default: none, no scores")
    parser.add_argument("--input", dest="rainy", type=Path, metavar="RAINY", help="the rainy pictures")
    parser.add_argument(
        "--experiment", type=Path, nargs="+", action="extend", default=[], metavar="FOLDER", help="for training curves"
    )
    parser.add_argument("--protocol", choices=["rain200", "ddn", "rgb", "all"], help="default: rain200")
    parser.add_argument("--niqe", action="store_true", help="also NIQE, which needs no target (slow)")
    parser.add_argument("--skip-missing", action="store_true", help="leave out results without a target")
    parser.add_argument("--title", help="default: the name of RESULT")
    parser.add_argument("-o", dest="out", type=Path, default=Path("report.html"), metavar="FILE", help="%(default)s")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that compute scores (one per core)")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from tqdm import tqdm  # noqa: PLC0415 - this and OpenCV take a while to load

    from drsformer_arch import __version__  # noqa: PLC0415
    from drsformer_arch.data.pairing.result_pairs import find_result_pairs  # noqa: PLC0415
    from drsformer_arch.evaluate.evaluation import columns, evaluate  # noqa: PLC0415
    from drsformer_arch.evaluate.score_names import DESCRIPTIONS, NIQE  # noqa: PLC0415
    from drsformer_arch.evaluate.summary import Summary  # noqa: PLC0415
    from drsformer_arch.metrics import SCORES  # noqa: PLC0415
    from drsformer_arch.page.page import write_page  # noqa: PLC0415
    from drsformer_arch.plot.curves import read_all  # noqa: PLC0415
    from drsformer_arch.system import processor  # noqa: PLC0415

    _check(args)
    protocols = tuple(SCORES) if args.protocol == "all" else (args.protocol or "rain200",)
    which = (*(protocols if args.target else ()), *([NIQE] if args.niqe else ()))
    curves, problems = read_all(args.experiment)
    counts: Counter[str] = Counter()

    def complain(problem: str) -> None:
        tqdm.write(f"error: {problem}", file=sys.stderr)
        counts["failed"] += 1

    for problem in problems:
        complain(problem)
    find_pairs = partial(find_result_pairs, args.result, args.target, args.rainy, skip_missing=args.skip_missing)
    pairs, notes = find_pairs() if args.result else ([], [])
    for note in notes:
        announce(note, args.out)
    sources = {"Results": args.result, "Targets": args.target, "Rainy pictures": args.rainy}
    experiments = ", ".join(map(str, args.experiment))
    facts = [
        *((label, str(path)) for label, path in sources.items() if path is not None),
        *((f"Scores: {group}", DESCRIPTIONS[group]) for group in which),
        *([("Experiments", experiments)] if experiments else []),
        ("Version", f"drsformer-basicsr {__version__}"),
    ]
    title = args.title or (args.result or args.experiment[0]).resolve().name
    processor.keep_freed_memory()
    summary = Summary(columns(which, target=args.target is not None, rainy=args.rainy is not None))
    with closing(evaluate(pairs, which, workers=args.workers)) as rows:
        bar = tqdm(rows, total=len(pairs), unit="picture", disable=None, delay=2)
        exhibits = _exhibits(bar, summary, complain)
        try:
            count = write_page(args.out, exhibits, title=title, facts=facts, curves=curves, complain=complain)
        except OSError:
            if summary.scored and which:
                announce(f"before the page of {len(pairs):,} pictures could not be written: {summary}", args.out)
            raise
    shown = f"{count:,} of {len(pairs):,} pictures, " if pairs else ""
    announce(f"{args.out}: {shown}{size_of(args.out)}; open it in a browser", args.out)
    return EXIT_SOME_FAILED if counts["failed"] else 0


def _check(args: argparse.Namespace) -> None:
    if args.result is None and not args.experiment:
        raise UserError("RESULT or --experiment is missing; drsformer report --help shows examples")
    if args.result is None and (args.rainy or args.niqe):
        raise UserError("--input and --niqe belong to results: drsformer report RESULT")
    if args.target is None and args.protocol is not None:
        raise UserError(f"--protocol {args.protocol} compares with targets: drsformer report RESULT TARGET")
    if args.workers is not None and args.workers < 1:
        raise UserError("--workers must be 1 or more")
    refuse_no_page(args.out, "-o")


def _exhibits(
    rows: Iterable["PictureScores"], summary: "Summary", complain: Callable[[str], None]
) -> Iterator["Exhibit"]:
    """Yield the pictures that can be scored; the problems of the others go to `complain`."""
    from drsformer_arch.page.page import Exhibit  # noqa: PLC0415

    for row in rows:
        summary.add(row)
        if row.problem is not None:
            complain(row.problem)
            continue
        pair = row.pair
        target, rainy = (None if path is None else partial(_read, path) for path in (pair.target, pair.rainy))
        yield Exhibit(pair.name, partial(_read, pair.result), target, rainy, row.scores)


def _read(path: Path) -> Any:
    from drsformer_arch.images.pictures import decode, read_file  # noqa: PLC0415

    return decode(read_file(path), path)
