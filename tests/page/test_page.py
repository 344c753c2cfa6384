"""The page of results: in a real browser what a visitor can do, without one what is written."""

import json
import math
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from drsformer_arch.cli import main
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.page.page import Exhibit, write_page
from drsformer_arch.page.previews import LARGEST_SIDE, residual_map
from drsformer_arch.plot.curves import ITERATIONS, SECONDS, Curve, read_curves
from drsformer_arch.system.errors import UserError, printable
from tests.page.browsers import CONTRASTS, expect, until, wait_until

RAINY, RESULT, TARGET = (200, 40, 40), (40, 160, 40), (40, 40, 200)
HOSTILE = (
    "<img src=x onerror=hacked=1>",
    '"><script>hacked=1</script>',
    "</script><script>hacked=1</script>",
    "' onclick='hacked=1",
    "&lt;b&gt;",
    "bytes \udcff",
    "lines\u2028 \x1b[31m \u202e `${hacked=1}`",
)


def plain(colour: tuple[int, ...], height: int = 80, width: int = 120) -> Callable[[], np.ndarray]:
    return lambda: np.full((height, width, len(colour)), colour, np.uint8)


def exhibit(index: int) -> Exhibit:
    """Make an exhibit whose scores grow with the index but for the first ones, which are special."""
    scores = {"psnr_rain200": 5 + index / 2, "input_psnr_rain200": 21.0, "niqe": 9 - index / 10}
    if index == 0:
        scores = {"psnr_rain200": math.inf, "input_psnr_rain200": math.inf}
    if index == 1:
        scores = {}
    return Exhibit(f"picture {index}", plain(RESULT), plain(TARGET), plain(RAINY), scores)


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "sixty.html"
    curves = [
        Curve("loss l_pix", "", run, [(10 * step, factor / step) for step in range(1, 300)])
        for run, factor in (("small", 0.1), ("large", 0.2))
    ]
    curves.append(Curve("PSNR of test (rain200)", "dB", "small", [(1000, 25.0), (2000, 27.5)]))
    png = cv2.imencode(".png", plain(TARGET)())[1].tobytes()
    write_page(
        path,
        map(exhibit, range(60)),
        title="Sixty pictures",
        facts=[("Network", "DRSformer")],
        curves=curves,
        overview=[("All methods", png, "one colour")],
    )
    return path


def expect_names(page: Any, names: list[str]) -> None:
    """Assert that the table names these, in this order."""
    expect(page.locator("tbody tr:visible th")).to_have_text(names)


def decoded(page: Any) -> int:
    return page.evaluate("document.querySelectorAll('.card img[src^=blob]').length")


def expect_colours(page: Any, stage: Any, *, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Assert what is seen in a stage at 20 % and 80 % of its width."""

    def seen() -> bool:
        picture = cv2.imdecode(np.frombuffer(stage.screenshot(), np.uint8), cv2.IMREAD_COLOR_RGB)
        height, width = picture.shape[:2]
        places = ((0.2, left), (0.8, right))
        return all(near(tuple(map(int, picture[height * 4 // 5, int(width * x)])), colour) for x, colour in places)

    until(page, seen)


def near(seen: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(seen, expected, strict=True)) <= 8


def test_the_divider_moves_by_keyboard_and_mouse_and_pictures_can_be_exchanged(sixty, visit):
    page = visit(sixty)
    card = page.locator(".card").first
    stage, slider = card.locator(".stage"), card.locator("input[type=range]")
    stage.scroll_into_view_if_needed()
    expect_colours(page, stage, left=RAINY, right=RESULT)

    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("51")
    page.keyboard.press("End")
    expect_colours(page, stage, left=RAINY, right=RAINY)
    expect(slider).to_have_attribute("aria-valuetext", "100 % rainy, 0 % result")
    expect(stage).to_have_css("outline-style", "solid")
    page.keyboard.press("Home")
    expect_colours(page, stage, left=RESULT, right=RESULT)

    box = stage.bounding_box()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 20)  # anywhere, not only on the handle
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 30, steps=3)
    page.mouse.up()
    expect(slider).to_have_value("90")
    expect_colours(page, stage, left=RAINY, right=RAINY)

    card.get_by_role("group", name="left").get_by_label("target").check()
    card.get_by_role("group", name="right").get_by_label("residual").check()
    expect_colours(page, stage, left=TARGET, right=TARGET)  # up to the divider
    slider.focus()
    page.keyboard.press("Home")
    residual = tuple(map(int, residual_map(plain(RESULT)(), plain(TARGET)())[0, 0]))
    expect_colours(page, stage, left=residual, right=residual)
    expect(card.get_by_text("32 of 255 and more")).to_be_visible()


def test_a_finger_moves_the_divider_sideways_and_scrolls_the_page_upwards(sixty, visit):
    page = visit(sixty, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page.locator(".card .stage").first.scroll_into_view_if_needed()
    box = page.locator(".card .stage").first.bounding_box()
    touch = page.context.new_cdp_session(page)

    def swipe(*points: tuple[float, float]) -> None:
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for at, (right, down) in enumerate(points):
            kind = "touchMove" if at else "touchStart"
            place = {"x": x + right, "y": y + down}
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [place]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    slider = page.locator(".card input[type=range]").first
    swipe(*((step, 0) for step in range(0, 90, 10)))
    moved = f"{50 + 100 * 80 / box['width']:.0f}"
    expect(slider).to_have_value(moved)
    before = page.evaluate("scrollY")
    swipe(*((-step / 20, -step) for step in range(0, 160, 10)))
    wait_until(page, f"scrollY > {before} + 50")
    expect(slider).to_have_value(moved)


def test_zoom_and_lightbox(sixty, visit):
    page = visit(sixty)
    card = page.locator(".card").first
    width = lambda where: where.locator(".layers").bounding_box()["width"]  # noqa: E731
    card.get_by_role("button", name=re.compile("^1:1")).click()
    until(page, lambda: width(card) == pytest.approx(120))
    card.get_by_role("button", name=re.compile("^1:1")).click()
    until(page, lambda: width(card) > 400)

    shown = page.locator("tbody tr:visible th").all_inner_texts()
    card.get_by_role("button", name=re.compile("^Enlarge")).click()
    box = page.get_by_role("dialog")
    box.locator("img.left[src]").wait_for()
    heading = box.get_by_role("heading")
    expect(heading).to_have_text(shown[0])
    page.keyboard.press("ArrowRight")
    expect(heading).to_have_text(shown[1])
    box.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")  # here it moves the divider
    expect(box.get_by_role("slider")).to_have_value("51")
    expect(heading).to_have_text(shown[1])
    box.get_by_label("4:1").check()
    until(page, lambda: width(box) == pytest.approx(480))
    box.get_by_role("button", name="Next picture").click()
    expect(heading).to_have_text(shown[2])
    expect(box.get_by_label("4:1")).to_be_checked()
    expect(box.locator(".window")).to_have_attribute("tabindex", "0")
    page.keyboard.press("Escape")
    box.wait_for(state="hidden")
    expect(page.get_by_role("button", name=f"Enlarge {shown[2]}", exact=True)).to_be_focused()


def test_table_and_gallery_are_sorted_numerically_and_filtered(sixty, visit):
    page = visit(sixty)
    worst_first = [f"picture {index}" for index in (*range(2, 60), 0, 1)]  # infinite is best, missing is last
    expect_names(page, worst_first)
    expect(page.locator(".card h3")).to_have_text(worst_first)
    psnr, niqe = (page.get_by_role("columnheader", name=name, exact=True) for name in ("PSNR dB (rain200)", "NIQE"))
    expect(psnr).to_have_attribute("aria-sort", "ascending")
    psnr.get_by_role("button").click()
    expect(psnr).to_have_attribute("aria-sort", "descending")
    expect_names(page, [f"picture {index}" for index in (0, *range(59, 1, -1), 1)])
    niqe.get_by_role("button").click()
    expect_names(page, [f"picture {index}" for index in (*range(59, 1, -1), 0, 1)])
    expect(psnr).to_have_attribute("aria-sort", "none")
    expect(page.get_by_role("combobox", name="Order")).to_have_value("best")  # the lowest NIQE is
    page.get_by_role("combobox", name="Order").select_option("by name")
    expect_names(page, [f"picture {index}" for index in range(60)])  # 2 before 10
    gain = page.locator("tbody tr").nth(3).locator("td").nth(3)
    expect(gain).to_have_text("\N{MINUS SIGN}14.50")
    expect(gain).to_have_class("loss")

    page.get_by_role("searchbox", name="Name").fill("E 1")
    expect_names(page, [f"picture {index}" for index in (1, *range(10, 20))])
    expect(page.locator(".card:visible")).to_have_count(11)
    expect(page.get_by_role("status").filter(has_text="11 of 60")).to_have_count(1)
    page.get_by_role("link", name="picture 19").click()
    wait_until(page, "document.querySelector('#picture-19').getBoundingClientRect().top < innerHeight")
    page.get_by_role("searchbox", name="Name").fill("nothing")
    expect(page.get_by_text("No picture has such a name")).to_be_visible()


def test_only_pictures_near_the_view_are_decoded(sixty, visit):
    page = visit(sixty)
    page.locator(".card").first.scroll_into_view_if_needed()
    page.locator(".card img[src]").first.wait_for()
    counts = []
    for at in (0, 10, 20, 30, 45, 59):
        card = page.locator(".card").nth(at)
        card.scroll_into_view_if_needed()
        card.locator("img.left[src]").wait_for()
        counts.append(decoded(page))
    assert max(counts) <= 30  # of 120
    expect(page.locator(".card").first.locator("img[src]")).to_have_count(0)


def test_curves_can_be_read(sixty, visit):
    page = visit(sixty)
    panel = page.get_by_role("figure").filter(has_text="loss l_pix")
    expect(panel.get_by_text("log scale")).to_be_visible()
    expect(panel.locator("li")).to_have_text(["small 3.34e-4 at 2,990", "large 6.69e-4 at 2,990"])
    panel.get_by_role("img").focus()
    page.keyboard.press("Home")
    expect(panel.locator("li")).to_have_text(["small 0.1", "large 0.2"])
    box = panel.get_by_role("img").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 50)
    expect(panel.get_by_text("iteration 2,990")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_read_it_on_a_phone(scheme, sixty, visit):
    page = visit(sixty, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True, is_mobile=True)
    page.locator(".panel text").first.wait_for(state="attached")  # the curves are drawn
    page.locator(".card").first.scroll_into_view_if_needed()
    page.locator(".card img[src]").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("[...document.images].filter((image) => !image.alt).length") == 0
    unnamed = "(e) => !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim()"
    assert page.evaluate(f"[...document.querySelectorAll('input, select, button')].filter({unnamed}).length") == 0
    page.get_by_role("button", name=re.compile("^Enlarge")).first.tap()
    page.get_by_role("dialog").locator("img.left[src]").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(CONTRASTS) == []


def test_names_cannot_do_anything(tmp_path, visit):
    path = tmp_path / "hostile.html"
    write_page(
        path,
        [Exhibit(name, plain(RESULT), scores={name: 1.0}) for name in HOSTILE],
        title=HOSTILE[2],
        facts=[(name, name) for name in HOSTILE],
        curves=[Curve(name, name, name, [(1, 1), (2, math.inf), (3, 2)]) for name in HOSTILE],
        overview=[(HOSTILE[0], b"", HOSTILE[1])],
    )
    page = visit(path)
    assert not set("\x1b\u202e\u2028") & set(path.read_text(encoding="utf-8"))
    expected = [printable(name) for name in HOSTILE]
    assert sorted(page.locator(".card h3").all_text_contents()) == sorted(expected)
    assert page.locator(".panel h3").evaluate_all("all => all.map((e) => e.firstChild.data)") == expected
    page.get_by_role("button", name=re.compile("^Enlarge")).first.click()
    heading = page.get_by_role("dialog").get_by_role("heading")
    first = heading.text_content()
    page.keyboard.press("ArrowRight")
    expect(heading).not_to_have_text(first)
    assert page.evaluate("typeof hacked") == "undefined"
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert "unsafe" not in policy  # even markup that was not escaped would not run


def test_without_javascript_table_and_thumbnails_are_there(sixty, visit):
    page = visit(sixty, java_script_enabled=False)
    assert page.locator("noscript p").is_visible()
    assert page.locator("tbody tr").count() == 60
    assert page.locator("tbody img").first.bounding_box()["width"] > 40
    assert page.locator("tbody tr").nth(2).locator("td").nth(1).inner_text() == "6.00"
    assert not page.locator("form.tools").is_visible()


@pytest.mark.parametrize("others", [{}, {"rainy": RAINY}, {"target": TARGET}])
def test_pages_with_less(others, tmp_path, visit):
    loaders = {kind: plain(colour) for kind, colour in others.items()}
    write_page(tmp_path / "less.html", [Exhibit("a", plain(RESULT), **loaders)], title="Less")
    page = visit(tmp_path / "less.html")
    stage = page.locator(".card .stage")
    expect_colours(page, stage, left=next(iter(others.values()), RESULT), right=RESULT)
    assert page.get_by_role("slider").count() == len(others)
    assert page.get_by_role("columnheader").count() == 2
    assert page.get_by_text("what was removed").count() == ("rainy" in others)


def test_a_page_of_curves_alone(tmp_path, visit):
    write_page(tmp_path / "a.html", [], title="Curves", curves=[Curve("loss l_pix", "", "a", [(1, 1.0)])])
    page = visit(tmp_path / "a.html")
    expect(page.locator(".panel circle")).to_have_count(1)
    assert not page.get_by_role("table").is_visible()
    assert not page.get_by_text("Previews").is_visible()


# ---- without a browser ---------------------------------------------------------------------------------------------


def test_pictures_come_and_go_and_a_failure_leaves_the_old_page(tmp_path):
    alive, most, pulled = set(), 0, 0

    def load() -> np.ndarray:
        nonlocal most
        picture = np.zeros((40, 50, 3), np.uint8)
        alive.add(id(picture))
        weakref.finalize(picture, alive.discard, id(picture))
        most = max(most, len(alive))
        return picture

    def broken() -> np.ndarray:
        raise UserError("picture 30 cannot be read")

    def exhibits(count: int, failing: int = -1) -> Iterator[Exhibit]:
        nonlocal pulled
        for pulled in range(count):
            yield Exhibit(str(pulled), broken if pulled == failing else load, load, load)

    path = tmp_path / "new" / "page.html"
    assert write_page(path, exhibits(60), title="first") == 60
    assert most <= 6  # three pictures in each of two threads
    before = path.read_bytes()
    with pytest.raises(UserError, match="picture 30 cannot be read"):
        write_page(path, exhibits(60, failing=30), title="second")
    assert pulled < 40
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="wide: result 50x40, target 60x40"):
        write_page(path, [Exhibit("wide", load, plain(TARGET, 40, 60))], title="third")


def test_whatever_a_picture_raises_is_its_line(tmp_path):
    def too_large() -> np.ndarray:
        raise MemoryError

    page, lines = tmp_path / "page.html", []
    bad = [Exhibit("large", too_large), Exhibit("empty", lambda: np.zeros((0,), np.uint8))]
    with pytest.raises(UserError, match="no picture can be shown"):
        write_page(page, bad, title="None", complain=lines.append)
    assert lines[0] == "large: not enough memory"
    assert lines[1].startswith("empty: ")
    assert not page.exists()
    assert write_page(page, [*bad, exhibit(7)], title="One", complain=lines.append) == 1
    assert 'id="data-0-result"' in page.read_text()
    assert len(lines) == 4


def test_residual_maps_are_mean_absolute_differences_of_the_original_pixels():
    result = np.full((4, 6, 3), 100, np.uint8)
    other = result.copy()
    other[0, 0], other[0, 1], other[1, 0] = (103, 97, 100), (200, 200, 200), (100, 100, 101)
    colours = residual_map(result, other)
    steps = residual_map(np.zeros((1, 40, 1), np.uint8), np.arange(40, dtype=np.uint8)[None, :, None])[0]
    assert len({tuple(colour) for colour in steps}) == 33
    assert (steps[32:] == steps[32]).all()
    assert (np.diff(steps[:33].astype(int) @ (299, 587, 114)) > 0).all()  # lighter with every level
    assert (colours[0, 0] == steps[2]).all()
    assert (colours[0, 1] == steps[32]).all()
    assert (colours[1, 0] == steps[0]).all()
    assert (colours[2:] == steps[0]).all()
    deep = other.astype(np.uint16) * 257
    assert (residual_map(result, deep) == colours).all()
    assert (residual_map(deep, result) == colours).all()
    gray = np.full((4, 6, 1), 103, np.uint8)
    assert (residual_map(gray, result) == steps[3]).all()
    assert residual_map(np.zeros((2, 4000, 1), np.uint8), np.zeros((2, 4000, 1), np.uint8)).shape == (
        1,
        LARGEST_SIDE,
        3,
    )


def test_pictures_of_all_kinds_are_shown_with_their_mean_scores(tmp_path):
    def scored(name: str, picture: np.ndarray, **scores: float) -> Exhibit:
        return Exhibit(name, lambda: picture, scores=scores)

    exhibits = [
        scored("large", np.zeros((30, 4000, 3), np.uint8), psnr_ddn=30.0, input_psnr_ddn=25.0),
        scored("gray", np.zeros((1, 1, 1), np.uint8), psnr_ddn=33.0, input_psnr_ddn=26.0),
        scored("deep", np.full((9, 9, 3), 65535, np.uint16), psnr_ddn=math.inf, input_psnr_ddn=20.0, own_score=0.5),
        scored("none", np.zeros((9, 9, 1), np.uint16), psnr_ddn=math.nan),
        scored("equal", np.zeros((9, 9, 3), np.uint8), psnr_ddn=30.0, input_psnr_ddn=math.inf)._replace(data_set="b"),
        scored("other", np.zeros((9, 9, 3), np.uint8), psnr_ddn=20.0, input_psnr_ddn=18.0)._replace(data_set="b"),
    ]
    write_page(tmp_path / "page.html", exhibits, title="All kinds")
    page = (tmp_path / "page.html").read_text()
    mean = '<dt>PSNR (ddn)</dt><dd>31.50 <small>dB</small></dd><dd class="note">rainy 25.50, gain&nbsp;+6.00</dd>'
    assert f'{mean}<dd class="note">mean of 2 of 4; 1 are ∞</dd>' in page
    other = (
        '<dt>PSNR (ddn) of b</dt><dd>25.00 <small>dB</small></dd><dd class="note">rainy 18.00, gain&nbsp;+2.00 (of 1)'
    )
    assert f"{other}</dd></div>" in page
    assert "4000x30, shown at 1600x12" in page
    assert "PSNR (ddn) 33.00 dB (+7.00) · own score 0.5000 · 9x9" not in page
    assert "PSNR (ddn) 33.00 dB (+7.00) · 1x1" in page
    assert "PSNR (ddn) ∞ dB (+∞) · own score 0.5000 · 9x9" in page


LOG = """2026-11-23 20:09:00,000 INFO:
  train:[
    total_iter: 3000
  ]
  val:[
    val_freq: 1000
  ]
2026-11-23 20:09:00,000 INFO: Start training from epoch: {epoch}, iter: {start}
"""
STEP = (
    "2026-11-23 20:09:01,000 INFO: [small..][epoch:  1, iter:{:8,d}, lr:(3.000e-04,2.000e-04,)] [eta: 0:00:00, "
    "time (data): 0.227 (0.048)] l_pix: {:.4e} l_g: 2.0000e+00 \n"
)
OURS = "2026-11-23 20:09:02,000 INFO: Validation {}\n\t# psnr [rain200 protocol]: {}  best: 99.0 at iteration 7\n"
BASICSR = "2026-11-23 20:09:02,000 INFO: Validation {}\n\t # psnr: {}\tBest: 99.0 @ 7 iter\n\n"


def test_curves_of_a_resumed_training(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    with pytest.raises(UserError, match="no training log"):
        read_curves(folder)

    def step(iteration: int, loss: float, clock: str) -> str:
        return STEP.format(iteration, loss).replace("20:09:01", clock)

    first = LOG.format(epoch=0, start=0) + step(600, 0.5, "20:09:06") + OURS.format("a", 20.5)
    first += BASICSR.format("b", 30.5) + step(1200, 0.4, "20:09:12") + step(1800, 0.3, "20:09:18")
    (folder / "train_small_20261123_200900.log").write_text(first + OURS.format("a", 21.5))
    # It goes on an hour later from the middle of what was done.
    second = LOG.format(epoch=1, start=1500).replace("20:09", "21:00") + step(2400, 0.2, "21:00:09")
    second += OURS.format("a", 22.5) + step(3000, 0.1, "21:00:15")
    second += OURS.format("a", 23.5) + "2026-11-23 20:09:03,000 INFO: End of training. Time consumed: 0:00:01\n"
    second += OURS.format("a", 23.5) + "2026-11-23 20:09:03,000 INFO: a line of tomorrow\n\t# psnr\n"
    (folder / "train_small_20261123_210000.log").write_text(second)
    assert {curve.run for curve in read_curves(folder)} == {"small"}
    assert [(curve.name, curve.unit, curve.over, curve.points) for curve in read_curves(folder)] == [
        ("PSNR of a (rain200)", "dB", ITERATIONS, [(1000, 20.5), (2000, 22.5), (3000, 23.5)]),
        ("PSNR of a (rain200)", "dB", SECONDS, [(10.0, 20.5), (20.0, 22.5), (30.0, 23.5)]),
        ("PSNR of b", "dB", ITERATIONS, [(1000, 30.5)]),
        ("PSNR of b", "dB", SECONDS, [(10.0, 30.5)]),
        ("loss l_pix", "", ITERATIONS, [(600, 0.5), (1200, 0.4), (2400, 0.2), (3000, 0.1)]),
        ("loss l_g", "", ITERATIONS, [(600, 2.0), (1200, 2.0), (2400, 2.0), (3000, 2.0)]),
        ("learning rate", "", ITERATIONS, [(600, 3e-4), (1200, 3e-4), (2400, 3e-4), (3000, 3e-4)]),
    ]

    # Our own records: those of older versions say how long an iteration took, others the time without pauses.
    records = [
        {"iter": 500, "lr": 1e-3, "seconds_per_iter": 0.02},
        {"iter": 1000, "lr": 1e-3, "seconds_per_iter": 0.04},
        {"iter": 1000, "data_set": "a", "psnr": 20.0},
        {"iter": 2000, "lr": 1e-3, "seconds_per_iter": 9.0, "elapsed_seconds": 70.0},
        {"iter": 2500, "data_set": "a", "psnr": 21.0},
    ]
    (folder / "training.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    curves = {(curve.name, curve.over): curve.points for curve in read_curves(folder)}
    assert curves["PSNR of a", SECONDS] == [(30.0, 20.0), (90.0, 21.0)]
    assert curves["learning rate", ITERATIONS] == [(500, 1e-3), (1000, 1e-3), (2000, 1e-3)]
    assert main(["plot", str(folder), "-o", str(tmp_path / "plot.png")]) == 0
    assert cv2.imread(str(tmp_path / "plot.png")) is not None


def test_the_command_shows_what_can_be_shown(pairs, tmp_path, capsys):
    results, log = tmp_path / "results", tmp_path / "run"
    shutil.copytree(pairs / "input", results)
    (results / "03.png").write_bytes(b"damaged")
    log.mkdir()
    (log / "train_run_20261123_200900.log").write_text(LOG.format(epoch=0, start=0) + STEP.format(100, 0.5))
    page = tmp_path / "page.html"
    nothing = tmp_path / "nothing"
    arguments = [results, pairs / "target", "--input", pairs / "input", "--experiment", nothing, log, "-o", page]
    assert main(["report", *map(str, arguments)]) == 1
    said = capsys.readouterr()
    assert f"{page}: 9 of 10 pictures, " in said.out
    assert "03.png" in said.err
    assert f"no training log (train_*.log) in {nothing}" in said.err
    assert main(["plot", str(nothing), str(log), "-o", str(tmp_path / "plot.png")]) == 1
    said = capsys.readouterr()
    assert "plot.png: 1 training, 3 panels" in said.out
    assert str(nothing) in said.err
    assert main(["plot", str(log), "--only", "RATE", "psnr", "-o", str(tmp_path / "plot.png")]) == 0
    assert "plot.png: 1 training, 1 panel\n" in capsys.readouterr().out
    assert main(["plot", str(log), "--only", "psnr", "-o", str(tmp_path / "plot.png")]) == 2
    assert "--only psnr: no quantity is called so; there are loss " in capsys.readouterr().err
    rows = re.findall(r'<tr data-name="(\d+)" .*?<td data-value="([^"]*)"', page.read_text())
    assert [name for name, _ in rows] == [f"{index:02d}" for index in range(10) if index != 3]
    for name, value in rows:
        result, target = (cv2.imread(str(pairs / kind / f"{name}.png")) for kind in ("input", "target"))
        assert float(value) == pytest.approx(calculate_psnr_rain200(result, target), abs=1e-9)
    assert '"run":"run","points":[[100,0.5]]' in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RESULT or --experiment is missing"),
        (["{pairs}/input", "--protocol", "ddn"], "--protocol ddn compares with targets"),
        (["{pairs}/input", "-o", "page.png"], "-o page.png: the page is one file, named .html"),
        (["--experiment", "{pairs}/input"], "no training log"),
        (["--experiment", "{pairs}", "--niqe"], "belong to results"),
        (["broken.png"], "no picture can be shown"),
    ],
)
def test_mistakes_are_one_line(arguments, message, pairs, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_text("damaged")
    assert main(["report", *(one.format(pairs=pairs) for one in arguments)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]
