"""The files below a folder that the user gave: pictures, archives and text lists of pairs, by their names.

No picture is opened. Names are compared in NFC, because systems write the same accent in two ways.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from drsformer_arch.images.pictures import PICTURE_SUFFIXES
from drsformer_arch.system.archives import is_archive
from drsformer_arch.system.errors import UserError, printable
from drsformer_arch.system.files import refuse_no_file

Parts = tuple[str, ...]  # names of folders, the outermost first

_LIST_SUFFIXES = (".txt", ".lst", ".list")
# Blanks between two paths of a list come after the extension of the first; others may belong to a name.
_END_OF_PATH = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(PICTURE_SUFFIXES)))})(\s+|$)", re.IGNORECASE)


class Folder:
    """A folder with pictures."""

    def __init__(self, path: Path, parts: Parts, pictures: list[str]) -> None:
        self.path = path
        # name of the source, then of the folders below it, in NFC
        self.parts = parts
        self.pictures = pictures
        # those that belong to a pair
        self.taken: set[str] = set()

    def left(self) -> "list[File]":
        """Return the pictures that belong to no pair yet."""
        return [File(self, name) for name in self.pictures if name not in self.taken]


class File(NamedTuple):
    """A picture of a folder."""

    folder: Folder
    name: str

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.folder.path / self.name

    @property
    def taken(self) -> bool:
        """Tell whether the picture belongs to a pair."""
        return self.name in self.folder.taken

    def take(self) -> None:
        """Note that the picture belongs to a pair."""
        self.folder.taken.add(self.name)


@dataclass
class Source:
    """The files below a folder that the user gave."""

    root: Path
    folders: list[Folder] = field(default_factory=list)
    # text files, with the parts of their folders
    texts: list[tuple[Path, Parts]] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)


def walk(root: Path) -> Source:
    """Look through a folder; links in it are followed, names that start with a dot and `__MACOSX` passed over.

    A pipe or a link to no file that is named as a picture counts as one: whoever reads it says what is wrong with it.

    Raises:
        UserError: there is no such folder, or one in it cannot be read.
    """
    if not root.is_dir():
        kind = "is no folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {kind}; give the folder that holds the pictures")
    source = Source(root)
    # Every folder with its own identity and those of the folders above it.
    waiting: list[tuple[str, Parts, frozenset[tuple[int, int]]]] = [
        (str(root), (nfc(root.resolve().name),), frozenset())
    ]
    with tqdm(desc=f"searching {printable(root)}", unit=" pictures", delay=2, leave=False) as bar:
        while waiting:
            path, parts, above = waiting.pop()
            pictures = []
            try:
                status = os.stat(path)
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    continue  # a link led back
                below = above | {identity}
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.name.startswith(".") or entry.name == "__MACOSX":
                            continue
                        suffix = os.path.splitext(entry.name)[1].lower()
                        if _is_folder(entry):
                            waiting.append((entry.path, (*parts, nfc(entry.name)), below))
                        elif suffix in PICTURE_SUFFIXES:
                            pictures.append(entry.name)
                        elif suffix in _LIST_SUFFIXES:
                            source.texts.append((Path(entry.path), parts))
                        elif is_archive(Path(entry.path)):
                            source.archives.append(Path(entry.path))
            except OSError as error:
                raise UserError(f"cannot read folder {path}: {error.strerror}; make it readable") from error
            bar.update(len(pictures))
            if pictures:
                source.folders.append(Folder(Path(path), parts, sorted(pictures)))
    # The order of a disk is not that of another.
    source.folders.sort(key=lambda folder: folder.parts)
    source.texts.sort()
    source.archives.sort()
    return source


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle, or into a folder that is not ours to look into
        return False


def listed_pairs(path: Path, parts: Parts, folders: Mapping[Parts, Folder]) -> Iterator[tuple[File, File]]:
    """Yield the pairs named in a text file; none where its first line does not look like a pair.

    Paths are relative to the folder of the list or one above it, down to the source, whether they start with "/" or
    not.
    """
    names: dict[Parts, dict[str, str]] = {}  # of the folders in use, from NFC to what is on the disk

    def file_of(text: str) -> File | None:
        *between, name = posixpath.normpath(nfc(text).replace("\\", "/").lstrip("/")).split("/")
        for depth in range(len(parts), 0, -1):
            where = (*parts[:depth], *between)
            folder = folders.get(where)
            if folder is not None:
                if where not in names:
                    names[where] = {nfc(picture): picture for picture in folder.pictures}
                if name in names[where]:
                    return File(folder, names[where][name])
        return None

    is_list = False
    for number, line in enumerate(_lines(path), start=1):
        if not line:
            continue
        ends = [end.start(1) for end in _END_OF_PATH.finditer(line)]
        if len(ends) < 2 or ends[-1] != len(line):
            if not is_list:
                return
            raise UserError(f"{path}, line {number}: {line!r} is not a rainy and a clean picture; mend the list")
        is_list = True
        for end in ends[:-1]:
            rainy, clean = file_of(line[:end]), file_of(line[end:].strip())
            if rainy is not None and clean is not None:
                yield rainy, clean
                break
        else:
            missing = line[: ends[0]] if file_of(line[: ends[0]]) is None else line[ends[0] :].strip()
            raise UserError(f"{path}, line {number}: there is no picture {missing!r}; complete the copy or the list")


def _lines(path: Path) -> Iterator[str]:
    refuse_no_file(path, "list")
    try:
        # A byte that is no UTF-8 comes out as in the names of files.
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield from map(str.strip, lines)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable") from error


def nfc(text: str) -> str:
    """Return text in Unicode's composed form; file systems give names in either."""
    return unicodedata.normalize("NFC", text)


def stem(name: str) -> str:
    """Return the name of a picture without its extension, in NFC."""
    return nfc(name[: name.rindex(".")])
