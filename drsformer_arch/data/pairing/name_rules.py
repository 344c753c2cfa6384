"""Which file of one folder belongs to which of another: by the names, by one rule for all, never by order."""

import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from drsformer_arch.data.pairing.layouts import LAYOUTS, Layout, Match, match_folders
from drsformer_arch.data.pairing.source_tree import Source, stem
from drsformer_arch.system.errors import UserError

EQUAL = Layout("{}", "{}")
# Of a rainy picture, or of a result, which mostly has its name, and of the clean picture.
NAMES = tuple(
    dict.fromkeys(
        (
            EQUAL,
            *(Layout(posixpath.basename(rainy), posixpath.basename(clean)) for rainy, clean in LAYOUTS),
            Layout("{}", "norain-{}"),
            Layout("rain-{}", "{}"),
            Layout("{}x2", "norain-{}"),
            Layout("{}", "{}_clean"),  # DID: 1_rain, where _rain counts as an ending
            Layout("{}", "{}_gt"),  # SPA: real_1000_rain
        )
    )
)


def matches_of(first: Source, second: Source, names: Sequence[Layout]) -> list[Match]:
    """Return what every rule finds, for names of the first as they are and up to an ending that all of them share.

    Where equal names pair all of the first, they alone count.
    """
    ours, theirs = ([(folder, folder.parts[1:]) for folder in source.folders] for source in (first, second))
    stems = [stem(picture) for folder in first.folders for picture in folder.pictures]
    equal = match_folders(EQUAL, (), ours, theirs)
    if len(equal.pairs) == len(stems):
        return [equal]
    layouts = [Layout(one + ending, other) for ending in ("", *_endings(stems)) for one, other in names]
    return [equal, *(match_folders(layout, (), ours, theirs) for layout in layouts if layout != EQUAL)]


def paths_of(match: Match) -> dict[Path, Path]:
    """Return the partner of every file that has one."""
    return {pair.rainy.path: pair.clean.path for pair in match.pairs}


def refuse_two_readings(matches: Sequence[Match]) -> None:
    """Refuse rules that disagree; they may agree."""
    first = paths_of(matches[0])
    for match in matches[1:]:
        second = paths_of(match)
        for path in {**first, **second}:
            if first.get(path) != second.get(path):
                partners = [paths[path].name if path in paths else "nothing" for paths in (first, second)]
                rules = rule_shown(matches[0].layout), rule_shown(match.layout)
                raise UserError(
                    f"the names can be read in two ways: {path.name} belongs to {partners[0]} by {rules[0]}, and to "
                    f"{partners[1]} by {rules[1]}; rename them"
                )


def rule_shown(layout: Layout) -> str:
    """Show a rule to the user."""
    return "equal names" if layout == EQUAL else " + ".join(layout)


def _endings(names: Sequence[str]) -> Iterator[str]:
    """Yield what all names may end with, such as _DRSformer, the shortest first."""
    shared = posixpath.commonprefix([name[::-1] for name in names])[::-1]
    for start in range(len(shared) - 1, -1, -1):
        if shared[start] in "_-." and not set("{}#") & set(shared[start:]):
            yield shared[start:]
