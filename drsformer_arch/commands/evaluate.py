"""`drsformer evaluate`."""

import argparse
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import EXIT_SOME_FAILED, add_command, announce
from drsformer_arch.system.errors import UserError

EXAMPLES = """RESULT, TARGET and RAINY are folders (searched recursively) or single pictures. They are paired by
names: equal without extension, or all by one rule, which is printed, such as rain-1 + norain-1, 900_1 + 900 or
rain-1_DRSformer + norain-1. A picture that cannot be scored is named, the rest goes on, and the exit code is 1.

protocols:
  rain200  Rain200L, Rain200H, SPA-Data: Y rounded to 8 bits, SSIM at full resolution
  ddn      DID-Data, DDN-Data: Y in double precision, SSIM averaged down to about 256 pixels on the short side
  rgb      all samples of the RGB picture, SSIM as the mean of the three channels; not a protocol of the papers
  NIQE     as BasicSR 1.4.2 computes it (Y, pristine parameters of the authors, 96x96 blocks); lower is better
  LPIPS    0.1 of its authors' package, by the network of which FILE holds the weights: AlexNet (usual), VGG16 or
           SqueezeNet 1.1, as torchvision has them; lower is better

examples:
  drsformer evaluate results/Rain200H datasets/Rain200H/test/target --protocol rain200
  drsformer evaluate derained clean --input rainy -o scores.csv
  drsformer evaluate derained                        (no targets: NIQE)
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "evaluate", run, "score results against their targets: PSNR, SSIM, NIQE, LPIPS", EXAMPLES
    )
    parser.add_argument("result", type=Path, metavar="RESULT")
    parser.add_argument("operands", nargs="*", metavar="TARGET", help="default: none, only NIQE")
    parser.add_argument("--input", dest="rainy", type=Path, metavar="RAINY", help="score the rainy pictures, too")
    parser.add_argument("--protocol", choices=["rain200", "ddn", "rgb", "all"], help="default: all")
    parser.add_argument("--niqe", action="store_true", help="also NIQE, which needs no target")
    parser.add_argument("--lpips", metavar="FILE", help="also LPIPS; FILE: weights of the network below it")
    parser.add_argument("--skip-missing", action="store_true", help="leave out results without a target")
    parser.add_argument("-o", dest="out", type=Path, metavar="CSV", help="scores of every picture")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (one per core)")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.data.pairing.result_pairs import find_result_pairs  # noqa: PLC0415
    from drsformer_arch.evaluate.evaluation import score_files  # noqa: PLC0415
    from drsformer_arch.evaluate.score_names import LPIPS, NIQE  # noqa: PLC0415
    from drsformer_arch.metrics import SCORES  # noqa: PLC0415
    from drsformer_arch.system import processor  # noqa: PLC0415 - OpenCV takes a while to load

    if args.workers is not None and args.workers < 1:
        raise UserError("--workers must be 1 or more")
    if len(args.operands) > 1:
        raise UserError(f"evaluate takes RESULT and TARGET, not also {args.operands[1]}; rainy pictures go to --input")
    target = Path(args.operands[0]) if args.operands else None
    if target is None and args.protocol is not None:
        raise UserError(f"--protocol {args.protocol} compares with targets: drsformer evaluate RESULT TARGET")
    if target is None and args.lpips is not None:
        raise UserError("--lpips compares with targets: drsformer evaluate RESULT TARGET --lpips FILE")
    protocols = tuple(SCORES) if args.protocol in (None, "all") else (args.protocol,)
    which = (
        *(protocols if target else ()),
        *([NIQE] if args.niqe or not target else ()),
        *([LPIPS] if args.lpips else ()),
    )
    pairs, notes = find_result_pairs(args.result, target, args.rainy, skip_missing=args.skip_missing)
    for note in notes:
        announce(note, args.out)
    processor.keep_freed_memory()
    summary = score_files(pairs, which, args.out, workers=args.workers, lpips=args.lpips)
    announce(str(summary), args.out)
    if summary.unwritten is not None:
        raise summary.unwritten
    if args.out is not None:
        announce(f"scores of every picture: {args.out}", args.out)
    return EXIT_SOME_FAILED if summary.failed else 0
