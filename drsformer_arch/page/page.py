"""One HTML file that shows results: every picture before and after, its residual, its scores, and training curves.

The page needs nothing but itself: no server, no network, no other file. Its table and thumbnails stand in the HTML; the
pictures follow as inert text, which the page's script decodes only while they are near the visible part.
"""

import base64
import hashlib
import json
import math
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from string import Template
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from drsformer_arch.evaluate.summary import INPUT
from drsformer_arch.images.pictures import Picture
from drsformer_arch.page.previews import (
    LARGEST_SIDE,
    QUALITY,
    RESIDUAL_TOP,
    limited,
    residual_colours,
    residual_map,
    webp,
)
from drsformer_arch.system import escapes
from drsformer_arch.system.errors import UserError, line_of, printable
from drsformer_arch.system.files import atomic_file, errors_named, scratch_folder

THUMBNAIL = 160  # larger side in pixels
THREADS, AHEAD = 2, 4  # for encoding; pictures in work or finished before their turn

METRICS = {"psnr": ("PSNR", "dB", 2), "ssim": ("SSIM", "", 4), "niqe": ("NIQE", "", 2)}  # name, unit, digits
LOWER_IS_BETTER = frozenset({"niqe"})
GAIN = "gain_"  # prefix of columns: what was gained over the rainy picture

_SOURCES = files("drsformer_arch.page") / "assets"
_PICTURES_HERE = "<!--pictures-->"  # in page.html
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


class Curve(NamedTuple):
    """One quantity over a training; curves of one name share a panel."""

    name: str
    unit: str
    run: str
    points: Sequence[tuple[float, float]]  # iteration, value


class Column(NamedTuple):
    """One column of scores."""

    key: str
    name: str
    unit: str
    protocol: str  # in parentheses
    digits: int
    lower_is_better: bool

    @property
    def label(self) -> str:
        """For a header."""
        return " ".join(filter(None, (self.name, self.unit, self.protocol)))

    def text(self, value: float | None, *, unit: str = "") -> str:
        """For people; a dash where there is none."""
        if value is None:
            return "\N{EN DASH}"
        sign = "+" if self.key.startswith(GAIN) else ""
        text = f"{value:{sign}.{self.digits}f}".replace("inf", "∞").replace("-", "\N{MINUS SIGN}")
        return f"{text} {unit}".rstrip()


class _Row(NamedTuple):
    """What stays in memory of a picture."""

    name: str
    data_set: str
    scores: dict[str, float]
    kinds: tuple[str, ...]
    size: tuple[int, int]  # width and height of the original
    thumbnail: str  # HTML


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
        rows: list[_Row] = []
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
        before, after = _html(rows, title=title, facts=facts, curves=curves, overview=overview, means=means)
        blocks.seek(0)
        with atomic_file(path) as file:
            file.write(before.encode())
            shutil.copyfileobj(blocks, file)
            file.write(after.encode())
    return len(rows)


def _ahead(function: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """`map` in threads, at most AHEAD results before the one that is asked for."""
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


# ---- pictures ------------------------------------------------------------------------------------------------------


def _attempt(exhibit: Exhibit) -> tuple[str, Exception | tuple["_Row", list[tuple[str, bytes]]]]:
    """The exhibit's name and what `_prepare` returns or raises."""
    try:
        return exhibit.name, _prepare(exhibit)
    except Exception as error:  # whatever decoders raise; the caller decides
        return exhibit.name, error


def _prepare(exhibit: Exhibit) -> tuple[_Row, list[tuple[str, bytes]]]:
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
    thumbnail = _image(webp(small, quality=75), f"{exhibit.name}, result", "webp", small.shape[1::-1])
    scores = {key: float(value) for key, value in exhibit.scores.items() if not math.isnan(value)}
    row = _Row(exhibit.name, exhibit.data_set, scores, tuple(kind for kind, _ in previews), (width, height), thumbnail)
    return row, previews


# ---- scores --------------------------------------------------------------------------------------------------------


def _columns(rows: Sequence[_Row]) -> list[Column]:
    """Of all scores in the order in which they occur, each followed by the input's and the gain."""
    found = dict.fromkeys(key for row in rows for key in row.scores)
    keys = [key for key in found if not key.startswith(INPUT)]
    with_inputs = [one for key in keys for one in (key, INPUT + key, GAIN + key) if one == key or INPUT + key in found]
    return [_column(key) for key in dict.fromkeys((*with_inputs, *found))]


def _column(key: str) -> Column:
    prefix = next((one for one in (INPUT, GAIN) if key.startswith(one)), "")
    metric, _, protocol = key.removeprefix(prefix).partition("_")
    if metric not in METRICS:
        return Column(key, key.replace("_", " "), "", "", 4, False)
    name, unit, digits = METRICS[metric]
    name = {INPUT: f"rainy {name}", GAIN: f"{name} gain"}.get(prefix, name)
    lower_is_better = metric in LOWER_IS_BETTER and prefix != GAIN
    return Column(key, name, unit, protocol and f"({protocol})", digits, lower_is_better)


def _value(row: _Row, column: Column) -> float | None:
    """None: there is none, such as a gain from infinity to infinity. A positive gain is better in all columns."""
    if not column.key.startswith(GAIN):
        return row.scores.get(column.key)
    key = column.key.removeprefix(GAIN)
    ours, rainy = row.scores.get(key), row.scores.get(INPUT + key)
    if ours is None or rainy is None or (math.isinf(ours) and ours == rainy):
        return None
    return rainy - ours if _column(key).lower_is_better else ours - rainy


def _mean(rows: Sequence[_Row], column: Column) -> tuple[float | None, int, int]:
    """Mean of the finite values, infinite where all are, None where there are none; number of finite and infinite."""
    values = [value for row in rows if (value := _value(row, column)) is not None]
    finite = [value for value in values if math.isfinite(value)]
    mean = fmean(finite) if finite else math.inf if values else None
    return mean, len(finite), len(values) - len(finite)


# ---- HTML ----------------------------------------------------------------------------------------------------------


def _html(
    rows: Sequence[_Row],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    curves: Sequence[Curve],
    overview: Sequence[tuple[str, bytes, str]],
    means: bool,
) -> tuple[str, str]:
    """The page before and after the pictures."""
    columns = _columns(rows)
    averaged = [column for column in columns if means and not column.key.startswith((INPUT, GAIN))]
    style, script = _source("page.css"), _source("page.js")
    colours = ", ".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in residual_colours())
    style = f":root {{ --residual: linear-gradient(to right, {colours}); }}\n{style}"
    # Hashes instead of 'unsafe-inline': markup that came in with a name could not run, even if it were not escaped.
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = Template(_source("page.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        title=escapes.html(title),
        count=f"{len(rows):,} picture{'' if len(rows) == 1 else 's'}" if rows else "",
        means="".join(_mean_html(rows, column) for rows in _by_data_set(rows) for column in averaged),
        facts="".join(_fact(label, value) for label, value in facts),
        overview="".join(_figure(*one) for one in overview),
        curves=_curves_json(curves),
        orders="".join(_order(index, column) for index, column in enumerate(columns)),
        headers="".join(_header(column) for column in columns),
        rows="".join(_row_html(index, row, columns) for index, row in enumerate(rows)),
        hidden="" if rows else " hidden",
        residual=_residual_text(rows),
        residual_top=RESIDUAL_TOP,
        quality=QUALITY,
        largest=LARGEST_SIDE,
    )
    before, _, after = page.rpartition(_PICTURES_HERE)
    return before, after


def _source(name: str) -> str:
    return (_SOURCES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _image(content: bytes, alt: str, kind: str, size: Sequence[int] | None = None) -> str:
    sides = f' width="{size[0]}" height="{size[1]}"' if size else ""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return f'<img alt="{escapes.html(alt)}" src="{source}"{sides} loading="lazy" decoding="async">'


def _figure(caption: str, content: bytes, alt: str) -> str:
    return f"<figure>{_image(content, alt, 'png')}<figcaption>{escapes.html(caption)}</figcaption></figure>"


def _fact(label: str, value: str) -> str:
    return f"<div><dt>{escapes.html(label)}</dt><dd>{escapes.html(value)}</dd></div>"


def _by_data_set(rows: Sequence[_Row]) -> list[list[_Row]]:
    data_sets = dict.fromkeys(row.data_set for row in rows)
    return [[row for row in rows if row.data_set == data_set] for data_set in data_sets]


def _mean_html(rows: Sequence[_Row], column: Column) -> str:
    """The mean of a score over a data set, beside it that of the input and of the gains where there are both."""
    ours, finite, infinite = _mean(rows, column)
    if ours is None:
        return ""
    rainy, _, _ = _mean(rows, _column(INPUT + column.key))
    gained = _column(GAIN + column.key)
    gain, both, _ = _mean(rows, gained)
    notes = []
    if rainy is not None:
        gained_text = f", gain&nbsp;{gained.text(gain)}" if both else ""
        partly = f" (of {both:,})" if 0 < both < finite else ""
        notes.append(f"rainy {column.text(rainy)}{gained_text}{partly}")
    if finite and finite < len(rows):
        notes.append(f"mean of {finite:,} of {len(rows):,}" + (f"; {infinite:,} are ∞" if infinite else ""))
    lines = "".join(f'<dd class="note">{note}</dd>' for note in notes)
    of = f"of {rows[0].data_set}" if rows[0].data_set else ""
    label = escapes.html(" ".join(filter(None, (column.name, column.protocol, of))))
    return f"<div><dt>{label}</dt><dd>{column.text(ours)} <small>{column.unit}</small></dd>{lines}</div>"


def _order(index: int, column: Column) -> str:
    better = "lower" if column.lower_is_better else "higher"
    return f'<option value="{index}" data-better="{better}">{escapes.html(column.label)}</option>'


def _header(column: Column) -> str:
    return f'<th scope="col" aria-sort="none"><button type="button">{escapes.html(column.label)}</button></th>'


def _row_html(index: int, row: _Row, columns: Sequence[Column]) -> str:
    """A row of the table, which also tells the script what to show."""
    cells = []
    for column in columns:
        value = _value(row, column)
        loss = ' class="loss"' if column.key.startswith(GAIN) and value is not None and value < 0 else ""
        cells.append(f'<td data-value="{"" if value is None else value}"{loss}>{column.text(value)}</td>')
    width, height = row.size
    size = f"{width}x{height}"
    scale = min(1, LARGEST_SIDE / max(width, height))
    if scale < 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        size += f", shown at {width}x{height}"
    name = escapes.html(row.name)
    return (
        f'<tr data-name="{name}" data-kinds="{" ".join(row.kinds)}" data-width="{width}" data-height="{height}" '
        f'data-notes="{escapes.html(" · ".join(filter(None, (_summary(row, columns), size))))}">'
        f'<td>{row.thumbnail}</td><th scope="row"><a href="#picture-{index}">{name}</a></th>{"".join(cells)}</tr>\n'
    )


def _summary(row: _Row, columns: Sequence[Column]) -> str:
    """The scores in one line, with gains in parentheses."""
    parts = []
    for column in columns:
        value = _value(row, column)
        if column.key.startswith((INPUT, GAIN)) or value is None:
            continue
        gained = _column(GAIN + column.key)
        gain = _value(row, gained)
        words = [column.name, column.protocol, column.text(value, unit=column.unit)]
        if gain is not None:
            words.append(f"({gained.text(gain)})")
        parts.append(" ".join(filter(None, words)))
    return " · ".join(parts)


def _residual_text(rows: Sequence[_Row]) -> str:
    """What the residual maps show, if there are any."""
    to_target = any("target" in row.kinds for row in rows)
    removed = any("residual" in row.kinds and "target" not in row.kinds for row in rows)
    differences = ["|result &minus; target|"] * to_target + ["|rainy &minus; result|, what was removed"] * removed
    if not differences:
        return ""
    return (
        f"Residual: {'; without a target, '.join(differences)}; mean over the channels, computed from the original "
        f"pixels, {255 / RESIDUAL_TOP:.0f} times amplified, in whole levels."
    )


def _curves_json(curves: Sequence[Curve]) -> str:
    """Panels for the script; JSON knows no infinities, and "<" must not end the block."""
    panels: dict[str, dict[str, Any]] = {}
    for curve in curves:
        points = [point for point in curve.points if all(map(math.isfinite, point))]
        if points:
            name, unit, run = map(printable, (curve.name, curve.unit, curve.run))
            panel = panels.setdefault(name, {"name": name, "unit": unit, "runs": []})
            panel["runs"].append({"run": run, "points": points})
    return json.dumps(list(panels.values()), separators=(",", ":")).replace("<", "\\u003c")
