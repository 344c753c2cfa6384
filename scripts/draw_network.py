"""Draw docs/network.svg after the code, and let docs/network.md link each class at the line where it stands.

Numbers come from a DRSformer with its default arguments; masks are made by its own `top_k`. --check only compares.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch

from drsformer_arch.archs.drsformer_arch import EXPERTS, STEPS, TOP_K_SHARES, DRSformer, top_k

ROOT = Path(__file__).parents[1]
PICTURE, PAGE = ROOT / "docs/network.svg", ROOT / "docs/network.md"
WIDTH, HEIGHT = 760, 2020
CLASS_LINK = re.compile(r"\[`(\w+)`\]\((\.\./drsformer_arch/archs/\w+\.py)(?:#L\d+)?\)")
STYLE = """
  :root { --paper: #fff; --ink: #1d2733; --soft: #5b6773; --line: #4a5562; --frame: #d5dbe1;
    --plain: #eef1f4; --level: #dbe9fb; --attention: #e3f3e4; --feed: #f3e6f7; --experts: #fdebd3; --kept: #2f7d3b; }
  @media (prefers-color-scheme: dark) { :root { --paper: #1b2027; --ink: #e6ebf0; --soft: #a3afbb; --line: #95a2af;
    --frame: #3a444f; --plain: #2c343d; --level: #22405f; --attention: #254a2b; --feed: #4a2d55; --experts: #5a4120;
    --kept: #7fd08b; } }
  text { font: 13px system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: var(--ink); }
  .name { font-weight: 600; } .small { font-size: 12px; fill: var(--soft); }
  .title { font-size: 16px; font-weight: 700; } .middle { text-anchor: middle; } .end { text-anchor: end; }
  .paper { fill: var(--paper); } .frame { fill: none; stroke: var(--frame); }
  .box { stroke: var(--line); } a:hover .box { stroke-width: 2.5; } a:focus-visible .box { stroke-width: 3; }
  .plain { fill: var(--plain); } .level { fill: var(--level); } .attention { fill: var(--attention); }
  .feed { fill: var(--feed); } .experts { fill: var(--experts); } .sum { fill: var(--paper); }
  .line { fill: none; stroke: var(--line); stroke-width: 1.4; } .skip { stroke-dasharray: 5 4; }
  .arrow { fill: var(--line); } .kept { fill: var(--kept); } .grid { fill: none; stroke: var(--line); }
"""
parts: list[str] = []


def text(x: float, y: float, words: str, kind: str = "") -> None:
    words = re.sub("(?<![a-z])x(?![a-z])", "\N{MULTIPLICATION SIGN}", words)
    parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>')


def box(place: tuple[float, float, float, float], lines: Sequence[str], kind: str, section: str, subject: str) -> None:
    """Draw a box at (left, top, width, height) with centred lines, the first in bold, that links a section of the page.

    Its title, `subject`, begins with the name of a class.
    """
    x, y, w, h = place
    parts.append(f'<a href="network.html#{section}" target="_top"><title>{escape(subject)}</title>')
    parts.append(f'<rect class="box {kind}" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6"/>')
    for number, words in enumerate(lines):
        baseline = y + h / 2 + 4.5 + (number - (len(lines) - 1) / 2) * 17
        text(x + w / 2, baseline, words, "middle name" if not number else "middle small")
    parts.append("</a>")


def arrow(*points: tuple[float, float], kind: str = "", head: bool = True) -> None:
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    end = ' marker-end="url(#head)"' if head else ""
    parts.append(f'<path class="line {kind}" d="{path}"{end}/>')


def circle(x: float, y: float, sign: str, meaning: str) -> None:
    parts.append(f'<g><title>{escape(meaning)}</title><circle class="box sum" cx="{x:g}" cy="{y:g}" r="12"/>')
    text(x, y + 5, sign, "middle name")
    parts.append("</g>")


def panel(top: float, height: float, title: str, note: str, section: str) -> None:
    parts.append(f'<rect class="frame" x="10" y="{top:g}" width="{WIDTH - 20}" height="{height:g}" rx="8"/>')
    parts.append(f'<a href="network.html#{section}" target="_top">')
    text(26, top + 27, title, "title")
    parts.append("</a>")
    text(WIDTH - 26, top + 27, note, "small end")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def level_box(net: DRSformer, name: str, level: int, x: float, y: float) -> None:
    blocks = net.get_submodule(name)
    attention = blocks[0].attn
    size = "H x W" if level == 1 else f"H/{2 ** (level - 1)} x W/{2 ** (level - 1)}"
    lines = [
        name,
        f"{plural(len(blocks), 'block')}, {plural(attention.heads, 'head')}",
        f"{attention.project_out.out_channels} x {size}",
    ]
    box((x, y, 180, 66), lines, "level", "the-u", f"Level {name}: so many SparseTransformerBlock")


def resampling(net: DRSformer, name: str, x: float, y: float) -> None:
    channels = net.get_submodule(name).body[0].in_channels
    kind, after = ("Downsample", 2 * channels) if name.startswith("down") else ("Upsample", channels // 2)
    subject = f"{kind} {name}: {'half' if kind == 'Downsample' else 'twice'} the size"
    box((x - 82, y - 14, 164, 28), [f"{name}: {channels} → {after}"], "plain", "resampling", subject)


def draw_u(net: DRSformer) -> None:
    draw_ends(net)
    rows = {1: 232, 2: 366, 3: 500, 4: 634}
    for level in (1, 2, 3):
        draw_level(net, level, rows)
    level_box(net, "latent", 4, 290, rows[4])


def draw_ends(net: DRSformer) -> None:
    colours, dim = net.patch_embed.proj.weight.shape[1], net.patch_embed.proj.out_channels
    left, right = 20, 560
    box((left, 20, 180, 44), ["rainy picture", f"{colours} x H x W"], "sum", "the-u", "DRSformer takes a picture")
    box((right, 20, 180, 44), ["derained picture", f"{colours} x H x W"], "sum", "the-u", "DRSformer returns one")
    box((left, 86, 180, 44), ["patch_embed", f"3x3, {colours} → {dim}"], "plain", "the-u", "PatchEmbedding patch_embed")
    box((right, 86, 180, 44), ["output", f"3x3, {net.output.in_channels} → {net.output.out_channels}"], "plain",
        "the-u", "DRSformer output: a convolution")  # fmt: skip
    for name, x in (("encoder_level0", left), ("refinement", right)):
        channels = net.get_submodule(name).layers[0].ca_fc[0].in_features
        box((x, 152, 180, 58), [name, "MEFC", f"{channels} x H x W"], "experts", "mefc",
            f"MixtureOfExpertsFeatureCompensator {name}")  # fmt: skip
    circle(456, 42, "+", "sum: the network predicts what is to be added to the picture")
    arrow((200, 42), (442, 42), kind="skip")
    arrow((468, 42), (558, 42))
    arrow((560, 108), (456, 108), (456, 56))
    text(330, 34, "the picture itself", "small middle")
    for above, below in ((64, 86), (130, 152), (210, 232)):
        arrow((110, above), (110, below - 2))
        if above > 64:
            arrow((650, below), (650, above + 2))


def draw_level(net: DRSformer, level: int, rows: dict[int, int]) -> None:
    y, x = rows[level], 20 + 32 * (level - 1)
    middle, decoder = y + 33, WIDTH - 180 - x
    joint = decoder - 104
    level_box(net, f"encoder_level{level}", level, x, y)
    level_box(net, f"decoder_level{level}", level, decoder, y)
    arrow((x + 180, middle), (joint - 14, middle), kind="skip")
    text((x + 180 + joint) / 2, middle - 8, "skip", "small middle")
    circle(joint, middle, "c", "concatenation: up-sampled channels first, then those of the skip")
    if level == 1:
        arrow((joint + 12, middle), (decoder - 2, middle))
        text(joint + 58, middle - 8, "not reduced", "small middle")
    else:
        reduction = net.get_submodule(f"reduce_chan_level{level}")
        arrow((joint + 12, middle), (joint + 21, middle))
        box((joint + 22, middle - 22, 70, 44), ["1x1", f"{reduction.in_channels}→{reduction.out_channels}"],
            "plain", "resampling", f"ChannelReduction reduce_chan_level{level}")  # fmt: skip
        arrow((joint + 92, middle), (decoder - 2, middle))
    gap = y + 66 + 34
    if level < 3:
        arrow((x + 106, y + 66), (x + 106, rows[level + 1] - 2))
        below = decoder + 88
        arrow((below, rows[level + 1]), (below, gap), (joint, gap), (joint, middle + 14))
        resampling(net, f"up{level + 1}_{level}", joint + 94, gap)
    else:
        arrow((x + 90, y + 66), (x + 90, rows[4] + 33), (288, rows[4] + 33))
        arrow((joint, rows[4]), (joint, middle + 14))
        resampling(net, "up4_3", joint, gap)
    resampling(net, f"down{level}_{level + 1}", x + (106 if level < 3 else 90), gap)


def draw_block(top: float) -> None:
    panel(top, 150, "Sparse transformer block", "equation 1; all C x H x W", "sparse-transformer-block")
    y = top + 100
    arrow((30, y), (88, y))
    for x, name, kind, subject in ((90, "TKSA", "attention", "TopKSparseAttention"),
                                   (400, "MSFN", "feed", "MixedScaleFeedForward")):  # fmt: skip
        box((x, y - 22, 84, 44), ["norm"], "plain", "norm", "LayerNorm of the channels of each pixel")
        arrow((x + 84, y), (x + 106, y))
        box((x + 108, y - 22, 100, 44), [name], kind, name.lower(), subject)
        arrow((x + 208, y), (x + 232, y))
        circle(x + 246, y, "+", "sum")
        arrow((x - 28, y), (x - 28, y - 44), (x + 246, y - 44), (x + 246, y - 14), kind="skip")
        arrow((x + 258, y), (x + 308 if x < 400 else x + 320, y))


def draw_masks(x: float, y: float, scores: torch.Tensor, kept: int, cell: float) -> None:
    side = len(scores) * cell
    rows = top_k(scores, kept).isfinite()
    cells = "".join(f"M{x + j * cell:g} {y + i * cell:g}h{cell}v{cell}h-{cell}z" for i, j in rows.nonzero().tolist())
    parts.append(f'<path class="kept" d="{cells}"/><rect class="grid" x="{x}" y="{y}" width="{side}" height="{side}"/>')


def draw_attention(top: float, net: DRSformer) -> None:
    attention = net.encoder_level1[0].attn
    section = "tksa"
    panel(top, 420, "TKSA: top-k sparse attention", "equations 2 and 3; c = C/heads channels per head", section)
    subject = "TopKSparseAttention"
    y = top + 115
    arrow((24, y), (38, y))
    box((40, y - 22, 92, 44), ["1x1", "C → 3C"], "attention", section, f"{subject} qkv")
    arrow((132, y), (150, y))
    box((152, y - 22, 100, 44), ["3x3", "depth-wise"], "attention", section, f"{subject} qkv_dwconv")
    arrow((252, y), (270, y), head=False)
    for name, dy, words in (("v", -52, "c x HW"), ("q", 0, "each row of length 1"), ("k", 52, "each row of length 1")):
        arrow((270, y), (270, y + dy), (290, y + dy))
        box((292, y + dy - 20, 140, 40), [name, words], "plain", section, f"{subject} forward: {name}")
    box((478, y + 4, 96, 44), ["q kᵀ · τ", "cosines"], "attention", section, f"{subject} scores, temperature")
    arrow((432, y), (456, y), (456, y + 20), (476, y + 20))
    arrow((432, y + 52), (456, y + 52), (456, y + 32), (476, y + 32))
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(10, 10, generator=generator)
    arrow((574, y + 26), (596, y + 26))
    cells = []
    for i, row in enumerate(scores.tolist()):
        cells += [
            f'<path class="kept" fill-opacity="{value:.1f}" d="M{598 + 6 * j} {y - 4 + 6 * i:g}h6v6h-6z"/>'
            for j, value in enumerate(row)
        ]
    parts.append("".join(cells) + f'<rect class="grid" x="598" y="{y - 4:g}" width="60" height="60"/>')
    text(628, y - 12, "scores, c x c", "small middle")
    bus, masks = top + 200, top + 240
    arrow((628, y + 56), (628, bus), (76, bus), head=False)
    for number, ((numerator, denominator), kept) in enumerate(zip(TOP_K_SHARES, attention.top_k, strict=True)):
        x = 36 + 138 * number
        arrow((x + 40, bus), (x + 40, masks - 22))
        text(x + 40, masks - 7, f"k = {numerator}/{denominator} c", "small middle")
        draw_masks(x, masks, scores, 10 * numerator // denominator, 8)
        text(x + 86, masks + 44, f"{kept}", "name")
        arrow((x + 40, masks + 80), (x + 40, masks + 92))
        box((x - 14, masks + 94, 108, 44), ["softmax", f"x attn{number + 1}"], "attention", section,
            f"{subject} attn{number + 1}: equation 2")  # fmt: skip
        arrow((x + 40, masks + 138), (x + 40, masks + 158), head=False)
    text(36, masks + 174, f"Bold: the k of level 1, where c = {attention.project_out.out_channels // attention.heads}.",
         "small")  # fmt: skip
    out = masks + 116
    arrow((76, masks + 158), (560, masks + 158), (560, out), (580, out), head=False)
    arrow((560, out), (574, out))
    box((576, out - 22, 44, 44), ["Σ", "· v"], "attention", section, f"{subject} forward: equation 2")
    arrow((432, y - 52), (716, y - 52), (716, out - 66), (598, out - 66), (598, out - 24))
    arrow((620, out), (632, out))
    box((634, out - 22, 80, 44), ["1x1", "C → C"], "attention", section, f"{subject} project_out")
    arrow((714, out), (742, out))


def draw_feed_forward(top: float, net: DRSformer) -> None:
    feed = net.encoder_level1[0].ffn
    channels, hidden = feed.project_in.in_channels, feed.project_out.in_channels // 2
    section, subject = "msfn", "MixedScaleFeedForward"
    panel(top, 224, "MSFN: mixed-scale feed-forward", f"h = 2.66 C, rounded down: {hidden} for C = {channels}", section)
    y, above, below = top + 124, top + 84, top + 164
    arrow((24, y), (38, y))
    box((40, y - 22, 84, 44), ["1x1", "C → 2h"], "feed", section, f"{subject} project_in")
    for row, kernel in ((above, 3), (below, 5)):
        arrow((124, y), (144, y), (144, row), (162, row))
        box((164, row - 26, 132, 52), [f"{kernel}x{kernel}, ReLU", "depth-wise, 2h"], "feed", section,
            f"{subject} dwconv{kernel}x{kernel}")  # fmt: skip
        for other, shift in ((above, -10), (below, 10)):
            arrow((296, row + shift), (322, row + shift), (384, other - shift if other != row else row + shift),
                  (410, other - shift if other != row else row + shift))  # fmt: skip
        box((412, row - 26, 132, 52), [f"{kernel}x{kernel}, ReLU", "h groups, 2h → h"], "feed", section,
            f"{subject} dwconv{kernel}x{kernel}_1")  # fmt: skip
        arrow((544, row), (580, row), (580, y), (606, y))
    text(353, above - 18, "first halves", "small middle")
    text(353, below + 26, "second halves", "small middle")
    box((608, y - 22, 84, 44), ["1x1", "2h → C"], "feed", section, f"{subject} project_out")
    arrow((692, y), (734, y))


def draw_experts(top: float, net: DRSformer) -> None:
    gate = net.encoder_level0.layers[0].ca_fc
    section = "mefc"
    note = f"{STEPS} steps of {len(EXPERTS)} experts"
    panel(top, 440, "MEFC: mixture of experts feature compensator", note, section)
    y, body = top + 72, top + 152
    arrow((24, body), (94, body))
    arrow((46, body), (46, y), (64, y))
    gates = (
        ((66, 110), ["mean", "of all pixels"]),
        ((194, 124), ["linear, ReLU", f"C → {gate[0].out_features}"]),
        ((336, 124), ["linear", f"{gate[2].in_features} → {gate[2].out_features}"]),
        ((478, 180), ["softmax", f"gates: {STEPS} steps x {len(EXPERTS)} experts"]),
    )
    for number, ((x, width), lines) in enumerate(gates):
        box((x, y - 22, width, 44), lines, "experts", section, "ExpertGate")
        if number < len(gates) - 1:
            arrow((x + width, y), (gates[number + 1][0][0] - 2, y))
    box((96, body - 20, 110, 40), ["1x1, ReLU"], "experts", section, "PointwiseReLU preprocess")
    for number in range(STEPS):
        x = 234 + 122 * number
        arrow((x - 28 if number == 0 else x - 22, body), (x - 2, body))
        box((x, body - 20, 100, 40), [f"step {number + 1}"], "experts", section, f"ExpertStep {number}")
        arrow((x + 50, y + 36), (x + 50, body - 22))
    arrow((568, y + 22), (568, y + 36), (284, y + 36), head=False)
    arrow((568, y + 36), (650, y + 36), head=False)
    arrow((700, body), (736, body))
    inside = top + 196
    text(26, inside + 10, "A step:", "name")
    bus, first = inside + 30, 40
    arrow((24, bus), (first + 80 * (len(EXPERTS) - 1) + 36, bus), head=False)
    for number, (kind, kernel) in enumerate(EXPERTS):
        x = first + 80 * number
        arrow((x + 36, bus), (x + 36, bus + 18))
        box(
            (x, bus + 20, 72, 46), [f"{kernel}x{kernel}", kind], "experts", section, f"Expert {number}: {kind} {kernel}"
        )
        arrow((x + 36, bus + 66), (x + 36, bus + 82))
        text(x + 36, bus + 97, f"x gate {number + 1}", "small middle")
        arrow((x + 36, bus + 102), (x + 36, bus + 120), head=False)
    join, out = bus + 120, bus + 158
    arrow((first + 36, join), (first + 80 * (len(EXPERTS) - 1) + 36, join), head=False)
    arrow((330, join), (330, out - 24))
    box((250, out - 22, 160, 44), ["1x1, ReLU", f"{len(EXPERTS)}C → C"], "experts", section, "ExpertStep _out")
    arrow((410, out), (446, out))
    circle(460, out, "+", "sum with the input of the step")
    arrow((30, bus), (30, out + 40), (460, out + 40), (460, out + 14), kind="skip")
    arrow((472, out), (498, out))
    box((500, out - 20, 70, 40), ["ReLU"], "experts", section, "ExpertStep forward: ReLU after the sum")
    arrow((570, out), (612, out))


def drawing() -> str:
    with torch.device("meta"):
        net = DRSformer()
    parts.clear()
    draw_u(net)
    draw_block(730)
    draw_attention(894, net)
    draw_feed_forward(1328, net)
    draw_experts(1566, net)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title">\n'
        '<title id="title">DRSformer: a U of four levels, and what its blocks are made of</title>\n'
        f"<style>{STYLE}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="arrow" d="M0 0L8 4L0 8z"/></marker></defs>\n'
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def with_lines(page: str) -> str:
    """The page with every link of a class leading to its line."""

    def linked(match: re.Match[str]) -> str:
        source = (PAGE.parent / match[2]).read_text(encoding="utf-8").splitlines()
        starts = [number for number, line in enumerate(source, 1) if re.match(rf"(class|def) {match[1]}\b", line)]
        if not starts:
            raise SystemExit(f"{PAGE}: no {match[1]} in {match[2]}")
        return f"[`{match[1]}`]({match[2]}#L{starts[0]})"

    return CLASS_LINK.sub(linked, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where the files are not what they should be")
    check = parser.parse_args().check
    wanted = {PICTURE: drawing(), PAGE: with_lines(PAGE.read_text(encoding="utf-8"))}
    changed = [
        path for path, content in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != content
    ]
    for path in changed:
        if not check:
            path.write_text(wanted[path], encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'differs; run python scripts/draw_network.py' if check else 'written'}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
