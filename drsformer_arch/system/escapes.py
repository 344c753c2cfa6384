"""Names that others chose, such as those of files and data sets, as plain text in tables and figures of every format.

Control characters are escaped in all of them: a file may be shown by a terminal, and a name must be read as it is.
"""

import csv
import html as html_escapes
import io
import re
from collections.abc import Sequence

from drsformer_arch.system.errors import printable

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# What a spreadsheet takes for the beginning of a formula, also behind what it leaves out, and where it begins a cell:
# a semicolon separates cells in many countries.
_FORMULA = re.compile(r"""(^|;)(?=[\s"\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
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
    """Write a line of a CSV file with its end.

    Numbers stay numbers; what a spreadsheet would compute, such as a name that begins with `=`, is made text by an
    apostrophe before it, and what `printable` escapes is escaped, line ends and bytes that are no UTF-8 included.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_cell(cell) for cell in cells])
    return line.getvalue().encode()


def _cell(value: object) -> str:
    text = printable(value)
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", text)


def markdown(text: str) -> str:
    """Escape text in a cell of a table or a paragraph; one line."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKDOWN.sub(r"\\\g<0>", text)


def html(text: str) -> str:
    """Escape text in an element or attribute of a page; one line."""
    return html_escapes.escape(printable(text))


def latex(text: str) -> str:
    """Escape text in a cell of a tabular; one line."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def in_figure(text: str) -> str:
    """Escape a label for Matplotlib, which else takes what stands between dollars for mathematics; one line."""
    return printable(text).replace("$", r"\$")
