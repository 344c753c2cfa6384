"""`drsformer export`."""

import argparse
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import add_command, add_imports, announce, register_outside, size_of

EXAMPLES = """html is a page that derains by itself in a browser, offline; it takes ONNX Runtime Web, which
scripts/fetch_onnxruntime_web.sh fetches, and networks that take pictures of any size as ONNX. WEIGHTS may then be an
.onnx file of this command, too.

onnx and torch programs take any number of pictures of any size from 16 up, (N, 3, H, W) float32, RGB in
[0, 1]; torch takes multiples of 8 where the network does, IDT its own size only. Both are compared with the network at
three sizes before they are written. The network's type and arguments are in the file.

examples:
  drsformer export net_g_latest.pth -o derain.onnx
  drsformer derain rainy.jpg -o clean.jpg -w derain.onnx --runtime onnx
  drsformer export DRSformer-S -o derain.html
  drsformer export net_g_latest.pth -o derain.pt2 --format torch
  drsformer export net_g_latest.pth -o derain.safetensors --note licence="CC BY 4.0" --note data=Rain200H
"""
FORMATS = {".onnx": "onnx", ".pt2": "torch", ".safetensors": "safetensors", ".html": "html"}


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "export", run, "write a network for other programs: ONNX, torch.export, safetensors, a page", EXAMPLES
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="own or published weights")
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="FILE", help="what to write")
    parser.add_argument("--format", choices=list(FORMATS.values()), help="default: as FILE's name says")
    parser.add_argument("--param-key", metavar="KEY", help="params or params_ema; default: the averaged ones if any")
    parser.add_argument(
        "--note", action="append", default=[], metavar="KEY=TEXT", help="further metadata, such as data and licence"
    )
    parser.add_argument(
        "--ort-web", type=Path, metavar="FOLDER", help="ONNX Runtime Web, for a page; default: where the script puts it"
    )
    add_imports(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.system.errors import UserError, did_you_mean  # noqa: PLC0415 - --help needs none of this
    from drsformer_arch.system.files import is_stream  # noqa: PLC0415

    kind = args.format or FORMATS.get(args.out.suffix)
    if kind is None:
        raise UserError(f"{args.out}: --format is missing{did_you_mean('', FORMATS.values())}")
    if args.ort_web is not None and kind != "html":
        raise UserError(f"--ort-web is for pages (.html), not for {args.out}")
    if args.out.exists() and not is_stream(args.out) and not args.overwrite:
        raise UserError(f"{args.out} exists already (--overwrite replaces it)")

    notes = {key: text for key, equals, text in (note.partition("=") for note in args.note) if key and equals}
    if len(notes) != len(args.note):
        raise UserError("--note: write KEY=TEXT, every key once")

    register_outside(args.imports)
    if kind == "html":
        return _write_page(args, notes)
    from drsformer_arch.restore.export import export  # noqa: PLC0415 - torch takes seconds to load

    exported = export(args.weights, args.out, kind, param_key=args.param_key, notes=notes)
    compared = "" if exported.error is None else f", relative error at three sizes {exported.error:.1e}"
    announce(f"{args.out}: {exported.network['type']}, {size_of(args.out)}{compared}", args.out)
    return 0


def _write_page(args: argparse.Namespace, notes: dict[str, str]) -> int:
    from drsformer_arch.page.derain_page import write_derain_page  # noqa: PLC0415 - torch takes seconds to load
    from drsformer_arch.system.errors import UserError  # noqa: PLC0415

    if args.out.suffix != ".html":
        raise UserError(f"{args.out}: the name of a page must end with .html")
    page = write_derain_page(args.weights, args.out, ort_web=args.ort_web, param_key=args.param_key, notes=notes)
    announce(f"{args.out}: {page.network['type']}, {size_of(args.out)}", args.out)
    return 0
