"""A comparison as Markdown, CSV and LaTeX."""

from collections.abc import Sequence
from typing import NamedTuple

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


def quality(result: Measurement, data_set: str) -> Quality | None:
    """Return the quality that was measured here."""
    scores = result.scores.get(data_set)
    return scores and Quality(scores.mean("psnr"), scores.mean("ssim"))


def published(result: Measurement, data_set: str) -> Quality | None:
    """Return the quality in the papers, where the data set is a benchmark's, with or without `-test` in its name."""
    found = PUBLISHED.get(result.network or "", {}).get(data_set.removesuffix("-test"))
    return found and Quality(*found)


def best(results: Sequence[Measurement], data_set: str) -> Quality | None:
    """Return the highest PSNR and the highest SSIM measured, not necessarily of one method."""
    found = [q for result in results if result.network and (q := quality(result, data_set))]
    return Quality(max(q.psnr for q in found), max(q.ssim or 0.0 for q in found)) if found else None


def seconds(result: Measurement) -> float:
    """Return the mean time of a picture over all data sets."""
    times = [second for scores in result.scores.values() for second in scores.seconds]
    return sum(times) / len(times)


def cost(result: Measurement) -> list[str]:
    """Return the columns `COST`, empty for the rainy input."""
    if result.network is None:
        return [""] * len(COST)
    memory = f"{result.memory / 2**30:.2f} GiB" if result.memory else ""
    return [f"{result.parameters / 1e6:.2f} M", f"{result.macs / 1e9:.1f} G", f"{seconds(result):.3f}", memory]


def markdown_table(results: Sequence[Measurement], conditions: Sequence[str]) -> str:
    """Write one row per method; bold is the best of those measured here, in parentheses stands what was published."""
    names = data_sets(results)
    rows = [["method", *COST, *(f"{escapes.markdown(name)}: PSNR / SSIM" for name in names)]]
    rows.append(["---"] * len(rows[0]))
    for result in results:
        cells = []
        for name in names:
            ours, theirs, top = quality(result, name), published(result, name), best(results, name)
            if ours is None:
                cells.append(f"({theirs})" if theirs else "")
                continue
            texts = [f"{ours.psnr:.2f}", f"{ours.ssim:.4f}"]
            if result.network and top:
                highest = [f"{top.psnr:.2f}", f"{top.ssim:.4f}"]
                texts = [f"**{a}**" if a == b else a for a, b in zip(texts, highest, strict=True)]
            cells.append(" / ".join(texts) + (f" ({theirs})" if theirs else ""))
        rows.append([escapes.markdown(result.label), *cost(result), *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    origins: dict[str, list[str]] = {}
    for result in results:
        if any(published(result, name) for name in names):
            origins.setdefault(NOTES[result.network or ""], []).append(result.network or "")
    sources = [f"Published of {', '.join(dict.fromkeys(networks))}: {origin}." for origin, networks in origins.items()]
    notes = "PSNR in dB. Measured here, in parentheses as published; bold: the best of those measured here."
    return "\n".join([table, "", notes, *map(escapes.markdown, (*sources, *conditions)), ""])


def csv_of_means(results: Sequence[Measurement]) -> bytes:
    """Write a CSV file with one line per method and data set."""
    titles = "method,network,data_set,pictures,psnr_db,ssim,published_psnr_db,published_ssim,parameters,macs"
    lines = [escapes.csv_line(f"{titles},seconds_per_picture,peak_memory_bytes".split(","))]
    for result in results:
        for name, scores in result.scores.items():
            theirs = published(result, name) or ("", "")
            costs = (result.parameters, result.macs, f"{scores.mean('seconds'):.4f}", result.memory)
            means = (len(scores.names), f"{scores.mean('psnr'):.4f}", f"{scores.mean('ssim'):.6f}")
            cells = (result.label, result.network or "", name, *means, *theirs)
            lines.append(escapes.csv_line((*cells, *(costs if result.network else [""] * len(costs)))))
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
    names = data_sets(results)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(COST)}{'cc' * len(names)}}}",
        r"\toprule",
        " & ".join(["", *[""] * len(COST), *(rf"\multicolumn{{2}}{{c}}{{{escapes.latex(name)}}}" for name in names)])
        + r" \\",
        " & ".join(["Method", "Params (M)", "MACs (G)", "Time (s)", "Memory (GiB)", *["PSNR", "SSIM"] * len(names)])
        + r" \\",
        r"\midrule",
    ]
    for result in results:
        cells, below = [escapes.latex(result.label)], [""] * (1 + len(COST))
        if result.network:
            cells += [f"{result.parameters / 1e6:.2f}", f"{result.macs / 1e9:.1f}", f"{seconds(result):.3f}"]
            cells.append(f"{result.memory / 2**30:.2f}")
        else:
            cells += [""] * len(COST)
        for name in names:
            ours, theirs, top = quality(result, name), published(result, name), best(results, name)
            for what, digits in (("psnr", 2), ("ssim", 4)):
                value = f"{getattr(ours, what):.{digits}f}" if ours else "--"
                bold = ours and top and result.network and value == f"{getattr(top, what):.{digits}f}"
                cells.append(rf"\textbf{{{value}}}" if bold else value)
                below.append(rf"{{\scriptsize ({getattr(theirs, what):.{digits}f})}}" if theirs else "")
        lines.append(" & ".join(cells) + r" \\")
        if any(below):
            lines.append(" & ".join(below) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "% measured here; in parentheses as published", ""]
    return "\n".join(lines)
