"""LMDBs are read by BasicSR's own classes, and there is either a whole one or none."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from drsformer_arch.data.store import environments
from drsformer_arch.data.store.environments import Writer
from drsformer_arch.data.store.lmdb_builder import build_lmdb
from drsformer_arch.images.pictures import pictures_in_folder
from drsformer_arch.system.errors import UserError


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def content(folder: Path) -> dict[str, bytes]:
    """Read all entries of an LMDB."""
    environment = lmdb.open(str(folder), readonly=True, lock=False)
    with environment.begin() as transaction:
        entries = {key.decode(): bytes(value) for key, value in transaction.cursor()}
    environment.close()
    return entries


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def basicsr_pairs(rainy: Path, clean: Path, backend: str) -> list[dict]:
    """Read all samples of BasicSR's own data set."""
    import_module("drsformer_arch.bridge.importable")  # BasicSR cannot be imported without
    options = {"dataroot_lq": str(rainy), "dataroot_gt": str(clean), "io_backend": {"type": backend}}
    data_set = import_module("basicsr.data.paired_image_dataset").PairedImageDataset(
        options | {"phase": "val", "scale": 1}
    )
    return [data_set[index] for index in range(len(data_set))]


def test_basicsr_reads_the_same_from_the_lmdb_as_from_the_folder(tmp_path):
    for number, kind in enumerate(("rainy", "clean")):
        (tmp_path / kind).mkdir()
        color = noise(number, 21, 34, 3)
        cv2.imwrite(str(tmp_path / kind / "color.png"), color)
        cv2.imwrite(str(tmp_path / kind / "deep.png"), noise(number, 9, 12, 3).astype(np.uint16) * 257)
        cv2.imwrite(str(tmp_path / kind / "gray.PNG"), color[..., 0])
        cv2.imwrite(str(tmp_path / kind / "with alpha.png"), noise(number, 8, 9, 4))
        jpeg = cv2.imencode(".jpg", color)[1].tobytes()
        # EXIF with one entry: orientation 6, a quarter turn.
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
        turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
        (tmp_path / kind / "turned.jpg").write_bytes(turned)
        (tmp_path / kind / "notes.txt").write_text("no picture")
        (tmp_path / kind / "._color.png").write_bytes(b"what macOS leaves")

        found = pictures_in_folder(tmp_path / kind)
        assert list(found) == ["color", "deep", "gray", "turned", "with alpha"]
        assert build_lmdb(found, tmp_path / f"{kind}.lmdb", compress_level=3) == 5
        (tmp_path / kind / "notes.txt").unlink()  # BasicSR takes every file for a picture

    meta = (tmp_path / "rainy.lmdb" / "meta_info.txt").read_text().splitlines()
    assert meta[0] == "color.png (21,34,3) 3"
    assert "gray.png (21,34,1) 3" in meta
    assert "turned.png (34,21,3) 3" in meta
    assert sorted(os.listdir(tmp_path / "rainy.lmdb")) == ["data.mdb", "lock.mdb", "meta_info.txt"]
    from_folder = basicsr_pairs(tmp_path / "rainy", tmp_path / "clean", "disk")
    from_lmdb = basicsr_pairs(tmp_path / "rainy.lmdb", tmp_path / "clean.lmdb", "lmdb")
    assert len(from_folder) == len(from_lmdb) == 5
    for folder_sample in from_folder:
        name = Path(folder_sample["lq_path"]).stem
        lmdb_sample = next(sample for sample in from_lmdb if sample["lq_path"] == name)
        assert all(folder_sample[role].equal(lmdb_sample[role]) for role in ("lq", "gt")), name


def test_the_map_grows_by_need(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "_BATCH_BYTES", 100_000)  # several batches, and more than one that does not fit
    pictures = {f"folder/{number:03d}": noise(number, 50, 60, 3) for number in range(60)}
    assert build_lmdb(pictures, tmp_path / "small.lmdb", map_size=1) == 60
    entries = content(tmp_path / "small.lmdb")
    assert entries.keys() == pictures.keys()
    for key, picture in pictures.items():
        assert np.array_equal(cv2.imdecode(np.frombuffer(entries[key], np.uint8), cv2.IMREAD_UNCHANGED), picture)


@pytest.mark.parametrize("damage", ["cut short", "empty", "missing", "no picture"])
def test_an_unreadable_picture_leaves_everything_as_it_was(tmp_path, damage):
    whole = cv2.imencode(".png", noise(0, 20, 20, 3))[1].tobytes()
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(whole)
    pictures = pictures_in_folder(tmp_path)
    broken = pictures["4"]
    if damage == "missing":
        broken.unlink()
    else:
        broken.write_bytes({"cut short": whole[:-30], "empty": b"", "no picture": b"hello"}[damage])
    build_lmdb({"old": noise(1, 5, 5, 3)}, tmp_path / "old.lmdb")
    before = files_below(tmp_path)

    with pytest.raises(ValueError, match=r"4\.png cannot be read") as caught:
        build_lmdb(pictures, tmp_path / "new.lmdb")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"4\.png cannot be read"):
        build_lmdb(pictures, tmp_path / "old.lmdb", overwrite=True)
    assert files_below(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_what_was_not_written_is_found_out(tmp_path, monkeypatch):
    put = Writer.put
    pictures = {str(number): noise(number, 6, 7, 3) for number in range(5)}

    monkeypatch.setattr(Writer, "put", lambda self, key, value: key == b"4" or put(self, key, value))
    with pytest.raises(RuntimeError, match="5 pictures given, but 4 in the LMDB"):
        build_lmdb(pictures, tmp_path / "lost.lmdb")

    swapped = cv2.imencode(".png", noise(0, 9, 9, 3))[1].tobytes()
    monkeypatch.setattr(Writer, "put", lambda self, key, value: put(self, key, swapped if key == b"4" else value))
    with pytest.raises(RuntimeError, match=r"'4' was written with shape \(6, 7, 3\), but \(9, 9, 3\)"):
        build_lmdb(pictures, tmp_path / "wrong.lmdb")
    assert not list(tmp_path.iterdir())


BUILDER = """
import resource, sys, time
from pathlib import Path
import numpy as np
from drsformer_arch.data.store import lmdb_builder
from drsformer_arch.data.store.environments import Writer

class Slow(dict):
    def __getitem__(self, key):
        if key == "20" and sys.argv[2] == "wait":
            print("in the middle", flush=True)
            time.sleep(300)
        return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

put = Writer.put
Writer.put = lambda self, key, value: (put(self, key, value), self.commit())  # every picture at once
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
lmdb_builder.build_lmdb(Slow.fromkeys(map(str, range(40))), Path(sys.argv[1]), overwrite=True)
"""


def test_a_killed_builder_leaves_no_target(tmp_path):
    target = tmp_path / "data.lmdb"
    builder = subprocess.Popen([sys.executable, "-c", BUILDER, target, "wait"], stdout=subprocess.PIPE, text=True)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "in the middle\n"
    builder.send_signal(signal.SIGKILL)
    builder.wait(timeout=300)
    builder.stdout.close()
    left = list(tmp_path.iterdir())
    assert len(left) == 1  # the test really hit the middle of a build ...
    assert left[0].suffix != ".lmdb"  # ... whose folder BasicSR does not take for an LMDB
    assert len(content(left[0])) == 20

    build_lmdb({"a": noise(0, 4, 4, 3)}, target)
    assert list(tmp_path.iterdir()) == [target]
    assert content(target).keys() == {"a"}


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files the way Linux does")
def test_a_full_disk_leaves_what_was_there(tmp_path):
    target = tmp_path / "data.lmdb"
    build_lmdb({"old": noise(0, 4, 4, 3)}, target)
    before = files_below(tmp_path)
    builder = subprocess.run(
        [sys.executable, "-c", BUILDER, target, "full"], capture_output=True, text=True, check=False, timeout=300
    )
    assert builder.returncode == 1
    assert "lmdb." in builder.stderr.splitlines()[-1]
    assert files_below(tmp_path) == before


def test_an_existing_target_is_replaced_only_on_request(tmp_path):
    target = tmp_path / "data.lmdb"
    build_lmdb({"old": noise(0, 4, 4, 3)}, target)
    before = files_below(target)
    with pytest.raises(FileExistsError, match=r"data\.lmdb exists already.*overwrite=True"):
        build_lmdb({"new": noise(1, 4, 4)}, target)
    assert files_below(target) == before

    link = tmp_path / "link.lmdb"
    link.symlink_to(target)
    assert build_lmdb({"new": noise(1, 4, 4)}, link, overwrite=True) == 1
    assert link.is_symlink()
    assert content(target).keys() == {"new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.lmdb", "link.lmdb"]

    (tmp_path / "photos.lmdb").mkdir()
    (tmp_path / "photos.lmdb" / "mine.png").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="no LMDB"):
        build_lmdb({"new": noise(1, 4, 4)}, tmp_path / "photos.lmdb", overwrite=True)
    assert (tmp_path / "photos.lmdb" / "mine.png").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("im.v1", "first dot"),
        ("größe", "ASCII"),
        ("two\nlines", "line break"),
        ("", "something in it"),
        (7, "must be a text"),
        ("k" * 512, "511 bytes"),
    ],
)
def test_keys_basicsr_cannot_hold(tmp_path, key, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        build_lmdb({"good": noise(0, 4, 4, 3), key: noise(0, 4, 4, 3)}, tmp_path / "data.lmdb")
    assert repr(key) in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("pictures", "options", "reason"),
    [
        ({}, {}, "no pictures"),
        ({"a": np.zeros((4, 4, 3), np.float32)}, {}, "'a' must be .* of float32"),
        ({"a": np.zeros((4, 4, 2), np.uint8)}, {}, r"'a' must be .* \(4, 4, 2\)"),
        ({"a": np.zeros((4, 4), np.uint8)}, {"target": "folder"}, r"ends in \.lmdb"),
        ({"a": np.zeros((4, 4), np.uint8)}, {"compress_level": 10}, "0 to 9"),
        ({"a": np.zeros((4, 4), np.uint8)}, {"map_size": 0}, "map size"),
    ],
)
def test_wrong_arguments(tmp_path, pictures, options, reason):
    target = tmp_path / options.pop("target", "data.lmdb")
    with pytest.raises(ValueError, match=reason):
        build_lmdb(pictures, target, **options)
    assert not list(tmp_path.iterdir())


def test_pictures_in_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        pictures_in_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no picture"):
        pictures_in_folder(tmp_path)
    for name in ("b/2.jpg", "b/10.png", "a.png", ".thumbnails/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/back").symlink_to(tmp_path)
    (tmp_path / "b/there").symlink_to(tmp_path / "b")
    found = pictures_in_folder(tmp_path)
    assert list(found.items()) == [
        ("a", tmp_path / "a.png"),
        ("b/10", tmp_path / "b" / "10.png"),
        ("b/2", tmp_path / "b" / "2.jpg"),
    ]
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"'a': .*a\.jpg and .*a\.png"):
        pictures_in_folder(tmp_path)
