"""The HTML of a page, its table of scores in it, but for the pictures that follow as inert text."""

import base64
import json
import math
from collections.abc import Sequence
from statistics import fmean
from string import Template
from typing import Any, NamedTuple

from drsformer_arch.evaluate.score_names import GAIN_PREFIX, INPUT_PREFIX, LOWER_IS_BETTER, METRICS
from drsformer_arch.page.pieces import asset, assets, hash_of, head, viewer
from drsformer_arch.page.previews import LARGEST_SIDE, QUALITY, RESIDUAL_TOP, residual_colours
from drsformer_arch.plot.curves import ITERATIONS, Curve
from drsformer_arch.system import escapes
from drsformer_arch.system.errors import printable

_PICTURES_HERE = "<!--pictures-->"  # in page.html


class TableRow(NamedTuple):
    """A row of the table: what stays in memory of a picture."""

    name: str
    data_set: str
    scores: dict[str, float]
    kinds: tuple[str, ...]
    size: tuple[int, int]  # width and height of the original
    thumbnail: str  # HTML


class ScoreColumn(NamedTuple):
    """One column of scores."""

    key: str
    name: str
    unit: str
    protocol: str  # in parentheses
    digits: int
    lower_is_better: bool

    @property
    def label(self) -> str:
        """Name, unit and protocol, for a header."""
        return " ".join(filter(None, (self.name, self.unit, self.protocol)))

    def text(self, value: float | None, *, unit: str = "") -> str:
        """Return a value as people read it; a dash where there is none."""
        if value is None:
            return "\N{EN DASH}"
        sign = "+" if self.key.startswith(GAIN_PREFIX) else ""
        text = f"{value:{sign}.{self.digits}f}".replace("inf", "∞").replace("-", "\N{MINUS SIGN}")
        return f"{text} {unit}".rstrip()


def columns_of(rows: Sequence[TableRow]) -> list[ScoreColumn]:
    """Return the columns of all scores in the order in which they occur, each before the input's and the gain."""
    found = dict.fromkeys(key for row in rows for key in row.scores)
    keys = [key for key in found if not key.startswith(INPUT_PREFIX)]
    with_inputs = [
        candidate
        for key in keys
        for candidate in (key, INPUT_PREFIX + key, GAIN_PREFIX + key)
        if candidate == key or INPUT_PREFIX + key in found
    ]
    return [column_named(key) for key in dict.fromkeys((*with_inputs, *found))]


def column_named(key: str) -> ScoreColumn:
    """Return the column of a score, such as "psnr_rain200", of the input's or of the gain."""
    prefix = next((candidate for candidate in (INPUT_PREFIX, GAIN_PREFIX) if key.startswith(candidate)), "")
    metric, _, protocol = key.removeprefix(prefix).partition("_")
    if metric not in METRICS:
        return ScoreColumn(key, key.replace("_", " "), "", "", 4, False)
    name, unit, digits = METRICS[metric]
    name = {INPUT_PREFIX: f"rainy {name}", GAIN_PREFIX: f"{name} gain"}.get(prefix, name)
    lower_is_better = metric in LOWER_IS_BETTER and prefix != GAIN_PREFIX
    return ScoreColumn(key, name, unit, protocol and f"({protocol})", digits, lower_is_better)


def value_in(row: TableRow, column: ScoreColumn) -> float | None:
    """Return what stands in a row's column; a positive gain is better in all columns.

    Returns:
        None where there is no value, such as a gain from infinity to infinity.
    """
    if not column.key.startswith(GAIN_PREFIX):
        return row.scores.get(column.key)
    key = column.key.removeprefix(GAIN_PREFIX)
    ours, rainy = row.scores.get(key), row.scores.get(INPUT_PREFIX + key)
    if ours is None or rainy is None or (math.isinf(ours) and ours == rainy):
        return None
    return rainy - ours if column_named(key).lower_is_better else ours - rainy


def mean_in(rows: Sequence[TableRow], column: ScoreColumn) -> tuple[float | None, int, int]:
    """Average a column.

    Returns:
        mean of the finite values, infinite where all are, None where there are none; number of finite and infinite.
    """
    values = [value for row in rows if (value := value_in(row, column)) is not None]
    finite = [value for value in values if math.isfinite(value)]
    mean = fmean(finite) if finite else math.inf if values else None
    return mean, len(finite), len(values) - len(finite)


def page_html(
    rows: Sequence[TableRow],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    curves: Sequence[Curve],
    overview: Sequence[tuple[str, bytes, str]],
    means: bool,
) -> tuple[str, str]:
    """Return the page before and after the pictures."""
    columns = columns_of(rows)
    averaged = [column for column in columns if means and not column.key.startswith((INPUT_PREFIX, GAIN_PREFIX))]
    style, script = assets("base.css", "viewer.css", "page.css"), assets("viewer.js", "page.js")
    colours = ", ".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in residual_colours())
    style = f":root {{ --residual: linear-gradient(to right, {colours}); }}\n{style}"
    # Hashes instead of 'unsafe-inline': markup that came in with a name could not run, even if it were not escaped.
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src {hash_of(style)}; script-src {hash_of(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = Template(asset("page.html")).substitute(
        head=head(escapes.html(title), style, policy),
        script=script,
        title=escapes.html(title),
        count=f"{len(rows):,} picture{'' if len(rows) == 1 else 's'}" if rows else "",
        means="".join(_mean_html(rows, column) for rows in _by_data_set(rows) for column in averaged),
        facts="".join(_fact_html(label, value) for label, value in facts),
        overview="".join(_figure_html(*figure) for figure in overview),
        curves=_curves_json(curves),
        orders="".join(_order_html(index, column) for index, column in enumerate(columns)),
        headers="".join(_header_html(column) for column in columns),
        rows="".join(_row_html(index, row, columns) for index, row in enumerate(rows)),
        hidden="" if rows else " hidden",
        residual=_residual_text(rows),
        viewer=viewer(f'<p class="legend" hidden>0 <span class="colours"></span> {RESIDUAL_TOP} of 255 and more</p>\n'),
        quality=QUALITY,
        largest=LARGEST_SIDE,
    )
    before, _, after = page.rpartition(_PICTURES_HERE)
    return before, after


def image_html(content: bytes, alt: str, kind: str, size: Sequence[int] | None = None) -> str:
    """Return an image that holds its own content.

    Args:
        content: of the file.
        alt: text for those who do not see it.
        kind: of the file, such as "png".
        size: width and height in pixels; default: as the file says.
    """
    sides = f' width="{size[0]}" height="{size[1]}"' if size else ""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return f'<img alt="{escapes.html(alt)}" src="{source}"{sides} loading="lazy" decoding="async">'


def _figure_html(caption: str, content: bytes, alt: str) -> str:
    return f"<figure>{image_html(content, alt, 'png')}<figcaption>{escapes.html(caption)}</figcaption></figure>"


def _fact_html(label: str, value: str) -> str:
    return f"<div><dt>{escapes.html(label)}</dt><dd>{escapes.html(value)}</dd></div>"


def _by_data_set(rows: Sequence[TableRow]) -> list[list[TableRow]]:
    data_sets = dict.fromkeys(row.data_set for row in rows)
    return [[row for row in rows if row.data_set == data_set] for data_set in data_sets]


def _mean_html(rows: Sequence[TableRow], column: ScoreColumn) -> str:
    """Show the mean of a score over a data set, beside it that of the input and of the gains where there are both."""
    ours, finite, infinite = mean_in(rows, column)
    if ours is None:
        return ""
    gained = column_named(GAIN_PREFIX + column.key)
    pairs = [row for row in rows if math.isfinite(math.nan if (gain := value_in(row, gained)) is None else gain)]
    gain, both, _ = mean_in(pairs, gained)
    rainy, _, _ = mean_in(pairs or rows, column_named(INPUT_PREFIX + column.key))  # of the pictures of the gain
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


def _order_html(index: int, column: ScoreColumn) -> str:
    better = "lower" if column.lower_is_better else "higher"
    return f'<option value="{index}" data-better="{better}">{escapes.html(column.label)}</option>'


def _header_html(column: ScoreColumn) -> str:
    return f'<th scope="col" aria-sort="none"><button type="button">{escapes.html(column.label)}</button></th>'


def _row_html(index: int, row: TableRow, columns: Sequence[ScoreColumn]) -> str:
    """Write a row of the table, which also tells the script what to show."""
    cells = []
    for column in columns:
        value = value_in(row, column)
        loss = ' class="loss"' if column.key.startswith(GAIN_PREFIX) and value is not None and value < 0 else ""
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


def _summary(row: TableRow, columns: Sequence[ScoreColumn]) -> str:
    """Write the scores in one line, with gains in parentheses."""
    parts = []
    for column in columns:
        value = value_in(row, column)
        if column.key.startswith((INPUT_PREFIX, GAIN_PREFIX)) or value is None:
            continue
        gained = column_named(GAIN_PREFIX + column.key)
        gain = value_in(row, gained)
        words = [column.name, column.protocol, column.text(value, unit=column.unit)]
        if gain is not None:
            words.append(f"({gained.text(gain)})")
        parts.append(" ".join(filter(None, words)))
    return " · ".join(parts)


def _residual_text(rows: Sequence[TableRow]) -> str:
    """Say what the residual maps show, if there are any."""
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
    """Return the panels for the script; JSON knows no infinities, and "<" must not end the block."""
    panels: dict[str, dict[str, Any]] = {}
    for curve in curves:
        if curve.over != ITERATIONS:
            continue
        points = [point for point in curve.points if all(map(math.isfinite, point))]
        if points:
            name, unit, run = map(printable, (curve.name, curve.unit, curve.run))
            panel = panels.setdefault(name, {"name": name, "unit": unit, "runs": []})
            panel["runs"].append({"run": run, "points": points})
    return json.dumps(list(panels.values()), separators=(",", ":")).replace("<", "\\u003c")
