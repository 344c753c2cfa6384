"""Writing checkpoints so that a crash or a full disk never costs what was there."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from drsformer_arch.errors import UserError


def save_atomically(content: Any, path: Path) -> None:
    """torch.save that leaves the old file or the whole new one, never a part.

    Raises:
        UserError: the folder is not writable, the disk is full; the old file is intact.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(f"cannot save {path}: {error}") from error
