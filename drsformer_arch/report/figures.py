"""Figures of a comparison: quality against cost, and the same region from every method."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from drsformer_arch.data.paired_dataset import PairedRainDataset
from drsformer_arch.data.pictures import decode, read_file
from drsformer_arch.report.comparison import Measured, Method, to_picture
from drsformer_arch.report.tables import data_sets, quality, seconds

SMALLEST_CROP = 48


def png(figure: Figure) -> bytes:
    """The figure as a file's content."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=140, bbox_inches="tight")
    return content.getvalue()


def quality_against_cost(results: Sequence[Measured]) -> bytes:
    """PSNR over seconds per picture, one panel per data set; a disc's area is the number of parameters (PNG)."""
    names = data_sets(results)
    networks = [result for result in results if result.network]
    figure = Figure(figsize=(1 + 4.2 * len(names), 3.8))
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    most = max(result.parameters for result in networks)
    for panel, name in zip(panels, names, strict=True):
        for index, result in enumerate(networks):
            ours = quality(result, name)
            if ours is None:
                continue
            size = 40 + 700 * result.parameters / most
            panel.scatter(seconds(result), ours.psnr, s=size, alpha=0.55, color=f"C{index}", linewidths=0)
            label = f"{result.label}\n{result.parameters / 1e6:.1f} M"
            panel.annotate(label, (seconds(result), ours.psnr), ha="center", va="center", fontsize=8)
        for result in results:
            rainy = None if result.network else quality(result, name)
            if rainy:
                panel.axhline(rainy.psnr, color="gray", linestyle=":", linewidth=1)
                panel.annotate(
                    result.label, (0.01, rainy.psnr), xycoords=("axes fraction", "data"), fontsize=8, va="bottom"
                )
        panel.set(xscale="log", title=name, xlabel="seconds per picture (less is better)", ylabel="PSNR in dB")
        panel.margins(0.25)
        panel.grid(alpha=0.3, which="both", linewidth=0.5)
    return png(figure)


def crops(methods: Sequence[Method], results: Sequence[Measured], out: Path) -> bytes:
    """Per data set the picture on which the methods differ most, and its rainiest region from each of them (PNG)."""
    names = data_sets(results)
    figure = Figure(figsize=(2.2 * (len(results) + 2), 2.5 * len(names)))
    panels = figure.subplots(len(names), len(results) + 2, squeeze=False)
    for row, name in zip(panels, names, strict=True):
        index = most_different(results, name)
        pictures = next(p for method in methods for p in method.pictures if p.name == name)
        sample = PairedRainDataset({**pictures.options, "phase": "val"})[index]
        rainy, target = to_picture(sample["lq"]), to_picture(sample["gt"])
        rows, columns = rainiest_region(rainy, target)
        row[0].imshow(rainy)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        row[0].add_patch(
            Rectangle((columns.start, rows.start), width, height, fill=False, edgecolor="red", linewidth=2)
        )
        row[0].set_title(f"{name}, {Path(sample['lq_path']).stem}", fontsize=8)
        for panel, result in zip(row[1:], results, strict=False):
            if name not in result.scores:
                continue
            scores = result.scores[name]
            path = out / "pictures" / result.label / name / f"{scores.names[index]}.png"
            panel.imshow(decode(read_file(path), path)[rows, columns], interpolation="nearest")
            panel.set_title(f"{result.label}\n{scores.psnr[index]:.2f} / {scores.ssim[index]:.4f}", fontsize=8)
        row[-1].imshow(target[rows, columns], interpolation="nearest")
        row[-1].set_title("target\nPSNR / SSIM", fontsize=8)
        for panel in row:
            panel.axis("off")
    figure.tight_layout(pad=0.4)
    return png(figure)


def most_different(results: Sequence[Measured], name: str) -> int:
    """Index of the picture with the largest range of PSNR over the networks."""
    scores = [result.scores[name].psnr for result in results if result.network and name in result.scores]
    return int(np.argmax(np.ptp(np.nan_to_num(np.array(scores), posinf=100), axis=0)))


def rainiest_region(rainy: np.ndarray, target: np.ndarray) -> tuple[slice, slice]:
    """The square, a quarter of the shorter side, in which two (H, W, 3) pictures differ most."""
    height, width = target.shape[:2]
    side = min(max(SMALLEST_CROP, min(height, width) // 4), height, width)
    difference = cv2.absdiff(rainy, target).astype(np.float32).mean(axis=2)
    sums = cv2.integral(difference)
    boxes = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(np.argmax(boxes), boxes.shape)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)
