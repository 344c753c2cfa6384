"""Loss, learning rate and validation scores of several trainings in one figure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from drsformer_arch.plot.curves import Curve
from drsformer_arch.plot.figures import colours, in_two_lines, png, width_of
from drsformer_arch.system.escapes import in_figure

COLUMNS = 2
MOST_PANELS = 40  # logs may name as many quantities as they like; a figure has an end
POINTS = 200  # of a curve with more, a bold line shows means over its neighbourhood
LARGEST = 1e100  # value that is drawn; axes cannot hold those near the largest float
LONGEST_TITLE = 55  # characters in a line
WIDE = 4  # largest over smallest value from which a loss has a logarithmic axis


def draw(curves: Sequence[Curve], groups: Mapping[str, str] | None = None) -> bytes:
    """Draw one panel per quantity, one colour per run (PNG).

    Args:
        curves: of all runs; those of one name over the same share a panel, of which there are `MOST_PANELS` at most.
        groups: runs by which others share a colour, such as seeds of one network: the group of a run by its name. The
            first run of a group has a solid line, the others have dashed ones.
    """
    names = list(dict.fromkeys((curve.name, curve.over) for curve in curves))[:MOST_PANELS]
    runs = _lines_of(dict.fromkeys(curve.run for curve in curves), groups or {})
    rows = -(-len(names) // COLUMNS)
    width = 6 * COLUMNS
    in_a_row = min(max(int(width / width_of(runs)), 1), len(runs), 4)
    below = 0.22 * -(-len(runs) // in_a_row) if len(runs) > 1 else 0
    figure = Figure(figsize=(width, 3.6 * rows + below), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for panel in panels[len(names) :]:
        panel.remove()
    for panel, name in zip(panels, names, strict=False):
        _draw(panel, [curve for curve in curves if (curve.name, curve.over) == name], runs)
    if len(runs) > 1:
        handles = [panels[0].plot([], [], **line, label=in_figure(run))[0] for run, line in runs.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=in_a_row, frameon=False)
    return png(figure)


def _lines_of(runs: Iterable[str], groups: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Choose the colour and the style of every run's lines."""
    of_run = {run: groups.get(run, run) for run in runs}
    names = list(dict.fromkeys(of_run.values()))
    palette = dict(zip(names, colours(len(names)), strict=True))
    first = {group: run for run, group in reversed(of_run.items())}
    return {
        run: {"color": palette[group], "linestyle": "-" if run == first[group] else "--"}
        for run, group in of_run.items()
    }


def _draw(panel: Axes, curves: Sequence[Curve], runs: Mapping[str, dict[str, Any]]) -> None:
    for curve in curves:
        line = runs[curve.run]
        at = [iteration for iteration, _ in curve.points]
        values = [value if abs(value) < LARGEST else math.nan for _, value in curve.points]  # a gap
        many = len(values) > POINTS
        marker = "." if not many and len(values) < POINTS // 4 else ""
        panel.plot(at, values, **line, linewidth=0.6 if many else 1.5, alpha=0.4 if many else 1, marker=marker)
        if many:
            width = len(values) // (POINTS // 4)
            means = np.convolve(values, np.full(width, 1 / width), "valid")
            panel.plot(at[width - 1 :], means, **line, linewidth=1.8)
    everything = [value for curve in curves for _, value in curve.points if abs(value) < LARGEST]
    is_loss = curves[0].name.startswith(("loss", "gradient"))
    if is_loss and everything and min(everything) > 0 and max(everything) / min(everything) >= WIDE:
        panel.set_yscale("log")
    title = f"{curves[0].name} in {curves[0].unit}" if curves[0].unit else curves[0].name
    panel.set(title=in_two_lines(title, LONGEST_TITLE), xlabel=curves[0].over)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
