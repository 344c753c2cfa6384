"""`drsformer derain`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import (
    EXIT_SOME_FAILED,
    add_command,
    add_imports,
    add_inference,
    announce,
    register_outside,
)
from drsformer_arch.system.errors import UserError

EXAMPLES = """INPUT is pictures, videos, folders (searched recursively, also through links) or patterns. Results keep
their names below OUT, their format, depth, transparency, colour profile and EXIF notes; videos keep their sound and the
times of their frames where there is ffmpeg. For one INPUT, OUT may be a pipe or a device such as /dev/stdout.
Nothing is overwritten without --overwrite. A file that cannot be derained is named, the rest goes on, the exit code is
1.

examples:
  drsformer derain rainy.jpg -o clean.jpg
  drsformer derain photographs/ -o derained -w net_g_latest.pth --precision bf16
  drsformer derain 'holiday/*.png' -o derained --tile 512 --format jpg
  drsformer derain street.mp4 -o clean.mp4 --batch 4
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "derain", run, "derain pictures, videos and folders of them", EXAMPLES)
    parser.add_argument("inputs", nargs="+", metavar="INPUT")
    parser.add_argument(
        "-o", dest="out", type=Path, required=True, metavar="OUT", help="folder, or file for one picture"
    )
    parser.add_argument(
        "-w",
        "--weights",
        default="DRSformer-S",
        metavar="FILE",
        help="own or published weights (.pth, .safetensors), an exported .onnx, or the name of shipped weights; "
        "default: %(default)s, which is shipped",
    )
    parser.add_argument("--param-key", metavar="KEY", help="params or params_ema; default: the averaged ones if any")
    add_imports(parser)
    parser.add_argument("--runtime", choices=["torch", "onnx"], help="default: as the kind of weights says")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument(
        "--tile",
        default="auto",
        help="longest side of tiles in pixels; 0: whole pictures; auto (default): as memory allows, 320 with shipped "
        "weights",
    )
    parser.add_argument("--overlap", type=int, metavar="PIXELS", help="of tiles; default: 32, with shipped weights 64")
    parser.add_argument(
        "--scale",
        default="auto",
        help="of the sides at which rain is looked for, such as 0.5; detail stays at full size; auto (default): 1, but "
        "smaller with shipped weights for pictures of more than 2.5 megapixels",
    )
    parser.add_argument(
        "--memory", type=float, metavar="GIB", help="that --tile auto may use; default: 70 %% of the free"
    )
    add_inference(parser)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the GPU where there is one")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pictures of equal size computed together")
    parser.add_argument(
        "--format", choices=["png", "jpg", "webp", "bmp", "tif"], help="of results; default: the source's"
    )
    parser.add_argument("--depth", type=int, choices=[8, 16], help="bits per channel; default: the source's")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.restore.derain import derain, find_jobs  # noqa: PLC0415
    from drsformer_arch.system import processor  # noqa: PLC0415 - --help needs none of this

    if args.tile != "auto" and not args.tile.isdecimal():
        raise UserError(f"--tile must be a whole number or auto, not {args.tile}")
    if args.batch < 1 or (args.overlap or 0) < 0 or (args.memory is not None and args.memory <= 0):
        raise UserError("--batch must be 1 or more, --overlap 0 or more, --memory above 0")
    suffix = None if args.format is None else f".{args.format}"
    jobs = find_jobs(args.inputs, args.out, suffix, overwrite=args.overwrite)

    from drsformer_arch.restore.restorer import Restorer  # noqa: PLC0415 - torch takes seconds to load

    register_outside(args.imports)
    restorer = Restorer(
        args.weights,
        device=args.device,
        precision=args.precision,
        tile=args.tile if args.tile == "auto" else int(args.tile),
        overlap=args.overlap,
        scale=args.scale,
        memory=args.memory and int(args.memory * 2**30),
        ensemble=args.ensemble,
        published_inference=args.published_inference,
        runtime=args.runtime,
        param_key=args.param_key,
    )
    if restorer.device.type == "cpu":
        processor.tune()
    if args.precision == "bf16" and (slow := processor.note_on_bf16(restorer.device.type)):
        print(f"note: --precision {slow}", file=sys.stderr)
    problems = derain(jobs, restorer, batch=args.batch, depth=args.depth)
    if note := restorer.note_on_tiles():
        print(f"note: {note}; --tile 0 computes them whole, where memory allows", file=sys.stderr)
    if note := restorer.note_on_scale():
        print(f"note: {note}; --scale 1 looks for it at their own", file=sys.stderr)
    announce(f"{len(jobs) - len(problems)} of {len(jobs)} files derained with {restorer.describe()}", args.out)
    return EXIT_SOME_FAILED if problems else 0
