"""A store: pairs of rainy and clean pictures in a few LMDB files, from which a patch is read without the rest.

A store is a folder `NAME.lmdb` with

    store.json        format, encoding, and of every shard: file, pairs, bytes, CRC-32; the SHA-256 of the manifest
    manifest.jsonl    names, shapes and SHA-256 of the pixels of all pairs (see `drsformer_arch.data.store.manifest`)
    shard-00000.mdb   LMDB files of whole pairs, numbered; a part of them is a store too, if that is asked for

In a shard, the key of a picture is its relative path in UTF-8, `input/NAME` or `target/NAME` without extension; the
value is a record (see `drsformer_arch.data.store.records`). A key of a zero byte and a number of 8 bytes, big-endian,
holds a pair: the keys of its input and target with a zero byte between them. So opening a store of any size reads one
small file, and worker processes share nothing but the page cache of the system.
"""

import json
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
from tqdm import tqdm

from drsformer_arch.data.store import records
from drsformer_arch.data.store.environments import open_shared
from drsformer_arch.data.store.manifest import is_hex, read_manifest
from drsformer_arch.images.pictures import Picture
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import crc32_of_file, sha256_of_file, write_atomically
from drsformer_arch.system.json_files import read_json

STORE_FORMAT = 1
DESCRIPTION = "store.json"
MANIFEST = "manifest.jsonl"
_SMALLEST_PAIR = 64  # bytes in an LMDB: three entries, each with a key


class Shard(NamedTuple):
    """A shard as `store.json` describes it: file name, number of pairs, size of the file and its CRC-32."""

    file: str
    pairs: int
    bytes: int
    crc32: str


def pair_key(number: int) -> bytes:
    """Return the key of a shard's pair; no path contains a zero byte."""
    return b"\0" + number.to_bytes(8, "big")


class StoredPicture:
    """A picture in a store, (H, W, C), C = 3 (RGB) or 1; `picture[top:bottom, left:right]` reads that window only.

    Raises:
        UserError: the record is missing or damaged.
    """

    def __init__(self, shard: str, key: bytes) -> None:
        self._shard, self._key = shard, key
        self._header = self._with_record(records.read_record_header)
        self.shape, self.dtype = self._header.shape, self._header.dtype

    def _with_record(self, use: Any) -> Any:
        try:
            with open_shared(self._shard).begin(buffers=True) as transaction:
                record = transaction.get(self._key)
                if record is None:
                    raise UserError("there is no such key")
                return use(record)
        except (UserError, lmdb.Error) as error:
            raise UserError(f"picture {self._key.decode(errors='replace')} in {self._shard}: {error}") from error

    def __getitem__(self, window: tuple[slice, slice]) -> Picture:
        top, bottom, row_step = window[0].indices(self.shape[0])
        left, right, column_step = window[1].indices(self.shape[1])
        if row_step != 1 or column_step != 1 or bottom <= top or right <= left:
            raise IndexError("a window is picture[top:bottom, left:right], not empty, without steps")
        return self._with_record(lambda record: records.read_window(record, top, left, bottom - top, right - left))

    def whole(self) -> Picture:
        """Read all pixels."""
        return self[:, :]


class Store:
    """Reads a store: pairs of pictures, of which only the windows that are asked for are decoded.

    Args:
        path: the folder.
        partial: accept missing shards; their pairs are left out. Otherwise they are an error.

    Attributes:
        encoding: "raw" or "compressed".
        manifest_sha256: of `manifest.jsonl`.
        missing: files of the shards that are not there.

    Raises:
        UserError: no store, one of a newer format, missing shards, or one of another size than it was written with: to
            read beyond its end would kill the process.
    """

    def __init__(self, path: Path | str, *, partial: bool = False) -> None:
        self.path = Path(path)
        description = read_description(self.path)
        self.encoding: str = description["encoding"]
        self.manifest_sha256: str = description["manifest_sha256"]
        # all shards that belong to the store
        self.described = shards = [Shard(**shard) for shard in description["shards"]]
        present = [shard for shard in shards if self._is_there(shard)]
        self.missing = [shard.file for shard in shards if shard not in present]
        if self.missing and not (partial and present):
            raise UserError(
                f"store {self.path}: {len(self.missing)} of {len(shards)} shards are missing ({self.missing[0]}, ...); "
                "copy them too, or accept the part that is there (partial: true in the data set's options)"
            )
        self.shards = present
        self._files = [str(self.path / shard.file) for shard in present]
        self._ends = list(accumulate(shard.pairs for shard in present))

    def _is_there(self, shard: Shard) -> bool:
        file = self.path / shard.file
        if not file.is_file():
            return False
        size = file.stat().st_size
        if size != shard.bytes:
            trouble = "was cut short" if size < shard.bytes else "is another file"
            raise UserError(f"{file} {trouble}: {size:,} bytes instead of {shard.bytes:,}; copy it again")
        return True

    def __len__(self) -> int:
        """Return the number of pairs in the shards that are there."""
        return self._ends[-1] if self._ends else 0

    def _locate(self, index: int) -> tuple[str, bytes]:
        if not 0 <= index < len(self):
            raise IndexError(f"store {self.path} has {len(self)} pairs, there is no pair {index}")
        number = bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        return self._files[number], pair_key(index - first)

    def _keys(self, index: int) -> tuple[str, bytes, bytes]:
        shard, key = self._locate(index)
        with open_shared(shard).begin() as transaction:
            pair = transaction.get(key)
        if pair is None:
            raise UserError(f"{shard} has no pair {index}; check it with: drsformer prepare --verify {self.path}")
        lq, _, gt = pair.partition(b"\0")
        return shard, lq, gt

    def names(self, index: int) -> tuple[str, str]:
        """Return the keys of the rainy and the clean picture of a pair, such as `input/001` and `target/001`."""
        _, lq, gt = self._keys(index)
        return lq.decode(errors="replace"), gt.decode(errors="replace")

    def pair(self, index: int) -> tuple[StoredPicture, StoredPicture]:
        """Return the rainy and the clean picture of a pair."""
        shard, lq, gt = self._keys(index)
        return StoredPicture(shard, lq), StoredPicture(shard, gt)

    def items(self) -> Iterator[tuple[str, Picture]]:
        """Yield all pictures with their keys, shard by shard in the order of the keys."""
        for shard in self.shards:
            for key, record in entries(self.path / shard.file):
                if not key.startswith(b"\0"):
                    header = records.read_record_header(record)
                    yield key.decode(), records.read_window(record, 0, 0, header.height, header.width)


def is_store(path: Path | str) -> bool:
    """Tell whether a folder is a store of this module, whole or not."""
    return Path(path, DESCRIPTION).is_file()


def write_description(path: Path, *, encoding: str, manifest_sha256: str, source: str, shards: list[Shard]) -> None:
    """Write `store.json`, the last file of a store.

    Args:
        path: the folder.
        encoding: of the records.
        manifest_sha256: of `manifest.jsonl`.
        source: a fingerprint of what the store was made from; the same source need not be prepared twice.
        shards: in their order.
    """
    description = {
        "format": STORE_FORMAT,
        "encoding": encoding,
        "manifest_sha256": manifest_sha256,
        "source": source,
        "pairs": sum(shard.pairs for shard in shards),
        "shards": [shard._asdict() for shard in shards],
    }
    description["crc32"] = _checksum(description)
    write_atomically(path / DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode())


def _checksum(description: dict[str, Any]) -> str:
    """Return the CRC-32 of all keys but the one that holds it."""
    rest = {key: value for key, value in description.items() if key != "crc32"}
    return f"{zlib.crc32(json.dumps(rest, sort_keys=True).encode()):08x}"


def read_description(path: Path) -> dict[str, Any]:
    """Read and check `store.json`.

    Raises:
        UserError: it is missing, damaged or of a newer format, or says what cannot be.
    """
    file = path / DESCRIPTION
    try:
        description = read_json(file)
        if not isinstance(description, dict):
            raise ValueError("it is no object")
        version = description.get("format")
        if isinstance(version, int) and version > STORE_FORMAT:
            raise UserError(
                f"store {path} has format {version}, this version reads up to {STORE_FORMAT}: "
                "update drsformer-basicsr, or prepare the data again"
            )
        if description.get("crc32") != _checksum(description):
            raise ValueError("its checksum does not fit")
        lie = _lie_in(description)
        if lie is not None:
            raise ValueError(lie)
    except OSError as error:
        raise UserError(f"{path} is no store ({DESCRIPTION}: {error.strerror})") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); copy it again, or prepare the data again") from error
    return description


def _lie_in(description: dict[str, Any]) -> str | None:
    """Return what a description says that cannot be, whatever its checksum."""
    rules: dict[str, Callable[[Any], bool]] = {
        "format": _is_count,
        "encoding": lambda value: value in ("raw", "compressed"),
        "manifest_sha256": lambda value: is_hex(value, 64),
        "source": lambda value: isinstance(value, str),
        "pairs": _is_count,
        "shards": lambda value: isinstance(value, list) and len(value) > 0,
    }
    wrong = [key for key, fits in rules.items() if not fits(description.get(key))]
    if wrong:
        return f"{wrong[0]} makes no sense"
    files, pairs = set(), 0
    for number, shard in enumerate(description["shards"]):
        name = f"shard {number}"
        if not isinstance(shard, dict) or shard.keys() != set(Shard._fields):
            return f"{name} makes no sense"
        file = shard["file"]
        if not isinstance(file, str) or not re.fullmatch(r"[^./\\\0][^/\\\0]*", file) or file in files:
            return f"the file of {name} makes no sense"
        if not (_is_count(shard["pairs"]) and _is_count(shard["bytes"]) and is_hex(shard["crc32"], 8)):
            return f"{name} makes no sense"
        if shard["pairs"] * _SMALLEST_PAIR > shard["bytes"]:
            return f"{name} cannot hold {shard['pairs']:,} pairs in {shard['bytes']:,} bytes"
        files.add(file)
        pairs += shard["pairs"]
    return None if pairs == description["pairs"] else f"{description['pairs']:,} pairs, but {pairs:,} in its shards"


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def entries(shard: Path) -> Iterator[tuple[bytes, memoryview]]:
    """Yield keys and values of a shard in the order of its keys; a value is valid until the next one."""
    with open_shared(shard).begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            yield bytes(key), value


def check_shard(path: Path, pairs: int) -> None:
    """Read a shard back: every record bit for bit, and every pair has both pictures of equal size.

    Raises:
        UserError: what does not fit.
    """
    try:
        for key, value in entries(path):
            if not key.startswith(b"\0") and not records.is_intact(value):
                raise UserError(f"picture {key.decode(errors='replace')} in {path} is damaged")
    except lmdb.Error as error:
        raise UserError(f"{path} is damaged: {error}") from error
    for _ in _checked_pairs(path, pairs):
        pass


def _checked_pairs(path: Path, pairs: int) -> Iterator[tuple[str, list[records.RecordHeader]]]:
    """Yield the pairs of a shard: the key of the rainy picture, headers of both; the shard holds nothing else.

    Raises:
        UserError: a pair or a picture is missing, there is one too many, or the sizes of a pair differ.
    """
    used = set[bytes]()
    try:
        with open_shared(path).begin(buffers=True) as transaction:
            cursor = transaction.cursor()
            found = sum(bytes(key[:1]) == b"\0" for key in cursor.iternext(keys=True, values=False))
            if found != pairs:
                raise UserError(f"{path} holds {found:,} pairs instead of {pairs:,}")
            for number in range(pairs):
                lq, _, gt = bytes(transaction.get(pair_key(number)) or b"").partition(b"\0")
                pictures = [transaction.get(key) for key in (lq, gt) if key]
                headers = [records.read_record_header(record) for record in pictures if record is not None]
                name = lq.decode(errors="replace")
                if len(headers) < 2 or headers[0].shape[:2] != headers[1].shape[:2]:
                    raise UserError(f"{path}: pair {name or number} is incomplete or of unequal sizes")
                used.update((lq, gt))
                yield name, headers
            if transaction.stat()["entries"] != pairs + len(used):
                raise UserError(f"{path} holds pictures that belong to no pair")
    except lmdb.Error as error:
        raise UserError(f"{path} is damaged: {error}") from error


def verify_store(path: Path | str) -> tuple[int, list[str]]:
    """Compare every byte of a store with what was written, and what it says of itself with what it holds.

    Returns:
        the number of pairs verified, and the files of missing shards.

    Raises:
        UserError: the first file that differs.
    """
    store = Store(path, partial=True)
    manifest = store.path / MANIFEST
    if not manifest.is_file() or sha256_of_file(manifest) != store.manifest_sha256:
        raise UserError(f"{manifest} is not the manifest of this store; copy it again")
    head, rows = read_manifest(manifest)
    of_pairs = (row for row in rows if "skipped" not in row)
    for shard in tqdm(store.described, desc="verifying", unit="shard", delay=2):
        file = store.path / shard.file
        if shard.file in store.missing:
            for _ in zip(range(shard.pairs), of_pairs):  # noqa: B905 - the rest belongs to the next shard
                pass
            continue
        if crc32_of_file(file) != shard.crc32:
            check_shard(file, shard.pairs)  # names the picture where it can
            raise UserError(f"{file} is damaged: its CRC-32 is not {shard.crc32}; copy it again")
        for name, headers in _checked_pairs(file, shard.pairs):
            row = next(of_pairs, None)
            facts = None if row is None else (row["name"], row["input"]["shape"], row["target"]["shape"])
            if facts != (name.removeprefix("input/"), *([*header.shape] for header in headers)):
                raise UserError(f"{manifest} has no row that fits the pair {name} of {file}; prepare the data again")
            if any(header.encoding != store.encoding for header in headers):
                raise UserError(f"pair {name} of {file} is not {store.encoding}, as {DESCRIPTION} says")
    left, pairs = sum(1 for _ in of_pairs), sum(shard.pairs for shard in store.described)
    if left or head.get("pairs") != pairs:
        raise UserError(
            f"{manifest} lists {pairs + left:,} pairs and counts {head.get('pairs')}, the store has {pairs:,}"
        )
    return len(store), store.missing
