"""What belongs to a photograph beside its pixels: kept, or left out with a note; it never fails the picture."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from skimage import data

from drsformer_arch.cli import main
from drsformer_arch.images.photographs import Photograph, read_photograph, write_photograph
from drsformer_arch.images.picture_headers import LIMIT
from drsformer_arch.images.pictures import ORIENTATION, PictureError

PHOTOGRAPH = Image.fromarray(data.astronaut()[:60, :75])
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
GRAY = SRGB[:16] + b"GRAY" + SRGB[20:]
CMYK = SRGB[:16] + b"CMYK" + SRGB[20:]


def saved(folder: Path, suffix: str, picture: Image.Image = PHOTOGRAPH, **options: object) -> Path:
    path = folder / f"photograph{suffix}"
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("kind", ["stereo", "bright"])
def test_a_jpeg_with_a_second_picture_is_a_photograph(kind, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F] = 6, "a camera"
    path = saved(
        tmp_path,
        ".jpg",
        format="MPO",
        save_all=True,
        append_images=[PHOTOGRAPH.convert("L").reduce(4) if kind == "bright" else PHOTOGRAPH.rotate(180)],
        exif=exif,
        icc_profile=SRGB,
    )
    with Image.open(path) as image:
        assert image.n_frames == 2  # Pillow takes it for one with several pages
        first = np.asarray(image)
    photograph = read_photograph(path)
    assert np.abs(photograph.pixels - np.rot90(first, -1).astype(int)).mean() < 1
    assert photograph.notes == ("the second picture inside it is left out",)
    assert photograph.icc_profile == SRGB
    assert b"a camera" in photograph.exif
    write_photograph(tmp_path / "result.jpg", photograph)
    with Image.open(tmp_path / "result.jpg") as image:
        assert image.format == "JPEG"
        assert image.getexif()[0x010F] == "a camera"


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif", ".png"])
def test_animations_and_pages_are_refused(suffix, tmp_path):
    path = saved(tmp_path, suffix, save_all=True, append_images=[PHOTOGRAPH.rotate(180)])
    with pytest.raises(PictureError, match="is an animation or has several pages"):
        read_photograph(path)


@pytest.mark.parametrize(
    ("mode", "profile", "kept"),
    [
        ("RGB", SRGB, True),
        ("L", GRAY, True),
        ("RGB", GRAY, False),
        ("L", SRGB, False),
        ("CMYK", CMYK, False),
        ("RGB", LAB, False),
        pytest.param("RGB", SRGB[:100], False, id="RGB-cut short"),
        ("RGB", SRGB[:300], False),
        ("RGB", b"no profile", False),
        ("RGB", SRGB[:12] + b"link" + SRGB[16:], False),
    ],
)
def test_only_a_profile_of_the_colour_space_of_the_result_is_kept(mode, profile, kept, tmp_path):
    for suffix in (".jpg", ".tif"):
        photograph = read_photograph(saved(tmp_path, suffix, PHOTOGRAPH.convert(mode), icc_profile=profile))
        assert photograph.icc_profile == (profile if kept else None)
        assert len(photograph.notes) == (0 if kept else 1)
        assert kept or "colour profile" in photograph.notes[0]


def test_a_profile_of_another_colour_space_is_not_written(tmp_path):
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        write_photograph(tmp_path / f"a{suffix}", Photograph(np.asarray(PHOTOGRAPH), icc_profile=CMYK))
        assert read_photograph(tmp_path / f"a{suffix}").icc_profile is None
    deep = Photograph(np.asarray(PHOTOGRAPH).astype(np.uint16) * 257, icc_profile=CMYK)
    write_photograph(tmp_path / "deep.png", deep)
    assert b"iCCP" not in (tmp_path / "deep.png").read_bytes()


def test_a_tiff_of_16_bits_keeps_its_profile(tmp_path):
    deep = np.asarray(PHOTOGRAPH).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", iccprofile=SRGB)
    photograph = read_photograph(tmp_path / "deep.tif")
    assert photograph.icc_profile == SRGB
    assert photograph.notes == ()
    np.testing.assert_array_equal(photograph.pixels, deep)


def with_exif(folder: Path, *entries: tuple[int, int, int, bytes]) -> Path:
    """A JPEG with an EXIF block of entries (tag, type, count, value or its place), whatever they are."""
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    block += b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries) + bytes(4)
    content = saved(folder, ".jpg").read_bytes()
    path = folder / "exif.jpg"
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:])
    return path


@pytest.mark.parametrize(
    "entry",
    [
        (0x011A, 2, 2, b"9\0\0\0"),  # XResolution as text
        (0x011A, 5, 1, b"\xff\xff\xff\x7f"),  # a value beyond the end
        (ORIENTATION, 2, 2, b"6\0\0\0"),
        (ORIENTATION, 3, 0, bytes(4)),
        (ORIENTATION, 5, 1, bytes(4)),
        (0x010F, 99, 2**31, b"\xff" * 4),  # an unknown type
        (0x8769, 2, 3, b"ab\0\0"),  # where the block goes on, as text
    ],
)
def test_reading_exif_never_fails_a_picture(entry, tmp_path):
    photograph = read_photograph(with_exif(tmp_path, (0x010F, 2, 4, b"cam\0"), entry))
    assert photograph.pixels.shape == (60, 75, 3)
    write_photograph(tmp_path / "result.jpg", photograph)
    assert photograph.exif is not None or any("EXIF" in note for note in photograph.notes)


def test_exif_too_long_for_jpeg_is_left_out(tmp_path):
    write_photograph(tmp_path / "a.jpg", Photograph(np.asarray(PHOTOGRAPH), exif=b"Exif\0\0" + bytes(70_000)))
    assert read_photograph(tmp_path / "a.jpg").exif is None


def test_a_picture_over_the_limit_of_pillow_keeps_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = saved(tmp_path, ".png", PHOTOGRAPH.convert("RGBA"), icc_profile=SRGB)
    photograph = read_photograph(path)
    assert photograph.icc_profile == SRGB
    assert photograph.alpha is not None
    assert not photograph.notes
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setenv(LIMIT, "4499")
    with pytest.raises(PictureError, match="75x60 pixels"):
        read_photograph(path)


def test_notes_reach_the_user(tmp_path, capsys):
    saved(tmp_path, ".jpg", icc_profile=CMYK)
    assert main(["derain", str(tmp_path / "photograph.jpg"), "-o", str(tmp_path / "out")]) == 0
    assert f"note: {tmp_path}/photograph.jpg: its colour profile is damaged or one of" in capsys.readouterr().err


def test_a_picture_without_anything_that_pillow_knows_is_read(tmp_path):
    content = io.BytesIO()
    PHOTOGRAPH.save(content, "PNG")
    text = b"\0" * 2**20
    whole = content.getvalue()
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + bytes(4)
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])
    assert read_photograph(tmp_path / "a.png").pixels.shape == (60, 75, 3)
