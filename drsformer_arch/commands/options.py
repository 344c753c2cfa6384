"""`drsformer options`: the recipes that come with the package, as option files of one's own."""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import add_command, announce, print_out
from drsformer_arch.system import packages
from drsformer_arch.system.errors import UserError, did_you_mean, printable
from drsformer_arch.system.files import is_stream, refuse_unwritable, write_atomically

EXAMPLES = """RECIPE is a name of the list, with or without options/ before and .yml behind it. The text that is written
keeps all comments; what --set changes is checked as `drsformer train` checks it, an unknown key names the nearest one.

For editors that know the YAML language server: write the schema beside the file, or into a folder above it. With -o the
first line then leads to it; after a redirection (>) write that line yourself.

examples:
  drsformer options
  drsformer options --find train rain200h
  drsformer options train/DRSformer/Rain200H > my.yml
  drsformer options train/DRSformer/Rain200H -o my.yml --set name=mine train:amp=bf16
  drsformer options --schema -o schema.json     # first line for editors: # yaml-language-server: $schema=schema.json
"""
SCHEMA = "schema.json"
FOLDERS = ("", "train", "test", "comparison", "DRSformer-S")  # as they are listed


def add(commands: Any) -> None:
    """Declare the command."""
    summary = "list the recipes that come with the package, and write one as an option file of your own"
    parser = add_command(commands, "options", run, summary, EXAMPLES)
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="which one to write; without it all are listed")
    parser.add_argument("--find", nargs="+", default=[], metavar="WORD", help="list only recipes with all these words")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY:KEY=VALUE",
        help="options with other values than the recipe's",
    )
    parser.add_argument("--schema", action="store_true", help="write the JSON schema that editors check files with")
    parser.add_argument("-o", dest="out", type=Path, metavar="FILE", help="write to this file instead of the terminal")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if args.schema:
        if args.recipe or args.find or args.set:
            raise UserError("--schema writes the schema of all option files: give it alone, or with -o FILE")
        from drsformer_arch.options.reference import schema_text  # noqa: PLC0415 - pydantic; --help needs none of this

        _write(schema_text(), args)
        return 0
    from drsformer_arch.compare.published import PUBLISHED  # noqa: PLC0415 - as above
    from drsformer_arch.options.recipes import option_files, own_copy  # noqa: PLC0415

    files = sorted(option_files(PUBLISHED).items(), key=lambda file: FOLDERS.index(_folder(file[0])))
    texts = {path.removesuffix(".yml"): text for path, text in files}
    if args.recipe is None:
        _list(texts, args)
        return 0
    if args.find:
        raise UserError("--find is for the list of recipes: leave out RECIPE")
    name = _recipe_named(args.recipe, texts)
    text = _edited(texts[name], name, args.set)
    changes = [f"--set {shlex.join(args.set)}"] if args.set else []
    origin = printable(" ".join(["drsformer options", name, *changes]))
    schema = _schema_for(args.out)
    option_file = "FILE" if args.out is None or is_stream(args.out) else printable(args.out)
    text = own_copy(text, f"{name}.yml", option_file, origin)
    _write((f"# yaml-language-server: $schema={schema}\n" if schema else "") + text, args)
    return 0


def _folder(path: str) -> str:
    return path.split("/", maxsplit=1)[0] if "/" in path else ""


def _list(texts: dict[str, str], args: argparse.Namespace) -> None:
    """Print the names and what they are."""
    from drsformer_arch.options.recipes import summary_of  # noqa: PLC0415 - as above

    if args.set or args.out:
        raise UserError("which recipe is to be written? Its name comes before --set; drsformer options lists them")
    lines = {name: summary_of(text) for name, text in texts.items()}
    words = [word.casefold() for word in args.find]
    lines = {name: line for name, line in lines.items() if all(word in f"{name} {line}".casefold() for word in words)}
    if not lines:
        raise UserError(f"no recipe has {' and '.join(args.find)}; drsformer options lists all of them")
    width = max(map(len, lines))
    print_out("".join(f"{name:{width}}  {line}\n" for name, line in lines.items()))


def _recipe_named(given: str, texts: dict[str, str]) -> str:
    name = given.replace(os.sep, "/").removeprefix("./").removeprefix("options/").removesuffix(".yml")
    for known in texts:
        if known.casefold() == name.casefold():
            return known
    ends = sorted(known for known in texts if name.casefold() in known.casefold().split("/"))
    if ends:
        raise UserError(f"there is no recipe {given!r}; there are {', '.join(ends)}")
    near = did_you_mean(name, texts)
    raise UserError(f"there is no recipe {given!r}{near if 'did you' in near else '; drsformer options lists them'}")


def _edited(text: str, name: str, entries: list[str]) -> str:
    """Set options in a recipe, checked by the reader of `drsformer train` and `test`."""
    from drsformer_arch.options.editing import set_options  # noqa: PLC0415 - as above
    from drsformer_arch.options.reading import complete  # noqa: PLC0415
    from drsformer_arch.options.safe_yaml import parse_yaml  # noqa: PLC0415

    if not entries:
        return text
    text = set_options(text, entries, "--set")
    options = parse_yaml(text, name)
    is_train = "train" in options["datasets"]
    try:
        complete(options, is_train=is_train)
        if packages.is_installed("basicsr"):  # classes and their arguments, which need it to be asked
            from drsformer_arch.bridge.option_checks import check_names  # noqa: PLC0415

            check_names(options, is_train=is_train)
        else:
            _check_network(options["network_g"])
    except UserError as error:
        raise UserError(f"{name} with --set: {error}") from None
    return text


def _check_network(section: dict[str, Any]) -> None:
    from drsformer_arch.archs import NETWORKS  # noqa: PLC0415 - torch takes seconds to load
    from drsformer_arch.restore.outline import outline  # noqa: PLC0415

    arguments = {key: value for key, value in section.items() if key not in {"type", "fast"}}
    for kind in NETWORKS:
        if kind.__name__ == section["type"]:
            outline(kind, arguments, "option network_g")


def _schema_for(out: Path | None) -> str | None:
    """The way from a file to the nearest schema.json of ours, beside it or in a folder above; None if there is none."""
    if out is None or is_stream(out):
        return None
    folder = out.absolute().parent
    for above in (folder, *folder.parents):
        schema = above / SCHEMA
        if schema.is_file() and '"Option file of drsformer and BasicSR"' in schema.read_text("utf-8", "replace")[:200]:
            return Path(os.path.relpath(schema, folder)).as_posix()
    return None


def _write(text: str, args: argparse.Namespace) -> None:
    out: Path | None = args.out
    if out is None:
        print_out(text)
        return
    if out.is_file() and not is_stream(out) and not args.overwrite:
        raise UserError(f"{out} is there already; give another name, or --overwrite")
    refuse_unwritable(out)
    write_atomically(out, text.encode())
    announce(f"written to {out}", out)
