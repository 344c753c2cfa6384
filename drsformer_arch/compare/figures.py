"""Figures of a comparison: quality against cost, and the same region from every method."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from drsformer_arch.compare.measurement import Measurement, Method
from drsformer_arch.compare.tables import data_sets, quality, seconds
from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.images.pictures import decode, read_file
from drsformer_arch.images.tensors import to_picture
from drsformer_arch.plot.figures import png
from drsformer_arch.system.escapes import in_figure

SMALLEST_CROP = 48


def quality_against_cost(results: Sequence[Measurement]) -> bytes:
    """Draw PSNR over seconds per picture, a panel per data set; a disc's area is the number of parameters (PNG)."""
    names = data_sets(results)
    networks = [result for result in results if result.network]
    figure = Figure(figsize=(2.6 + 4.2 * len(names), 3.8))
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    most = max(result.parameters for result in networks)
    for panel, name in zip(panels, names, strict=True):
        for index, result in enumerate(networks):
            ours = quality(result, name)
            if ours is not None:
                size = 30 + 600 * result.parameters / most
                panel.scatter(seconds(result), ours.psnr, s=size, alpha=0.6, color=f"C{index}", linewidths=0)
        for result in results:
            rainy = None if result.network else quality(result, name)
            if rainy:
                panel.axhline(rainy.psnr, color="gray", linestyle=":", linewidth=1, zorder=0)
                label = in_figure(result.label)
                panel.text(0.99, rainy.psnr, label, transform=panel.get_yaxis_transform(), ha="right", va="bottom")
        panel.set(
            xscale="log", title=in_figure(name), xlabel="seconds per picture (left is faster)", ylabel="PSNR in dB"
        )
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.margins(0.2)
        panel.grid(alpha=0.3, linewidth=0.5)
    labels = [f"{in_figure(result.label)}, {result.parameters / 1e6:.2f} M" for result in networks]
    discs = [Line2D([], [], marker="o", linestyle="", alpha=0.6, color=f"C{index}") for index in range(len(networks))]
    panels[-1].legend(discs, labels, title="parameters", loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
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
        sample = PairedRainDataset({**pictures.options, "phase": "val"})[scores.at[index]]
        rainy, target = to_picture(sample["lq"]), to_picture(sample["gt"])
        region = rainiest_region(rainy, target)
        whole, *panels = _panels(block, columns)
        whole.imshow(rainy)
        corner, side = (region[1].start, region[0].start), region[0].stop - region[0].start
        whole.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="red", linewidth=2))
        whole.set_title(in_figure(f"{name}: {scores.names[index]}"), fontsize=9)
        for panel, result in zip(panels, results, strict=False):
            if name in result.scores:
                scores = result.scores[name]
                path = out / "pictures" / result.label / name / f"{scores.names[index]}.png"
                panel.imshow(decode(read_file(path), path)[region], interpolation="nearest")
                panel.set_title(
                    f"{in_figure(result.label)}\n{scores.psnr[index]:.2f} / {scores.ssim[index]:.4f}", fontsize=9
                )
        panels[len(results)].imshow(target[region], interpolation="nearest")
        panels[len(results)].set_title("target\nPSNR / SSIM", fontsize=9)
    return png(figure)


def _panels(block: SubFigure, columns: int) -> list[Axes]:
    """Make one large panel, then two rows of small ones."""
    grid = block.add_gridspec(2, columns + 2, wspace=0.05, hspace=0.25)
    places = [grid[:, :2], *(grid[row, 2 + column] for row in range(2) for column in range(columns))]
    panels = [block.add_subplot(place) for place in places]
    for panel in panels:
        panel.axis("off")
    return panels


def most_different(results: Sequence[Measurement], name: str) -> int:
    """Return the index of the picture with the largest range of PSNR over the networks."""
    scores = [result.scores[name].psnr for result in results if result.network and name in result.scores]
    return int(np.argmax(np.ptp(np.nan_to_num(np.array(scores), posinf=100), axis=0)))


def rainiest_region(rainy: np.ndarray, target: np.ndarray) -> tuple[slice, slice]:
    """Return the square, a quarter of the shorter side, in which two (H, W, 3) pictures differ most."""
    height, width = target.shape[:2]
    side = min(max(SMALLEST_CROP, min(height, width) // 4), height, width)
    difference = cv2.absdiff(rainy, target).astype(np.float32).mean(axis=2)
    sums = cv2.integral(difference)
    boxes = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(np.argmax(boxes), boxes.shape)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)
