"""Unpack an archive as a whole or not at all.

Archives come from strangers. Before anything is written, every member is checked: names that lead out of the folder
(absolute, with `..`, with a drive letter, below or through a link), devices, passwords, and whether the content fits
on the disk. The content is written into a hidden folder beside the wanted one, which gets its name when all is on the
disk.
"""

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from tqdm import tqdm

from drsformer_arch.system.errors import UserError, printable
from drsformer_arch.system.files import link_or_copy, put_in_place, work_folder

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ALL_ARCHIVE_SUFFIXES = (*ARCHIVE_SUFFIXES, ".rar", ".7z")  # also those that cannot be unpacked here

_COMPRESSIONS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_OTHER_KINDS = {b"Rar!": "RAR", b"7z\xbc\xaf": "7z"}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# Names that do not say they are UTF-8 come from old tools, those of these sets mostly from Chinese Windows. The last
# encoding has a character for every byte.
_ENCODINGS = ("utf-8", "gb18030", "cp437")
# The system errors without a number are those of gzip and bz2, the last two what zipfile says to nonsense in its lists.
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(NotImplementedError, UnicodeDecodeError),
)
_END_OF_TAR = bytes(tarfile.BLOCKSIZE)
_CHUNK = 2**20
_LONGEST_LINK = 4096
_LINKS_IN_A_ROW = 40  # as many as Linux follows
INSTEAD = "unpack it yourself and give the folder"


class _Raw(NamedTuple):
    """A member as the archive names it."""

    name: bytes | str  # text where the archive says how it is encoded
    kind: Literal["file", "folder", "symbolic link", "hard link", "device"]
    size: int
    link: bytes = b""


class _Member(NamedTuple):
    """A member under the name it gets on the disk: relative, "/" between folders, "" for the top folder."""

    name: str
    kind: Literal["file", "folder", "link"]
    size: int
    leads_to: str = ""  # name of the file or folder in the archive that a link finally leads to


def is_archive(path: Path) -> bool:
    """Tell whether this is a file that `unpack` takes, by its name."""
    return Path(path).name.lower().endswith(ARCHIVE_SUFFIXES) and Path(path).is_file()


def unpack(archive: Path, into: Path, *, progress: bool = True) -> int:
    """Unpack a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz (also .tgz, .tbz2, .txz) into a new folder.

    Which of them it is, is seen from its content. A compressed tar is read twice, once to check it. Archives in the
    archive are not unpacked. Links to other members become hard links (to files) or relative links (to folders); modes,
    owners and times are not kept. A killed process leaves a folder `.NAME.*.unpacking`, never an incomplete `into`;
    the next call removes it.

    Args:
        archive: the file.
        into: the folder to make, in a folder that exists.
        progress: show bars for what takes more than two seconds.

    Returns:
        the number of files unpacked, links counted too.

    Raises:
        UserError: the archive is missing, empty, damaged, encrypted or of another kind, a member is refused, `into`
            exists, the folder for it does not, or the disk is too small or cannot hold a name. Nothing is left of what
            was written.
    """
    archive, into = Path(archive), Path(into)
    if not archive.is_file():
        raise UserError(f"no such archive: {archive}")
    if os.path.lexists(into):
        raise UserError(f"{into} exists already; remove it, or unpack {archive.name} into another folder")
    if not into.parent.is_dir():
        raise UserError(f"no folder {into.parent} to unpack {archive.name} into")
    try:
        with work_folder(into, "unpacking") as unfinished, _damage_named(archive), closing(_open(archive)) as reader:
            members = _checked(archive, reader.members(progress))
            _check_space(archive, members, into.parent)
            _write(members, reader.contents(), unfinished, tqdm_of=archive.name if progress else None)
            if hasattr(os, "sync"):
                os.sync()  # one call, where one for each of some hundred thousand files takes minutes
            put_in_place(unfinished, into)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = f"the disk of {into.parent} is full; free some space or choose another"
        else:
            reason = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        raise UserError(f"cannot unpack {archive} into {into}: {reason}") from error
    return sum(member.kind != "folder" for member in members)


class _Zip:
    """The content of a zip archive: its members in order, and in that order their contents, None for all but files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path)
        self.close = self._zip.close

    def members(self, progress: bool) -> list[_Raw]:  # noqa: ARG002 - the list stands at the end of the file, ready
        return [self._member(info) for info in self._zip.infolist()]

    def _member(self, info: zipfile.ZipInfo) -> _Raw:
        if info.flag_bits & 0x41:  # encrypted, in the old or the new way
            raise UserError(f"{self._path} is encrypted (member {info.filename!r}); {INSTEAD}")
        if info.compress_type not in _ZIP_METHODS:
            # Such as Deflate64, which Windows takes for members above 2 GB.
            raise UserError(
                f"{self._path}: member {info.filename!r} is compressed by method {info.compress_type}, which Python "
                f"cannot read; {INSTEAD}"
            )
        name: bytes | str = info.filename
        if not info.flag_bits & 0x800:  # not marked as UTF-8; zipfile takes it for cp437
            with suppress(UnicodeEncodeError):  # where it found the name a second time, as text
                name = info.filename.encode("cp437")
        mode = info.external_attr >> 16 if info.create_system == 3 else 0  # 3: Unix
        if stat.S_ISLNK(mode) and info.file_size <= _LONGEST_LINK:
            return _Raw(name, "symbolic link", 0, self._zip.read(info))
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            return _Raw(name, "device", 0)
        return _Raw(name, "folder" if info.filename.endswith(("/", "\\")) else "file", info.file_size)

    def contents(self) -> Iterator[IO[bytes] | None]:
        for info in self._zip.infolist():
            if info.filename.endswith(("/", "\\")):
                yield None
                continue
            with self._zip.open(info) as content:
                yield content


class _Tar:
    """The content of a tar archive, as of `_Zip`; each content is to be read before the next."""

    def __init__(self, path: Path, decompress: Callable[..., Any] | None) -> None:
        self._path = path
        self._file = path.open("rb")
        self._content: IO[bytes] = decompress(self._file) if decompress else self._file

    def close(self) -> None:
        self._content.close()
        self._file.close()

    def _infos(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        self._content.seek(0)
        if self._content.read(tarfile.BLOCKSIZE) == _END_OF_TAR:
            return  # Python 3.10 stumbles over an archive without members
        self._content.seek(0)
        # Bytes that are no UTF-8 come back unharmed from surrogates.
        with tarfile.open(fileobj=self._content, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (info := tar.next()) is not None:
                yield tar, info
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            end = tar.offset
        # tarfile takes a damaged header for the end of the archive. A whole archive ends with a block of zeros, and a
        # compressed one with a check sum that is only looked at by reading on.
        self._content.seek(end)
        if self._content.read(tarfile.BLOCKSIZE) != _END_OF_TAR:
            raise tarfile.ReadError("its end is missing")
        while self._content.read(_CHUNK):
            pass

    def members(self, progress: bool) -> list[_Raw]:
        found = []
        with _bar(self._path.stat().st_size, "checking", self._path.name if progress else None) as bar:
            for _, info in self._infos():
                kind = "file" if info.isreg() else "folder" if info.isdir() else "device"
                kind = "symbolic link" if info.issym() else "hard link" if info.islnk() else kind
                name, link = (text.encode("utf-8", "surrogateescape") for text in (info.name, info.linkname))
                size = info.size if kind == "file" else 0
                found.append(_Raw(name, kind, size, link if kind.endswith("link") else b""))  # type: ignore[arg-type]  # kind is one
                bar.update(self._file.tell() - bar.n)
        return found

    def contents(self) -> Iterator[IO[bytes] | None]:
        for tar, info in self._infos():
            yield tar.extractfile(info) if info.isreg() else None


def _open(archive: Path) -> "_Zip | _Tar":
    with archive.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    for mark, kind in _OTHER_KINDS.items():
        if start.startswith(mark):
            raise UserError(f"{archive} is a {kind} archive, which cannot be unpacked here; {INSTEAD}")
    for mark, decompress in _COMPRESSIONS.items():
        if start.startswith(mark):
            return _Tar(archive, decompress)
    is_tar = start[257:262] == b"ustar" or (archive.suffix.lower() != ".zip" and not start.startswith(b"PK"))
    return _Tar(archive, None) if is_tar else _Zip(archive)


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    """Turn what the decompressors raise on damaged data into a UserError."""
    try:
        yield
    except _DAMAGE as reason:
        if isinstance(reason, OSError) and reason.errno is not None:  # an error of the system has a number
            raise
        problem = f"{archive} is damaged, incomplete or no archive ({reason}); copy or download it again"
        raise UserError(problem) from reason


def _checked(archive: Path, raw: list[_Raw]) -> list[_Member]:
    """Return the members with their names on the disk; UserError on the first that is refused."""
    texts = _decoded([text for member in raw for text in (member.name, member.link)])
    names = [_safe_name(archive, text, member.kind) for text, member in zip(texts[::2], raw, strict=True)]
    kinds: dict[str, str] = {}
    for name, member in zip(names, raw, strict=True):
        if name in kinds and not member.kind == kinds[name] == "folder":
            raise _refused(archive, name, "occurs twice")
        kinds[name] = member.kind
    for name in names:
        parent = name.rpartition("/")[0]
        while parent and kinds.setdefault(parent, "folder") == "folder":
            parent = parent.rpartition("/")[0]
        if parent:
            raise _refused(archive, name, f"lies below {parent!r}, which is a {kinds[parent]}")
    kinds[""] = "folder"

    targets = dict(zip(names, texts[1::2], strict=True))
    links = {name: targets[name] for name, kind in kinds.items() if kind.endswith("link")}
    members = []
    for name, member in zip(names, raw, strict=True):
        if member.kind in ("file", "folder"):
            members.append(_Member(name, member.kind, member.size))
        else:
            members.append(_Member(name, "link", 0, _end_of_link(archive, name, kinds, links)))
    if not any(member.kind == "file" for member in members):
        raise UserError(f"{archive} holds no file")
    return members


def _decoded(names: list[bytes | str]) -> list[str]:
    """Decode all names by the first encoding that fits all, so that equal names stay equal."""
    for encoding in _ENCODINGS:
        try:
            return [name if isinstance(name, str) else name.decode(encoding) for name in names]
        except UnicodeDecodeError:
            continue
    raise AssertionError("the last encoding decodes everything")


def _safe_name(archive: Path, text: str, kind: str) -> str:
    """Return the name without what says nothing; a backslash, which no archive should have, parts folders too."""
    path = text.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        reason = "is an absolute path"
    elif ".." in parts:
        reason = "leads out of the folder"
    elif kind == "device":
        reason = "is a device, no file"
    elif "\0" in path or not (parts or kind == "folder"):
        reason = "is no name"
    else:
        return "/".join(parts)
    raise _refused(archive, text, reason)


def _end_of_link(archive: Path, name: str, kinds: dict[str, str], links: dict[str, str]) -> str:
    """Return the file or folder a link leads to in the end; UserError where that is outside the archive or nothing."""
    place: list[str] = []
    ahead = [*reversed(name.split("/"))]
    followed = 0
    while ahead:
        part = ahead.pop()
        if part == ".." and not place:
            raise _refused(archive, name, f"is a link that leads outside ({links[name]})")
        if part == "..":
            place.pop()
        elif part not in ("", "."):
            place.append(part)
        here = "/".join(place)
        if here in links:
            target = links[here].replace("\\", "/")
            followed += 1
            if target.startswith("/") or re.match("[A-Za-z]:", target) or followed > _LINKS_IN_A_ROW:
                raise _refused(archive, name, f"is a link that leads outside or round in a circle ({links[name]})")
            ahead += reversed(target.split("/"))
            # A hard link names its target from the top of the archive, a symbolic one from its own folder.
            place = [] if kinds[here] == "hard link" else place[:-1]
    if "/".join(place) not in kinds:
        raise _refused(archive, name, f"is a link to something the archive does not hold ({links[name]})")
    return "/".join(place)


def _refused(archive: Path, member: str, reason: str) -> UserError:
    return UserError(f"{archive} is not unpacked: its member {member!r} {reason}; {INSTEAD}")


def _check_space(archive: Path, members: list[_Member], folder: Path) -> None:
    needed, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{archive} needs {needed / 1e9:,.2f} GB unpacked, but the disk of {folder} has {free / 1e9:,.2f} GB free; "
            f"free some space or choose another disk"
        )


def _write(members: list[_Member], contents: Iterator[IO[bytes] | None], folder: Path, tqdm_of: str | None) -> None:
    made = {""}

    def path_of(name: str) -> Path:
        parent = name.rpartition("/")[0]
        if parent not in made:
            (folder / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        return folder / name

    with _bar(sum(member.size for member in members), "unpacking", tqdm_of) as bar:
        for member, content in zip(members, contents, strict=True):
            if member.kind == "folder":
                path_of(member.name).mkdir(exist_ok=True)
            elif member.kind == "file" and content is not None:
                # Exclusive, because two names can be one where capitals do not count.
                with path_of(member.name).open("xb") as file:
                    while chunk := content.read(_CHUNK):
                        file.write(chunk)
                        bar.update(len(chunk))
    for member in members:
        if member.kind == "link":
            path, target = path_of(member.name), folder / member.leads_to
            if target.is_dir():
                path.symlink_to(os.path.relpath(target, path.parent), target_is_directory=True)
            else:
                link_or_copy(target, path)


def _bar(total: int, what: str, name: str | None) -> tqdm:
    return tqdm(
        total=total,
        desc=f"{what} {printable(name)}",
        unit="B",
        unit_scale=True,
        unit_divisor=1000,
        delay=2,
        leave=False,
        disable=name is None,
    )
