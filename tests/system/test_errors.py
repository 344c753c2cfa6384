"""The one line that any exception becomes."""

import cv2
import numpy as np
import pytest
import torch

from drsformer_arch.system.errors import LONGEST_REASON, UserError, debugging, line_of, printable


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("picture a.png is damaged"), "picture a.png is damaged"),
        (UserError("not even a tile fits"), "a.png: not even a tile fits"),
        (MemoryError(), "a.png: not enough memory"),
        (torch.OutOfMemoryError("CUDA"), "a.png: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "a.png: not enough memory"),
        (cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed"), "a.png: not enough memory"),
        (PermissionError(13, "Permission denied", "a.png"), "a.png: Permission denied"),
        (PermissionError(13, "Permission denied", "out"), "a.png: Permission denied: out"),
        (OSError("of a library, without number"), "a.png: of a library, without number"),
        (KeyError("x"), "a.png: KeyError: 'x'"),
        (ZeroDivisionError(), "a.png: ZeroDivisionError"),
        (TypeError("two\nlines \x1b[31m"), "a.png: TypeError: two lines \\x1b[31m"),
        (ValueError("x" * 9999), f"a.png: ValueError: {'x' * LONGEST_REASON} ..."),
    ],
)
def test_any_exception_is_one_line(error, line):
    assert line_of(error, "a.png") == line


def test_what_strangers_named_does_not_reach_the_terminal_raw():
    assert str(UserError("a\x1b]0;title\x07\r\n\u202egnp.\udcff")) == r"a\x1b]0;title\x07\r\n\u202egnp.\udcff"
    assert line_of(ValueError("bad"), "a\nb.png") == r"a\nb.png: ValueError: bad"
    for name in ("雨 1.png", "été.png", "👩‍👧.png", r"C:\new\x.png"):
        assert printable(name) == printable(printable(name)) == name


def test_tracebacks_are_shown_when_asked_for(capsys, monkeypatch):
    monkeypatch.delenv("DRSFORMER_DEBUG", raising=False)

    def line() -> str:
        try:
            np.zeros(3)[7]
        except IndexError as error:
            line_of(error, "a.png")
        return capsys.readouterr().err

    assert not line()
    with debugging():
        assert "Traceback" in line()
    with debugging(False):
        assert not line()
    monkeypatch.setenv("DRSFORMER_DEBUG", "1")
    assert "np.zeros(3)[7]" in line()
