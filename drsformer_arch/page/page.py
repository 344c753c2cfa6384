"""One HTML file that shows results: every picture before and after, its residual, its scores, and training curves.

The page needs nothing but itself: no server, no network, no other file. Its table and thumbnails stand in the HTML; the
pictures follow as inert text, which the page's script decodes only while they are near the visible part.
"""

import base64
import math
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from drsformer_arch import __version__
from drsformer_arch.evaluate.evaluation import columns, score_pictures
from drsformer_arch.evaluate.score_names import DESCRIPTIONS, INPUT_PREFIX
from drsformer_arch.images.pictures import Picture
from drsformer_arch.images.tensors import to_picture
from drsformer_arch.page.html import TableRow, image_html, page_html
from drsformer_arch.page.previews import LARGEST_SIDE, limited, residual_map, webp
from drsformer_arch.plot.curves import Curve
from drsformer_arch.system.errors import UserError, line_of
from drsformer_arch.system.files import atomic_file, errors_named, scratch_folder

THUMBNAIL = 160  # larger side in pixels
THREADS, AHEAD = 2, 4  # for encoding; pictures in work or finished before their turn


_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


class Exhibit(NamedTuple):
    """One picture of the page; what loads a picture is called once, in a thread."""

    name: str
    result: Callable[[], Picture]
    target: Callable[[], Picture] | None = None
    rainy: Callable[[], Picture] | None = None
    scores: Mapping[str, float] = MappingProxyType({})  # "psnr_rain200", "input_psnr_rain200", "niqe", ... → value
    data_set: str = ""  # scores are averaged within each


def scores_and_version(which: Sequence[str]) -> list[tuple[str, str]]:
    """Return facts of a page: what its scores are, and which version made it."""
    scores = [(f"Scores: {group}", DESCRIPTIONS[group]) for group in which]
    return [*scores, ("Version", f"drsformer-basicsr {__version__}")]


def exhibit_of(name: str, result: Picture, sample: dict[str, Any], which: Sequence[str]) -> Exhibit:
    """Score a result and return it as an exhibit.

    Args:
        name: shown on the page.
        result: (H, W, C) RGB or gray.
        sample: of a data set of BasicSR: `lq`, and `gt` where there is a target, (C, H, W) in [0, 1].
        which: column groups of the scores.
    """
    rainy, target = to_picture(sample["lq"]), to_picture(sample["gt"]) if "gt" in sample else None
    scores = score_pictures(result, target, which)
    if target is not None:
        before = score_pictures(rainy, target, which)
        scores |= {f"{INPUT_PREFIX}{column}": before[column] for column in columns(which)}
    return Exhibit(name, lambda: result, None if target is None else lambda: target, lambda: rainy, scores)


def write_page(
    path: Path,
    exhibits: Iterable[Exhibit],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    curves: Sequence[Curve] = (),
    overview: Sequence[tuple[str, bytes, str]] = (),
    means: bool = True,
    complain: Callable[[str], None] | None = None,
) -> int:
    """Write the page; pictures are loaded a few at a time, only thumbnails and scores of all of them stay in memory.

    Args:
        path: of the HTML file; there is the old file or the new one, never a part.
        exhibits: the pictures, in the order of the table.
        title: of the page.
        facts: label and value, such as network, weights, hardware, protocol, version.
        curves: of trainings.
        overview: caption, PNG file and text for those who do not see it, shown above the pictures.
        means: show the mean scores of each data set; not where the pictures are of several networks.
        complain: takes a line for every exhibit that cannot be shown, and the rest goes on. Default: the first one's
            error is raised.

    Returns:
        The number of pictures shown.

    Raises:
        UserError: there is nothing to show, neither pictures nor curves. The old file is intact.
        Exception: what a loader raised or is wrong with its pictures, without `complain`. The old file is intact.
        OSError: the folder is not writable, the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with errors_named(path), tempfile.TemporaryFile(dir=scratch_folder(path)) as blocks:
        rows: list[TableRow] = []
        for name, prepared in _ahead(_attempt, exhibits):
            if isinstance(prepared, Exception):
                if complain is None:
                    raise prepared
                complain(line_of(prepared, name))
                continue
            row, previews = prepared
            for kind, content in previews:
                block = f'<script type="text/plain" id="data-{len(rows)}-{kind}">'.encode()
                blocks.write(block + base64.b64encode(content) + b"</script>\n")
            rows.append(row)
        if not rows and not curves:
            raise UserError("no picture can be shown; the problems are named above" if complain else "nothing to show")
        before, after = page_html(rows, title=title, facts=facts, curves=curves, overview=overview, means=means)
        blocks.seek(0)
        with atomic_file(path) as file:
            file.write(before.encode())
            shutil.copyfileobj(blocks, file)
            file.write(after.encode())
    return len(rows)


def _ahead(function: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """Call `map` in threads, at most AHEAD results before the one that is asked for."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[_Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _attempt(exhibit: Exhibit) -> tuple[str, Exception | tuple[TableRow, list[tuple[str, bytes]]]]:
    """Return the exhibit's name and what `_prepare` returns or raises."""
    try:
        return exhibit.name, _prepare(exhibit)
    except Exception as error:  # whatever decoders raise; the caller decides
        return exhibit.name, error


def _prepare(exhibit: Exhibit) -> tuple[TableRow, list[tuple[str, bytes]]]:
    """Load and encode the pictures of an exhibit."""
    loaders = {"rainy": exhibit.rainy, "result": exhibit.result, "target": exhibit.target}
    pictures = {kind: load() for kind, load in loaders.items() if load is not None}
    height, width = pictures["result"].shape[:2]
    for kind, picture in pictures.items():
        if picture.shape[:2] != (height, width):
            raise UserError(f"{exhibit.name}: result {width}x{height}, {kind} {picture.shape[1]}x{picture.shape[0]}")
    previews = [(kind, webp(limited(picture, LARGEST_SIDE))) for kind, picture in pictures.items()]
    other = pictures.get("target", pictures.get("rainy"))
    if other is not None:
        previews.append(("residual", webp(residual_map(pictures["result"], other), lossless=True)))
    small = limited(pictures["result"], THUMBNAIL)
    thumbnail = image_html(webp(small, quality=75), f"{exhibit.name}, result", "webp", small.shape[1::-1])
    scores = {key: float(value) for key, value in exhibit.scores.items() if not math.isnan(value)}
    row = TableRow(
        exhibit.name, exhibit.data_set, scores, tuple(kind for kind, _ in previews), (width, height), thumbnail
    )
    return row, previews
