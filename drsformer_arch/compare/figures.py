"""Figures of a comparison: quality against cost, and the same region from every method."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from drsformer_arch.compare.differences import FEWEST, INTERVALS, Pair
from drsformer_arch.compare.groups import Group, groups_of
from drsformer_arch.compare.measurement import MACS_AT, Measurement, Method
from drsformer_arch.compare.tables import data_sets
from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.images.pictures import decode, read_file
from drsformer_arch.images.tensors import to_picture
from drsformer_arch.plot.figures import colours, in_two_lines, png, width_of
from drsformer_arch.system.escapes import in_figure

SMALLEST_CROP = 48
MOST_PAIRS = 100  # in a figure
LONGEST_TITLE = 19  # characters in a line above a region
SHORTEST_AXIS = 1.0  # dB, lest a tenth looks like a world
COSTS: dict[str, Callable[[Group], float]] = {
    "seconds per picture": lambda group: group.seconds,
    f"GMACs at {MACS_AT}x{MACS_AT}": lambda group: group.macs / 1e9,
    "peak memory in GiB": lambda group: group.memory / 2**30,
}


def quality_against_cost(results: Sequence[Measurement]) -> bytes:
    """Draw PSNR over seconds, multiplications and memory, a row per data set (PNG).

    A disc's area is the number of parameters; bars show the standard deviation between several trainings.
    """
    names = data_sets(results)
    groups = groups_of(results)
    networks = [group for group in groups if group.network]
    labels = [f"{in_figure(group.title)}, {group.parameters / 1e6:.2f} M" for group in networks]
    figure = Figure(figsize=(max(2.6, width_of(labels)) + 4.2 * len(COSTS), 3.8 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(COSTS), squeeze=False, sharex="col", sharey="row")
    most, palette = max(group.parameters for group in networks), colours(len(networks))
    for row, name in zip(panels, names, strict=True):
        for panel, (what, cost_of) in zip(row, COSTS.items(), strict=True):
            for index, group in enumerate(networks):
                psnr, cost = group.mean(name, "psnr"), cost_of(group)
                if psnr is not None and cost > 0:
                    size, colour = 20 + 280 * group.parameters / most, palette[index]
                    panel.scatter(cost, psnr, s=size, alpha=0.6, color=colour, linewidths=0)
                    panel.errorbar(cost, psnr, group.spread(name, "psnr"), color=colour, capsize=3, linewidth=1)
            panel.set(xscale="log", title=in_two_lines(name, 2 * LONGEST_TITLE), xlabel=f"{what} (left is less)")
            panel.margins(0.2)
            _show_rainy(panel, [group for group in groups if not group.network], name)
            left, right = panel.get_xlim()
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if right > 10 * left else (1, 1.5, 2, 3, 4, 6, 8)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.grid(alpha=0.3, linewidth=0.5)
        row[0].set_ylabel("PSNR in dB")
    discs = [Line2D([], [], marker="o", linestyle="", alpha=0.6, color=colour) for colour in palette]
    figure.legend(discs, labels, title="parameters", loc="outside right upper", frameon=False)
    bars = "; bars: standard deviation between trainings" if any(len(group.members) > 1 for group in networks) else ""
    figure.supxlabel(f"a disc's area is the number of parameters{bars}", fontsize=8, color="dimgray")
    return png(figure)


def _show_rainy(panel: Axes, inputs: Sequence[Group], name: str) -> None:
    """Draw the rainy pictures' PSNR as a line, or say it where a line would press the networks together."""
    low, high = panel.get_ylim()
    more = max(0, SHORTEST_AXIS - (high - low)) / 2
    low, high = low - more, high + more
    panel.set_ylim(low, high)
    for group in inputs:
        rainy, label = group.mean(name, "psnr"), in_figure(group.label)
        if rainy is None or not math.isfinite(rainy):
            continue
        if rainy > low - (high - low) / 2:
            margin = (high - low) / 20
            panel.set_ylim(min(low, rainy - margin), max(high, rainy + margin))
            panel.axhline(rainy, color="gray", linestyle=":", linewidth=1, zorder=0)
            panel.text(0.99, rainy, label, transform=panel.get_yaxis_transform(), ha="right", va="bottom")
        else:
            label = f"{label}: {rainy:.2f} dB"
            panel.text(0.99, 0.02, label, transform=panel.transAxes, ha="right", va="bottom", color="gray")


def intervals(pairs: Sequence[Pair]) -> bytes:
    """Draw the differences in PSNR of every two networks with their intervals, a panel per data set (PNG)."""
    names = list(dict.fromkeys(pair.data_set for pair in pairs))
    labels = list(dict.fromkeys(pair.label for pair in pairs))
    pairs_in_all = len(labels)
    del labels[MOST_PAIRS:]
    width = max(2.6, width_of(labels)) + 4 * len(names)
    figure = Figure(figsize=(width, 1.6 + 0.3 * len(labels)), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for panel, name in zip(panels, names, strict=True):
        panel.axvline(0, color="gray", linewidth=1)
        for pair in pairs:
            found = pair.of["psnr"]
            if pair.data_set != name or pair.label not in labels or found is None:
                continue
            at, colour = labels.index(pair.label), "C0" if found.is_clear else "gray"
            if found.interval is not None:
                panel.plot(found.interval, (at, at), color=colour, linewidth=2)
            panel.plot(found.mean, at, marker="o", color=colour)
            place = panel.get_yaxis_transform()
            panel.text(1.01, at, found.counts, transform=place, va="center", fontsize=8, color="dimgray")
        panel.set(
            title=in_two_lines(name, 2 * LONGEST_TITLE), xlabel="difference of PSNR in dB (right: the first is better)"
        )
        panel.grid(alpha=0.3, linewidth=0.5, axis="x")
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False)
    panels[0].set_yticks(range(len(labels)), [in_figure(label) for label in labels])
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    more = f"; the first {MOST_PAIRS} of {pairs_in_all} pairs" if pairs_in_all > MOST_PAIRS else ""
    said = (
        f"{INTERVALS}; blue: leaves out 0, of {FEWEST} pictures or more; right: pictures better / equal / worse{more}"
    )
    figure.supxlabel(said, fontsize=7, color="dimgray")
    return png(figure)


def crops(methods: Sequence[Method], results: Sequence[Measurement], out: Path) -> bytes:
    """Show of each data set the picture on which the methods differ most, and its rainiest region from all (PNG)."""
    names = data_sets(results)
    columns = (len(results) + 2) // 2  # in two rows beside the whole picture: all results and the target
    figure = Figure(figsize=(4.4 + 2.1 * columns, 4.8 * len(names)))
    blocks = figure.subfigures(len(names), 1, squeeze=False)[:, 0]
    for block, name in zip(blocks, names, strict=True):
        pictures = next(p for method in methods for p in method.pictures if p.name == name)
        index = most_different(results, name)
        scores = results[0].scores[name]
        picture = scores.names[index]
        sample = PairedRainDataset({**pictures.options, "phase": "val"})[scores.at[index]]
        rainy, target = to_picture(sample["lq"]), to_picture(sample["gt"])
        region = rainiest_region(rainy, target)
        whole, *panels = _panels(block, columns)
        whole.imshow(rainy)
        corner, side = (region[1].start, region[0].start), region[0].stop - region[0].start
        whole.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="red", linewidth=2))
        whole.set_title(in_two_lines(f"{picture} of {name}", 2 * LONGEST_TITLE), fontsize=9)
        for panel, result in zip(panels, results, strict=False):
            of_result = result.scores.get(name)
            if of_result and picture in of_result.names:
                at = of_result.names.index(picture)
                path = out / "pictures" / result.label / name / f"{picture}.png"
                panel.imshow(decode(read_file(path), path)[region], interpolation="nearest")
                found = f"{of_result.psnr[at]:.2f} / {of_result.ssim[at]:.4f}"
                panel.set_title(f"{in_two_lines(result.label, LONGEST_TITLE)}\n{found}", fontsize=9)
        panels[len(results)].imshow(target[region], interpolation="nearest")
        panels[len(results)].set_title("target\nPSNR / SSIM", fontsize=9)
    return png(figure)


def _panels(block: SubFigure, columns: int) -> list[Axes]:
    """Make one large panel, then two rows of small ones."""
    grid = block.add_gridspec(2, columns + 2, wspace=0.05, hspace=0.4)
    places = [grid[:, :2], *(grid[row, 2 + column] for row in range(2) for column in range(columns))]
    panels = [block.add_subplot(place) for place in places]
    for panel in panels:
        panel.axis("off")
    return panels


def most_different(results: Sequence[Measurement], name: str) -> int:
    """Return the index of the picture with the largest range of PSNR over the networks."""
    tables = [
        dict(zip(scores.names, scores.psnr, strict=True))
        for result in results
        if result.network and (scores := result.scores.get(name))
    ]
    if not tables:
        return 0
    values = [[table.get(picture, math.nan) for table in tables] for picture in results[0].scores[name].names]
    finite = np.where(np.isposinf(values), 100, values)  # NaN: a network has no result
    ranges = np.ptp(finite, axis=1)
    return int(np.argmax(np.nan_to_num(ranges, nan=-1)))


def rainiest_region(rainy: np.ndarray, target: np.ndarray) -> tuple[slice, slice]:
    """Return the square, a quarter of the shorter side, in which two (H, W, 3) pictures differ most."""
    height, width = target.shape[:2]
    side = min(max(SMALLEST_CROP, min(height, width) // 4), height, width)
    difference = cv2.absdiff(rainy, target).astype(np.float32).mean(axis=2)
    sums = cv2.integral(difference)
    boxes = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(np.argmax(boxes), boxes.shape)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)
