"""An archive becomes a whole folder or nothing, and nothing outside of it."""

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import pytest
from skimage import data

from drsformer_arch.system import archives
from drsformer_arch.system.archives import is_archive, unpack
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import lock

PICTURE = cv2.imencode(".png", data.coffee()[:60, :80])[1].tobytes()
FILES = {
    "set/train/rain/norain-1x2.png": PICTURE,
    "set/train/norain-1.png": PICTURE[::-1],
    "set/雨/é 1.v2.PNG": b"1" * 3000,
    f"set/{'long ' * 30}/{'name ' * 30}.png": b"long names need headers of their own",
    "empty.txt": b"",
}
COMPRESSIONS = {".tar": bytes, ".tar.gz": gzip.compress, ".tgz": gzip.compress, ".tar.bz2": bz2.compress}
COMPRESSIONS |= {".tar.xz": lzma.compress}


def tar_of(*members: tuple[str, bytes | str | None, bytes], format: int = tarfile.PAX_FORMAT, **options) -> bytes:
    """Make a tar of (name, content or target of a link, kind)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, **options) as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if isinstance(content, str):
                info.linkname = content
            info.size = len(content) if isinstance(content, bytes) else 0
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return file.getvalue()


def zip_of(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def tar_of_files(**options) -> bytes:
    folders = [("./", None, tarfile.DIRTYPE), ("set/empty folder/", None, tarfile.DIRTYPE)]
    return tar_of(*folders, *((name, content, tarfile.REGTYPE) for name, content in FILES.items()), **options)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(tmp_path: Path):
    """Unpack what must be refused; returns the message, and nothing may be left."""

    def unpack_content(content: bytes, name: str = "set.zip") -> str:
        archive = tmp_path / "in" / name
        archive.parent.mkdir(exist_ok=True)
        archive.write_bytes(content)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError) as caught:
            unpack(archive, tmp_path / "in" / "out")
        assert sorted(tmp_path.rglob("*")) == before
        assert str(archive) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return unpack_content


class TestKinds:
    @pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    @pytest.mark.parametrize("suffix", COMPRESSIONS)
    def test_tar(self, tmp_path, suffix, format):
        archive = tmp_path / f"My.Set{suffix.upper()}"
        archive.write_bytes(COMPRESSIONS[suffix](tar_of_files(format=format)))
        assert is_archive(archive)
        assert unpack(archive, tmp_path / "out") == len(FILES)
        assert content_of(tmp_path / "out") == FILES
        assert (tmp_path / "out/set/empty folder").is_dir()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([archive.name, "out"])

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_zip(self, tmp_path, method):
        archive = tmp_path / "set.zip"
        archive.write_bytes(zip_of(("set/empty folder/", b""), *FILES.items(), method=method))
        assert unpack(archive, tmp_path / "out", progress=False) == len(FILES)
        assert content_of(tmp_path / "out") == FILES
        assert (tmp_path / "out/set/empty folder").is_dir()

    def test_the_content_tells_the_kind(self, tmp_path):
        tar = tar_of_files()
        for content, name in (
            (tar, "a.tar.gz"),
            (tar, "b.zip"),
            (zip_of(*FILES.items()), "c.tar"),
            (gzip.compress(tar), "d.zip"),
        ):
            (tmp_path / name).write_bytes(content)
            unpack(tmp_path / name, tmp_path / f"{name} unpacked")
            assert content_of(tmp_path / f"{name} unpacked") == FILES

    def test_what_is_no_archive(self, tmp_path, refused):
        assert not is_archive(tmp_path)
        assert not is_archive(tmp_path / "gone.zip")
        (tmp_path / "1.png").write_bytes(PICTURE)
        assert not is_archive(tmp_path / "1.png")
        for name in ("set.zip", "set.tar", "set.tar.gz"):
            assert "damaged, incomplete or no archive" in refused(PICTURE, name)
            assert "damaged, incomplete or no archive" in refused(b"", name)
        assert "is a RAR archive" in refused(b"Rar!\x1a\x07\x01\x00" + PICTURE)
        for nothing, name in ((zip_of(), "set.zip"), (zip_of(("a/", b"")), "set.zip"), (tar_of(), "set.tar")):
            assert "holds no file" in refused(nothing, name)


class TestNames:
    def test_old_encodings(self, tmp_path):
        # Written by Windows in China, as a zip without a mark for UTF-8.
        content = zip_of(("x/1234.png", b"rainy"), ("y/1234.png", b"clean"))
        (tmp_path / "set.zip").write_bytes(content.replace(b"1234", "雨天".encode("gb18030")))
        # UTF-8 without the mark, as macOS writes it.
        (tmp_path / "mac.zip").write_bytes(content.replace(b"1234", "é1".encode() + b"2"))
        # Neither, in a zip and a tar.
        (tmp_path / "odd.zip").write_bytes(content.replace(b"1234", b"12\xff4"))
        (tmp_path / "odd.tar").write_bytes(
            tar_of(("x/1\udcff.png", b"rainy", tarfile.REGTYPE), format=tarfile.GNU_FORMAT, errors="surrogateescape")
        )
        for name in ("set.zip", "mac.zip", "odd.zip", "odd.tar"):
            unpack(tmp_path / name, tmp_path / f"{name} out")
        assert content_of(tmp_path / "set.zip out") == {"x/雨天.png": b"rainy", "y/雨天.png": b"clean"}
        assert content_of(tmp_path / "mac.zip out") == {"x/é12.png": b"rainy", "y/é12.png": b"clean"}
        assert content_of(tmp_path / "odd.zip out") == {"x/12\xa04.png": b"rainy", "y/12\xa04.png": b"clean"}
        assert content_of(tmp_path / "odd.tar out") == {"x/1\xa0.png": b"rainy"}

    def test_folders_of_windows(self, tmp_path):
        (tmp_path / "set.zip").write_bytes(zip_of(("rain\\", b""), ("rain\\X2\\1.png", b"rainy"), ("./a//b.png", b"c")))
        unpack(tmp_path / "set.zip", tmp_path / "out")
        assert content_of(tmp_path / "out") == {"rain/X2/1.png": b"rainy", "a/b.png": b"c"}

    @pytest.mark.parametrize(
        "name",
        ["../1.png", "a/../../1.png", "/etc/1.png", "C:/1.png", "c:1.png", "a\\..\\..\\1.png", "\\\\host\\1.png"],
    )
    @pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
    def test_no_way_out(self, refused, name, kind):
        good = ("a/good.png", PICTURE)
        if kind == "zip":
            message = refused(zip_of(good, (name, b"evil")))
        else:
            content = tar_of((*good, tarfile.REGTYPE), (name, b"evil", tarfile.REGTYPE))
            message = refused(gzip.compress(content) if kind == "tar.gz" else content, f"set.{kind}")
        assert repr(name) in message
        assert "leads out" in message or "absolute" in message

    @pytest.mark.parametrize(
        "names", [("a.png", "a.png"), ("a.png", "./a.png"), ("a", "a/b.png"), ("a/b.png", "a"), ("a/b", "x", "a/b/c/d")]
    )
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_no_name_twice(self, refused, names):
        assert (
            "occurs twice" in (message := refused(zip_of(*((name, b"") for name in names)))) or "lies below" in message
        )
        message = refused(tar_of(*((name, b"", tarfile.REGTYPE) for name in names)), "set.tar")
        assert "occurs twice" in message or "lies below" in message


class TestLinks:
    def test_to_members(self, tmp_path):
        members = [
            ("set/norain/1.png", PICTURE, tarfile.REGTYPE),
            ("set/heavy/1.png", "../norain/1.png", tarfile.SYMTYPE),
            ("set/light/1.png", "set/heavy/1.png", tarfile.LNKTYPE),
            ("set/heavy/norain", "../light/../norain", tarfile.SYMTYPE),
            ("set/again", "heavy/norain/1.png", tarfile.SYMTYPE),
        ]
        (tmp_path / "set.tar").write_bytes(tar_of(*members))
        assert unpack(tmp_path / "set.tar", tmp_path / "out") == 5
        shutil.move(tmp_path / "out", tmp_path / "moved")
        for name in ("norain/1.png", "heavy/1.png", "light/1.png", "heavy/norain/1.png", "again"):
            assert (tmp_path / "moved/set" / name).read_bytes() == PICTURE

    @pytest.mark.parametrize(
        ("members", "reason"),
        [
            ([("a", "/etc", tarfile.SYMTYPE)], "outside"),
            ([("a/b", "../../x", tarfile.SYMTYPE)], "outside"),
            ([("a", "../x", tarfile.LNKTYPE)], "outside"),
            ([("a", "/etc/passwd", tarfile.LNKTYPE)], "outside"),
            ([("a", "C:\\x", tarfile.SYMTYPE)], "outside"),
            # Each name stays inside, but not when the other link is followed.
            ([("x/b", ".", tarfile.SYMTYPE), ("a", "x/b/../../y", tarfile.SYMTYPE)], "outside"),
            ([("a", "b", tarfile.SYMTYPE), ("b", "a", tarfile.SYMTYPE)], "circle"),
            ([("a", "gone.png", tarfile.SYMTYPE)], "does not hold"),
            ([("a", ".", tarfile.SYMTYPE), ("a/evil.png", b"x", tarfile.REGTYPE)], "lies below"),
            ([("a", None, tarfile.CHRTYPE)], "device"),
            ([("a", None, tarfile.FIFOTYPE)], "device"),
        ],
    )
    def test_to_elsewhere(self, refused, members, reason):
        assert reason in refused(tar_of(("good.png", PICTURE, tarfile.REGTYPE), *members), "set.tar")

    def test_in_zip(self, tmp_path, refused):
        def linked(target: str, mode: int = 0o120777) -> bytes:
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("a/1.png", PICTURE)
                info = zipfile.ZipInfo("b")
                info.create_system, info.external_attr = 3, mode << 16
                archive.writestr(info, target)
            return file.getvalue()

        (tmp_path / "set.zip").write_bytes(linked("a"))
        unpack(tmp_path / "set.zip", tmp_path / "out")
        assert (tmp_path / "out/b/1.png").read_bytes() == PICTURE
        assert "outside" in refused(linked("../../etc"))
        assert "device" in refused(linked("", 0o020666))


class TestDamage:
    @pytest.mark.parametrize("suffix", [*COMPRESSIONS, ".zip"])
    def test_no_cut_or_flipped_bit_gives_a_part(self, tmp_path, suffix):
        whole = zip_of(*FILES.items()) if suffix == ".zip" else COMPRESSIONS[suffix](tar_of_files())
        archive, into = tmp_path / f"set{suffix}", tmp_path / "out"
        rng = random.Random(0)
        for trial in range(60):
            content = bytearray(whole)
            if trial % 2:
                # The last of the zeros after the end of a tar may go.
                del content[rng.randrange(len(whole) if suffix != ".tar" else len(whole) - 10240) :]
            elif suffix == ".tar":
                continue  # it has no check sums for its content
            else:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            archive.write_bytes(content)
            try:
                unpack(archive, into, progress=False)
            except UserError:
                pass
            else:  # a bit that means nothing, such as in a date
                assert content_of(into) == FILES
                shutil.rmtree(into)
            assert list(tmp_path.iterdir()) == [archive]

    def test_a_tar_cut_between_two_members(self, refused):
        whole = tar_of(("1.png", b"1" * 512, tarfile.REGTYPE), ("2.png", b"2" * 512, tarfile.REGTYPE))
        assert "its end is missing" in refused(whole[:1024], "set.tar")
        assert "its end is missing" in refused(gzip.compress(whole[:1024]), "set.tar.gz")
        spoilt = whole[:1024] + bytes([whole[1024] ^ 1]) + whole[1025:]
        assert "its end is missing" in refused(spoilt, "set.tar")

    def test_what_zip_files_can_be_like(self, refused):
        content = zip_of(("1.png", PICTURE), method=zipfile.ZIP_STORED)
        directory = content.index(b"PK\x01\x02")
        encrypted, method = bytearray(content), bytearray(content)
        encrypted[6] = encrypted[directory + 8] = 1
        assert "is encrypted (member '1.png')" in refused(bytes(encrypted))
        method[8] = method[directory + 10] = 9
        assert "compressed by method 9" in refused(bytes(method))
        assert "Bad CRC-32 for file '1.png'" in refused(content.replace(PICTURE[40:50], PICTURE[50:60]))


class TestDisk:
    def test_too_small(self, tmp_path, refused, monkeypatch):
        usage = shutil.disk_usage(tmp_path)._replace(free=2_500_000_000)
        monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
        content = zip_of(("1.png", PICTURE))
        size = content.rindex(len(PICTURE).to_bytes(4, "little"))
        large = content[:size] + (4_000_000_000).to_bytes(4, "little") + content[size + 4 :]
        assert "needs 4.00 GB unpacked, but the disk of" in (message := refused(large))
        assert "has 2.50 GB free" in message

    def test_full(self, refused, monkeypatch):
        def full(path, mode, open=Path.open):
            if path.name == "2.png":
                raise OSError(28, "No space left on device")
            return open(path, mode)

        monkeypatch.setattr(Path, "open", lambda path, mode="r": full(path, mode))
        assert "is full" in refused(zip_of(("1.png", PICTURE), ("2.png", PICTURE)))

    def test_names_the_disk_cannot_hold(self, refused):
        assert "File name too long" in refused(zip_of(("a.png", b""), ("x" * 300 + ".png", b"")))

    def test_the_target_must_be_new(self, tmp_path):
        (tmp_path / "set.zip").write_bytes(zip_of(("1.png", PICTURE)))
        (tmp_path / "out").mkdir()
        with pytest.raises(UserError, match="out exists already"):
            unpack(tmp_path / "set.zip", tmp_path / "out")
        with pytest.raises(UserError, match=r"no folder .*gone to unpack"):
            unpack(tmp_path / "set.zip", tmp_path / "gone/out")
        with pytest.raises(UserError, match=r"no such archive: .*none\.zip"):
            unpack(tmp_path / "none.zip", tmp_path / "new")

    def test_an_interrupt_leaves_nothing(self, tmp_path, monkeypatch):
        (tmp_path / "set.zip").write_bytes(zip_of(("1.png", PICTURE)))

        def interrupt() -> None:
            assert len(os.listdir(tmp_path)) == 2
            raise KeyboardInterrupt

        monkeypatch.setattr(archives.os, "sync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpack(tmp_path / "set.zip", tmp_path / "out")
        assert os.listdir(tmp_path) == ["set.zip"]

    def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_is_not(self, tmp_path):
        (tmp_path / "set.zip").write_bytes(zip_of(("1.png", PICTURE)))
        for name in (".out.12345678.unpacking", ".out.87654321.unpacking", ".other.12345678.unpacking"):
            (tmp_path / name / "inside").mkdir(parents=True)
        running = lock(tmp_path / ".out.87654321.unpacking")
        unpack(tmp_path / "set.zip", tmp_path / "out")
        os.close(running)
        left = {path.name for path in tmp_path.iterdir()} - {"set.zip", "out"}
        assert left == {".out.87654321.unpacking", ".other.12345678.unpacking"}
