"""TIFFs of all layouts hold the pixels, and the transparency, that were put into them, or are refused."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.ExifTags import IFD, Base
from skimage import data

from drsformer_arch.images.photographs import Photograph, read_photograph, write_photograph
from drsformer_arch.images.pictures import PictureError, decode

PIXELS = np.ascontiguousarray(data.astronaut()[100:140, 200:256])  # (40, 56, 3)
ALPHA = 255 - PIXELS[::-1, :, 1]
KINDS = {  # name: colours, what the fourth or second channel is
    "gray": (1, None),
    "white is 0": (1, None),
    "gray, alpha": (1, "unassalpha"),
    "gray, associated": (1, "assocalpha"),
    "gray, other": (1, "unspecified"),
    "RGB": (3, None),
    "RGB, alpha": (3, "unassalpha"),
    "RGB, associated": (3, "assocalpha"),
    "RGB, other": (3, "unspecified"),
}


def encoded(samples: np.ndarray, separate: bool = False, **options) -> bytes:
    """Encode samples (H, W, C) as TIFF."""
    planes = np.ascontiguousarray(np.moveaxis(samples, -1, 0))
    if samples.shape[2] > 1:
        options["planarconfig"] = "separate" if separate else "contig"
    content = io.BytesIO()
    layout = {} if "tile" in options else {"rowsperstrip": 16}
    stored = planes if separate else samples if samples.shape[2] > 1 else samples[..., 0]
    tifffile.imwrite(content, stored, metadata=None, **layout, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_all_layouts_hold_the_same_picture(kind, dtype, tmp_path):
    channels, extra = KINDS[kind]
    most = int(np.iinfo(dtype).max)
    scale = most // 255
    colours, alpha = PIXELS[..., :channels].astype(dtype) * scale, ALPHA.astype(dtype) * scale
    stored = ~colours if kind == "white is 0" else colours
    if extra == "assocalpha":
        stored = np.round(colours * (alpha[..., None] / most)).astype(dtype)
    photometric = "miniswhite" if kind == "white is 0" else "rgb" if channels == 3 else "minisblack"
    options: dict = {"photometric": photometric}
    if extra:
        stored, options["extrasamples"] = np.dstack([stored, alpha]), [extra]
    for separate, tile, compression in itertools.product(
        (False, True), (None, (16, 32)), (None, "zlib", "lzw", "packbits")
    ):
        if separate and stored.shape[2] == 1:
            continue
        layout = {"tile": tile} if tile else {}
        path = tmp_path / "a.tif"
        path.write_bytes(encoded(stored, separate, compression=compression, **layout, **options))
        photograph = read_photograph(path)
        assert photograph.pixels.dtype == dtype
        off = np.abs(photograph.pixels.astype(int) - colours)
        # What is rounded after it was multiplied by an alpha can be off by as much as that made it smaller.
        bound = most / np.maximum(alpha[..., None], 1) if extra == "assocalpha" else 0
        assert (off <= bound).all()
        np.testing.assert_array_equal(decode(path.read_bytes(), "a"), photograph.pixels)
        assert any("neither colour nor" in note for note in photograph.notes) == (extra == "unspecified")
        if extra in ("unassalpha", "assocalpha"):
            np.testing.assert_array_equal(photograph.alpha, alpha)
        else:
            assert photograph.alpha is None
    write_photograph(tmp_path / "result.tif", photograph)
    result = read_photograph(tmp_path / "result.tif")
    np.testing.assert_array_equal(result.pixels, photograph.pixels)
    np.testing.assert_array_equal(result.alpha, photograph.alpha)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_planes_are_turned(orientation):
    turned = [(0x0112, "H", 1, orientation, True)]
    stored = PIXELS.astype(np.uint16) * 257
    upright = decode(encoded(stored, photometric="rgb", extratags=turned), "contiguous")
    np.testing.assert_array_equal(decode(encoded(stored, True, photometric="rgb", extratags=turned), "a"), upright)
    assert upright.shape == ((40, 56, 3) if orientation < 5 else (56, 40, 3))


def test_transparent_and_divided_by_nothing():
    stored = np.full((8, 8, 4), 9, np.uint8)
    stored[..., 3] = 0
    np.testing.assert_array_equal(
        decode(encoded(stored, photometric="rgb", extrasamples=["assocalpha"]), "a"), stored[..., :3]
    )


def test_colours_and_alpha_come_from_one_decoding(tmp_path, monkeypatch):
    calls, asarray = [], tifffile.TiffPage.asarray
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *a, **options: calls.append(1) or asarray(*a, **options))
    path = tmp_path / "a.tif"
    path.write_bytes(encoded(np.dstack([PIXELS, ALPHA]), photometric="rgb", extrasamples=["unassalpha"]))
    np.testing.assert_array_equal(read_photograph(path).alpha, ALPHA)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (np.dstack([PIXELS, ALPHA, ALPHA]), {"photometric": "separated", "extrasamples": ["unassalpha"]}),
        (PIXELS, {"photometric": "ycbcr", "separate": True}),
        (PIXELS, {"photometric": "cielab"}),
        (np.dstack([PIXELS, ALPHA]).astype(np.uint16), {"photometric": "separated"}),
    ],
)
def test_other_layouts_are_refused(samples, options):
    with pytest.raises(PictureError, match=r"its layout is not known: . channels of .*; convert it to RGB"):
        decode(encoded(samples, **options), "a")


def noted() -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Make], exif[Base.XResolution], exif[Base.DateTime] = "a camera", 300.0, "2020:01:02 03:04:05"
    exif[IFD.Exif] = {Base.FNumber: 2.8, Base.DateTimeOriginal: "2020:01:02 03:04:06"}
    exif[IFD.GPSInfo] = {1: "N", 2: (1.0, 2.0, 3.5)}
    return exif


def assert_noted(path: Path) -> None:
    """Assert that Pillow and tifffile find what `noted` has put in."""
    if path.suffix == ".tif":
        exif = Image.Exif()
        exif.load(b"Exif\0\0" + path.read_bytes())
    else:
        with Image.open(path) as image:
            exif = image.getexif()
    assert exif[Base.Make] == "a camera"
    assert exif[Base.DateTime] == "2020:01:02 03:04:05"
    assert exif[Base.XResolution] == 300
    assert (Base.StripOffsets in exif) == (path.suffix == ".tif")
    assert exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] == "2020:01:02 03:04:06"
    assert exif.get_ifd(IFD.Exif)[Base.FNumber] == pytest.approx(2.8)
    assert exif.get_ifd(IFD.GPSInfo)[2] == (1, 2, 3.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_notes_are_kept_in_tiffs_and_out_of_them(dtype, alpha, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=noted())
    scale = np.iinfo(dtype).max // 255
    deep = None if alpha is None else alpha.astype(dtype) * scale
    exif = read_photograph(tmp_path / "a.jpg").exif
    photograph = Photograph(PIXELS.astype(dtype) * scale, deep, exif=exif)
    assert write_photograph(tmp_path / "b.tif", photograph) == ()
    again = read_photograph(tmp_path / "b.tif")
    np.testing.assert_array_equal(again.pixels, photograph.pixels)
    np.testing.assert_array_equal(again.alpha, deep)
    assert again.notes == ()
    assert write_photograph(tmp_path / "c.tif", again) == ()
    notes = write_photograph(tmp_path / "d.jpg", again)
    assert any("its transparency is left out" in note for note in notes) == (alpha is not None)
    assert any("its 16 bits are rounded" in note for note in notes) == (dtype == np.uint16)
    assert not any("EXIF" in note for note in notes)
    write_photograph(tmp_path / "e.png", again)
    for name in ("b.tif", "c.tif", "d.jpg", "e.png"):
        assert_noted(tmp_path / name)
    with tifffile.TiffFile(tmp_path / "c.tif") as file:
        assert len(file.pages) == 1
        assert file.pages.first.tags["Make"].value == "a camera"
    if dtype == np.uint8:
        with Image.open(tmp_path / "c.tif") as image:
            np.testing.assert_array_equal(np.asarray(image)[..., :3], PIXELS)
    beside = ("its EXIF notes cannot be kept in BMP",)
    assert write_photograph(tmp_path / "f.bmp", again)[-1:] == beside


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_thumbnail_is_no_page(dtype, tmp_path):
    def write(*subfiletypes: int) -> Path:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for number, kind in enumerate(subfiletypes):
                step = 1 + 3 * (kind & 1)
                file.write(
                    PIXELS[::step, ::step].astype(dtype) + number, photometric="rgb", subfiletype=kind, metadata=None
                )
        return tmp_path / "a.tif"

    photograph = read_photograph(write(0, 1, 1))
    np.testing.assert_array_equal(photograph.pixels, PIXELS)
    assert photograph.notes == ("the thumbnail inside it is left out",)
    for pages in ((0, 0), (0, 1, 0), (1, 0), (2, 2)):
        with pytest.raises(PictureError, match="is an animation or has several pages"):
            read_photograph(write(*pages))
