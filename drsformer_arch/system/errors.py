"""Errors that a user can mend; the command prints them as one line instead of a traceback."""

import contextlib
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from drsformer_arch.system import packages

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped on request with its state saved; run again with --auto_resume
EXIT_INTERRUPTED = 130
GIVEN_UP = "DRSFORMER_GIVEN_UP"  # environment variable: a file by which the processes of a launcher tell each other
DEBUG = "DRSFORMER_DEBUG"  # environment variable: 1 shows the tracebacks of errors that are printed as one line
LONGEST_REASON = 300  # characters of another library's message
# Line ends, terminal sequences, marks that turn the direction of writing, bytes that are no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_OUT_OF_MEMORY = re.compile(
    "allocate memory|insufficient memory|out of memory", re.IGNORECASE
)  # in torch, OpenCV, CUDA


class UserError(ValueError):
    """Something in the input is wrong; the message says what, where and what to do, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message.strip()))


class TrainingStopped(Exception):  # noqa: N818 - a request that was met, no error
    """Training ended early on request, after its state was saved.

    Args:
        iteration: the last finished iteration, from which `--auto_resume` goes on.
    """

    def __init__(self, iteration: int) -> None:
        super().__init__(f"stopped after iteration {iteration}")
        self.iteration = iteration


def printable(text: object) -> str:
    r"""Escape text of strangers, such as names of files, for a terminal.

    >>> print(printable("\33[31mred.png"))
    \x1b[31mred.png
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception of Python, NumPy, OpenCV, ONNX Runtime or PyTorch on any device says so."""
    kind = type(error).__name__
    return isinstance(error, MemoryError) or kind == "OutOfMemoryError" or bool(_OUT_OF_MEMORY.search(str(error)))


def line_of(error: Exception, subject: object) -> str:
    """Say any exception in one line, for the input of many whose trouble must not end the rest.

    Where debugging is on, the traceback goes to stderr.

    Args:
        error: a `UserError` keeps its words; a missing package, a lack of memory and the system's errors get some, all
            others are given as type and message.
        subject: the file or option that it happened to; put in front where the words do not name it.
    """
    show_traceback(error)
    name = printable(subject)
    if isinstance(error, UserError):
        words = str(error)
    elif lacking := packages.missing(error):
        words = lacking
    elif is_out_of_memory(error):
        words = "not enough memory"
    elif isinstance(error, OSError) and (error.strerror or error.args):
        words = str(error.strerror or error)
        if error.filename is not None and str(error.filename) != str(subject):
            words += f": {error.filename}"
    else:
        message = " ".join(str(error).split())
        shortened = message if len(message) <= LONGEST_REASON else f"{message[:LONGEST_REASON]} ..."
        words = f"{type(error).__name__}: {shortened}" if message else type(error).__name__
    words = printable(words)
    return words if name in words else f"{name}: {words}"


def is_debugging() -> bool:
    """Tell whether tracebacks are shown."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def show_traceback(error: BaseException) -> None:
    """Print the traceback of an error to stderr where debugging is on."""
    if is_debugging():
        traceback.print_exception(error)


@contextlib.contextmanager
def debugging(on: bool = True) -> Iterator[None]:
    """Show the tracebacks of errors that are printed as one line, also in processes that are started meanwhile."""
    before = os.environ.get(DEBUG)
    if on:
        os.environ[DEBUG] = "1"
    try:
        yield
    finally:
        if on:
            os.environ.pop(DEBUG)
            if before is not None:
                os.environ[DEBUG] = before


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End a message with the nearest known name, or with the list of them where none is near.

    >>> did_you_mean("DRSformr", ["DRSformer", "IDT"])
    "; did you mean 'DRSformer'?"
    """
    names = sorted(map(str, known))
    near = get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(names)}"


FEW = 3


def first_few(names: Sequence[str]) -> str:
    """Join the first names of many, for a message."""
    return ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")
