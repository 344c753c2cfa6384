"""Which result belongs to which target: by the names, by one rule for all of a folder, never by order."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from drsformer_arch.data.pairing.layouts import Layout
from drsformer_arch.data.pairing.name_rules import EQUAL, NAMES, matches_of, paths_of, refuse_two_readings, rule_shown
from drsformer_arch.data.pairing.source_tree import Folder, Source, stem, walk
from drsformer_arch.images.pictures import PICTURE_SUFFIXES
from drsformer_arch.system.errors import UserError, first_few

# Of a result and of its rainy picture: results may also have the name of their target, where that is theirs alone.
RAINY_NAMES = (*(Layout(clean, rainy) for rainy, clean in NAMES if "#" not in rainy), Layout("{}", "{}_rain"))


class ResultPair(NamedTuple):
    """A result and what it is compared with."""

    name: str  # path of the result below its folder, without extension
    result: Path
    target: Path | None
    rainy: Path | None


def find_result_pairs(
    result: Path, target: Path | None, rainy: Path | None, *, skip_missing: bool = False
) -> tuple[list[ResultPair], list[str]]:
    """Pair the pictures of folders, searched recursively, by their names and the names of the folders in them.

    Equal names without extension come first. Else one rule must pair all results: one of `NAMES`, alone or with an
    ending that all results share, such as `_DRSformer`. Two files are a pair whatever their names are.

    Args:
        result: folder or file.
        target: folder or file; several results may share a target where the rule has a number (`{}_# + {}`).
        rainy: folder or file of the rainy pictures.
        skip_missing: leave out results that have no partner.

    Returns:
        the pairs, sorted by name with numbers as numbers, and notes for the user: the rules, what is left out.

    Raises:
        UserError: nothing there, no pictures, a result without its partner, two files of one name, or names that can
            be read in two ways.
    """
    results = _source(result)
    pictures: dict[str, Path] = {}
    for name, path in _named(results):
        if pictures.setdefault(name, path) is not path:
            raise UserError(f"two results have one name: {pictures[name]} and {path}; take one of them away")
    partners: dict[str, dict[Path, Path]] = {"target": {}, "rainy picture": {}}
    notes: list[str] = []
    for role, given, names in (("target", target, NAMES), ("rainy picture", rainy, RAINY_NAMES)):
        if given is None:
            continue
        if result.is_file() and given.is_file():
            partners[role] = {result: given}
            continue
        partners[role], said = _partners(results, _source(given), names, role, skip_missing)
        notes += said
    wanted = [of_role for of_role, given in zip(partners.values(), (target, rainy), strict=True) if given is not None]
    pairs = [
        ResultPair(name, path, partners["target"].get(path), partners["rainy picture"].get(path))
        for name, path in pictures.items()
        if all(path in of_role for of_role in wanted)
    ]
    if not pairs:
        raise UserError(f"no result in {result} has both a target and a rainy picture")
    return sorted(pairs, key=lambda pair: _natural(pair.name)), notes


def _source(path: Path) -> Source:
    """Look through a folder, or take a file as a folder that holds only this."""
    if not path.is_file():
        source = walk(path)
        if not source.folders:
            raise UserError(f"no picture ({', '.join(sorted(PICTURE_SUFFIXES))}) in {path}")
        return source
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UserError(f"{path} is no picture ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return Source(path.parent, [Folder(path.parent, ("",), [path.name])])


def _named(source: Source) -> Iterator[tuple[str, Path]]:
    for folder in source.folders:
        for picture in folder.pictures:
            yield "/".join((*folder.parts[1:], stem(picture))), folder.path / picture


def _partners(
    results: Source, others: Source, names: Sequence[Layout], role: str, skip_missing: bool
) -> tuple[dict[Path, Path], list[str]]:
    """Return the partner of every result, by the rule that finds the most, and notes."""
    matches = matches_of(results, others, names)
    most = max(len(match.pairs) for match in matches)
    if most == 0:
        raise _nothing_found(results, others, names, role)
    best = [match for match in matches if len(match.pairs) == most]
    chosen, rule = paths_of(best[0]), rule_shown(best[0].layout)
    paths = [path for _, path in _named(results)]
    missing = [path.name for path in paths if path not in chosen]
    without = f"{len(missing):,} of {len(paths):,} results without a {role} ({first_few(missing)})"
    if missing and not skip_missing:
        raise UserError(f"{without}; the others pair by {rule}; --skip-missing leaves them out")
    if best[0].layout != EQUAL:
        refuse_two_readings(best)
    if best[0].twice is not None:
        one, two = best[0].twice
        raise UserError(f"two files for one name: {one.path} and {two.path}; take one of them away")
    notes = [
        f"{'pairs' if role == 'target' else 'rainy pictures'}: {rule}",
        *([f"left out: {without}"] if missing else []),
    ]
    used = set(chosen.values())
    unused = [path.name for _, path in _named(others) if path not in used]
    if unused:
        notes.append(f"{len(unused):,} of {len(unused) + len(used):,} {role}s have no result ({first_few(unused)})")
    return chosen, notes


def _nothing_found(results: Source, others: Source, names: Sequence[Layout], role: str) -> UserError:
    (_, ours), (_, theirs) = next(_named(results)), next(_named(others))
    return UserError(
        f"no result in {results.root} has its {role} in {others.root}: {ours.name} and {theirs.name}, for example; "
        "names must be equal without extension, or equal up to an ending such as _DRSformer that all results share, or "
        f"follow one rule: {', '.join(map(rule_shown, names[1:]))}"
    )


def _natural(name: str) -> list[str | int]:
    """Return a key to sort by: numbers in the name count as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
