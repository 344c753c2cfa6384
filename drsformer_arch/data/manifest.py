"""The manifest of prepared pairs: JSON lines that say what they are, whatever form they were written in.

The first line describes the set: ``format``, ``dataset``, ``title``, ``split``, ``pairs`` and ``skipped`` counts, and
``version`` (which of the circulating versions the count suggests), and ``data_sha256``, which identifies the data: the
SHA-256 over names and pixel hashes of all pairs, whatever the files were called or packed in. Every other line is a
pair: ``name``, and of ``input`` and ``target`` the ``file`` in the source, ``shape`` (H, W, C), ``dtype``, the
``sha256`` of the pixels and, of targets, a perceptual hash ``phash``. Pairs that were skipped have a ``name`` and the
reason, ``skipped``. The same source gives the same manifest, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from drsformer_arch.errors import UserError
from drsformer_arch.files import fsync

FORMAT = 1


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
        first = {"format": FORMAT, **head, "data_sha256": digest.hexdigest()}
        manifest.write(json.dumps(first, ensure_ascii=False) + "\n")
        for rows_file in rows_files:
            with rows_file.open(encoding="utf-8") as rows:
                next(rows)
                manifest.writelines(rows)
    fsync(path)


def read_manifest(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """The first line of a manifest, and its rows one by one.

    Raises:
        UserError: it is damaged or of a newer format.
    """

    def lines() -> Iterator[dict[str, Any]]:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise UserError(f"manifest {path}, line {number} is damaged; prepare the data again") from error

    rows = lines()
    head = next(rows, None)
    if not isinstance(head, dict) or "format" not in head:
        raise UserError(f"{path} is no manifest")
    if head["format"] > FORMAT:
        raise UserError(f"manifest {path} has format {head['format']}, this version reads up to {FORMAT}")
    return head, rows
