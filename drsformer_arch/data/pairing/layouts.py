"""Rules for the names of the two files of a pair: the layouts in circulation, and what one finds in some folders."""

import posixpath
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from drsformer_arch.data.pairing.pair_keys import UnkeyedPair
from drsformer_arch.data.pairing.source_tree import File, Folder, Parts, nfc, stem
from drsformer_arch.images.pictures import PICTURE_SUFFIXES
from drsformer_arch.system.errors import UserError

# Names of folders; capitals, blanks and hyphens do not matter.
ROLES = {
    "RAINY": ("input", "inputs", "rain", "rainy", "rain_image", "rain_images", "rainy_image", "rainy_images", "lq"),
    "CLEAN": ("target", "targets", "norain", "no_rain", "clean", "gt", "groundtruth", "ground_truth"),
}


class Layout(NamedTuple):
    """A rule for the names of the two files of a pair, below a folder that may lie anywhere.

    `RAINY` and `CLEAN` stand for the names of folders in use, which may hold folders of their own; one named `X2`
    is passed over. `{}` stands for the text that both names share, and `#` for a number of the rainy one alone:
    `900_1` and `900_2` both belong to the clean `900`.
    """

    rainy: str
    clean: str

    def example(self) -> str:
        """Show how names of both files may be, for the user."""
        return " + ".join(
            side.replace("RAINY", "rain").replace("CLEAN", "norain").replace("{}", "NAME").replace("#", "1")
            for side in self
        )


LAYOUTS = (
    Layout("RAINY/{}", "CLEAN/{}"),  # the authors of DRSformer; Rain13K
    Layout("RAINY/rain-{}", "CLEAN/norain-{}"),
    Layout("RAINY/norain-{}x2", "CLEAN/norain-{}"),  # Rain200, Rain100
    Layout("RAINY/rain-{}x2", "CLEAN/norain-{}"),
    Layout("RAINY/{}x2", "CLEAN/{}"),
    Layout("RAINY/norain-{}x2", "norain-{}"),  # the train split of Rain100
    Layout("RAINY/rain-{}x2", "norain-{}"),
    Layout("RAINY/rain-{}", "norain-{}"),  # PReNet
    Layout("RAINY/norain-{}", "norain-{}"),
    Layout("rain-{}", "norain-{}"),
    Layout("RAINY/{}_rain", "CLEAN/{}_clean"),
    Layout("{}_rain", "{}_clean"),
    Layout("RAINY/{}_#", "CLEAN/{}"),  # DDN
    Layout("RAINY/{}", "CLEAN/{}gt"),  # the test split of SPA
)


def layout_of(patterns: tuple[str, str]) -> Layout:
    """Read the user's patterns as a layout."""
    sides = []
    for pattern in patterns:
        start, suffix = posixpath.splitext(nfc(pattern).replace("\\", "/"))
        side = posixpath.normpath((start if suffix.lower() in PICTURE_SUFFIXES else start + suffix).lstrip("/"))
        if side.count("{}") != 1 or "{}" not in posixpath.basename(side):
            raise UserError(f"pattern {pattern!r} must have {{}} once, in the name of the file, such as rain/{{}}x2")
        sides.append(side)
    if "#" in sides[1]:
        raise UserError(f"pattern {patterns[1]!r} has # for a number, which only rainy pictures have")
    return Layout(*sides)


Side = list[tuple[Folder, Parts]]  # folders, each with what the key may keep of it below the place of the layout


class Match(NamedTuple):
    """The pairs that a layout finds at one place, the folder that holds both sides."""

    layout: Layout
    place: Parts
    pairs: list[UnkeyedPair]
    rainy_alone: list[File]
    clean_alone: list[File]
    twice: tuple[File, File] | None  # two clean files of one name

    @property
    def complete(self) -> bool:
        """Tell whether every picture belongs to exactly one pair, and there is one."""
        return bool(self.pairs) and not (self.rainy_alone or self.clean_alone or self.twice)


def match_folders(layout: Layout, place: Parts, rainy: Side, clean: Side) -> Match:
    """Find the pairs of one layout at one place, of pictures that are not taken yet."""
    clean_files: dict[tuple[Parts, str], File] = {}
    twice = None
    for folder, kept in clean:
        for file, fit in fitting(folder, layout.clean):
            other = clean_files.setdefault((kept, fit["shared"]), file)
            if other is not file:
                twice = twice or (other, file)
    pairs, rainy_alone, used = [], [], set()
    for folder, kept in rainy:
        folders = place + kept
        for file, fit in fitting(folder, layout.rainy):
            shared = (kept, fit["shared"])
            if shared in clean_files:
                pairs.append(UnkeyedPair(folders, fit["key"], file, clean_files[shared], folder.parts))
                used.add(shared)
            else:
                rainy_alone.append(file)
    clean_alone = [file for shared, file in clean_files.items() if shared not in used]
    return Match(layout, place, pairs, rainy_alone, clean_alone, twice)


def fitting(folder: Folder, pattern: str) -> Iterator[tuple[File, re.Match[str]]]:
    """Yield the pictures left in a folder whose names fit a pattern, each with its groups `shared` and `key`."""
    name = _regex(pattern)
    for picture in folder.pictures:
        fit = name.fullmatch(stem(picture))
        if fit is not None and picture not in folder.taken:
            yield File(folder, picture), fit


def readings(pattern: str, parts: Parts) -> Iterator[tuple[Parts, Parts]]:
    """Yield the ways to see a folder as a pattern's: the place, and what lies between the pattern's folder and it."""
    folders = tuple(pattern.split("/")[:-1])
    if len(folders) == 1 and folders[0] in ROLES:
        for index, part in enumerate(parts):
            if _plain(part) in ROLES[folders[0]]:
                yield parts[:index], _without_x2(parts[index + 1 :])
    elif parts[len(parts) - len(folders) :] == folders:
        yield parts[: len(parts) - len(folders)], ()


def role_of(parts: Parts, *, nearest: bool) -> str | None:
    """Return RAINY or CLEAN, where a folder has such a name or, unless only the nearest counts, lies in such one."""
    parts = _without_x2(parts)
    for part in reversed(parts[-1:] if nearest else parts):
        for role, names in ROLES.items():
            if _plain(part) in names:
                return role
    return None


def _without_x2(parts: Parts) -> Parts:
    return tuple(part for part in parts if _plain(part) != "x2")


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "_").replace("-", "_")


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    """Make the expression for names without extension: group `shared` is what both have, `key` the pair's name."""
    before, between, after = re.fullmatch(r"([^{#]*)(.*[}#])([^}#]*)", posixpath.basename(pattern)).groups()  # type: ignore[union-attr]  # each pattern has a {} or #
    middle = re.escape(between).replace(r"\{\}", "(?P<shared>.+)").replace(r"\#", r"\d+")
    return re.compile(f"{re.escape(before)}(?P<key>{middle}){re.escape(after)}", re.IGNORECASE | re.DOTALL)
