"""`drsformer derain`: real files of all kinds, from the disk to the disk."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from drsformer_arch import archs
from drsformer_arch.archs.contract import Contract
from drsformer_arch.cli import main
from drsformer_arch.images.photographs import read_photograph
from drsformer_arch.images.pictures import ORIENTATION
from drsformer_arch.restore.restorer import Restorer
from drsformer_arch.restore.tiling import restore
from tests.golden_weights import load_golden_weights

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    net = load_golden_weights(archs.DRSformer(dim=8, num_blocks=(1, 1, 1, 1), with_mefc=False), 0.5)
    torch.save({"params": net.state_dict()}, path)
    return path


def picture(height: int = 45, width: int = 60, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    y, x, c = np.mgrid[:height, :width, :channels]
    waves = 0.5 + 0.2 * np.sin(x / 9 + c) + 0.2 * np.cos(y / 7 - c)
    return np.rint(waves * np.iinfo(dtype).max).astype(dtype)


def expected(weights: Path, pixels: np.ndarray) -> np.ndarray:
    """Derain by hand: whole picture, ordinary form of the network."""
    net = archs.DRSformer(dim=8, num_blocks=(1, 1, 1, 1), with_mefc=False)
    net.load_state_dict(torch.load(weights)["params"])
    largest = np.iinfo(pixels.dtype).max
    rainy = torch.from_numpy(np.broadcast_to(pixels, (*pixels.shape[:2], 3)) / np.float32(largest)).permute(2, 0, 1)
    with torch.no_grad():
        result = restore(net, rainy[None])[0].clamp(0, 1).permute(1, 2, 0).double().numpy() * largest
    return result.mean(axis=2, keepdims=True) if pixels.shape[2] == 1 else result


def run(*arguments: object) -> int:
    return main(["derain", *map(str, arguments)])


def test_a_folder_keeps_its_structure_formats_and_depths(weights, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    pictures = {
        "a.png": picture(),
        "deep/gray.png": picture(channels=1),
        "deep/b.tif": picture(33, 17, dtype=np.uint16),
        "gray16.png": picture(channels=1, dtype=np.uint16),
        "c.bmp": picture(8, 8),
        "one.png": picture(1, 1),
        "long.png": picture(3, 300),
    }
    for name, pixels in pictures.items():
        cv2.imwrite(str(source / name), pixels if pixels.shape[2] == 1 else pixels[..., ::-1])
    Image.fromarray(picture()).save(source / "photo.jpg", quality=95)
    assert run(source, "-o", out, "-w", weights, "--batch", 3) == 0
    assert "8 of 8 files derained with DRSformer" in capsys.readouterr().out
    for name, pixels in pictures.items():
        result = read_photograph(out / name).pixels
        assert result.shape == pixels.shape, name
        assert result.dtype == pixels.dtype, name
        tolerance = 0.51 + 1e-4 * np.iinfo(pixels.dtype).max
        assert np.abs(result - expected(weights, pixels)).max() <= tolerance, name
    assert (
        run(tmp_path, "-o", out / "again", "-w", weights) == 0
    )  # OUT lies in INPUT: earlier results there are no input
    assert run(tmp_path, "-o", out / "again", "-w", weights, "--overwrite") == 0
    assert not (out / "again" / "out" / "again").exists()
    jpeg = read_photograph(source / "photo.jpg").pixels
    assert np.abs(read_photograph(out / "photo.jpg").pixels - expected(weights, jpeg)).mean() < 2


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [*((suffix, np.uint8) for suffix in (".png", ".tif", ".webp", ".jpg")), (".png", np.uint16), (".tif", np.uint16)],
)
def test_transparency_profile_and_orientation_are_kept(suffix, dtype, weights, tmp_path):
    pixels, alpha = picture(dtype=dtype), picture(channels=1, dtype=dtype)[..., 0]
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F] = 6, "a camera"  # to be turned clockwise
    path = tmp_path / f"photo{suffix}"
    if dtype == np.uint16:
        cv2.imwrite(str(path), np.dstack((pixels[..., ::-1], alpha)))
        turned, turned_alpha = pixels, alpha
    else:
        with_alpha = suffix != ".jpg"
        image = Image.fromarray(np.dstack((pixels, alpha)) if with_alpha else pixels)
        lossless = {"lossless": True} if suffix == ".webp" else {}
        image.save(path, icc_profile=ICC, exif=exif, **lossless)
        turned, turned_alpha = np.rot90(pixels, -1), np.rot90(alpha, -1) if with_alpha else None
    out = tmp_path / "out" / f"photo{suffix}"
    assert run(path, "-o", out.parent, "-w", weights) == 0
    source, result = read_photograph(path), read_photograph(out)
    assert source.pixels.shape == turned.shape
    if turned_alpha is None:
        assert result.alpha is None
    elif suffix == ".webp":
        assert np.abs(result.alpha.astype(int) - turned_alpha).max() <= 1
    else:
        assert np.array_equal(result.alpha, turned_alpha)
    error = np.abs(result.pixels - expected(weights, source.pixels)).mean() / np.iinfo(dtype).max
    assert error < (0.03 if suffix in (".jpg", ".webp") else 0.003)
    if dtype == np.uint8:
        assert result.icc_profile == ICC
        if suffix != ".tif":
            with Image.open(out) as image:
                assert image.getexif()[ORIENTATION] == 1
                assert image.getexif()[0x010F] == "a camera"


def test_16_bit_png_keeps_its_profile(weights, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(dtype=np.uint16))
    content = (tmp_path / "a.png").read_bytes()
    plain = io.BytesIO()
    Image.fromarray(picture()).save(plain, "PNG", icc_profile=ICC)
    start = plain.getvalue().index(b"iCCP") - 4
    length = int.from_bytes(plain.getvalue()[start : start + 4], "big") + 12
    (tmp_path / "a.png").write_bytes(content[:33] + plain.getvalue()[start : start + length] + content[33:])
    assert run(tmp_path / "a.png", "-o", tmp_path / "out", "-w", weights) == 0
    result = read_photograph(tmp_path / "out" / "a.png")
    assert result.icc_profile == ICC
    assert result.pixels.dtype == np.uint16


def test_bad_pictures_are_named_and_the_rest_goes_on(weights, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(picture()).save(source / "good.png")
    Image.fromarray(picture()).save(source / "good.jpg")
    (source / "cut.jpg").write_bytes((source / "good.jpg").read_bytes()[:300])
    (source / "text.png").write_text("not a picture")
    (source / "empty.png").touch()
    Image.fromarray(picture()).save(source / "cmyk.jpg")
    Image.open(source / "cmyk.jpg").convert("CMYK").save(source / "cmyk.jpg")
    Image.fromarray(picture()).save(
        source / "moving.webp", save_all=True, append_images=[Image.fromarray(picture()[::-1])]
    )
    frames = [Image.fromarray(picture()[index:]) for index in range(2)]
    frames[0].save(source / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(source / "still.gif")
    assert run(source, "-o", out, "-w", weights) == 1
    said = capsys.readouterr()
    assert "4 of 9 files derained" in said.out
    for name in ("cut.jpg", "text.png", "empty.png", "moving.webp", "moving.gif"):
        assert sum(name in line for line in said.err.splitlines()) == 1, name
    assert sorted(path.name for path in out.iterdir()) == ["cmyk.jpg", "good.jpg", "good.png", "still.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png", "-o", "out"], "there is no file nothing.png"),
        (["*.tiff", "-o", "out"], "nothing matches *.tiff"),
        (["empty", "-o", "out"], "no picture"),
        (["a.png", "-o", "."], "would replace its source"),
        (["a.png", "deep/a.png", "-o", "out"], "would have the same result"),
        (["a.png", "-o", "done"], "results exist already: done/a.png"),
        (["a.png", "-o", "out", "--tile", "many"], "--tile must be a whole number"),
        (["a.png", "-o", "out", "-w", "a.png"], "a.png is a picture, no weights"),
    ],
)
def test_mistakes_are_one_line(arguments, message, weights, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    monkeypatch.chdir(tmp_path)
    for folder in ("deep", "done", "empty"):
        Path(folder).mkdir()
    for name in ("a.png", "deep/a.png", "done/a.png"):
        Image.fromarray(picture(8, 8)).save(name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert run("-w", weights, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


def test_results_are_replaced_and_renamed_only_when_asked(weights, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    out = tmp_path / "clean.png"
    assert run(tmp_path / "a.png", "-o", out, "-w", weights) == 0
    assert run(tmp_path / "a.png", "-o", out, "-w", weights) == 2
    assert run(tmp_path / "a.png", "-o", out, "-w", weights, "--overwrite") == 0
    assert run(tmp_path / "a.png", "-o", tmp_path / "jpegs", "-w", weights, "--format", "jpg") == 0
    assert (tmp_path / "jpegs" / "a.jpg").exists()
    assert run(tmp_path / "a.png", "-o", tmp_path / "deep", "-w", weights, "--depth", 16) == 0
    assert read_photograph(tmp_path / "deep" / "a.png").pixels.dtype == np.uint16


def test_a_failed_write_leaves_the_old_result(weights, tmp_path, monkeypatch, capsys):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert run(tmp_path / "a.png", "-o", out, "-w", weights) == 0
    before = (out / "a.png").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert run(tmp_path / "a.png", "-o", out, "-w", weights, "--overwrite", "--depth", 16) == 1
    assert "out/a.png cannot be written: No space left on device" in capsys.readouterr().err
    assert run(tmp_path / "a.png", "-o", out / "a.png" / "below", "-w", weights) == 1  # no folder can be made there
    assert "a.png/below/a.png cannot be written: Not a directory" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["a.png"]
    assert (out / "a.png").read_bytes() == before


def test_tiles_are_chosen_by_memory_and_shrink_when_it_is_not_enough(weights):
    large = picture(200, 264)
    whole = Restorer(weights, tile=0)(large)
    restorer = Restorer(weights, memory=100 * 100 * 52 * 8)
    net, sizes = restorer.net, []
    restorer.net.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[2:]))
    tiled = restorer(large)
    assert max(max(size) for size in sizes) <= 160
    assert len(sizes) > 1
    assert np.abs(tiled.astype(int) - whole).mean() < 2
    assert "tiles change the results of DRSformer" in (restorer.note_on_tiles() or "")
    assert Restorer(weights).note_on_tiles() is None

    class Scarce(torch.nn.Module):
        """A network that has memory for 128x128 pixels only."""

        contract = Contract(size_multiple=8)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[2] * image.shape[3] > 128**2:
                raise torch.OutOfMemoryError("allocate memory")
            return net(image)

    restorer = Restorer(weights)
    restorer.net = Scarce()
    sizes.clear()
    assert restorer(large).shape == large.shape
    restorer = Restorer(weights, tile=0)
    restorer.net = Scarce()
    with pytest.raises(RuntimeError, match="allocate memory"):  # who asks for whole pictures gets them or nothing
        restorer(large)


@pytest.mark.parametrize("shape", [(4, 4, 2), (4, 4, 4), (0, 4, 3), (4,)])
def test_the_restorer_refuses_what_is_no_picture(shape, weights):
    with pytest.raises(ValueError, match="must be"):
        Restorer(weights)(np.zeros(shape, np.uint8))


def save_pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(picture(24, 32)).save(folder / name)


def test_whatever_is_wrong_with_one_input_is_its_line(weights, tmp_path, monkeypatch, capsys):
    save_pictures(tmp_path / "in", *(f"{letter}.png" for letter in "abcdef"))
    batch, bad = Restorer.batch, picture(24, 32)
    bad[0, 0] = 7
    for name in ("b", "e"):
        Image.fromarray(bad).save(tmp_path / "in" / f"{name}.png")
    errors = iter((KeyError("x"), KeyError("x"), MemoryError(), MemoryError()))

    def fails(self: Restorer, pictures: list[np.ndarray]) -> list[np.ndarray]:
        if any((pixels[0, 0] == 7).all() for pixels in pictures):
            raise next(errors)
        return batch(self, pictures)

    monkeypatch.setattr(Restorer, "batch", fails)
    assert run(tmp_path / "in", "-o", tmp_path / "out", "-w", weights, "--batch", 3) == 1
    said = capsys.readouterr()
    assert "4 of 6 files derained" in said.out
    assert "Traceback" not in said.err
    lines = [
        f"error: {tmp_path / 'in' / 'b.png'}: KeyError: 'x'",
        f"error: {tmp_path / 'in' / 'e.png'}: not enough memory",
    ]
    assert said.err.splitlines() == lines
    errors = iter((KeyError("x"),))
    assert run(tmp_path / "in" / "b.png", "-o", tmp_path / "c.png", "-w", weights, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_exif_notes_that_cannot_be_kept_are_dropped_with_a_note(weights, tmp_path, capsys):
    exif = Image.Exif()
    exif[0x011A] = 72.0  # XResolution
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    content = (tmp_path / "a.jpg").read_bytes()
    entry = content.index(b"\x01\x1a\x00\x05")
    (tmp_path / "a.jpg").write_bytes(content[: entry + 3] + b"\x02" + content[entry + 4 :])  # text, says its type
    exif[0x9286] = b"long" * 20_000  # UserComment; more than JPEG holds
    Image.fromarray(picture()).save(tmp_path / "b.png", exif=exif)
    assert run(tmp_path / "a.jpg", tmp_path / "b.png", "-o", tmp_path / "out", "-w", weights, "--format", "jpg") == 0
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2, notes
    assert all(note.startswith("note: ") and "EXIF" in note for note in notes), notes
    assert read_photograph(tmp_path / "out" / "b.jpg").exif is None


@pytest.fixture
def gray_and_six(tmp_path) -> tuple[Path, Path]:
    """Write weights of networks for gray pictures, and for two in colour side by side."""
    for channels, name in ((1, "gray"), (6, "six")):
        network = {"dim": 8, "num_blocks": (1, 1, 1, 1), "with_mefc": False}
        net = archs.DRSformer(inp_channels=channels, out_channels=channels, **network)
        torch.save({"params": net.state_dict()}, tmp_path / f"{name}.pth")
    return tmp_path / "gray.pth", tmp_path / "six.pth"


def test_networks_of_other_channels(gray_and_six, tmp_path, capsys):
    gray, six = gray_and_six
    source = tmp_path / "in"
    save_pictures(source, "colour.png")
    cv2.imwrite(str(source / "gray.png"), picture(24, 32, channels=1))
    assert run(source, "-o", tmp_path / "out", "-w", gray) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "colour.png: this is a picture in colour, the weights are of a network for gray" in error
    result = read_photograph(tmp_path / "out" / "gray.png").pixels
    net = archs.DRSformer(inp_channels=1, out_channels=1, dim=8, num_blocks=(1, 1, 1, 1), with_mefc=False)
    net.load_state_dict(torch.load(gray)["params"])
    rainy = torch.from_numpy(picture(24, 32, channels=1) / np.float32(255)).permute(2, 0, 1)
    with torch.no_grad():
        wanted = restore(net, rainy[None])[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255
    assert result.shape == (24, 32, 1)
    assert np.abs(result - wanted).max() < 0.6
    assert run(source, "-o", tmp_path / "out6", "-w", six) == 2
    assert "six.pth: a network for pictures of 6 channels" in capsys.readouterr().err


def test_nan_results_are_no_black_pictures(weights, tmp_path, capsys):
    content = torch.load(weights)
    content["params"]["output.weight"].fill_(3e38)  # finite, their sums are not
    torch.save(content, tmp_path / "bad.pth")
    save_pictures(tmp_path / "in", "a.png", "b.png")
    assert run(tmp_path / "in", "-o", tmp_path / "out", "-w", tmp_path / "bad.pth", "--batch", 2) == 1
    error = capsys.readouterr().err
    assert error.count("the network returns NaN or infinite values") == error.count("\n") == 2
    assert not list((tmp_path / "out").glob("*"))


def test_linked_folders_are_followed_and_what_is_no_file_is_named(weights, tmp_path, capsys):
    source, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    save_pictures(source, "a.png")
    save_pictures(elsewhere / "deep", "b.png")
    (source / "linked").symlink_to(elsewhere)
    (elsewhere / "deep" / "back").symlink_to(source)
    (elsewhere / "round").symlink_to("round")
    (source / "c.png").symlink_to("nowhere.png")
    (source / "gone").symlink_to(tmp_path / "unplugged")
    os.mkfifo(source / "pipe.png")
    assert run(source, "-o", source / "out", "-w", weights) == 1
    said = capsys.readouterr()
    lines = sorted(line.partition(str(source))[2].partition(" is ")[::2] for line in said.err.splitlines())
    assert [name.removeprefix(os.sep) for name, _ in lines] == ["c.png", "gone", "linked/round", "pipe.png"]
    assert all("link to no file" in reason or "a pipe" in reason for _, reason in lines), lines
    written = {str(path.relative_to(source / "out")) for path in (source / "out").rglob("*.png")}
    assert written == {"a.png", "linked/deep/b.png"}
    assert run(source, "-o", source / "out", "-w", weights, "--overwrite") == 1  # earlier results are no input
    assert {str(path.relative_to(source / "out")) for path in (source / "out").rglob("*.png")} == written


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/dev/zero", "/dev/zero is a device, not a file"),
        ("pipe.mp4", "pipe.mp4 is a pipe, not a file"),
        ("link.png", "link.png is a link to no file"),
        ("a.rar", "a.rar is an archive, no picture or video; unpack it yourself and give the folder"),
        ("a.tar.gz", "a.tar.gz is an archive"),
    ],
)
def test_what_is_no_file_is_refused_at_once(name, message, weights, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.mp4")
    Path("link.png").symlink_to("nothing.png")
    for archive in ("a.rar", "a.tar.gz"):
        Path(archive).write_bytes(b"Rar!")
    assert run(name, "-o", "out", "-w", weights) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()
    assert run("-o", "out", "-w", "pipe.mp4", "a.rar") == 2  # weights that would be waited for


def test_left_overs_go_also_where_nothing_is_written(weights, tmp_path, capsys):
    save_pictures(tmp_path, "a.png")
    save_pictures(tmp_path / "out", "a.png")
    (tmp_path / "out" / ".a.drsformer-0123abcd.tmp").touch()
    assert run(tmp_path / "a.png", "-o", tmp_path / "out", "-w", weights) == 2
    assert "results exist already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
