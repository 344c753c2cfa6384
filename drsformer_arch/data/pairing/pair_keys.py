"""The split and the key of every pair, from the names of the folders it was found in."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from drsformer_arch.data.pairing.benchmarks import Benchmark, Halves
from drsformer_arch.data.pairing.source_tree import File, Parts
from drsformer_arch.system.errors import UserError

SPLITS = ("train", "test", "val")
_SPLIT_WORDS = {
    "train": re.compile("(?<!ligh)train", re.IGNORECASE),  # no "LightRain"
    "test": re.compile("(?<!la)test", re.IGNORECASE),  # no "latest"
    "val": re.compile("(?<![a-z])val(?:id|idation)?(?![a-z])", re.IGNORECASE),
}


class UnkeyedPair(NamedTuple):
    """A pair on its way to a key."""

    folders: Parts  # those that the key may keep
    name: str
    rainy: File
    clean: File
    places: Parts  # names that may tell the split, the last one first
    halves: Halves = ""


class SourcePair(NamedTuple):
    """A rainy picture and its clean one."""

    key: str
    input: Path
    target: Path
    # "" for two files; otherwise `input` and `target` are one file, and this says which half is which
    halves: Halves


def pairs_per_split(
    benchmark: Benchmark, unkeyed: Sequence[UnkeyedPair], asked: str | None
) -> tuple[dict[str, list[SourcePair]], list[str]]:
    """Give the pairs found a split and a key, by the rules that `find_source_pairs` states.

    Args:
        benchmark: the set.
        unkeyed: in any order.
        asked: the split of what lies in no folder that says it.

    Returns:
        the pairs of every split, sorted by key, and warnings for the user.

    Raises:
        UserError: two pairs with the same key, or a key that is no text.
    """
    groups, warnings = _by_split(benchmark, unkeyed, asked)
    splits = {split: _keyed(benchmark, split, of_split) for split, of_split in groups.items()}
    for part, counts in benchmark.parts.items() if "test" in splits else ():
        count = sum(pair.key.startswith(f"{part}/") for pair in splits["test"])
        if count not in counts:
            warnings.append(f"{part} has {max(counts):,} pairs as published, this copy has {count:,}")
    return splits, warnings


def _by_split(
    benchmark: Benchmark, unkeyed: Sequence[UnkeyedPair], asked: str | None
) -> tuple[dict[str, list[UnkeyedPair]], list[str]]:
    groups: dict[str | None, list[UnkeyedPair]] = defaultdict(list)
    said: dict[Parts, str | None] = {}
    for pair in unkeyed:
        if pair.places not in said:
            said[pair.places] = split_said(pair.places) or ("test" if _part_of(benchmark, pair.places) else None)
        groups[said[pair.places]].append(pair)
    warnings = []
    if asked is not None and None not in groups and asked not in groups:
        names = " and ".join(sorted(map(str, groups)))
        warnings.append(f"the split {asked} was asked for, but all folders have {names} in their names; this counts")
    unsaid = groups.pop(None, [])
    if unsaid:
        groups[asked or ("train" if "test" in groups else _split_by_count(benchmark, len(unsaid)))] += unsaid
    if "val" in groups and "test" not in groups:
        groups["test"] = groups.pop("val")
        warnings.append("there is no test split; the val split takes its place")
    return {split: groups[split] for split in SPLITS if split in groups}, warnings


def _split_by_count(benchmark: Benchmark, count: int) -> str:
    of_test, of_train = (
        {benchmark.counts.get(split), *benchmark.versions.get(split, {})} for split in ("test", "train")
    )
    return "test" if count in of_test - of_train else "train"


def _keyed(benchmark: Benchmark, split: str, unkeyed: Sequence[UnkeyedPair]) -> list[SourcePair]:
    kept = _kept_folders(benchmark if split == "test" else None, {pair.folders for pair in unkeyed})
    pairs: dict[str, SourcePair] = {}
    for candidate in unkeyed:
        key = "/".join((*kept[candidate.folders], candidate.name))
        pair = SourcePair(key, candidate.rainy.path, candidate.clean.path, candidate.halves)
        try:
            key.encode()
        except UnicodeEncodeError as error:  # names on a disk can hold any bytes
            raise UserError(f"the name of {str(pair.input)!r} is not in UTF-8; rename it and its partner") from error
        other = pairs.setdefault(key, pair)
        if other is not pair:
            raise UserError(
                f"two pairs of the {split} split have the name {key!r}: {other.input} with {other.target}, and "
                f"{pair.input} with {pair.target}; take one of them away, or give a folder that holds only one"
            )
    return [pairs[key] for key in sorted(pairs)]


def split_said(places: Parts) -> str | None:
    """Return the split that the last of the names speaks of, if any speaks of exactly one."""
    for place in reversed(places):
        said = [split for split, word in _SPLIT_WORDS.items() if word.search(place)]
        if len(said) == 1:
            return said[0]
    return None


def _part_of(benchmark: Benchmark, folders: Parts) -> Parts:
    """Return the folders from that of a part on, which gets its published name; () where there is none."""
    for index in reversed(range(len(folders))):
        for part in benchmark.parts:
            if folders[index].casefold() == part.casefold():
                return (part, *folders[index + 1 :])
    return ()


def _kept_folders(benchmark: Benchmark | None, all_folders: Collection[Parts]) -> dict[Parts, Parts]:
    """Return what a key keeps of the folders: nothing that all share at their beginning or end, and their part."""
    kept = {folders: _part_of(benchmark, folders) if benchmark else () for folders in all_folders}
    others = [folders for folders in all_folders if not kept[folders]]
    start = len(os.path.commonprefix(others))  # noqa: RUF071 - of names, not of letters
    end = len(os.path.commonprefix([folders[start:][::-1] for folders in others]))  # noqa: RUF071
    for folders in others:
        kept[folders] = folders[start : len(folders) - end]
    return kept
