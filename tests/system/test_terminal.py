"""What the command prints and logs has no control characters, wherever the text comes from."""

import io
import logging
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.utils.logger import get_root_logger, initialized_logger
from tqdm import tqdm

from drsformer_arch.cli import main
from drsformer_arch.system import terminal

HOSTILE = "a\x1b]0;owned\x07\x1b[31m\rb\x9b2J\u202egnp\u2066\u2028\udcff\x7f"
ESCAPED = r"a\x1b]0;owned\x07\x1b[31m\rb\x9b2J\u202egnp\u2066\u2028\udcff\x7f"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Screen(io.StringIO):
    """A terminal, as progress bars see it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown_on(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_prints_and_bars_keep_their_lines_and_nothing_else(monkeypatch):
    screen = shown_on(monkeypatch)
    with terminal.guarded(), terminal.guarded():
        print(f"{HOSTILE}\n\tsecond line")
        with tqdm([1, 2], desc=f"outer {HOSTILE}") as outer, tqdm([1], desc="inner\n", leave=False) as inner:
            outer.update()
            inner.update()
            tqdm.write(f"error: {HOSTILE}", file=sys.stderr)
        sys.stderr.write(f"\r{HOSTILE}\n")
    assert sys.stdout is sys.stderr is screen
    text = screen.getvalue()
    assert text.startswith(f"{ESCAPED}\n\tsecond line\n")
    assert f"error: {ESCAPED}\n" in text
    assert f"\router {ESCAPED}: 50%" in re.sub(" +", " ", text)
    assert r"inner\n" in text
    assert not CONTROL.search(re.sub(r"\r|\x1b\[A", "", text))  # a bar's own moves


def test_characters_that_the_terminal_cannot_show_are_escaped(monkeypatch):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))
    with terminal.guarded():
        print("Straße \N{CLOUD WITH RAIN}")
        sys.stdout.flush()
    assert content.getvalue() == b"Stra\\xdfe \\U0001f327\n"


def test_logs_of_basicsr_are_clean_in_their_files_too(tmp_path, monkeypatch):
    screen, name = shown_on(monkeypatch), "hostile"
    monkeypatch.delitem(initialized_logger, name, raising=False)
    with terminal.guarded():
        logger = get_root_logger(name, log_file=str(tmp_path / "train.log"))
        logger.info("Loading %s\n\t# psnr: 30", HOSTILE)
    for handler in logger.handlers:
        handler.close()
    assert logging.getLogRecordFactory() is logging.LogRecord
    for text in (screen.getvalue(), (tmp_path / "train.log").read_text()):
        assert text.endswith(f"INFO: Loading {ESCAPED}\n\t# psnr: 30\n")
        assert not CONTROL.search(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "{0}", "{0}"],
        ["report", "{0}", "-o", "{0}.html"],
        ["plot", "{0}", "{0}"],
        ["compare", "{0}/{0}.pth", "--data", "{0}={0}", "--protocol", "ddn"],
        ["derain", "{0}", "-o", "out", "--device", "cpu"],
        ["prepare", "pairs", "{0}", "{0}", "-o", "{0}.out"],
        ["train", "-opt", "{0}.yml"],
        ["export", "{0}.pth", "-o", "{0}.onnx"],
        ["plot", "{0}", "--{0}"],
        ["report", "good", "-o", "{0}.html"],
        ["{0}"],
    ],
)
def test_names_of_files_and_options_reach_no_terminal_raw(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    name = HOSTILE.replace("/", "")
    folder = Path(name)
    folder.mkdir()
    (folder / f"{name}.png").write_bytes(b"damaged")
    Path("good").mkdir()
    cv2.imwrite("good/1.png", np.zeros((20, 20, 3), np.uint8))
    Path(f"{name}.yml").write_text("name: '\\e[31m': [\x1b", encoding="utf-8")
    Path(f"{name}.pth").write_bytes(b"damaged")
    try:
        code = main([one.format(name) for one in arguments])
    except SystemExit as exit_:
        code = exit_.code
    said = "".join(capfd.readouterr())
    assert (code == 0) == ("good" in arguments)
    assert ESCAPED in said
    assert not CONTROL.search(said)
