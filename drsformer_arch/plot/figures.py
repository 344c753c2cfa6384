"""Figures as files."""

import io
import warnings

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure


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
