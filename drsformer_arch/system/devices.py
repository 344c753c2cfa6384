"""The device that a network runs on."""

import torch

from drsformer_arch.system.errors import UserError


def choose_device(name: torch.device | str | None = None) -> torch.device:
    """Return the device that a user named, or the GPU where there is one, else the CPU.

    Raises:
        UserError: torch does not know it, or it is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()  # whether it is there, and holds values
    except (RuntimeError, AssertionError) as error:  # also NotImplementedError
        why = str(error).partition("\n")[0]
        raise UserError(f"device {name} cannot be used here: {why}; cpu always can") from error
    return device
