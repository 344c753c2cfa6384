"""Errors that a user can mend; the command prints them as one line instead of a traceback."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(ValueError):
    """Something in the input is wrong; the message says what, where and what to do, in one line."""

    def __init__(self, message: str) -> None:
        # A loader's worker process hands its error on as a whole traceback that ends with the message.
        super().__init__(message.strip().rpartition("UserError: ")[2])


class TrainingStopped(Exception):
    """Training ended early on request, after its state was saved.

    Args:
        iteration: the last finished iteration, from which `--auto_resume` goes on.
    """

    def __init__(self, iteration: int) -> None:
        super().__init__(f"stopped after iteration {iteration}")
        self.iteration = iteration


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"`, or the list of known names where none is near."""
    names = sorted(str(one) for one in known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(names)}"


FEW = 3


def first_few(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")
