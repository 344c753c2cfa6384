"""`drsformer split-scenes`."""

import argparse
import re
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import add_command
from drsformer_arch.system.errors import UserError, did_you_mean

EXAMPLES = """The same photograph occurs in several sets and more than once in one. All copies of a photograph
are one scene, and a scene is for validation in every set that has it, or in none. Copies are recognised by a perceptual
hash, also resized, recompressed, turned, mirrored or slightly cut; --same names other photographs of one scene.

A set is a folder with input/ and target/, as `drsformer prepare` makes it, or after --clean a folder of clean pictures
alone. -o gets NAME/train/input, NAME/train/target and the same of val, and of clean sets NAME/train and NAME/val, as
hard links (copies on another disk); a part without scenes has no folder.

examples:
  drsformer split-scenes rain800=datasets/Rain800/train rain200h=datasets/Rain200H/train \\
      --clean photographs=datasets/photographs --count rain200h=6 --save scenes.json -o datasets/split
  drsformer split-scenes --manifest scenes.json rain800=datasets/Rain800/train -o datasets/split

The first command decides and writes it down, the second makes the same folders from what was written.
"""
DECISIONS = {"share": 0.1, "count": [], "seed": 0, "same": [], "keep": None}  # options and their defaults


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "split-scenes", run, "split data sets into training and validation by scene", EXAMPLES
    )
    parser.set_defaults(**DECISIONS)
    parser.add_argument("sets", nargs="+", type=_named_folder, metavar="NAME=FOLDER", help="pairs to split")
    parser.add_argument(
        "--clean", action="append", type=_named_folder, default=[], metavar="NAME=FOLDER", help="clean pictures alone"
    )
    parser.add_argument("--share", type=float, help="of the scenes, for validation (%(default)s)")
    parser.add_argument(
        "--count", action="append", type=_named_count, metavar="NAME=N", help="scenes of a set for validation, exactly"
    )
    parser.add_argument("--seed", type=int, help="another one draws other scenes (%(default)s)")
    parser.add_argument("--same", action="append", nargs="+", metavar="SET/PICTURE", help="pictures that are one scene")
    parser.add_argument("--keep", type=Path, metavar="JSON", help="earlier manifest, whose scenes keep their part")
    parser.add_argument("--save", type=Path, metavar="JSON", help="manifest to write")
    parser.add_argument("--manifest", type=Path, metavar="JSON", help="take the split from here, decide nothing")
    parser.add_argument("-o", dest="out", type=Path, metavar="FOLDER", help="folder to make")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from drsformer_arch.data.prepare import scene_manifest, scene_split  # noqa: PLC0415 - SciPy takes a while to load
    from drsformer_arch.images.pictures import read_file  # noqa: PLC0415
    from drsformer_arch.system.files import write_atomically  # noqa: PLC0415

    names = _checked_names(args)
    sets = [
        scene_manifest.open_scene_set(name, folder, clean=clean)
        for given, clean in ((args.sets, False), (args.clean, True))
        for name, folder in given
    ]
    if args.manifest is not None:
        manifest = scene_manifest.read_scene_manifest(args.manifest)
        scene_manifest.check_known(manifest, args.manifest, sets)
    else:
        manifest = scene_split.split_scenes(
            sets,
            share=args.share,
            counts=dict(args.count),
            seed=args.seed,
            same=args.same,
            keep=None if args.keep is None else scene_manifest.read_scene_manifest(args.keep),
        )
    text = manifest.text().encode()
    replacing = args.save is not None and args.save.exists() and args.save != args.keep
    if replacing and read_file(args.save) != text:
        raise UserError(f"{args.save} holds another split; move it away, or --keep it, to write this one")
    print(manifest.table(names))
    if args.out is not None:
        plan = scene_split.planned_files(manifest, sets)
        was_there = scene_split.is_made(plan, args.out)
        if not was_there:
            scene_split.make_files(plan, args.out)
        print(f"{args.out}: {len(plan):,} files{', complete already' if was_there else ''}")
    if args.save is not None:
        try:
            args.save.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(args.save, text)
        except OSError as error:
            raise UserError(f"{args.save} cannot be written: {error.strerror}") from error
        print(f"{args.save}: written")
    return 0


def _checked_names(args: argparse.Namespace) -> list[str]:
    """Return the names of all sets, after a look at what was asked for."""
    if (args.save is None) == (args.manifest is None):
        raise UserError("give --save to decide on a split, or --manifest to repeat one")
    if args.manifest and any(getattr(args, option) != default for option, default in DECISIONS.items()):
        options = ", ".join(f"--{option}" for option in DECISIONS)
        raise UserError(f"--manifest has everything decided: {options} mean nothing")
    if not 0 <= args.share <= 1:
        raise UserError("--share must be from 0 to 1")
    names, counted = [name for name, _ in (*args.sets, *args.clean)], [name for name, _ in args.count]
    for given in (names, counted):
        if len(set(given)) < len(given):
            raise UserError(f"a name is given twice among {', '.join(given)}")
    for name in counted:
        if name not in names:
            raise UserError(f"--count: no set {name}{did_you_mean(name, names)}")
    return names


def _named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not re.fullmatch(r"\w[\w.-]*", name) or not folder:  # a folder of the result has this name
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


def _named_count(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if not count.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N")
    return name, int(count)
