"""Writing checkpoints so that a crash or a full disk never costs what was there."""

import os
from pathlib import Path
from typing import Any

import torch

from drsformer_arch.errors import UserError


def save_atomically(content: Any, path: Path) -> None:
    """torch.save that leaves the old file or the whole new one, never a part.

    Raises:
        UserError: the folder is not writable, the disk is full; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot save {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
