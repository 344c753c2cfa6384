"""Everything that the command writes to the terminal and to its logs passes here.

Names of files, option values, keys of weight files and the like are text of strangers. Here, and not where lines are
written, it loses what would move the terminal's cursor, colour it, turn its direction of writing, or cannot be encoded.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from drsformer_arch.system.errors import printable

# OpenCV, loaded after this, and the FFmpeg in it complain past Python's streams; our messages name the file and why.
_QUIET = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
_MOVES = re.compile(r"(?:\r|\n|\x1b\[A)*")  # all that tqdm writes beside the text of a bar, which follows a \r


class _Stream:
    """A text stream that writes unprintable characters escaped; line ends and tabs stay.

    Args:
        stream: what is written to.
        bars: progress bars write to it, too; they may move the cursor.
    """

    def __init__(self, stream: TextIO, *, bars: bool) -> None:
        self._stream, self._bars = stream, bars

    def write(self, text: str) -> int:
        if self._bars and _MOVES.fullmatch(text):
            shown = text
        elif self._bars and text.startswith("\r"):
            shown = "\r" + printable(text[1:])
        else:
            shown = re.sub(r"[^\n\t]+", lambda match: printable(match[0]), text)
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Record(logging.LogRecord):
    """A record whose message has no control characters, of loggers of others too, to files as to the terminal."""

    def getMessage(self) -> str:
        return re.sub(r"[^\n\t]+", lambda match: printable(match[0]), super().getMessage())


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Keep control characters out of what is printed and logged in the block, in this process.

    An error that leaves the block leaves the guard, so that the traceback that Python prints of it passes here, too.
    """
    for variable, quiet in _QUIET.items():
        os.environ.setdefault(variable, quiet)
    before = sys.stdout, sys.stderr, logging.getLogRecordFactory()
    sys.stdout, sys.stderr = _guard(sys.stdout, bars=False), _guard(sys.stderr, bars=True)
    logging.setLogRecordFactory(_Record)
    is_over = True
    try:
        yield
    except Exception:
        is_over = False
        raise
    finally:
        if is_over:
            sys.stdout, sys.stderr = before[:2]
            logging.setLogRecordFactory(before[2])


def _guard(stream: Any, *, bars: bool) -> Any:
    return stream if stream is None or isinstance(stream, _Stream) else _Stream(stream, bars=bars)
