"""Checkpoints of a training: no crash, full disk or second run costs what was there, and none is used unverified.

The checkpoint of an iteration is three files: the weights, the training state, and last a small manifest that holds the
SHA-256 of both. With another checksum it is passed over; without a manifest, as BasicSR writes it, it is used if it
loads. What only becomes known afterwards, the scores of the validation that follows, goes into the manifest.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import atomic_file, sha256_of_file, write_atomically
from drsformer_arch.system.json_files import read_json
from drsformer_arch.training.training_records import is_iteration, is_number

MOST_BYTES = 2**24  # of a manifest: options and scores
# Filled in while a run starts, or free to change: not what the training is.
UNCOMPARED = ("path", "logger", "dist", "rank", "auto_resume", "root_path", "start_iter", "iters_per_epoch")


def save_atomically(content: Any, path: Path) -> None:
    """torch.save that leaves the old file or the whole new one, never a part.

    Raises:
        UserError: the folder is not writable, the disk is full; the old file is intact.
    """
    try:
        with atomic_file(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # After a failed write torch reports that it lost count of the bytes; the reason is what it was handling.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(f"cannot save {path}: {reason}") from error


def manifest_of(state: Path) -> Path:
    """Give the path of the manifest of a training state."""
    return state.with_suffix(".json")


def write_manifest(state: Path, weights: Sequence[Path], notes: Mapping[str, Any]) -> None:
    """Declare a checkpoint complete.

    Args:
        state: the training state.
        weights: of the networks.
        notes: what else is to be known of it.

    Raises:
        UserError: the folder is not writable, the disk is full.
    """
    files = {os.path.relpath(path, state.parent): sha256_of_file(path) for path in (state, *weights)}
    _write(manifest_of(state), {**notes, "files": files})


def read_manifest(state: Path) -> dict[str, Any]:
    """Read what the manifest says; nothing where there is none.

    Raises:
        UserError: it is damaged, or says other things than a training writes.
    """
    path = manifest_of(state)
    try:
        content = read_json(path, MOST_BYTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} is damaged: {reason}") from error
    if not isinstance(content, dict) or not _are_checksums(content.get("files"), state.name):
        raise UserError(f"{path} is damaged: it names no files with their checksums")
    if not isinstance(content.get("options", {}), dict):
        raise UserError(f"{path} is damaged: its options are none")
    check_notes(content, path)
    return content


def _are_checksums(files: Any, state: str) -> bool:
    return (
        isinstance(files, dict)
        and state in files
        and all("\0" not in name and isinstance(digest, str) for name, digest in files.items())
    )


def check_notes(notes: Mapping[str, Any], path: Path) -> None:
    """Check what a manifest or a training state says of its validations.

    Raises:
        UserError: something else than a training writes.
    """
    best, validated = notes.get("best", {}), notes.get("validated", {})
    if not isinstance(validated, dict) or not all(map(is_iteration, validated.values())):
        raise UserError(f"{path} is damaged: what it says was validated are no iterations")
    records = [records for records in best.values()] if isinstance(best, dict) else [None]
    if not all(isinstance(scores, dict) and all(map(_is_best, scores.values())) for scores in records):
        raise UserError(f"{path} is damaged: its best scores are none")


def _is_best(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and is_number(record.get("val"))
        and is_iteration(record.get("iter"))
        and isinstance(record.get("better", ""), str)
    )


def add_notes(state: Path, notes: Mapping[str, Any]) -> None:
    """Add to a manifest that is there."""
    content = read_manifest(state)
    if content:
        _write(manifest_of(state), {**content, **notes})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise UserError(f"cannot save {path}: {error}") from error


def verify(state: Path) -> None:
    """Compare a checkpoint with its checksums; one of BasicSR's own has none.

    Raises:
        UserError: a file is missing, or is not what was written.
    """
    for name, digest in read_manifest(state).get("files", {}).items():
        path = Path(os.path.normpath(state.parent / name))
        try:
            if path.exists() and not path.is_file():  # a device or pipe may never end
                raise OSError(None, "it is no file")
            actual = sha256_of_file(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        if actual != digest:
            raise UserError(f"{path} is damaged: it is not what was written (SHA-256)")


def forget_all_but(count: int, states: Path, models: Path) -> None:
    """Delete everything older than the newest complete checkpoints, manifests first: half of one is none."""
    complete = sorted((int(path.stem) for path in states.glob("*.json") if path.stem.isdigit()), reverse=True)
    if len(complete) < count:
        return
    old = [path for path in states.iterdir() if path.stem.isdigit() and int(path.stem) < complete[count - 1]]
    for path in sorted(old, key=lambda path: path.suffix):  # .json, then .state
        path.unlink()
    for path in models.glob("net_*_*.pth"):
        iteration = path.stem.rpartition("_")[2]
        if iteration.isdigit() and int(iteration) < complete[count - 1]:
            path.unlink()


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the options that differ between two runs, one line each."""
    old, new = dict(_flattened(before)), dict(_flattened(now))
    lines = []
    for key in sorted(old.keys() | new.keys()):
        was, is_now = (json.dumps(run[key]) if key in run else "not given" for run in (old, new))
        if was != is_now:
            lines.append(f"{key}: was {was}, is {is_now}")
    return lines


def comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Choose those of a run's options that a later run is compared with, as JSON holds them."""
    return json.loads(json.dumps({key: value for key, value in options.items() if key not in UNCOMPARED}, default=str))


def _flattened(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
