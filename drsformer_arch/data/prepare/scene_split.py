"""The split of data sets into training and validation by scene, over all sets together.

The same photograph occurs in several sets and more than once in one. A split by file would train on what it validates
on; here all copies of a photograph are one scene, and a scene is for validation in every set that has it, or in none.

Two pictures are one photograph where their scene hashes are near each other (see `perceptual_hash`). A wrong match does
no harm but to keep two photographs together. Other photographs of one place look different to the hash; they have to be
named.

A scene is drawn for validation by its own hash, so that the order of sets and files changes nothing, and another set
hardly anything: what it shares with a set of a given count, and now and then a scene of which it has a copy that looks
a little different. Where an earlier decision is kept, nothing: what it knows stays as it was (two of its scenes that
turn out to be one are for validation).
"""

import filecmp
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from drsformer_arch.data.prepare.perceptual_hash import (
    HALF_TOKEN,
    SCENE_BITS,
    SCENE_METHOD,
    SCENE_NEAR,
    SceneHash,
    parse_scene_hash,
)
from drsformer_arch.data.prepare.scene_manifest import PARTS, SceneEntry, SceneManifest, SceneSet
from drsformer_arch.system.errors import UserError, first_few
from drsformer_arch.system.files import link_or_copy, put_in_place, work_folder

_BLOCK = 1024  # hashes compared with all others at once


class Photograph(NamedTuple):
    """A picture on its way into a scene; one of an earlier manifest has no set.

    Attributes:
        hash: what it looks like.
        token: the least of a scene is its name.
        set: name of its set.
        key: of its file.
        kept: the name that its scene had in an earlier manifest.
    """

    hash: SceneHash
    token: str
    set: str = ""
    key: str = ""
    kept: str = ""


def split_scenes(
    sets: Sequence[SceneSet],
    *,
    share: float,
    counts: dict[str, int],
    seed: int = 0,
    same: Sequence[Sequence[str]] = (),
    keep: SceneManifest | None = None,
) -> SceneManifest:
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
    photographs = [Photograph(known, known.token(), kept=scene) for scene, known in _kept_hashes(keep)]
    for scene_set in sets:
        for key, found in scene_set.hashes().items():
            photographs.append(Photograph(found, found.token(), scene_set.name, key))
    scenes = _scenes(photographs, same)
    parts = _parts(scenes, share, counts, seed, keep.parts() if keep is not None else {})
    groups: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for scene, members in scenes.items():
        for member, digits in _copies(members):
            groups[member.set, parts[scene], scene, digits].append(member.key)
    kinds = {scene_set.name: scene_set.kind for scene_set in sets}
    entries: dict[tuple[str, str], list[SceneEntry]] = {(name, part): [] for name in kinds for part in PARTS}
    for (name, part, scene, digits), keys in groups.items():
        entries[name, part].append(SceneEntry(scene, digits, tuple(sorted(keys))))
    # By file, so that the lines stay where they are when the scene gets copies elsewhere.
    ordered = {at: sorted(unordered, key=lambda entry: entry.files) for at, unordered in entries.items()}
    method: dict[str, Any] = {"hash": SCENE_METHOD, "near": SCENE_NEAR, "seed": seed, "share": share}
    before = keep.method["same"] if keep is not None else []
    named = sorted({tuple(sorted(group)) for group in (*before, *same)})
    method |= {"counts": dict(sorted(counts.items())), "same": [list(group) for group in named]}
    return SceneManifest(method, kinds, ordered)


def _kept_hashes(keep: SceneManifest | None) -> list[tuple[str, SceneHash]]:
    """Return scene and hash of every photograph of an earlier manifest."""
    entries = () if keep is None else (entry for of_part in keep.entries.values() for entry in of_part)
    known = sorted({(entry.scene, entry.hash) for entry in entries})
    return [(scene, parse_scene_hash(digits)) for scene, digits in known]


def near_scenes(hashes: Sequence[SceneHash]) -> Iterator[tuple[int, int]]:
    """Yield the indices of all that are near each other; every pair in both orders, and everything with itself."""
    signs = np.where(np.stack([scene.orientations for scene in hashes]), np.float32(1), np.float32(-1))
    for start in range(0, len(signs), _BLOCK):
        block = signs[start : start + _BLOCK, 0]
        # Every equal bit adds 1 to the product, every other takes 1 away.
        alike = np.max([block @ signs[:, turned].T for turned in range(signs.shape[1])], axis=0)
        rows, columns = np.nonzero(alike >= SCENE_BITS - 2 * SCENE_NEAR)
        yield from zip((rows + start).tolist(), columns.tolist(), strict=True)


def linked_groups(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Group the indices below `count`: what is linked, and what is linked with a linked one.

    Returns:
        the groups by their first indices, each in order.
    """
    rows, columns = np.array(list(links), dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows), np.bool_), (rows, columns)), shape=(count, count))
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(connected_components(graph, directed=False)[1].tolist()):
        groups.setdefault(group, []).append(index)
    return list(groups.values())


def _scenes(photographs: Sequence[Photograph], same: Sequence[Sequence[str]]) -> dict[str, list[Photograph]]:
    """Return the pictures of every scene by its name: those near each other, and those near a near one."""
    links = list(near_scenes([photograph.hash for photograph in photographs]))
    places = {f"{photo.set}/{photo.key}": index for index, photo in enumerate(photographs) if not photo.kept}
    for group in same:
        unknown = [name for name in group if name not in places]
        if unknown:
            raise UserError(f"--same: no picture {first_few(unknown)}; write SET/NAME without extension")
        links += [(places[group[0]], places[name]) for name in group[1:]]
    first_kept: dict[str, int] = {}
    links += [
        (first_kept.setdefault(photo.kept, index), index) for index, photo in enumerate(photographs) if photo.kept
    ]
    scenes = {}
    for indices in linked_groups(len(photographs), links):
        members = [photographs[index] for index in indices]
        names = [member.kept for member in members if member.kept] or [member.token for member in members]
        scenes[min(names)] = members
    return scenes


def _parts(
    scenes: dict[str, list[Photograph]], share: float, counts: dict[str, int], seed: int, before: dict[str, str]
) -> dict[str, str]:
    """Choose the part of every scene.

    What is for validation stays so; a scene that several counted sets have is chosen for the first of them.
    """
    parts = {}
    for scene, members in scenes.items():
        was = {before[member.kept] for member in members if member.kept}
        if was:  # a new picture can show that two earlier scenes are one
            parts[scene] = "val" if "val" in was else "train"
    draws = {scene: _draw(seed, scene) for scene in scenes}
    counted: set[str] = set()
    for name, count in sorted(counts.items()):
        of_set = [scene for scene, members in scenes.items() if any(member.set == name for member in members)]
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
    """Draw a number from 0 to 1 by what copies have in common; the scene follows, should several have the same."""
    number = hashlib.sha256(f"{seed}:{scene[:HALF_TOKEN]}".encode()).hexdigest()[:8]
    return int(number, 16) / 16**8, scene


def _copies(members: Sequence[Photograph]) -> Iterator[tuple[Photograph, str]]:
    """Yield the pictures of a scene, each with the hash of the photograph that it is a copy of."""
    left = sorted(members, key=lambda member: (not member.kept, member.token, member.set, member.key))
    while left:
        first, others = left[0], []
        for photograph in left:
            if not first.hash.is_near(photograph.hash):
                others.append(photograph)
            elif not photograph.kept:
                yield photograph, first.hash.digits
        left = others


def planned_files(manifest: SceneManifest, sets: Iterable[SceneSet]) -> dict[str, Path]:
    """Return every file to make, relative to the result and with "/", and where it comes from."""
    plan = {}
    for scene_set in sets:
        for part in PARTS:
            for key in (key for entry in manifest.entries[scene_set.name, part] for key in entry.files):
                for role, files in scene_set.files.items():
                    folder = (
                        f"{scene_set.name}/{part}/{role}" if scene_set.kind == "pairs" else f"{scene_set.name}/{part}"
                    )
                    plan[f"{folder}/{key}{files[key].suffix}"] = files[key]
    return plan


def is_made(plan: dict[str, Path], out: Path) -> bool:
    """Tell whether the result exists and is what would be made.

    Raises:
        UserError: it is something else.
    """
    if not out.exists():
        return False
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    different = present ^ plan.keys() or {
        name
        for name, source in plan.items()
        if not (out / name).samefile(source) and not filecmp.cmp(out / name, source, shallow=False)
    }
    if different:
        names = first_few(sorted(different))
        raise UserError(f"{out} exists already with other content ({names}); move it away, or give another -o")
    return True


def make_files(plan: dict[str, Path], out: Path) -> None:
    """Make the result of hard links, or of copies on another disk; it gets its name when it is whole.

    Raises:
        UserError: a full or protected disk.
    """
    target = out.resolve()  # not beside a link, which renaming would replace, but where it leads to
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(target, "building") as unfinished:
            for name, source in plan.items():
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(source, unfinished / name)
            put_in_place(unfinished, target)
    except OSError as error:
        raise UserError(f"{target} cannot be made: {error.strerror}") from error
