"""Whatever decodes a PNG faster than OpenCV agrees with it: on pixels, and on what is no picture."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data

from drsformer_arch.data.pictures import BadPicture, decode

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
        except BadPicture:
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
