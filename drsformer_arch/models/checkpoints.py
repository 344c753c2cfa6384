"""Writing checkpoints so that a crash or a full disk never costs what was there."""

from pathlib import Path
from typing import Any

import torch

from drsformer_arch.errors import UserError
from drsformer_arch.files import atomic_file


def save_atomically(content: Any, path: Path) -> None:
    """torch.save that leaves the old file or the whole new one, never a part.

    Raises:
        UserError: the folder is not writable, the disk is full; the old file is intact.
    """
    try:
        with atomic_file(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot save {path}: {error}") from error
