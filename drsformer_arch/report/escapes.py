"""Names that others chose, such as those of files and data sets, as plain text in tables and figures of every format.

HTML is escaped by the standard library where a page is written.
"""

import csv
import io
import re
from collections.abc import Sequence

from drsformer_arch.errors import printable

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# What a spreadsheet takes for the beginning of a formula, also behind what it leaves out, and where it begins a cell:
# a semicolon or a tab separates cells in many countries.
_FORMULA = re.compile(
    r"""(^|[;\t\r\n])(?=[\s"\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20])"""
)
_MARKDOWN = re.compile(r"[\\`*\[\]|~$#!]|(?<![^\W_])_|_(?![^\W_])")
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[]*`"},  # after a line's end \\ and in ligatures they say more
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def csv_line(cells: Sequence[object]) -> bytes:
    """A line of a CSV file with its end.

    Numbers stay numbers and names stay as they are, bytes that are no UTF-8 included; only what a spreadsheet
    would compute, such as a name that begins with ``=``, is made text by an apostrophe before it. A cell with line ends
    stays one cell.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([_cell(cell) for cell in cells])  # quotes cells with \r or \n
    return (line.getvalue().removesuffix("\r\n") + "\n").encode("utf-8", "surrogateescape")


def _cell(value: object) -> str:
    text = str(value)
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", text)


def markdown(text: str) -> str:
    """Text in a cell of a table or a paragraph; one line."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKDOWN.sub(r"\\\g<0>", text)


def latex(text: str) -> str:
    """Text in a cell of a tabular; one line."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def in_figure(text: str) -> str:
    """A label for Matplotlib, which else takes what stands between dollars for mathematics; one line."""
    return printable(text).replace("$", r"\$")
