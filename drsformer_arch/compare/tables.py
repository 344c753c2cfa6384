"""A comparison as Markdown, CSV and LaTeX."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from drsformer_arch.compare.differences import DIGITS, interval_of_mean
from drsformer_arch.compare.groups import Group, groups_of
from drsformer_arch.compare.measurement import MACS_AT, Measurement
from drsformer_arch.compare.published import NOTES, PUBLISHED
from drsformer_arch.system import escapes

COST = ("parameters", f"MACs at {MACS_AT}x{MACS_AT}", "s per picture", "peak memory")


class Quality(NamedTuple):
    """PSNR in dB and SSIM of a method on a data set."""

    psnr: float
    ssim: float | None  # of what was published, not always known

    def __str__(self) -> str:
        return f"{self.psnr:.2f} / {'?' if self.ssim is None else f'{self.ssim:.4f}'}"


def data_sets(results: Sequence[Measurement]) -> list[str]:
    """Return the names of all data sets in the order in which they first occur."""
    return list(dict.fromkeys(name for result in results for name in result.scores))


def quality(group: Group, data_set: str) -> Quality | None:
    """Return the quality that was measured here."""
    psnr, ssim = (group.mean(data_set, what) for what in ("psnr", "ssim"))
    return None if psnr is None else Quality(psnr, ssim)


def published(result: Measurement | Group, data_set: str) -> Quality | None:
    """Return the quality in the papers, where the data set is a benchmark's, with or without `-test` in its name."""
    found = PUBLISHED.get(result.network or "", {}).get(data_set.removesuffix("-test"))
    return found and Quality(*found)


def best(groups: Sequence[Group], data_set: str) -> Quality | None:
    """Return the highest PSNR and SSIM measured, not necessarily of one method; None where fewer than two were."""
    found = [q for group in groups if group.network and (q := quality(group, data_set))]
    if len(found) == 1:
        return None  # of one there is no best
    return Quality(max(q.psnr for q in found), max(q.ssim or 0.0 for q in found)) if found else None


def cost(group: Group) -> list[str]:
    """Return the columns `COST`, empty for the rainy input."""
    if group.network is None:
        return [""] * len(COST)
    memory = f"{group.memory / 2**30:.2f} GiB" if group.memory else ""
    return [f"{group.parameters / 1e6:.2f} M", f"{group.macs / 1e9:.1f} G", f"{group.seconds:.3f}", memory]


def spread(group: Group, data_set: str, what: str, digits: int) -> str:
    """Return the deviation between trainings as it stands behind a mean; empty where there is one training."""
    deviation = group.spread(data_set, what)
    return "" if deviation is None else f" ± {deviation:.{digits}f}"


def markdown_table(results: Sequence[Measurement], conditions: Sequence[str]) -> str:
    """Write one row per method; bold is the best of those measured here, in parentheses stands what was published."""
    names, groups = data_sets(results), groups_of(results)
    rows = [["method", *COST, *(f"{escapes.markdown(name)}: PSNR / SSIM" for name in names)]]
    rows.append(["---"] * len(rows[0]))
    for group in groups:
        cells = []
        for name in names:
            ours, theirs, top = quality(group, name), published(group, name), best(groups, name)
            if ours is None:
                cells.append(f"({theirs})" if theirs else "")
                continue
            texts = [f"{ours.psnr:.2f}", f"{ours.ssim:.4f}"]
            if group.network and top:
                highest = [f"{top.psnr:.2f}", f"{top.ssim:.4f}"]
                texts = [f"**{a}**" if a == b else a for a, b in zip(texts, highest, strict=True)]
            texts = [f"{text}{spread(group, name, *of)}" for text, of in zip(texts, DIGITS.items(), strict=True)]
            cells.append(" / ".join(texts) + (f" ({theirs})" if theirs else ""))
        rows.append([escapes.markdown(group.title), *cost(group), *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    origins: dict[str, list[str]] = {}
    for result in results:
        if any(published(result, name) for name in names):
            origins.setdefault(NOTES[result.network or ""], []).append(result.network or "")
    sources = [f"Published of {', '.join(dict.fromkeys(networks))}: {origin}." for origin, networks in origins.items()]
    notes = "PSNR in dB. Measured here, in parentheses as published; bold: the best of those measured here."
    if any(len(group.members) > 1 for group in groups):
        notes += " Several trainings: mean ± standard deviation of their means."
    return "\n".join([table, "", notes, *map(escapes.markdown, (*sources, *conditions)), ""])


def csv_of_means(results: Sequence[Measurement]) -> bytes:
    """Write a CSV file with one line per method and data set."""
    titles = "method,network,data_set,pictures,psnr_db,ssim,published_psnr_db,published_ssim,parameters,macs"
    titles += ",seconds_per_picture,peak_memory_bytes,group,psnr_low_db,psnr_high_db,ssim_low,ssim_high"
    lines = [escapes.csv_line(titles.split(","))]
    for result in results:
        for name, scores in result.scores.items():
            theirs = published(result, name) or ("", "")
            costs = (result.parameters, result.macs, f"{scores.mean('seconds'):.4f}", result.memory)
            means = (len(scores.names), f"{scores.mean('psnr'):.4f}", f"{scores.mean('ssim'):.6f}")
            cells = (result.label, result.network or "", name, *means, *theirs)
            last = [result.group or result.label]
            for what in DIGITS:
                interval = interval_of_mean(list(filter(math.isfinite, getattr(scores, what))))
                last += [f"{end:.6f}" for end in interval] if interval else ["", ""]
            lines.append(escapes.csv_line((*cells, *(costs if result.network else [""] * len(costs)), *last)))
    return b"".join(lines)


def csv_of_pictures(results: Sequence[Measurement]) -> bytes:
    """Write a CSV file with one line per method, data set and picture."""
    lines = [escapes.csv_line(["method", "data_set", "picture", "psnr_db", "ssim", "seconds"])]
    for result in results:
        for name, scores in result.scores.items():
            for picture, psnr, ssim, time, _ in zip(*scores, strict=True):
                cells = result.label, name, picture, f"{psnr:.4f}", f"{ssim:.6f}", f"{time:.4f}"
                lines.append(escapes.csv_line(cells))
    return b"".join(lines)


def latex_table(results: Sequence[Measurement]) -> str:
    """Write a tabular for the booktabs package; published values are set small below the measured ones."""
    names, groups = data_sets(results), groups_of(results)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(COST)}{'cc' * len(names)}}}",
        r"\toprule",
        " & ".join(["", *[""] * len(COST), *(rf"\multicolumn{{2}}{{c}}{{{escapes.latex(name)}}}" for name in names)])
        + r" \\",
        " & ".join(["Method", "Params (M)", "MACs (G)", "Time (s)", "Memory (GiB)", *["PSNR", "SSIM"] * len(names)])
        + r" \\",
        r"\midrule",
    ]
    for group in groups:
        cells, below = [escapes.latex(group.title)], [""] * (1 + len(COST))
        if group.network:
            cells += [f"{group.parameters / 1e6:.2f}", f"{group.macs / 1e9:.1f}", f"{group.seconds:.3f}"]
            cells.append(f"{group.memory / 2**30:.2f}")
        else:
            cells += [""] * len(COST)
        for name in names:
            ours, theirs, top = quality(group, name), published(group, name), best(groups, name)
            for what, digits in DIGITS.items():
                value = f"{getattr(ours, what):.{digits}f}" if ours else "--"
                bold = ours and top and group.network and value == f"{getattr(top, what):.{digits}f}"
                deviation = spread(group, name, what, digits).replace(" ± ", r"\,$\pm$\,")
                cells.append((rf"\textbf{{{value}}}" if bold else value) + deviation)
                said = theirs and getattr(theirs, what)
                below.append(rf"{{\scriptsize ({'?' if said is None else f'{said:.{digits}f}'})}}" if theirs else "")
        lines.append(" & ".join(cells) + r" \\")
        if any(below):
            lines.append(" & ".join(below) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "% measured here; in parentheses as published", ""]
    return "\n".join(lines)
