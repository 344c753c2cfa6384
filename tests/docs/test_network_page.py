"""docs/network.svg and docs/network.md say what the code does."""

import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from drsformer_arch import DRSformer
from drsformer_arch.archs import drsformer_arch, u_shape

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/network.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"
BOXES = [link for link in ET.parse(ROOT / "docs/network.svg").iter(f"{SVG}a") if link.find(f"{SVG}title") is not None]


def words(box: ET.Element) -> list[str]:
    return [(line.text or "").replace("\N{MULTIPLICATION SIGN}", "x") for line in box.findall(f"{SVG}text")]


def test_drawing_and_page_are_those_that_the_script_makes():
    specification = importlib.util.spec_from_file_location("draw_network", ROOT / "scripts/draw_network.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    again = "python scripts/draw_network.py"
    assert (ROOT / "docs/network.svg").read_text(encoding="utf-8") == script.drawing(), again
    assert script.with_lines(PAGE) == PAGE, again


def test_each_box_leads_to_the_section_of_its_class():
    sections = {
        re.sub(r"\W+", "-", title.lower()): text
        for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    }
    assert len(BOXES) > 50
    for box in BOXES:
        kind = (box.findtext(f"{SVG}title") or "").split()[0]
        assert isinstance(getattr(drsformer_arch, kind, getattr(u_shape, kind, None)), type), kind
        page, _, section = box.get("href", "").partition("#")
        assert page == "network.html"
        assert f"[`{kind}`]" in sections[section]


def test_equations_are_those_that_the_code_names():
    source = Path(drsformer_arch.__file__).read_text(encoding="utf-8")
    picture = (ROOT / "docs/network.svg").read_text(encoding="utf-8")
    for text in (PAGE, picture):
        numbers = set(re.findall(r"equations? (\d)", text)) | set(re.findall(r"equations \d and (\d)", text))
        assert numbers == set(re.findall(r"equation (\d)", source))


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[torch.Size, torch.Size]]:
    """Return the shapes that go into and come out of each part of the published network, for a picture of 16x24."""
    net, shapes = DRSformer().eval(), {}
    for name, module in net.named_modules():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: shapes.update({name: (inputs[0].shape[1:], output.shape[1:])})
        )
    with torch.no_grad():
        net(torch.rand(1, 3, 16, 24))
    return shapes


def test_channels_sizes_and_blocks_are_those_of_a_forward(shapes):
    net, checked = DRSformer(), 0
    for box in BOXES:
        name, *rest = words(box)
        if name in shapes and " x H" in rest[-1]:  # a level: its shape
            channels, *sides = rest[-1].split(" x ")
            divisors = [int(side[2:] or 1) for side in sides]
            assert shapes[name][1] == (int(channels), 16 // divisors[0], 24 // divisors[1]), name
            if rest[0] != "MEFC":
                blocks, heads = map(int, re.findall(r"\d+", rest[0]))
                level = net.get_submodule(name)
                assert (blocks, heads) == (len(level), level[-1].attn.heads), name
            checked += 1
        elif " → " in name:  # resampling
            part, before, after = re.fullmatch(r"(\w+): (\d+) → (\d+)", name).groups()
            assert [shape[0] for shape in shapes[part]] == [int(before), int(after)], part
            checked += 1
        elif "reduce_chan" in (box.findtext(f"{SVG}title") or ""):
            part = box.findtext(f"{SVG}title").split()[1]
            assert [shape[0] for shape in shapes[part]] == [int(number) for number in rest[0].split("→")], part
            checked += 1
    assert checked == 17
