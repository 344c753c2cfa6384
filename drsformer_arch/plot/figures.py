"""Figures as files."""

import io
import warnings

from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """Return the figure as a file's content."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names in other scripts get boxes
        figure.savefig(content, format="png", dpi=140, bbox_inches="tight")
    return content.getvalue()
