"""The manifest of a scene split: which photographs are one scene, and for what each scene is used.

A JSON file with a line per entry, so that a change of the split can be read in a diff. It names no folder: the same
split can be made again wherever the sets lie.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from drsformer_arch.data.prepare.perceptual_hash import (
    SCENE_METHOD,
    SCENE_NEAR,
    SceneHash,
    parse_scene_hash,
    scene_hash,
)
from drsformer_arch.images.pictures import decode, pictures_in_folder, read_file
from drsformer_arch.system.errors import UserError, did_you_mean, first_few
from drsformer_arch.system.json_files import read_json

SCENE_FORMAT = 1
PARTS = ("val", "train")
ROLES = ("input", "target")  # of pairs; clean sets have the target alone


@dataclass(frozen=True)
class SceneSet:
    """A set to split: per role the file of every key, its path below the folder without extension."""

    name: str
    files: dict[str, dict[str, Path]]

    @property
    def kind(self) -> str:
        """Either "pairs" or "clean"."""
        return "pairs" if "input" in self.files else "clean"

    def hashes(self) -> dict[str, SceneHash]:
        """Read all clean pictures and return their hashes by key.

        Raises:
            UserError: an unreadable picture.
        """
        files = tqdm(self.files["target"].items(), desc=self.name, unit="picture", delay=2, leave=False, disable=None)
        return {key: scene_hash(decode(read_file(path), path)) for key, path in files}


def open_scene_set(name: str, folder: Path, *, clean: bool) -> SceneSet:
    """Find the pictures of a set.

    Args:
        name: of the set.
        folder: with input/ and target/.
        clean: it holds clean pictures alone instead, at any depth.

    Raises:
        UserError: no such folder or no pictures in it, or a picture without its partner.
    """
    if clean:
        return SceneSet(name, {"target": pictures_in_folder(folder)})
    if not all((folder / role).is_dir() for role in ROLES):
        below = folder / "train"
        hint = f"; did you mean {below}?" if all((below / role).is_dir() for role in ROLES) else ""
        raise UserError(f"set {name}: {folder} lacks input/ and target/, which drsformer prepare makes{hint}")
    files = {role: pictures_in_folder(folder / role) for role in ROLES}
    for role, other in (ROLES, ROLES[::-1]):
        lonely = sorted(files[role].keys() - files[other].keys())
        if lonely:
            raise UserError(f"set {name}: no {other} in {folder} for {first_few(lonely)} of {role}/")
    return SceneSet(name, files)


class SceneEntry(NamedTuple):
    """Copies of one photograph in one set. A scene has several entries where its photographs differ too much."""

    scene: str
    hash: str
    files: tuple[str, ...]  # keys


@dataclass
class SceneManifest:
    """The split that was decided, and the settings by which it was.

    Attributes:
        method: the settings.
        kinds: "pairs" or "clean" by set.
        entries: by set and part.
    """

    method: dict[str, Any]
    kinds: dict[str, str] = field(default_factory=dict)
    entries: dict[tuple[str, str], list[SceneEntry]] = field(default_factory=dict)

    def parts(self) -> dict[str, str]:
        """Return the part of every scene."""
        return {entry.scene: part for (_, part), entries in self.entries.items() for entry in entries}

    def text(self) -> str:
        """Return the content of the file."""
        sets = []
        for name in sorted(self.kinds):
            parts = [f'   "kind": {json.dumps(self.kinds[name])}']
            for part in PARTS:
                lines = [_in_one_line(entry._asdict()) for entry in self.entries[name, part]]
                parts.append(f'   "{part}": [' + ",".join(f"\n    {line}" for line in lines) + "\n   ]")
            sets.append(f"  {_in_one_line(name)}: {{\n" + ",\n".join(parts) + "\n  }")
        method = ",\n".join(f"  {_in_one_line(key)}: {_in_one_line(value)}" for key, value in self.method.items())
        joined = ",\n".join(sets)
        return f'{{\n "format": {SCENE_FORMAT},\n "method": {{\n{method}\n }},\n "sets": {{\n{joined}\n }}\n}}\n'

    def table(self, names: Iterable[str]) -> str:
        """Return what became of some sets, as Markdown."""
        sets = {name: {entry.scene for part in PARTS for entry in self.entries[name, part]} for name in self.kinds}
        lines = [
            "| set | pictures | scenes | also in other sets | val scenes | val pictures |",
            "|---|---|---|---|---|---|",
        ]
        for name in sorted(names):
            pictures = {part: sum(len(entry.files) for entry in self.entries[name, part]) for part in PARTS}
            elsewhere = set().union(*(scenes for other, scenes in sets.items() if other != name))
            val = {entry.scene for entry in self.entries[name, "val"]}
            numbers = (sum(pictures.values()), len(sets[name]), len(sets[name] & elsewhere), len(val), pictures["val"])
            lines.append(f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |")
        parts = list(self.parts().values())
        return "\n".join([*lines, f"{len(parts):,} scenes in all sets together, {parts.count('val'):,} for validation"])


def _in_one_line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def read_scene_manifest(path: Path) -> SceneManifest:
    """Read what `SceneManifest.text` returned.

    Raises:
        UserError: it is none, of another format or method, or contradicts itself.
    """
    try:
        content = read_json(path)
        manifest = SceneManifest(content["method"])
        method = (manifest.method["hash"], manifest.method["near"])
        if content["format"] != SCENE_FORMAT or method != (SCENE_METHOD, SCENE_NEAR):
            raise UserError(f"{path} was made by another version of this command; split anew with --save")
        for name, of_set in content["sets"].items():
            manifest.kinds[name] = of_set["kind"]
            for part in PARTS:
                rows = [SceneEntry(row["scene"], row["hash"], tuple(row["files"])) for row in of_set[part]]
                manifest.entries[name, part] = rows
                for row in rows:
                    parse_scene_hash(row.hash)
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


def check_known(manifest: SceneManifest, path: Path, sets: Iterable[SceneSet]) -> None:
    """Refuse anything that the manifest does not describe.

    Raises:
        UserError: an unknown set or picture, one that is missing, or one that shows something else.
    """
    for scene_set in sets:
        name = scene_set.name
        if name not in manifest.kinds:
            raise UserError(f"{path} knows no set {name}{did_you_mean(name, manifest.kinds)}")
        if scene_set.kind != manifest.kinds[name]:
            raise UserError(f"set {name} is {manifest.kinds[name]} in {path}, but {scene_set.kind} here")
        known = {key: entry for part in PARTS for entry in manifest.entries[name, part] for key in entry.files}
        hashes = scene_set.hashes()
        both = hashes.keys() & known.keys()
        for message, keys in (
            ("does not know", hashes.keys() - known.keys()),
            ("also has", known.keys() - hashes.keys()),
            (
                "has other pictures by the names",
                {key for key in both if not hashes[key].is_near(parse_scene_hash(known[key].hash))},
            ),
        ):
            if keys:
                raise UserError(f"set {name}: {path} {message} {first_few(sorted(keys))} ({len(keys)} pictures)")
