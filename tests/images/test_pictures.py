"""Pictures are what OpenCV makes of them, or refused: nothing is missing, nothing is allocated for a mere claim."""

import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from skimage import data

from drsformer_arch.images import pictures
from drsformer_arch.images.picture_headers import LIMIT
from drsformer_arch.images.pictures import PictureError, decode
from drsformer_arch.system.errors import UserError

PIXELS = np.asarray(Image.fromarray(data.astronaut()[:300, :410]).resize((41, 30)))


def by_opencv(content: bytes) -> np.ndarray | None:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    return None if pixels is None else pixels[..., None] if pixels.ndim == 2 else pixels[..., ::-1]


def png(picture: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png", **options)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


RGB = Image.fromarray(PIXELS)
KINDS = {
    "rgb": png(RGB),
    "gray": png(RGB.convert("L")),
    "gray, 16 bit": cv2.imencode(".png", PIXELS[..., 0].astype(np.uint16) * 257 + 3)[1].tobytes(),
    "rgb, 16 bit": cv2.imencode(".png", PIXELS.astype(np.uint16) * 255 + 7)[1].tobytes(),
    "palette": png(RGB.convert("P", palette=Image.Palette.ADAPTIVE)),
    "black and white": png(RGB.convert("1")),
    "alpha": png(RGB.convert("RGBA")),
    "gray with alpha": png(RGB.convert("LA")),
    "a transparent colour": png(RGB, transparency=tuple(PIXELS[0, 0].tolist())),
    "turned": png(RGB, exif=turned()),
    "moving": png(RGB, save_all=True, append_images=[RGB.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]),
    "dark": png(RGB)[:33]
    + b"\0\0\0\4gAMA\0\0\x27\x10"
    + struct.pack(">I", zlib.crc32(b"gAMA\0\0\x27\x10"))
    + png(RGB)[33:],
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_png_are_what_opencv_makes_of_them(kind):
    expected = by_opencv(KINDS[kind])
    pixels = decode(KINDS[kind], kind)
    assert pixels.dtype == expected.dtype
    np.testing.assert_array_equal(pixels, expected)


def test_damaged_files_are_refused_where_opencv_refuses_them():
    rng, content = np.random.default_rng(0), KINDS["rgb"]
    border = [*range(60), *range(len(content) - 40, len(content))]
    places = {*border, *rng.integers(len(content), size=300).tolist()}
    damaged = [content[:place] for place in places if place]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    outcomes = set()
    for one in damaged:
        expected = by_opencv(one)
        try:
            pixels = decode(one, "damaged")
        except PictureError:
            assert expected is None
        else:
            np.testing.assert_array_equal(pixels, expected)
        outcomes.add(expected is None)
    assert outcomes == {True, False}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colours_under_a_transparent_tiff_stay_as_they_are(orientation):
    alpha = Image.fromarray(np.ascontiguousarray(PIXELS[..., 0] // 2))
    picture = RGB.copy()
    picture.putalpha(alpha)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, "tiff", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    np.testing.assert_array_equal(decode(file.getvalue(), "tiff"), expected[..., :3])


def saved(kind: str, picture: Image.Image = RGB, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def tiff(samples: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    kind = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(
        file, samples, photometric=kind, **({"rowsperstrip": 8} if "tile" not in options else {}), **options
    )
    return file.getvalue()


RGBA = np.dstack([PIXELS, PIXELS[..., 0]])
DEEP = PIXELS.astype(np.uint16) * 255
WHOLE = {
    **{
        f"png, {kind}": content for kind, content in KINDS.items() if kind in ("rgb", "rgb, 16 bit", "alpha", "palette")
    },
    "jpeg": saved("jpeg"),
    "jpeg, gray": saved("jpeg", RGB.convert("L")),
    "jpeg, progressive": saved("jpeg", progressive=True),
    "jpeg, restarts": saved("jpeg", restart_marker_blocks=2),
    "webp": saved("webp"),
    "webp, lossless": saved("webp", RGB.convert("RGBA"), lossless=True),
    "webp, extended": saved("webp", exif=turned()),
    "bmp": saved("bmp"),
    "bmp, palette": saved("bmp", RGB.convert("P")),
    "gif": saved("gif", RGB.convert("P")),
    "tiff, jpeg": saved("tiff", compression="jpeg"),
    "tiff, alpha": tiff(RGBA),
    "tiff, alpha, tiles": tiff(RGBA, tile=(16, 16), compression="zlib", predictor=True),
    "tiff, 16 bit": tiff(DEEP, compression="lzw"),
    "tiff, planes": tiff(PIXELS.transpose(2, 0, 1), planarconfig="separate", compression="packbits", byteorder=">"),
    "tiff, big": tiff(PIXELS[..., 1], bigtiff=True, compression="zlib"),
}


def refused(content: bytes, monkeypatch: pytest.MonkeyPatch | None = None) -> str:
    """Return the reason for which a picture is refused; with `monkeypatch`, before it is decoded."""
    with pytest.MonkeyPatch.context() as patch:
        if monkeypatch is not None:
            patch.setattr(pictures, "_decode", lambda *_: pytest.fail("it was decoded"))
        with pytest.raises(PictureError, match="picture NAME") as caught:
            decode(content, "NAME")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", WHOLE)
def test_whatever_the_end_of_a_file_lacks_is_refused(kind):
    whole = WHOLE[kind]
    expected = decode(whole, kind)
    assert {*expected.shape} - {1, 3} == {30, 41}
    for length in {1, 10, 100, *range(len(whole) - 20, len(whole)), *range(0, len(whole), len(whole) // 20)}:
        refused(whole[:length])
    np.testing.assert_array_equal(decode(whole + b"more", kind), expected)


def test_a_progressive_jpeg_whose_last_scans_are_missing_is_refused():
    content = WHOLE["jpeg, progressive"]
    scans = [place for place in range(len(content)) if content[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans:
        assert "a part of its data is missing" in refused(content[:scan] + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["jpeg", "jpeg, gray", "jpeg, restarts", "jpeg, coarse colours"])
def test_a_jpeg_whose_data_end_early_is_refused(kind):
    """Decoders fill the rest with gray: a picture has such blocks, too."""
    picture = Image.fromarray(data.astronaut()[:128, :128])
    options = {"jpeg, restarts": {"restart_marker_blocks": 2}, "jpeg, coarse colours": {"subsampling": 2}}.get(kind, {})
    whole = saved("jpeg", picture.convert("L") if kind == "jpeg, gray" else picture, **options)
    start = whole.index(b"\xff\xda") + 20
    for part in (0.2, 0.5, 0.8):
        length = start + int(part * (len(whole) - start))
        assert "a part of its data is missing" in refused(whole[:length].rstrip(b"\xff") + b"\xff\xd9")
    picture.paste((128, 128, 128), (64, 64, 128, 128))
    whole = saved("jpeg", picture, quality=95, **options)
    assert (decode(whole, kind)[80:120, 80:120] == 128).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 19), (18, 17), (19, 18)])
def test_gray_blocks_are_seen_wherever_they_lie(height, width, channels, monkeypatch):
    content = saved("jpeg", Image.new("RGB", (width, height)))
    pixels = np.empty((height, width, channels), np.uint8)
    monkeypatch.setattr(pictures, "_is_whole_jpeg", lambda _: False)
    monkeypatch.setattr(pictures, "_decode", lambda *_: (pixels, None))
    for top, left in np.ndindex(height - 7, width - 7):
        pixels[:] = 127
        pixels[top : top + 8, left : left + 8] = 128
        assert "a part of its data is missing" in refused(content)
        pixels[top + 4, left + 4, -1] = 129
        assert decode(content, "NAME") is pixels
    for along in (pixels, pixels.swapaxes(0, 1)):  # at the edges, half a row of blocks is enough
        for start in range(-4, len(along) - 4):
            pixels[:] = 127
            along[max(start, 0) : start + 8] = 128
            assert "a part of its data is missing" in refused(content)


def test_a_jpeg_with_many_fill_bytes_takes_no_longer():
    whole = WHOLE["jpeg"]
    start = time.perf_counter()
    pixels = decode(whole[:-2] + b"\xff" * 50_000 + b"\0" + whole[-2:], "filled")
    assert time.perf_counter() - start < 2
    np.testing.assert_array_equal(pixels, decode(whole, "jpeg"))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("samples", [RGBA, PIXELS, PIXELS[..., 0], DEEP], ids=["rgba", "rgb", "gray", "16 bit"])
def test_tiffs_with_missing_strips_are_refused(samples, compression):
    whole = tiff(samples, compression=compression)
    decode(whole, "whole")
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        tags, sizes = file.pages.first.tags, file.pages.first.databytecounts

        def changed(name: str, number: int, value: int) -> bytes:
            tag = tags[name]
            size = {3: 2, 4: 4}[int(tag.dtype)]
            place = tag.valueoffset + number * size
            return whole[:place] + value.to_bytes(size, "little") + whole[place + size :]

        damaged = [
            changed("ImageLength", 0, 60),
            changed("StripByteCounts", 1, 0),
            changed("StripByteCounts", 1, sizes[1] - 3),
            changed("StripByteCounts", 3, len(whole)),
            changed("StripOffsets", 2, 0),
            changed("StripOffsets", 2, len(whole) - 5),
            changed("ImageWidth", 0, 4100),
            changed("ImageLength", 0, 0),
            changed("ImageWidth", 0, 0),
            changed("Compression", 0, 34712),
        ]
        if samples.ndim == 3:
            damaged.append(changed("PlanarConfiguration", 0, 129))
    for content in damaged:
        refused(content)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claiming(content: bytes, place: int, claim: bytes) -> bytes:
    return content[:place] + claim + content[place + len(claim) :]


def claims() -> dict[str, bytes]:
    """Make small files that claim very much."""
    jpeg, gif, bmp, webp = (WHOLE[kind] for kind in ("jpeg", "gif", "bmp", "webp"))
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    strip = np.zeros((1, 40, 4), np.uint8)
    tall = io.BytesIO()
    tifffile.imwrite(tall, strip, photometric="rgb", compression="zlib", rowsperstrip=2**32 - 1)
    with tifffile.TiffFile(io.BytesIO(tall.getvalue())) as file:
        length, rows = (file.pages.first.tags[name].valueoffset for name in ("ImageLength", "RowsPerStrip"))
    of_one_strip = claiming(tall.getvalue(), length, struct.pack("<I", 16_056_352))
    return {
        "a chunk of 4 GiB": claiming(KINDS["alpha"], KINDS["alpha"].index(b"IDAT") - 4, b"\xff" * 4),
        "a PNG of 2.7 GB": KINDS["rgb"][:8]
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", bytes(3000))
        + chunk(b"IEND", b""),
        "a TIFF of one tall strip": of_one_strip,
        "a TIFF of many strips": claiming(of_one_strip, rows, struct.pack("<I", 1)),
        "a JPEG": claiming(jpeg, jpeg.index(b"\xff\xc0") + 5, struct.pack(">HH", 32000, 32000)),
        "a GIF": claiming(gif, 6, struct.pack("<HH", 32000, 32000)),
        "a BMP": claiming(bmp, 18, struct.pack("<ii", 32000, 32000)),
        "a BMP of runs": claiming(claiming(bmp, 18, struct.pack("<ii", 32000, 32000)), 30, struct.pack("<I", 1)),
        "a chunk of WebP": claiming(webp, 16, b"\xff" * 4),
        "a moving WebP": claiming(WHOLE["webp, extended"], 24, b"\xff" * 6),
    }


CLAIMS = claims()


@pytest.mark.parametrize("kind", CLAIMS)
def test_what_a_file_cannot_hold_is_refused_before_it_is_decoded(kind, monkeypatch):
    refused(CLAIMS[kind], monkeypatch)


def test_a_picture_of_one_colour_is_no_false_claim():
    black, size = Image.new("RGB", (3000, 2000)), (2000, 3000)
    for content in (
        png(black, compress_level=9),
        saved("tiff", black, compression="tiff_lzw"),
        saved("tiff", black.convert("RGBA"), compression="tiff_adobe_deflate"),
        saved("jpeg", black.convert("L"), quality=1),
        saved("jpeg", black, progressive=True, optimize=True),
        saved("webp", black, lossless=True),
        saved("gif", black.convert("P")),
    ):
        assert decode(content, "black").shape[:2] == size
        assert len(content) < 200_000  # of 6 to 24 million bytes


def test_the_limit_of_pixels(monkeypatch):
    monkeypatch.setenv(LIMIT, str(30 * 41))
    assert decode(KINDS["rgb"], "NAME").shape == (30, 41, 3)
    monkeypatch.setenv(LIMIT, str(30 * 41 - 1))
    assert f"too large: 41x30 pixels; the environment variable {LIMIT}" in refused(KINDS["rgb"], monkeypatch)
    for nonsense in ("0", "-5", "many", "1e9", "9" * 400):
        monkeypatch.setenv(LIMIT, nonsense)
        with pytest.raises(UserError, match=f"{LIMIT} must be a number of pixels"):
            decode(KINDS["rgb"], "NAME")


def test_damage_is_one_kind_of_error():
    rng, kinds = np.random.default_rng(0), list(WHOLE.values())
    outcomes = []
    for number in range(4000):
        content = bytearray(kinds[number % len(kinds)])
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(min(len(content), 400)))
            content[place : place + rng.integers(3)] = rng.choice([b"\xff" * 4, bytes(4), b"\x7f", b"", bytes(30)])
        try:
            pixels = decode(bytes(content), "NAME")
        except PictureError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("read")
            assert pixels.ndim == 3
            assert pixels.size
            assert pixels.shape[2] in (1, 3)
    assert 100 < outcomes.count("read") < 3000
    assert all(outcome == "read" or "picture NAME" in outcome for outcome in outcomes)


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("Insufficient memory"), KeyError("odd")])
def test_whatever_a_decoder_raises(error, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(pictures, "_decode", fail)
    with pytest.raises(PictureError, match="KeyError: 'odd'" if isinstance(error, KeyError) else "not enough memory"):
        decode(KINDS["rgb"], "NAME")
