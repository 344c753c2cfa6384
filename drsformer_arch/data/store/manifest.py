"""The manifest of prepared pairs: JSON lines that say what they are, whatever form they were written in.

The first line describes the set: `format`, `dataset`, `title`, `split`, `pairs` and `skipped` counts, and
`version` (which of the circulating versions the count suggests), and `data_sha256`, which identifies the data: the
SHA-256 over names and pixel hashes of all pairs, whatever the files were called or packed in. Every other line is a
pair: `name`, and of `input` and `target` the `file` in the source, `shape` (H, W, C), `dtype`, the
`sha256` of the pixels and, of targets, a perceptual hash `phash`. Pairs that were skipped have a `name` and the
reason, `skipped`. The same source gives the same manifest, byte for byte.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import fsync
from drsformer_arch.system.json_files import parse_json

MANIFEST_FORMAT = 1


def write_manifest(path: Path, head: dict[str, Any], rows_files: Iterable[Path]) -> None:
    """Join the rows of all shards, in their order, below a first line.

    Args:
        path: of the manifest.
        head: the first line without its format.
        rows_files: JSON lines, each after one line about its shard.
    """
    rows_files = list(rows_files)
    digest = hashlib.sha256()
    for rows_file in rows_files:
        with rows_file.open(encoding="utf-8") as rows:
            next(rows)
            for row in map(json.loads, rows):
                if "skipped" not in row:
                    facts = [row["name"], row["input"]["sha256"], row["target"]["sha256"]]
                    digest.update(json.dumps(facts, ensure_ascii=False).encode())
    with path.open("w", encoding="utf-8", newline="\n") as manifest:
        first = {"format": MANIFEST_FORMAT, **head, "data_sha256": digest.hexdigest()}
        manifest.write(json.dumps(first, ensure_ascii=False) + "\n")
        for rows_file in rows_files:
            with rows_file.open(encoding="utf-8") as rows:
                next(rows)
                manifest.writelines(rows)
    fsync(path)


def read_manifest(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the first line of a manifest, and its rows one by one.

    Raises:
        UserError: it cannot be read, is damaged or of a newer format; of a row when that is reached.
    """

    def lines() -> Iterator[Any]:
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    content = parse_json(line)
                    if number > 1 and not _is_row(content):
                        raise ValueError("it is no row of a manifest")
                    yield content
        except OSError as error:
            raise UserError(f"manifest {path} cannot be read: {error.strerror}") from error
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"manifest {path}, line {number} is damaged ({error}); prepare the data again") from error

    rows = lines()
    head = next(rows, None)
    if not isinstance(head, dict) or type(head.get("format")) is not int:
        raise UserError(f"{path} is no manifest")
    if head["format"] > MANIFEST_FORMAT:
        raise UserError(f"manifest {path} has format {head['format']}, this version reads up to {MANIFEST_FORMAT}")
    counts = [head.get(key) for key in ("pairs", "skipped")]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise UserError(f"manifest {path} does not say how many pairs it has; prepare the data again")
    return head, rows


def _is_row(row: object) -> bool:
    """Tell whether a row holds what its readers take from it."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return False
    if "skipped" in row:
        return isinstance(row["skipped"], str)
    pictures = [row.get(role) for role in ("input", "target")]
    return all(
        isinstance(picture, dict)
        and all(isinstance(picture.get(key), str) for key in ("file", "dtype"))
        and is_hex(picture.get("sha256"), 64)
        and isinstance(picture.get("shape"), list)
        for picture in pictures
    ) and is_hex(row["target"].get("phash"), 16)


def is_hex(value: object, length: int) -> bool:
    """Tell whether a value is text of so many hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) is not None
