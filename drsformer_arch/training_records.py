"""What a training writes down beside its log, one JSON object per line: its steps and its validations."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drsformer_arch.files import write_atomically

NAME = "training.jsonl"  # in the experiment's folder


def append(folder: Path | str, record: Mapping[str, Any]) -> None:
    """Add a line to the log of an experiment."""
    with Path(folder, NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of an experiment's log; the last one is left out where a kill cut it."""
    path = folder / NAME
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def forget_after(folder: Path, iteration: int) -> None:
    """A resumed training does again what an earlier run did after the iteration from which it goes on."""
    records = read(folder)
    kept = [record for record in records if record.get("iter", 0) <= iteration]
    if len(kept) < len(records):
        write_atomically(folder / NAME, "".join(f"{json.dumps(record)}\n" for record in kept).encode())
