"""Sources of pictures: folders, BasicSR's LMDBs and stores, read alike.

A source of single pictures has a length, `name(index)` and `picture(index)`; a source of pairs has `names(index)`
and `pair(index)`. What they give has a `shape` (H, W, C) and is cut by `picture[top:bottom, left:right]` into an
array, see `drsformer_arch.images.pictures`: whether that decodes everything or only the window is theirs to know.
Names are kept as arrays of bytes, which worker processes share instead of copying them one by one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drsformer_arch.data.pairing.layouts import ROLES, role_of
from drsformer_arch.data.store.environments import open_shared
from drsformer_arch.data.store.meta_info import META_INFO, lmdb_keys, name_of_key
from drsformer_arch.data.store.staging import stage_store
from drsformer_arch.data.store.store import Store, StoredPicture, is_store
from drsformer_arch.images.pictures import Picture, decode, picture_paths, read_file
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import expanded

# A picture that may not be decoded yet.
Window = Picture | StoredPicture


class FolderPictures:
    """Picture files below a folder; they are sorted by their paths without extension, the keys."""

    def __init__(self, folder: Path, *, recursive: bool) -> None:
        self.folder = folder
        files = picture_paths(folder, recursive=recursive)
        self.keys = list(files)
        start = len(os.path.join(folder, ""))
        self._files = _names(path[start:] for path in files.values())

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Path of a picture's file."""
        return os.path.join(self.folder, os.fsdecode(self._files[index]))

    def picture(self, index: int) -> Picture:
        """A picture, decoded from its file."""
        path = Path(self.name(index))
        return decode(read_file(path), path)


class LmdbPictures:
    """An LMDB in BasicSR's layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = lmdb_keys(folder)
        self._keys = _names(self.keys)
        held = open_shared(folder).stat()["entries"]
        if held < len(self.keys):
            raise UserError(
                f"{folder} holds {held:,} pictures, but its {META_INFO} names {len(self.keys):,}; it is incomplete: "
                "make it anew"
            )

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, index: int) -> str:
        """Name of a picture: its key."""
        return name_of_key(self._key(index))

    def picture(self, index: int) -> Picture:
        """A picture, decoded from its record."""
        with open_shared(self.folder).begin() as transaction:
            content = transaction.get(bytes(self._keys[index]))
        if content is None:
            raise UserError(f"LMDB {self.folder} has no key '{self._key(index)}'")
        return decode(content, f"{self.folder}, key {self._key(index)}")

    def _key(self, index: int) -> str:
        return os.fsdecode(self._keys[index])


class StoredTargets(Store):
    """The clean pictures of a store."""

    def name(self, index: int) -> str:
        """Name of a clean picture: its key."""
        return name_of_key(self.names(index)[1])

    def picture(self, index: int) -> StoredPicture:
        """A clean picture; its pixels are read when a window is cut."""
        return self.pair(index)[1]


class StoredPairs(Store):
    """The pairs of a store; their pixels are read when a window is cut."""

    def names(self, index: int) -> tuple[str, str]:
        """Names of a pair, rainy and clean: their keys."""
        lq, gt = super().names(index)
        return name_of_key(lq), name_of_key(gt)


class MatchedPairs:
    """Two sources whose keys match: the rainy key is `template` with the clean key in place of `{}`.

    Raises:
        UserError: a key without its partner.
    """

    def __init__(self, lq: FolderPictures | LmdbPictures, gt: FolderPictures | LmdbPictures, template: str) -> None:
        if len(lq) != len(gt):
            raise UserError(f"{len(lq)} pictures in {lq.folder} but {len(gt)} in {gt.folder}")
        same = template == "{}" and lq.keys == gt.keys  # as usual: no table of a million names is needed
        places = {} if same else {key: index for index, key in enumerate(lq.keys)}
        order = []
        for key in () if same else gt.keys:
            folder, _, stem = key.rpartition("/")
            wanted = f"{folder}/{template.format(stem)}" if folder else template.format(stem)
            if wanted not in places:
                raise UserError(f"{lq.folder} has no {wanted} for {key} of {gt.folder}")
            order.append(places[wanted])
        self._lq, self._gt, self._order = lq, gt, np.arange(len(gt)) if same else np.array(order)
        del lq.keys, gt.keys  # as Python objects they would be copied into every worker process

    def __len__(self) -> int:
        return len(self._order)

    def names(self, index: int) -> tuple[str, str]:
        """Names of a pair, rainy and clean."""
        return self._lq.name(self._order[index]), self._gt.name(index)

    def pair(self, index: int) -> tuple[Picture, Picture]:
        """A rainy picture and its clean target."""
        return self._lq.picture(self._order[index]), self._gt.picture(index)


Pictures = FolderPictures | LmdbPictures | StoredTargets
Pairs = StoredPairs | MatchedPairs


class Paths(Sequence[str]):
    """Names of a source as BasicSR's data sets give them: `lq_path` and `gt_path`, made when asked for."""

    def __init__(self, source: Pairs | Pictures) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        source: Any = self._source
        lq, gt = [source.name(index)] * 2 if hasattr(source, "name") else source.names(index)
        return {"lq_path": lq, "gt_path": gt}


def open_pictures(folder: str, *, partial: bool = False, stage: str | None = None) -> Pictures:
    """The pictures of a folder or of an LMDB in BasicSR's layout; the clean ones of a store or a prepared folder.

    Raises:
        UserError: there is nothing of the kind; see `stage_store`, too.
    """
    path = _staged(expanded(folder), stage, partial=partial)
    if is_store(path):
        return StoredTargets(path, partial=partial)
    clean = [path / f"target{ending}" for ending in (".lmdb", "") if (path / f"input{ending}").is_dir()]
    return _open_plain(next((place for place in clean if place.is_dir()), path), recursive=True)


def open_pairs(root: str, *, partial: bool = False, stage: str | None = None) -> Pairs:
    """The pairs of a store, or of a folder with `input` and `target` (folders, or LMDBs in BasicSR's layout).

    The two may also have the other names that `drsformer prepare` knows, such as `lq` and `gt`, `rainy` and `clean`.

    Args:
        root: the folder.
        partial: accept a store of which shards are missing.
        stage: folder on the node's disk to which a store is copied before.

    Raises:
        UserError: there is nothing of the kind, or more than one folder for a side; see `stage_store`, too.
    """
    path = _staged(expanded(root), stage, partial=partial)
    if is_store(path):
        return StoredPairs(path, partial=partial)
    if not path.is_dir():
        raise UserError(f"there is no {root}; drsformer prepare makes it (drsformer prepare --help)")
    lq, gt = (_open_plain(side, recursive=True) for side in _sides(path))
    return MatchedPairs(lq, gt, "{}")


def log(message: str) -> None:
    """Write a line into the log of a training."""
    from drsformer_arch.bridge import importable  # noqa: F401, PLC0415 - few data sets have something to say

    # isort: split
    from basicsr.utils import get_root_logger  # noqa: PLC0415

    get_root_logger().info(message)


def _staged(path: Path, stage: str | None, *, partial: bool) -> Path:
    return path if stage is None or not path.is_dir() else stage_store(path, stage, log, partial=partial)


def _sides(path: Path) -> tuple[Path, Path]:
    """The rainy and the clean side of a folder; LMDBs come before folders, `input` and `target` before other names."""
    for ending in (".lmdb", ""):
        if (path / f"input{ending}").is_dir() and (path / f"target{ending}").is_dir():
            return path / f"input{ending}", path / f"target{ending}"
    folders = [place for place in sorted(path.iterdir()) if place.is_dir()]
    rainy, clean = _named_as_sides(folders, ".lmdb")
    if not rainy or not clean:
        rainy, clean = _named_as_sides(folders, "")
    if not rainy or not clean:
        raise UserError(
            f"{path} is no store (store.json is missing) and has no folders input and target, nor any called "
            f"{', '.join(ROLES['RAINY'])} and {', '.join(ROLES['CLEAN'])}"
        )
    for places in (rainy, clean):
        if len(places) > 1:
            raise UserError(
                f"{path} has two folders for one side: {places[0].name} and {places[1].name}; name the two of the "
                "pairs as dataroot_lq and dataroot_gt, or take one away"
            )
    return rainy[0], clean[0]


def _named_as_sides(folders: Sequence[Path], ending: str) -> list[list[Path]]:
    """Those that have a name for rainy pictures, and those that have one for clean ones."""
    names = [(place, (place.name.removesuffix(ending),)) for place in folders if place.name.endswith(ending)]
    return [[place for place, name in names if role_of(name, nearest=True) == role] for role in ("RAINY", "CLEAN")]


def match_pairs(lq_root: str, gt_root: str, template: str = "{}") -> Pairs:
    """The pairs of two folders, without their subfolders, or of two LMDBs in BasicSR's layout: as BasicSR finds them.

    Raises:
        UserError: there is nothing of the kind, or a picture lacks its partner.
    """
    lq, gt = (_open_plain(expanded(root), recursive=False) for root in (lq_root, gt_root))
    return MatchedPairs(lq, gt, template)


def _open_plain(path: Path, *, recursive: bool) -> FolderPictures | LmdbPictures:
    if not path.is_dir():
        raise UserError(f"there is no folder {path}")
    if (path / META_INFO).is_file():
        return LmdbPictures(path)
    if is_store(path):
        raise UserError(f"{path} is a store of pairs: name it as dataroot, without dataroot_lq and dataroot_gt")
    if path.suffix == ".lmdb":
        raise UserError(f"{path} is no LMDB of BasicSR (no {META_INFO})")
    return FolderPictures(path, recursive=recursive)


def _names(names: Any) -> np.ndarray:
    encoded = [os.fsencode(name) for name in names]
    return np.array(encoded, dtype=bytes if encoded else "S1")
