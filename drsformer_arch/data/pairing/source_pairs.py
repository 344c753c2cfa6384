"""Find the pairs of a benchmark set, however the copy at hand is laid out.

The sets circulate as folder pairs, as one folder with telling names, with the rainy and the clean half in one picture,
or with a text list of pairs. Only names are looked at, no picture is opened. Nothing is left out in silence: a picture
without its partner is an error, a picture that belongs to no layout a warning.
"""

import gc
import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from drsformer_arch.data.pairing.benchmarks import Benchmark, benchmark_named
from drsformer_arch.data.pairing.layouts import (
    LAYOUTS,
    ROLES,
    Layout,
    Match,
    Side,
    fitting,
    layout_of,
    match_folders,
    readings,
    role_of,
)
from drsformer_arch.data.pairing.name_rules import NAMES, matches_of, refuse_two_readings, rule_shown
from drsformer_arch.data.pairing.pair_keys import SPLITS, SourcePair, UnkeyedPair, pairs_per_split, split_said
from drsformer_arch.data.pairing.source_tree import File, Folder, Parts, Source, listed_pairs, stem, walk
from drsformer_arch.system.errors import FEW, UserError, did_you_mean, first_few

_HALVES = {"clean_left": "clean left, rainy right", "rainy_left": "rainy left, clean right"}


@dataclass(frozen=True)
class SourcePairs:
    """All pairs below the sources."""

    # "train", "test" or "val" to its pairs, sorted by key
    splits: dict[str, list[SourcePair]]
    # how the files are laid out, for the user
    layout: str
    # what was left out or looks unusual, for the user; numbers of pairs are the business of `count_warning`
    warnings: list[str] = field(default_factory=list)


def find_source_pairs(
    dataset: str, sources: Sequence[Path], *, split: str | None = None, patterns: tuple[str, str] | None = None
) -> SourcePairs:
    """Find the pairs of a set below some folders, at any depth.

    Every pair has a key: the path of the rainy picture in NFC, without extension, without what all names of the layout
    have in common (`norain-`, `x2`) and without the folders that all pairs of the split share, such as
    `train/rain`. In the test split of a set of several parts the key keeps the part: `Test100/1`.

    The split of a pair is what the folder nearest to it says that has "train", "test" or "val" in its name, the folder
    of the source included; else `split`; else "test" where these pairs are as many as the published test split has (and
    not the train split) and no folder says "test", and "train" otherwise. What is called "val" becomes the test split
    where there is no other.

    Args:
        dataset: a name of `BENCHMARKS`.
        sources: unpacked folders. They are only read. Links in them are followed; names that start with a dot and
            `__MACOSX` are passed over. For "pairs" they may be two: the rainy pictures and the clean ones, paired by
            their paths without extension, by a rule of `NAMES` that pairs all of them, or `patterns` for their names.
        split: "train", "test" or "val", for what lies in no folder that says it.
        patterns: the ends of the paths of the rainy and of the clean files, such as `("rain/{}x2", "norain/{}")`, in
            the language of `Layout`, without extensions. `{}` stands once in the name of the file. What stands
            before the pattern must be the same for both. Patterns replace all known layouts.

    Returns:
        the pairs, per split.

    Raises:
        UserError: an unknown set or split, no such folder, one that cannot be read, no pairs, a picture without its
            partner, a line of a list that names no files, patterns that are none, or two pairs with the same key.
    """
    benchmark = benchmark_named(dataset)
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}{did_you_mean(split, SPLITS)}")
    if not sources:
        raise UserError("no folder with pictures given")
    layout = None if patterns is None else layout_of(patterns)
    with _without_collector():
        search = _Search(benchmark, [walk(Path(source)) for source in sources])
        if dataset == "pairs" and len(sources) == 2:
            search.by_two_folders(layout)
        elif layout is not None:
            search.by_pattern(layout)
        else:
            search.by_lists()
            search.by_layouts(LAYOUTS)
            search.by_halves()
            search.check_folders()
        return search.result(split)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Collect no garbage: among millions of small objects that come to stay, the search takes longer than the rest."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Search:
    """Collects the pairs of one set; no picture is taken twice, unless clean pictures are shared."""

    def __init__(self, benchmark: Benchmark, sources: list[Source]) -> None:
        self.benchmark = benchmark
        self.sources = sources
        self.folders = [folder for source in sources for folder in source.folders]
        self.pairs: list[UnkeyedPair] = []
        self.layouts: dict[str, None] = {}  # in order, each once
        self.looked_for: list[str] = []
        self.by_roles = False  # names of folders that say what is in them were looked for, too
        self.alone: dict[str, dict[File, None]] = {"RAINY": {}, "CLEAN": {}}  # may be taken later

    def by_lists(self) -> None:
        """Take pairs from text files with a rainy and a clean path in every line."""
        if not self.benchmark.lists:
            return
        self.looked_for.append("a text list of pairs")
        for source in self.sources:
            folders = {folder.parts: folder for folder in source.folders}
            for path, parts in source.texts:
                for rainy, clean in listed_pairs(path, parts, folders):
                    # The list may be called train.txt.
                    places = (*rainy.folder.parts, path.stem)
                    self._take(UnkeyedPair(rainy.folder.parts, stem(rainy.name), rainy, clean, places))
                    self.layouts[f"pairs listed in {path.name}"] = None

    def by_two_folders(self, layout: Layout | None) -> None:
        """Take pairs of the first and the second source, in folders of equal names.

        Args:
            layout: how the user says the files are named; None: equal names, or one known rule that pairs all of them.
        """
        if layout is None:
            match = self._match_of_names()
        elif "/" in layout.rainy + layout.clean:
            raise UserError("patterns for two folders are those of names, without folders, such as {}x2 and {}")
        else:
            self.looked_for.append(f"{layout.rainy} in the first folder + {layout.clean} in the second")
            rainy, clean = ([(folder, folder.parts[1:]) for folder in source.folders] for source in self.sources)
            match = match_folders(layout, (), rainy, clean)
        self._take_match(match, f"two folders with {match.layout.rainy} + {match.layout.clean}")

    def _match_of_names(self) -> Match:
        """Pair two folders by the rules of `evaluate`; one that leaves any picture over is no reason to pair by it."""
        rules = ", ".join(map(rule_shown, NAMES[1:]))
        self.looked_for.append(f"equal names in the first and the second folder, or one rule for all of them: {rules}")
        of_rainy, of_clean = self.sources
        equal, *others = matches_of(of_rainy, of_clean, NAMES)
        pictures = [sum(len(folder.pictures) for folder in source.folders) for source in self.sources]
        complete = [
            match
            for match in others
            if match.complete and pictures == [len(match.pairs), len({pair.clean for pair in match.pairs})]
        ]
        if not complete:
            return equal
        refuse_two_readings(complete)
        return complete[0]

    def by_pattern(self, layout: Layout) -> None:
        """Take pairs of two files as the user says they are named."""
        if layout.rainy == layout.clean:
            raise UserError(f"the rainy and the clean pattern are both {layout.rainy!r}; they must differ")
        self.by_layouts([layout])
        for pattern, alone in zip(layout, self.alone.values(), strict=True):
            for folder in self.folders:
                if any(readings(pattern, folder.parts)):
                    alone.update(dict.fromkeys(file for file, _ in fitting(folder, pattern)))

    def by_layouts(self, layouts: Sequence[Layout]) -> None:
        """Take pairs of two files, at every place by the layout that pairs the most of them."""
        self.looked_for += [layout.example() for layout in layouts]
        self.by_roles = True
        sides: dict[str, dict[Parts, Side]] = {}
        for pattern in {side for layout in layouts for side in layout}:
            sides[pattern] = defaultdict(list)
            for folder in self._with_pairs():
                for place, kept in readings(pattern, folder.parts):
                    sides[pattern][place].append((folder, kept))

        def match_at(place: Parts, layout: Layout) -> Match:
            return match_folders(layout, place, sides[layout.rainy][place], sides[layout.clean][place])

        best: dict[Parts, Match] = {}
        for layout in layouts:
            for place in sides[layout.rainy].keys() & sides[layout.clean].keys():
                if place not in best or not best[place].complete:
                    match = match_at(place, layout)
                    if place not in best or len(match.pairs) > len(best[place].pairs):
                        best[place] = match
        # Folders can be read in several ways, such as input/rain beside target/rain: the way that pairs most comes
        # first, and the others get what it leaves.
        for match in sorted(
            best.values(), key=lambda match: (-len(match.pairs), layouts.index(match.layout), match.place)
        ):
            if any(pair.rainy.taken or pair.clean.taken for pair in match.pairs):
                match = match_at(match.place, match.layout)  # noqa: PLW2901 - the same one, of what is left
            if match.pairs:
                files = (match.pairs[0].rainy, match.pairs[0].clean)
                shown = [
                    "/".join((*file.folder.parts[len(match.place) :], posixpath.basename(pattern)))
                    for file, pattern in zip(files, match.layout, strict=True)
                ]
                self._take_match(match, " + ".join(shown))

    def by_halves(self) -> None:
        """Take pictures of both halves: what is left in folders named after a split, or anywhere if nothing else is."""
        if not self.benchmark.halves:
            return
        shown = f"both halves in one picture ({_HALVES[self.benchmark.halves]})"
        self.looked_for.append(shown)
        folders = [folder for folder in self._with_pairs() if folder.left() and self._role(folder) is None]
        of_a_split = [folder for folder in folders if split_said(folder.parts[1:])]
        for folder in of_a_split or (folders if not self.pairs else []):
            for file in folder.left():
                self._take(UnkeyedPair(folder.parts, stem(file.name), file, file, folder.parts, self.benchmark.halves))
                self.layouts[shown] = None

    def check_folders(self) -> None:
        """Note that what is left in folders of rainy or clean pictures lacks a partner, whatever the layout."""
        for folder in self._with_pairs():
            role = self._role(folder)
            if role is not None:
                self.alone[role].update(dict.fromkeys(folder.left()))

    def result(self, split: str | None) -> SourcePairs:
        if not self.pairs:
            raise self._nothing_found()
        self._check_alone()
        splits, warnings = pairs_per_split(self.benchmark, self.pairs, split)
        return SourcePairs(splits, "; ".join(self.layouts), [*self._shared_clean(), *self._left_out(), *warnings])

    def _with_pairs(self) -> Iterator[Folder]:
        for folder in self.folders:
            if not any(part.casefold() in self.benchmark.without_pairs for part in folder.parts):
                yield folder

    def _role(self, folder: Folder) -> str | None:
        # Pictures of both halves may lie somewhere in a folder "rain", as the copies of Rain800 do.
        return role_of(folder.parts[1:], nearest=bool(self.benchmark.halves))

    def _take(self, pair: UnkeyedPair) -> None:
        self.pairs.append(pair)
        pair.rainy.take()
        pair.clean.take()

    def _take_match(self, match: Match, shown: str) -> None:
        if match.twice is not None:
            one, two = match.twice
            raise UserError(f"two clean pictures for one name: {one.path} and {two.path}; take one of them away")
        for pair in match.pairs:
            self._take(pair)
        self.layouts[shown] = None
        self.alone["RAINY"].update(dict.fromkeys(match.rainy_alone))
        self.alone["CLEAN"].update(dict.fromkeys(match.clean_alone))

    def _check_alone(self) -> None:
        problems = []
        for role, kind, missing in (("RAINY", "rainy", "clean"), ("CLEAN", "clean", "rainy")):
            files = [file for file in self.alone[role] if not file.taken]
            if files:
                names = first_few([str(file.path) for file in files])
                problems.append(f"{len(files):,} {kind} without a {missing} one ({names})")
        if problems:
            raise UserError(
                f"pictures of {self.benchmark.title} lack their partners: {' and '.join(problems)}; complete the copy, "
                f"or take these pictures out of it"
            )

    def _shared_clean(self) -> list[str]:
        """Warn where the rainy pictures of a clean one, fourteen in DDN, are not complete."""
        published = self.benchmark.rainy_per_clean
        if published == 1:
            return []
        rainy = Counter(pair.clean for pair in self.pairs)
        others = [f"{file.path}: {count}" for file, count in rainy.items() if count != published]
        if not others or max(rainy.values()) == 1:  # complete, or another layout
            return []
        return [
            f"{len(others):,} of {len(rainy):,} clean pictures do not have {published} rainy ones as published "
            f"({first_few(others)})"
        ]

    def _left_out(self) -> list[str]:
        lines = []
        for folder in self.folders:
            left = folder.left()
            if left:
                names = first_few([file.name for file in left])
                lines.append(f"left out, because no layout fits: {_pictures(left)} in {folder.path} ({names})")
        if len(lines) > FEW:
            lines[FEW:] = [f"left out likewise: pictures in {len(lines) - FEW} more folders"]
        return lines

    def _nothing_found(self) -> UserError:
        contents = [
            f"{_pictures(folder.pictures)} in {folder.path} ({first_few(folder.pictures)})" for folder in self.folders
        ]
        archives = [path for source in self.sources for path in source.archives]
        if archives:
            contents.append(f"archives, which have to be unpacked ({first_few([str(path) for path in archives])})")
        if len(contents) > FEW:
            contents[FEW:] = [f"{len(contents) - FEW} more"]
        roots = " and ".join(str(source.root) for source in self.sources)
        roles = f", where rain can be {', '.join(ROLES['RAINY'])}, and norain {', '.join(ROLES['CLEAN'])}"
        return UserError(
            f"no pairs of {self.benchmark.title} in {roots}: found {'; '.join(contents) or 'no pictures'}; looked for "
            f"{', '.join(self.looked_for)}{roles if self.by_roles else ''}; check the folder, or say by patterns how "
            "the files are named"
        )


def _pictures(some: Collection[object]) -> str:
    return f"{len(some):,} picture{'' if len(some) == 1 else 's'}"
