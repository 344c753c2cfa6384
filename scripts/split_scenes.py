r"""Split data sets into training and validation by scene, over all sets together.

The same photograph occurs in several sets and more than once in one. A split by file would train on what it validates
on; here all copies of a photograph are one scene, and a scene is for validation in every set that has it, or in none.

    python scripts/split_scenes.py rain800=datasets/Rain800/train rain200h=datasets/Rain200H/train \
        --clean photographs=datasets/photographs --count rain200h=6 --save scenes.json -o datasets/split
    python scripts/split_scenes.py --manifest scenes.json rain800=datasets/Rain800/train -o datasets/split

The first command decides and writes it down, the second makes the same folders from what was written. A set is a
folder with input/ and target/, as `drsformer prepare` makes it, or after --clean a folder of clean pictures alone. -o
gets NAME/train/input, NAME/train/target and the same of val, and of clean sets NAME/train and NAME/val, as hard links
(copies on another disk); a part without scenes has no folder.

Two pictures are one photograph where their hashes differ in at most `NEAR` of 143 bits, whichever way one is turned or
mirrored: the signs of the lowest cosine frequencies of the picture at 32x32. Measured on 164 pictures of Rain100L, 20
of Rain200H and 344 of Rain800: 237 pairs differ in at most 2 bits, all others in 43 or more; matching of local features
found the 237 and no other copy. Of changed copies these are found, in per cent: 100 for JPEG of quality 20, resizing to
between a quarter and 1.5, gamma 0.7 or 1.4, 1 degree of rotation, 3 % cut off at each side; 99 for 5 % cut off at one
side, 72 for 5 % at each. A wrong match does no harm but to keep two photographs together. Other photographs of one
place look different to the hash; --same names them.

A scene is drawn for validation by its own hash, so that the order of sets and files changes nothing, and another set
hardly anything: what it shares with a set of a given --count, and now and then a scene of which it has a copy that
looks a little different. With --keep nothing: what an earlier manifest knows stays as it was (two of its scenes that
turn out to be one are for validation).
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from drsformer_arch.images.pictures import Picture, decode, pictures_in_folder, read_file
from drsformer_arch.system.errors import UserError, did_you_mean, first_few
from drsformer_arch.system.files import fsync, write_atomically
from drsformer_arch.system.json_files import read_json

FORMAT = 1  # of the manifest
SIDE, FREQUENCIES = 32, 12  # of the reduced picture, of its corner of cosine frequencies
BITS = FREQUENCIES**2 - 1  # without the first one, the mean brightness
NEAR = 36  # bits of difference between two copies of one photograph, at most
HASH = f"signs of the lowest {FREQUENCIES}x{FREQUENCIES} cosine frequencies of the gray picture at {SIDE}x{SIDE}"
PARTS = ("val", "train")
ROLES = ("input", "target")  # of pairs; clean sets have the target alone
_STABLE = 4  # corner of frequencies whose signs hardly ever differ between copies: in 97 % not at JPEG of quality 50
_BLOCK = 1024  # pictures compared with all others at once
_HALF = 6  # hexadecimal digits of the name of a scene

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DataSet:
    """The pictures of one set: per role the file of every key, its path below the folder without extension."""

    name: str
    files: dict[str, dict[str, Path]]

    @property
    def kind(self) -> str:
        """Whether the set holds pairs or clean pictures alone."""
        return "pairs" if "input" in self.files else "clean"


class Looks(NamedTuple):
    """What a photograph looks like, whichever of 8 ways it is turned and mirrored."""

    hash: str  # the least of all ways
    ways: Bits  # (8, BITS), the first as the picture is

    def token(self) -> str:
        """Hexadecimal digits as if random, the first half of them the same for nearly all copies."""
        corner = np.pad(self.ways, ((0, 0), (1, 0))).reshape(8, FREQUENCIES, FREQUENCIES)[:, :_STABLE, :_STABLE]
        halves = (min(np.packbits(way).tobytes().hex() for way in corner), self.hash)
        return "".join(hashlib.sha256(half.encode()).hexdigest()[:_HALF] for half in halves)


class Entry(NamedTuple):
    """Copies of one photograph in one set. A scene has several entries where its photographs differ too much."""

    scene: str
    hash: str
    files: tuple[str, ...]  # keys


@dataclass
class Manifest:
    """What was decided, and by which settings."""

    method: dict[str, Any]
    kinds: dict[str, str] = field(default_factory=dict)  # of the sets
    entries: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)  # of set and part

    def parts(self) -> dict[str, str]:
        """Scene to part."""
        return {entry.scene: part for (_, part), entries in self.entries.items() for entry in entries}

    def text(self) -> str:
        """JSON with a line per entry, so that a change of the split can be read in a diff."""
        sets = []
        for name in sorted(self.kinds):
            parts = [f'   "kind": {json.dumps(self.kinds[name])}']
            for part in PARTS:
                lines = [_one_line(entry._asdict()) for entry in self.entries[name, part]]
                parts.append(f'   "{part}": [' + ",".join(f"\n    {line}" for line in lines) + "\n   ]")
            sets.append(f"  {_one_line(name)}: {{\n" + ",\n".join(parts) + "\n  }")
        method = ",\n".join(f"  {_one_line(key)}: {_one_line(value)}" for key, value in self.method.items())
        joined = ",\n".join(sets)
        return f'{{\n "format": {FORMAT},\n "method": {{\n{method}\n }},\n "sets": {{\n{joined}\n }}\n}}\n'


def _one_line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- pictures and their hashes ---------------------------------------------------------------------------------------


def open_set(name: str, folder: Path, *, clean: bool) -> DataSet:
    """Find the pictures of a set.

    Raises:
        UserError: no such folder or no pictures in it, or a picture without its partner.
    """
    if clean:
        return DataSet(name, {"target": pictures_in_folder(folder)})
    if not all((folder / role).is_dir() for role in ROLES):
        below = folder / "train"
        hint = f"; did you mean {below}?" if all((below / role).is_dir() for role in ROLES) else ""
        raise UserError(f"set {name}: {folder} lacks input/ and target/, which drsformer prepare makes{hint}")
    files = {role: pictures_in_folder(folder / role) for role in ROLES}
    for role, other in (ROLES, ROLES[::-1]):
        lonely = sorted(files[role].keys() - files[other].keys())
        if lonely:
            raise UserError(f"set {name}: no {other} in {folder} for {first_few(lonely)} of {role}/")
    return DataSet(name, files)


def looks(picture: Picture) -> Looks:
    """The hash of a picture.

    Args:
        picture: (H, W, C) of any depth, channels in any order.
    """
    gray = picture.mean(axis=2, dtype=np.float32)
    reduced = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    ways = _ways(cv2.dct(reduced)[:FREQUENCIES, :FREQUENCIES] > 0)
    return Looks(min(np.packbits(way).tobytes().hex() for way in ways), ways)


def looks_of_hash(text: str) -> Looks:
    """The same from what a manifest holds.

    Raises:
        ValueError: it is no hash, or of another length.
    """
    content = bytes.fromhex(text)
    if len(content) != -(-BITS // 8):
        raise ValueError(f"a hash has {-(-BITS // 8)} bytes, this one {len(content)}")
    corner = np.zeros(FREQUENCIES**2, dtype=np.uint8)
    corner[1:] = np.unpackbits(np.frombuffer(content, np.uint8), count=BITS)
    return Looks(text, _ways(corner.reshape(FREQUENCIES, FREQUENCIES) > 0))


def _ways(corner: Bits) -> Bits:
    """(8, BITS) of (FREQUENCIES, FREQUENCIES): mirroring turns the signs of odd frequencies, transposing transposes."""
    odd = np.arange(FREQUENCIES) % 2 == 1
    mirrored = [corner, corner ^ odd, corner ^ odd[:, None], corner ^ odd ^ odd[:, None]]
    return np.stack([one for way in mirrored for one in (way, way.T)]).reshape(8, -1)[:, 1:]


def looks_of_set(data: DataSet) -> dict[str, Looks]:
    """Key to hash of all clean pictures.

    Raises:
        UserError: an unreadable picture.
    """
    files = tqdm(data.files["target"].items(), desc=data.name, unit="picture", delay=2, leave=False, disable=None)
    return {key: looks(decode(read_file(path), path)) for key, path in files}


def near(one: Looks, other: Looks) -> bool:
    """Whether both are copies of one photograph."""
    return int(np.count_nonzero(one.ways[0] ^ other.ways, axis=1).min()) <= NEAR


def near_pairs(all_looks: Sequence[Looks]) -> Iterator[tuple[int, int]]:
    """Indices of all that are near each other; every pair in both orders, and everything with itself."""
    signs = np.where(np.stack([one.ways for one in all_looks]), np.float32(1), np.float32(-1))
    for start in range(0, len(signs), _BLOCK):
        block = signs[start : start + _BLOCK, 0]
        # Every equal bit adds 1 to the product, every other takes 1 away.
        alike = np.max([block @ signs[:, way].T for way in range(signs.shape[1])], axis=0)
        rows, columns = np.nonzero(alike >= BITS - 2 * NEAR)
        yield from zip((rows + start).tolist(), columns.tolist(), strict=True)


# --- the decision ----------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A picture on its way into a scene; one of an earlier manifest has no set, and the name its scene had there."""

    looks: Looks
    token: str  # the least of a scene is its name
    set: str = ""
    key: str = ""
    kept: str = ""


def decide(
    sets: Sequence[DataSet],
    *,
    share: float,
    counts: dict[str, int],
    seed: int = 0,
    same: Sequence[Sequence[str]] = (),
    keep: Manifest | None = None,
) -> Manifest:
    """Group the pictures into scenes, and choose those for validation.

    Args:
        sets: in any order.
        share: of all scenes that is for validation, 0 to 1.
        counts: sets with exactly so many scenes for validation instead.
        seed: another one draws other scenes.
        same: groups of pictures, each as SET/KEY, that are one scene although they do not look alike.
        keep: an earlier decision; its scenes stay what they were.

    Raises:
        UserError: an unreadable picture, counts that cannot be met, unknown names.
    """
    seen = [Seen(one, one.token(), kept=scene) for scene, one in _kept_looks(keep)]
    for data in sets:
        for key, one in looks_of_set(data).items():
            seen.append(Seen(one, one.token(), data.name, key))
    scenes = _scenes(seen, same)
    parts = _parts(scenes, share, counts, seed, keep.parts() if keep is not None else {})
    groups: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for scene, members in scenes.items():
        for member, of_copies in _copies(members):
            groups[member.set, parts[scene], scene, of_copies].append(member.key)
    kinds = {data.name: data.kind for data in sets}
    entries: dict[tuple[str, str], list[Entry]] = {(name, part): [] for name in kinds for part in PARTS}
    for (name, part, scene, text), keys in groups.items():
        entries[name, part].append(Entry(scene, text, tuple(sorted(keys))))
    # By file, so that the lines stay where they are when the scene gets copies elsewhere.
    ordered = {at: sorted(some, key=lambda entry: entry.files) for at, some in entries.items()}
    method = {"hash": HASH, "near": NEAR, "seed": seed, "share": share, "counts": dict(sorted(counts.items()))}
    before = keep.method["same"] if keep is not None else []
    groups_named = sorted({tuple(sorted(group)) for group in (*before, *same)})
    return Manifest({**method, "same": [list(group) for group in groups_named]}, kinds, ordered)


def _kept_looks(keep: Manifest | None) -> list[tuple[str, Looks]]:
    """Scene and hash of every photograph of an earlier manifest."""
    entries = () if keep is None else (entry for some in keep.entries.values() for entry in some)
    return [(scene, looks_of_hash(text)) for scene, text in sorted({(entry.scene, entry.hash) for entry in entries})]


def _scenes(seen: Sequence[Seen], same: Sequence[Sequence[str]]) -> dict[str, list[Seen]]:
    """Name of the scene to its pictures: those near each other, and those near a near one."""
    links = list(near_pairs([one.looks for one in seen]))
    places = {f"{one.set}/{one.key}": index for index, one in enumerate(seen) if not one.kept}
    for group in same:
        unknown = [name for name in group if name not in places]
        if unknown:
            raise UserError(f"--same: no picture {first_few(unknown)}; write SET/NAME without extension")
        links += [(places[group[0]], places[name]) for name in group[1:]]
    first_kept: dict[str, int] = {}
    links += [(first_kept.setdefault(one.kept, index), index) for index, one in enumerate(seen) if one.kept]
    rows, columns = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows), np.bool_), (rows, columns)), shape=(len(seen), len(seen)))
    groups: dict[int, list[Seen]] = defaultdict(list)
    for one, group in zip(seen, connected_components(graph, directed=False)[1].tolist(), strict=True):
        groups[group].append(one)
    scenes = {}
    for members in groups.values():
        scenes[min([one.kept for one in members if one.kept] or [one.token for one in members])] = members
    return scenes


def _parts(
    scenes: dict[str, list[Seen]], share: float, counts: dict[str, int], seed: int, before: dict[str, str]
) -> dict[str, str]:
    """Scene to part. Validation stays so; a scene that several counted sets have is chosen for the first of them."""
    parts = {}
    for scene, members in scenes.items():
        was = {before[one.kept] for one in members if one.kept}
        if was:  # a new picture can show that two earlier scenes are one
            parts[scene] = "val" if "val" in was else "train"
    draws = {scene: _draw(seed, scene) for scene in scenes}
    counted: set[str] = set()
    for name, count in sorted(counts.items()):
        of_set = [scene for scene, members in scenes.items() if any(one.set == name for one in members)]
        there = sum(parts.get(scene) == "val" for scene in of_set)
        free = [scene for scene in of_set if scene not in counted and scene not in parts]
        if not there <= count <= there + len(free):
            raise UserError(
                f"--count {name}={count}: {name} has {len(of_set)} scenes, of which {there} are for validation already "
                f"and {len(free)} can be chosen; a number from {there} to {there + len(free)} is possible"
            )
        parts |= dict.fromkeys(sorted(free, key=draws.__getitem__)[: count - there], "val")
        counted |= set(of_set)
    for scene in scenes:
        parts.setdefault(scene, "val" if scene not in counted and draws[scene] < (share, "") else "train")
    return parts


def _draw(seed: int, scene: str) -> tuple[float, str]:
    """A number from 0 to 1, by what copies have in common; and the scene, should several have the same."""
    number = hashlib.sha256(f"{seed}:{scene[:_HALF]}".encode()).hexdigest()[:8]
    return int(number, 16) / 16**8, scene


def _copies(members: Sequence[Seen]) -> Iterator[tuple[Seen, str]]:
    """The pictures of a scene, each with the hash of the photograph that it is a copy of."""
    left = sorted(members, key=lambda one: (not one.kept, one.token, one.set, one.key))
    while left:
        first = left[0]
        others = []
        for one in left:
            if not near(first.looks, one.looks):
                others.append(one)
            elif not one.kept:
                yield one, first.looks.hash
        left = others


# --- the manifest ----------------------------------------------------------------------------------------------------


def read_manifest(path: Path) -> Manifest:
    """A manifest that `Manifest.text` wrote.

    Raises:
        UserError: it is none, of another format or method, or contradicts itself.
    """
    try:
        content = read_json(path)
        manifest = Manifest(content["method"])
        if content["format"] != FORMAT or (manifest.method["hash"], manifest.method["near"]) != (HASH, NEAR):
            raise UserError(f"{path} was made by another version of this script; split anew with --save")
        for name, of_set in content["sets"].items():
            manifest.kinds[name] = of_set["kind"]
            for part in PARTS:
                rows = [Entry(row["scene"], row["hash"], tuple(row["files"])) for row in of_set[part]]
                manifest.entries[name, part] = rows
                for row in rows:
                    looks_of_hash(row.hash)
        _ = manifest.method["same"]
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"manifest {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no manifest of scenes, or damaged; take it from the repository again") from error
    parts = manifest.parts()
    for (name, part), entries in manifest.entries.items():
        both = [entry.scene for entry in entries if parts[entry.scene] != part]
        if both:
            raise UserError(f"{path} has scene {both[0]} of {name} in both parts; take the file from the repository")
    return manifest


def check_known(manifest: Manifest, path: Path, sets: Iterable[DataSet]) -> None:
    """Refuse anything that the manifest does not describe.

    Raises:
        UserError: an unknown set or picture, one that is missing, or one that shows something else.
    """
    for data in sets:
        if data.name not in manifest.kinds:
            raise UserError(f"{path} knows no set {data.name}{did_you_mean(data.name, manifest.kinds)}")
        if data.kind != manifest.kinds[data.name]:
            raise UserError(f"set {data.name} is {manifest.kinds[data.name]} in {path}, but {data.kind} here")
        entries = [entry for part in PARTS for entry in manifest.entries[data.name, part]]
        known = {key: entry for entry in entries for key in entry.files}
        found = looks_of_set(data)
        for message, keys in (
            ("does not know", found.keys() - known.keys()),
            ("also has", known.keys() - found.keys()),
            (
                "has other pictures by the names",
                {key for key in found.keys() & known.keys() if not near(found[key], looks_of_hash(known[key].hash))},
            ),
        ):
            if keys:
                raise UserError(f"set {data.name}: {path} {message} {first_few(sorted(keys))} ({len(keys)} pictures)")


# --- the folders -----------------------------------------------------------------------------------------------------


def planned(manifest: Manifest, sets: Iterable[DataSet]) -> dict[str, Path]:
    """Every file to make, relative to the result and with "/", and where it comes from."""
    plan = {}
    for data in sets:
        for part in PARTS:
            for key in (key for entry in manifest.entries[data.name, part] for key in entry.files):
                for role, files in data.files.items():
                    folder = f"{data.name}/{part}/{role}" if data.kind == "pairs" else f"{data.name}/{part}"
                    plan[f"{folder}/{key}{files[key].suffix}"] = files[key]
    return plan


def is_there(plan: dict[str, Path], out: Path) -> bool:
    """Whether the result exists and is what would be made.

    Raises:
        UserError: it is something else.
    """
    if not out.exists():
        return False
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    different = found ^ plan.keys() or {
        name
        for name, source in plan.items()
        if not (out / name).samefile(source) and not filecmp.cmp(out / name, source, shallow=False)
    }
    if different:
        names = first_few(sorted(different))
        raise UserError(f"{out} exists already with other content ({names}); move it away, or give another -o")
    return True


def build(plan: dict[str, Path], out: Path) -> None:
    """Make the result, under another name until it is whole.

    Raises:
        UserError: a full or protected disk.
    """
    # Not beside a link, which renaming would replace, but where it leads to.
    out = Path(os.path.realpath(out))
    unfinished = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.building")
    try:
        for name, source in plan.items():
            target = unfinished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or one without hard links
                shutil.copyfile(source, target)
        os.rename(unfinished, out)
        fsync(out.parent)
    except OSError as error:
        raise UserError(f"{out} cannot be made: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(unfinished)


# --- the command -----------------------------------------------------------------------------------------------------


def table(manifest: Manifest, names: Iterable[str]) -> str:
    """What became of each set, as Markdown."""
    sets = {name: {entry.scene for part in PARTS for entry in manifest.entries[name, part]} for name in manifest.kinds}
    lines = [
        "| set | pictures | scenes | also in other sets | val scenes | val pictures |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(names):
        pictures = {part: sum(len(entry.files) for entry in manifest.entries[name, part]) for part in PARTS}
        elsewhere = set().union(*(scenes for other, scenes in sets.items() if other != name))
        val = {entry.scene for entry in manifest.entries[name, "val"]}
        numbers = (sum(pictures.values()), len(sets[name]), len(sets[name] & elsewhere), len(val), pictures["val"])
        lines.append(f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |")
    parts = list(manifest.parts().values())
    return "\n".join([*lines, f"{len(parts):,} scenes in all sets together, {parts.count('val'):,} for validation"])


def split(arguments: argparse.Namespace) -> None:
    given = [*arguments.sets, *arguments.clean]
    names, counts = [name for name, _ in given], dict(arguments.count)
    for twice in (names, [name for name, _ in arguments.count]):
        if len(set(twice)) < len(twice):
            raise UserError(f"a name is given twice among {', '.join(twice)}")
    sets = [open_set(name, folder, clean=(name, folder) in arguments.clean) for name, folder in given]
    if arguments.manifest is not None:
        manifest = read_manifest(arguments.manifest)
        check_known(manifest, arguments.manifest, sets)
    else:
        for name in counts:
            if name not in names:
                raise UserError(f"--count: no set {name}{did_you_mean(name, names)}")
        manifest = decide(
            sets,
            share=arguments.share,
            counts=counts,
            seed=arguments.seed,
            same=arguments.same,
            keep=None if arguments.keep is None else read_manifest(arguments.keep),
        )
    text = manifest.text().encode()
    replacing = arguments.save is not None and arguments.save.exists() and arguments.save != arguments.keep
    if replacing and read_file(arguments.save) != text:
        raise UserError(f"{arguments.save} holds another split; move it away, or --keep it, to write this one")
    print(table(manifest, names))
    if arguments.out is not None:
        plan = planned(manifest, sets)
        was_there = is_there(plan, arguments.out)
        if not was_there:
            build(plan, arguments.out)
        print(f"{arguments.out}: {len(plan):,} files{', complete already' if was_there else ''}")
    if arguments.save is not None:
        try:
            arguments.save.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(arguments.save, text)
        except OSError as error:
            raise UserError(f"{arguments.save} cannot be written: {error.strerror}") from error
        print(f"{arguments.save}: written")


def named(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not re.fullmatch(r"\w[\w.-]*", name) or not folder:  # a folder of the result has this name
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


def counted(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if not count.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N")
    return name, int(count)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=named, metavar="NAME=FOLDER", help="pairs to split")
    parser.add_argument(
        "--clean", action="append", type=named, default=[], metavar="NAME=FOLDER", help="clean pictures alone"
    )
    parser.add_argument("--share", type=float, default=0.1, help="of the scenes, for validation (%(default)s)")
    parser.add_argument(
        "--count",
        action="append",
        type=counted,
        default=[],
        metavar="NAME=N",
        help="scenes of a set for validation, exactly",
    )
    parser.add_argument("--seed", type=int, default=0, help="another one draws other scenes (%(default)s)")
    parser.add_argument(
        "--same", action="append", nargs="+", default=[], metavar="SET/PICTURE", help="pictures that are one scene"
    )
    parser.add_argument("--keep", type=Path, metavar="JSON", help="earlier manifest, whose scenes keep their part")
    parser.add_argument("--save", type=Path, metavar="JSON", help="manifest to write")
    parser.add_argument("--manifest", type=Path, metavar="JSON", help="take the split from here, decide nothing")
    parser.add_argument("-o", dest="out", type=Path, metavar="FOLDER", help="folder to make")
    arguments = parser.parse_args(argv)
    if (arguments.save is None) == (arguments.manifest is None):
        parser.error("give --save to decide on a split, or --manifest to repeat one")
    decisions = ("share", "count", "seed", "same", "keep")
    if arguments.manifest and any(getattr(arguments, one) != parser.get_default(one) for one in decisions):
        parser.error(f"--manifest has everything decided: {', '.join(f'--{one}' for one in decisions)} mean nothing")
    if not 0 <= arguments.share <= 1:
        parser.error("--share must be from 0 to 1")
    try:
        split(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
