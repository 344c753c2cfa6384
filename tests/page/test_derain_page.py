"""The page that derains, in a real browser: its results are those of `Restorer`, and nothing leaves it."""

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from skimage import data

from drsformer_arch import Restorer
from drsformer_arch.cli import main
from drsformer_arch.images.photographs import read_photograph
from drsformer_arch.page.ort_web import default_folder
from drsformer_arch.restore.onnx_file import seal
from tests.conftest import SMALL_NETWORK
from tests.page.browsers import CONTRASTS, PATIENCE, SWITCHES, expect, found_browser, wait_until
from tests.restore.test_export import checkpoint

needs_ort_web = pytest.mark.skipif(
    not default_folder().is_dir(), reason="no ONNX Runtime Web: scripts/fetch_onnxruntime_web.sh fetches it"
)
TILE = 512  # of pictures that are not computed whole


def small_program(path: Path) -> Path:
    """Write a program as `export` does, of one convolution, which sees as little beyond a tile as the page shows."""
    weights = np.random.default_rng(0).uniform(-0.2, 0.3, (3, 3, 5, 5)).astype(np.float32) / 3
    shape = ["batch", 3, "height", "width"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("rainy", "derained")]
    node = helper.make_node("Conv", ["rainy", "weights"], ["derained"], pads=[2, 2, 2, 2])
    graph = helper.make_graph([node], "net", values[:1], values[1:], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key="network", value=json.dumps(SMALL_NETWORK))
    onnx.save(model, path)
    seal(path)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_program(tmp_path_factory.mktemp("program") / "net.onnx")


@pytest.fixture(scope="module")
def derain_page(program: Path) -> Path:
    path = program.with_name("derain.html")
    assert main(["export", str(program), "-o", str(path), "--note", "licence=<b>mine</b>"]) == 0
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write pictures of all kinds: name → file."""
    folder = tmp_path_factory.mktemp("pictures")
    photograph = data.astronaut()
    deep = photograph[:40, :56].astype(np.uint16) * 257 - 100
    alpha = np.dstack([photograph[:50, :30], np.arange(1500, dtype=np.uint8).reshape(50, 30)])
    files = {
        "one.png": photograph[:1, :1],
        "gray.png": photograph[:33, :70, 0],
        "alpha.png": alpha,
        "large.png": np.tile(photograph, (1, 2, 1))[:500, :700],
        "rotated.jpg": photograph[100:180, 100:130],
        "few.png": None,
        "deep.png": None,
        "keyed.png": None,
        "misnamed.jpg": None,
    }
    for name, pixels in files.items():
        if pixels is not None:
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(pixels).save(folder / name, quality=95, exif=exif if name == "rotated.jpg" else None)
    Image.fromarray(photograph[:61, :75]).quantize(13).save(folder / "few.png")
    cv2.imwrite(str(folder / "deep.png"), deep[..., ::-1])
    Image.fromarray(photograph[:20, :30]).save(folder / "keyed.png", transparency=tuple(map(int, photograph[3, 4])))
    Image.fromarray(alpha).save(folder / "misnamed.jpg", "PNG")
    return {name: folder / name for name in files}


def saved(page: Any, name: str, folder: Path) -> Path:
    """Save a picture's result."""
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save {name}", exact=True).click()
    download.value.save_as(path := folder / download.value.suggested_filename)
    return path


def choose(page: Any, *paths: Path) -> None:
    page.locator("input[name=pictures]").set_input_files(list(paths))


@needs_ort_web
def test_results_are_those_of_restorer_and_bad_pictures_are_a_line(derain_page, pictures, program, visit, tmp_path):
    page = visit(derain_page)  # whatever it asks for beside itself fails this test
    jpeg = pictures["rotated.jpg"].read_bytes()
    frame = jpeg.index(b"\xff\xc0") + 5  # where its height and width stand
    bad = {
        "cut.png": (pictures["large.png"].read_bytes()[:5000], "it is damaged: it is cut off"),
        "empty.png": (b"", "it is empty"),
        "noise.jpg": (bytes(range(256)), "this browser cannot read it: it is damaged or of an unknown kind"),
        "huge.jpg": (
            jpeg[:frame] + struct.pack(">HH", 9000, 12000) + jpeg[frame + 4 :],
            "it has 108 megapixels; this page takes up to 50",
        ),
        "notes.txt": (b"no picture", "notes.txt is no picture"),
    }
    moving, frames = tmp_path / "moving.gif", [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    bad[moving.name] = (moving.read_bytes(), "it is an animation")
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    choose(page, *(tmp_path / name for name in bad), *pictures.values())
    expect(page.locator(".finished")).to_have_count(len(pictures))
    for _, line in bad.values():
        expect(page.get_by_text(line, exact=True).locator("visible=true")).to_have_count(1)
    for name, path in pictures.items():
        if name == "rotated.jpg":
            page.get_by_role("combobox", name=f"Format of {name}").select_option("PNG")
        source, result = read_photograph(path), read_photograph(saved(page, name, tmp_path))
        expected = Restorer(program, tile=TILE if name == "large.png" else 0)(source.pixels)
        assert (result.pixels.shape, result.pixels.dtype) == (expected.shape, expected.dtype), name
        assert np.abs(result.pixels.astype(int) - expected).max() <= np.iinfo(expected.dtype).max // 255, name
        assert (result.alpha is None) == (source.alpha is None)
        assert source.alpha is None or (result.alpha == source.alpha).all()

    strength = page.get_by_role("slider", name="Strength, large.png")
    strength.fill("40")
    expect(page.locator(".card", has_text="large.png").locator("img.right")).to_have_css("opacity", "0.4")
    rainy, whole = (
        read_photograph(path).pixels.astype(int) for path in (pictures["large.png"], tmp_path / "large-derained.png")
    )
    part = read_photograph(saved(page, "large.png", tmp_path)).pixels
    assert np.abs(part - (rainy + 0.4 * (whole - rainy))).max() <= 1


@needs_ort_web
def test_large_pictures_are_derained_at_the_scale_of_restorer(program, pictures, visit, tmp_path, monkeypatch):
    monkeypatch.setattr("drsformer_arch.page.derain_page.is_shipped", lambda _: True)
    monkeypatch.setattr("drsformer_arch.page.derain_page.LARGEST_PIXELS", 1000)
    path = tmp_path / "derain.html"
    assert main(["export", str(program), "-o", str(path)]) == 0
    page = visit(path)
    scales = {"gray.png": 0.5, "alpha.png": 0.5, "deep.png": 0.5, "large.png": 1 / 32, "one.png": 1}
    choose(page, *(pictures[name] for name in scales))
    expect(page.locator(".finished")).to_have_count(len(scales))
    expect(page.get_by_text("rain was looked for at 1/32 of its size")).to_have_count(1)
    for name, scale in scales.items():
        source, result = read_photograph(pictures[name]), read_photograph(saved(page, name, tmp_path))
        expected = Restorer(program, tile=0, scale=scale)(source.pixels)
        assert result.pixels.dtype == expected.dtype
        assert np.abs(result.pixels.astype(int) - expected).max() <= np.iinfo(expected.dtype).max // 255, name


@needs_ort_web
def test_a_jpeg_stays_one_and_a_running_picture_can_be_cancelled(derain_page, pictures, visit, tmp_path):
    page = visit(derain_page)
    profile = b"\0\0\x02\x00lcms\x02\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(472)
    large, photograph = tmp_path / "large.png", tmp_path / "photograph.jpg"
    cv2.imwrite(str(large), np.zeros((4000, 3000, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 8, "Maker"
    Image.open(pictures["rotated.jpg"]).save(photograph, exif=exif, icc_profile=profile)
    choose(page, photograph)
    expect(page.locator(".finished")).to_have_count(1)
    choose(page, large, photograph)
    expect(page.get_by_text("getting ready").or_(page.get_by_text("deraining"))).to_have_count(1)
    page.locator(".finished").get_by_role("slider", name="Strength").fill("50")
    with page.expect_download():  # which waits for no other picture
        page.locator(".finished").get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Cancel photograph.jpg")).to_be_visible()
    page.get_by_role("button", name="Cancel large.png").click()
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator(".finished")).to_have_count(2)
    page.get_by_role("button", name="Remove photograph.jpg").last.click()
    result = saved(page, "photograph.jpg", tmp_path)
    with Image.open(io.BytesIO(result.read_bytes())) as image:
        assert (image.format, image.size) == ("JPEG", (80, 30))
        assert (image.getexif()[0x010F], image.getexif()[0x0112]) == ("Maker", 1)
        assert image.info["icc_profile"] == profile
    page.evaluate("globalThis.removed = new WeakRef(document.querySelector('.card .viewer'))")
    page.get_by_role("button", name="Remove photograph.jpg").click()
    expect(page.locator(".card")).to_have_count(0)
    page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
    wait_until(page, "!removed.deref()")  # nothing of it stays in memory


GIVEN = """([kind, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
  const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data })
    : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
  dispatchEvent(event);
}"""


@needs_ort_web
def test_pictures_are_dropped_and_pasted(derain_page, pictures, visit):
    page = visit(derain_page)
    content = base64.b64encode(pictures["gray.png"].read_bytes()).decode()
    for kind in ("drop", "paste"):
        page.evaluate(GIVEN, [kind, content])
    expect(page.locator(".finished h3")).to_have_text(["paste.png", "drop.png"])


@needs_ort_web
def test_a_browser_without_simd_gets_a_line(derain_page, browser):
    context = browser.new_context()
    context.add_init_script("WebAssembly.validate = () => false")
    page = context.new_page()
    page.goto(derain_page.as_uri())
    expect(page.get_by_role("alert")).to_contain_text("This browser has no WebAssembly with SIMD")
    expect(page.get_by_text("Choose pictures")).not_to_be_visible()
    context.close()


@needs_ort_web
@pytest.mark.parametrize(
    ("name", "reason"),
    [("IDT", "it takes pictures of 64x64 pixels alone"), ("NeRDRain", "PyTorch's exporter does not come to an end")],
)
def test_networks_that_do_not_run_in_browsers_are_refused(name, reason, tmp_path, capsys):
    weights, out = checkpoint(tmp_path, name), tmp_path / "page.html"
    assert main(["export", str(weights), "-o", str(out)]) == 2
    assert f"{name} is not written as a page: {reason}" in capsys.readouterr().err
    assert not out.exists()


@needs_ort_web
def test_a_note_of_a_taken_name_is_refused(program, tmp_path, capsys):
    assert main(["export", str(program), "-o", str(tmp_path / "page.html"), "--note", "Network=Other"]) == 2
    assert "the note Network has its meaning already" in capsys.readouterr().err


def test_a_missing_or_wrong_runtime_is_one_line(program, tmp_path, capsys):
    arguments = ["export", str(program), "-o", str(tmp_path / "page.html"), "--ort-web", str(tmp_path)]
    assert main(arguments) == 2
    assert "ort.wasm.bundle.min.mjs is missing: a page needs ONNX Runtime Web" in capsys.readouterr().err
    (tmp_path / "ort.wasm.bundle.min.mjs").write_text("another version")
    assert main(arguments) == 2
    assert "is not that of ONNX Runtime Web" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@needs_ort_web
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_use_it_on_a_phone(scheme, derain_page, pictures, visit):
    page = visit(
        derain_page, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True, is_mobile=True
    )
    expect(page.get_by_text("Take a photograph")).to_be_visible()
    choose(page, pictures["few.png"])
    expect(page.locator(".finished")).to_have_count(1)
    page.get_by_text("Licences").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(CONTRASTS) == []
    unnamed = "(e) => !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim()"
    assert page.evaluate(f"[...document.querySelectorAll('input, select, button')].filter({unnamed}).length") == 0
    expect(page.get_by_text("<b>mine</b>")).to_be_visible()
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    assert "connect-src" not in policy


@needs_ort_web
def test_the_shipped_weights_in_a_browser_with_little_memory(long, browser, tmp_path):
    if not long:
        pytest.skip("the export takes a minute: --long")
    path, picture = tmp_path / "derain.html", tmp_path / "rainy.png"
    assert main(["export", "DRSformer-S", "-o", str(path)]) == 0
    assert path.stat().st_size < 16e6
    pixels = data.astronaut()
    Image.fromarray(pixels).save(picture)
    # 3500 pages of 64 KiB: enough for tiles of 256 px, not for the weights' own of 320.
    switches = [*SWITCHES, "--js-flags=--wasm-max-mem-pages=3500"]
    poor = browser.browser_type.launch(executable_path=found_browser(), args=switches)
    page = poor.new_page()
    page.set_default_timeout(10 * PATIENCE)
    page.goto(path.as_uri())
    choose(page, picture)
    page.locator(".finished").wait_for()
    result = read_photograph(saved(page, "rainy.png", tmp_path)).pixels
    poor.close()
    assert np.abs(result.astype(int) - Restorer(tile=256)(pixels)).max() <= 1
