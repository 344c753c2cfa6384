"""Figures as files."""

import io
import textwrap
import warnings
from collections.abc import Iterable

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from drsformer_arch.system.errors import printable
from drsformer_arch.system.escapes import in_figure


def colours(count: int) -> list[str]:
    """Return colours for lines or discs that are told apart: the usual ten, twenty, or as many from a rainbow."""
    usual = next((colormaps[name] for name, size in (("tab10", 10), ("tab20", 20)) if count <= size), None)
    if usual is not None:
        return [to_hex(usual(index)) for index in range(count)]
    return [to_hex(colormaps["turbo"](index / (count - 1))) for index in range(count)]


def png(figure: Figure) -> bytes:
    """Return the figure as a file's content."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names in other scripts get boxes
        figure.savefig(content, format="png", dpi=140, bbox_inches="tight")
    return content.getvalue()


def width_of(labels: Iterable[str]) -> float:
    """Return the width in inches that the longest of some labels takes with its mark, in letters of 10 points."""
    return 0.6 + 0.09 * max(map(len, labels))


def in_two_lines(text: str, longest: int) -> str:
    """Break a title that is longer than its panel is wide, in characters; what two lines do not hold is left out."""
    lines = textwrap.wrap(printable(text), longest)  # escaped first: what is shown has to fit
    if len(lines) > 2:
        lines[1:] = [f"{lines[1][: longest - 1]}…"]
    return "\n".join(in_figure(line) for line in lines)
