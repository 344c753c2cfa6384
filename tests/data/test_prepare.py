"""`drsformer prepare`: every form holds the same data, kills cost nothing, and bad input is named in one line."""

import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from basicsr.data import build_dataset
from skimage import data

from drsformer_arch.cli import main
from drsformer_arch.data.pairing.pair_keys import SourcePair
from drsformer_arch.data.prepare import shard_build
from drsformer_arch.data.prepare.preparation import prepare_dataset
from drsformer_arch.data.store.manifest import read_manifest
from drsformer_arch.data.store.store import Store, entries
from drsformer_arch.images.pictures import decode
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import lock, sha256_of_file
from tests.runs import Run, drsformer

COMMAND = [sys.executable, "-m", "drsformer_arch.cli", "prepare", "pairs"]


def write_pairs(root: Path, count: int, size: tuple[int, int] = (96, 112), seed: int = 0) -> list[Path]:
    """Write folders rainy/ and clean/ with cuts of a photograph."""
    photograph = cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2BGR)
    rng = np.random.default_rng(seed)
    for index in range(count):
        top, left = rng.integers(photograph.shape[0] - size[0]), rng.integers(photograph.shape[1] - size[1])
        clean = photograph[top : top + size[0], left : left + size[1]]
        for part, picture in (("clean", clean), ("rainy", add_rain(clean, rng))):
            path = root / part / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    return [root / "rainy", root / "clean"]


def content(store: Path) -> dict[bytes, bytes]:
    return {key: bytes(value) for shard in Store(store).shards for key, value in entries(store / shard.file)}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lmdb_content(folder: Path) -> dict:
    pictures = {line: b"" for line in (folder / "meta_info.txt").read_text().splitlines()}
    return pictures | {key.decode(): bytes(value) for key, value in entries(folder)}


def fails(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Run a command that must fail with one line on stderr, which is returned."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "pair/s" not in line]
    assert [line for line in lines if line.strip() and not line.startswith("train:")][:-1] == []
    return lines[-1]


def test_all_forms_hold_the_same_pairs(tmp_path, capsys):
    sources = [str(folder) for folder in write_pairs(tmp_path / "source", 7)]
    before = files_below(tmp_path / "source")
    for form in ([], ["--lmdb"], ["--lmdb", "raw"], ["--lmdb", "basicsr"]):
        name = form[-1] if len(form) == 2 else "store" if form else "folder"
        assert main(["prepare", "pairs", *sources, "-o", str(tmp_path / name), *form, "--shard-size", "0.05"]) == 0
    assert files_below(tmp_path / "source") == before
    capsys.readouterr()
    again = ["prepare", "pairs", *sources, "-o", str(tmp_path / "raw"), "--lmdb", "raw", "--shard-size", "0.05"]
    assert main(again) == 0
    assert "7 pairs, complete already" in capsys.readouterr().out
    places = {"folder": "train", "store": "train.lmdb", "raw": "train.lmdb", "basicsr": "train"}
    manifests = {sha256_of_file(tmp_path / name / place / "manifest.jsonl") for name, place in places.items()}
    assert manifests == {Store(tmp_path / "raw/train.lmdb").manifest_sha256}
    assert not [path for name in places for path in (tmp_path / name).glob(".*")]

    head, rows = read_manifest(tmp_path / "raw/train.lmdb/manifest.jsonl")
    assert (head["dataset"], head["split"], head["pairs"], head["skipped"]) == ("pairs", "train", 7, 0)
    pictures = dict(Store(tmp_path / "raw/train.lmdb").items())
    for row in rows:
        for role, part in (("input", "rainy"), ("target", "clean")):
            picture = cv2.imread(str(tmp_path / "source" / part / f"{row['name']}.png"))[..., ::-1]
            assert np.array_equal(pictures[f"{role}/{row['name']}"], picture)
            assert row[role]["shape"] == [96, 112, 3]

    # BasicSR's own data set reads the folders and the LMDBs.
    samples = []
    for kind, ending in (("disk", ""), ("lmdb", ".lmdb")):
        root = tmp_path / ("folder" if kind == "disk" else "basicsr") / "train"
        roots = {"dataroot_lq": str(root / f"input{ending}"), "dataroot_gt": str(root / f"target{ending}")}
        section = {"type": "PairedImageDataset", "name": kind, "phase": "val", "scale": 1, "io_backend": {"type": kind}}
        pairs = build_dataset(section | roots)
        samples.append(sorted((Path(pairs[i]["gt_path"]).stem, float(pairs[i]["lq"].sum())) for i in range(len(pairs))))
    assert samples[0] == samples[1]
    assert len(samples[0]) == 7


@pytest.mark.parametrize("form", ["compressed", "folder", "basicsr"])
def test_killed_at_any_moment_it_goes_on(tmp_path, form, fault, long):
    """Twelve kills in all (24 in the long form), of the command alone or with its workers, of an archive of two splits.

    A kill comes when so much is written, not after so much time, which a busy machine needs or does not need.
    """
    for split, count in (("train", 36), ("test", 12)):
        write_pairs(tmp_path / "source" / split, count)
    (tmp_path / "source/train/rainy/007.png").write_bytes(b"no picture")  # skipped pairs are the same, too
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "source")

    def command(place: str) -> list[str]:
        options = [] if form == "folder" else ["--lmdb", form]
        return ["prepare", "pairs", archive, "-o", place, *options, "--shard-size", "0.15", "--skip-bad"]

    def written(place: str) -> int:
        """In blocks, half-written files included."""
        blocks = 0
        for folder, _, files in os.walk(tmp_path / place):  # which passes over folders that vanish meanwhile
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    blocks += os.stat(os.path.join(folder, name)).st_blocks
        return blocks

    def results(place: str) -> list[dict]:
        root = tmp_path / place
        splits = sorted(path for path in root.iterdir() if path.is_dir())
        assert [path.stem for path in splits] == ["test", "train"]
        if form == "compressed":
            return [content(store) | {b"manifest": Store(store).manifest_sha256} for store in splits]
        if form == "folder":
            return [files_below(folder) for folder in splits]
        return [lmdb_content(split / f"{role}.lmdb") for split in splits for role in ("input", "target")]

    drsformer(tmp_path, *command("whole"))
    reference, everything = results("whole"), written("whole")
    moments = random.Random(5)
    unfinished = 0
    places = ("first", "second")[: 2 if long else 1]
    for place in places:
        with fault("kill -9 four times while building"):
            for kill in range(4):
                before = written(place)
                enough = before + moments.uniform(0, 1) * (everything - before)
                builder = Run(tmp_path, *command(place), output=tmp_path / "log")
                while builder.poll() is None and written(place) <= enough:
                    time.sleep(0.002)
                unfinished += builder.poll() is None
                if kill % 2:
                    builder.kill()  # the workers end by themselves
                elif builder.poll() is None:
                    builder.kill_group()
                builder.wait()
            drsformer(tmp_path, *command(place))
            assert results(place) == reference
            assert not list((tmp_path / place).glob(".*"))
    assert unfinished >= 2 * len(places)  # otherwise the kills came too late to test anything


def test_what_a_stopped_run_left_is_trusted_only_where_it_is_whole(tmp_path, capsys):
    """A picture cut short by a power failure, and a run in another form between, cost nothing but time."""
    sources = write_pairs(tmp_path / "source", 8)
    (tmp_path / "source/rainy/007.png").write_bytes(b"no picture")
    arguments = ["prepare", "pairs", *sources, "-o", tmp_path / "out", "--shard-size", "0.05", "--workers", "1"]
    fails(capsys, *arguments)
    finished = sorted((tmp_path / "out").glob(".train*/content/input/*.png"))
    assert len(finished) >= 4
    finished[1].write_bytes(b"")
    finished[1].with_name(".999.drsformer-01234567.tmp").write_bytes(b"part")
    assert main([str(argument) for argument in (*arguments, "--skip-bad")]) == 0
    for part, role in (("rainy", "input"), ("clean", "target")):
        expected = files_below(tmp_path / "source" / part)
        expected.pop("007.png")
        assert files_below(tmp_path / "out/train" / role) == expected

    shutil.rmtree(tmp_path / "out")
    fails(capsys, *arguments)
    fails(capsys, *arguments, "--lmdb", "basicsr")
    assert main([str(argument) for argument in (*arguments, "--skip-bad")]) == 0
    assert len(files_below(tmp_path / "out/train/input")) == 7
    capsys.readouterr()
    assert main([str(argument) for argument in (*arguments, "--skip-bad")]) == 0
    assert "7 pairs, 1 skipped (see its manifest.jsonl), complete already" in capsys.readouterr().out
    assert "not complete" in fails(capsys, *arguments)  # without --skip-bad the bad pair is an error


def test_an_overwritten_store_is_read_anew(tmp_path):
    sources = write_pairs(tmp_path / "source", 2)
    pictures = []
    for value in (10, 200):
        for folder in sources:
            cv2.imwrite(str(folder / "000.png"), np.full((30, 40, 3), value, np.uint8))
        prepare_dataset("pairs", sources, tmp_path / "out", output="raw", overwrite=True, workers=1)
        pictures.append(Store(tmp_path / "out/train.lmdb").pair(0)[0].whole())
    assert [picture.mean() for picture in pictures] == [10, 200]


def test_finished_shards_are_kept(tmp_path, capsys):
    sources = write_pairs(tmp_path / "source", 12)
    broken = tmp_path / "source/clean/011.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-30])
    target = tmp_path / "out"
    arguments = ["prepare", "pairs", *sources, "-o", target, "--lmdb", "raw", "--shard-size", "0.06", "--workers", "1"]
    assert f"picture {broken} cannot be read" in fails(capsys, *arguments)
    assert [path.name for path in target.iterdir()] == [".train.lmdb.raw.building"]
    kept = {path: path.stat().st_mtime_ns for path in (target / ".train.lmdb.raw.building/content").glob("*.mdb")}
    assert len(kept) >= 2
    broken.write_bytes(whole)
    assert main([str(argument) for argument in arguments]) == 0
    for path, changed in kept.items():
        assert (target / "train.lmdb" / path.name).stat().st_mtime_ns == changed


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("corrupt", r"picture .*rainy/002.png cannot be read"),
        ("unequal", r"picture .*rainy/002.png is 112x96 but its target .*clean/002.png is 112x95"),
        ("float", r"picture .*rainy/002.tiff holds float32; only 8 and 16 bits"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--lmdb"], ["--lmdb", "basicsr"]])
def test_bad_pairs_are_named_or_skipped(tmp_path, capsys, fault, message, form):
    sources = write_pairs(tmp_path / "source", 5)
    rainy, clean = (tmp_path / "source" / part / "002.png" for part in ("rainy", "clean"))
    if fault == "corrupt":
        rainy.write_bytes(rainy.read_bytes()[:1000])
    elif fault == "unequal":
        cv2.imwrite(str(clean), cv2.imread(str(clean))[1:])
    else:
        rainy.unlink()
        cv2.imwrite(str(rainy.with_suffix(".tiff")), np.zeros((96, 112, 3), np.float32))
    arguments = ["prepare", "pairs", *sources, "-o", tmp_path / "out", *form]
    line = fails(capsys, *arguments)
    assert re.search(message, line)
    assert not [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert main([str(argument) for argument in (*arguments, "--skip-bad")]) == 0
    assert "4 pairs, 1 skipped" in capsys.readouterr().out
    place = tmp_path / "out" / ("train.lmdb" if form == ["--lmdb"] else "train")
    head, rows = read_manifest(place / "manifest.jsonl")
    assert (head["pairs"], head["skipped"]) == (4, 1)
    (skipped,) = [row for row in rows if "skipped" in row]
    assert skipped["name"] == "002"
    assert str(tmp_path) not in skipped["skipped"]
    section = {"type": "PairedRainDataset", "name": "n", "phase": "val", "scale": 1, "dataroot": str(place)}
    assert len(build_dataset(section)) == 4


@pytest.mark.parametrize("error", [KeyError("odd"), MemoryError(), OSError(5, "Input/output error"), ValueError("")])
def test_whatever_is_wrong_with_a_pair_is_its_line(error, tmp_path, monkeypatch):
    """In this process, as a worker does it."""
    rainy, clean = write_pairs(tmp_path / "source", 3)
    pairs = [SourcePair(f"{n:03d}", rainy / f"{n:03d}.png", clean / f"{n:03d}.png", "") for n in range(3)]

    def decoded(content: bytes, path: Path) -> np.ndarray:
        if path == rainy / "001.png":
            raise error
        return decode(content, path)

    monkeypatch.setattr(shard_build, "decode", decoded)
    job = shard_build.ShardJob(tmp_path, tmp_path, 0, "raw", pairs, "", (rainy, clean), skip_bad=False)
    with pytest.raises(UserError, match=rf"{rainy}/001.png") as caught:
        shard_build.build_shard(job)
    assert "\n" not in str(caught.value)
    shard_build.build_shard(job._replace(skip_bad=True))
    head, *rows = map(json.loads, job.rows.read_text().splitlines())
    assert (head["pairs"], head["skipped"]) == (2, 1)
    assert "rainy/001.png" in rows[1]["skipped"]
    assert str(tmp_path) not in rows[1]["skipped"]


def test_pictures_that_are_none_are_skipped(tmp_path, capsys):
    rainy, clean = write_pairs(tmp_path / "source", 6)
    whole = (rainy / "000.png").read_bytes()
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 30000, 30000, 8, 2, 0, 0, 0)
    (rainy / "001.png").write_bytes(header + whole[29:])
    (clean / "002.png").write_bytes(whole[:33] + b"\xff" * 4 + whole[37:])
    empty = io.BytesIO()
    tifffile.imwrite(empty, np.zeros((4, 4, 4), np.uint8), photometric="rgb")
    with tifffile.TiffFile(io.BytesIO(empty.getvalue())) as file:
        place = file.pages.first.tags["ImageLength"].valueoffset
    (rainy / "003.png").write_bytes(empty.getvalue()[:place] + bytes(4) + empty.getvalue()[place + 4 :])
    (rainy / "004.png").write_bytes(b"")
    out = tmp_path / "out"
    assert main(["prepare", "pairs", str(rainy), str(clean), "-o", str(out), "--lmdb", "--skip-bad"]) == 0
    assert "2 pairs, 4 skipped" in capsys.readouterr().out
    _, rows = read_manifest(out / "train.lmdb/manifest.jsonl")
    assert [row["name"] for row in rows if "skipped" in row] == ["001", "002", "003", "004"]


def test_what_is_no_file_is_skipped_with_its_reason(tmp_path, capsys):
    rainy, clean = write_pairs(tmp_path / "source", 5)
    for number in (1, 2, 3):
        (rainy / f"00{number}.png").unlink()
    os.mkfifo(rainy / "001.png")
    (rainy / "002.png").symlink_to("/nowhere/x.png")
    (rainy / "003.png").symlink_to("003.png")
    arguments = ["prepare", "pairs", str(rainy), str(clean), "-o", str(tmp_path / "out"), "--lmdb"]
    assert "rainy/001.png is a pipe, not a file" in fails(capsys, *arguments)
    assert main([*arguments, "--skip-bad"]) == 0
    assert "2 pairs, 3 skipped" in capsys.readouterr().out
    _, rows = read_manifest(tmp_path / "out/train.lmdb/manifest.jsonl")
    reasons = [row["skipped"] for row in rows if "skipped" in row]
    assert all(words in reason for words, reason in zip(("a pipe", "No such file", "Too many"), reasons, strict=True))


def test_names_of_all_kinds_reach_the_manifest_and_no_terminal(tmp_path, capsys):
    rainy, clean = write_pairs(tmp_path / "source", 2)
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/strange \xff\x1b[31m"))
    strange.mkdir()
    for folder in (rainy, clean):
        (folder / "001.png").rename(folder / "a\nb\x1b[2J.png")
        folder.rename(strange / folder.name)
    shutil.copy(strange / "rainy/000.png", strange / "left\x1bover.png")
    source = tmp_path / "other"
    source.mkdir()
    strange.rename(source / strange.name)
    out = tmp_path / "out"
    assert main(["prepare", "pairs", str(source), "-o", str(out), "--lmdb"]) == 0
    said = "".join(capsys.readouterr())
    assert "left out" in said
    assert "\x1b[31m" not in said
    assert "\x1b[2J" not in said
    _, rows = read_manifest(out / "train.lmdb/manifest.jsonl")
    (_, row) = rows
    assert row["name"] == "a\nb\x1b[2J"
    assert row["input"]["file"].startswith("strange \\xff")
    assert main(["prepare", "--verify", str(out / "train.lmdb")]) == 0


def test_what_failed_and_killed_runs_left_is_removed_by_the_next(tmp_path, capsys):
    sources, archive, out = write_pairs(tmp_path / "source", 3), tmp_path / "set.zip", tmp_path / "out"

    def pack(last: bytes | None = None) -> None:
        with zipfile.ZipFile(archive, "w") as file:
            for folder in sources:
                for path in folder.iterdir():
                    content = path.read_bytes() if last is None or path.name != "002.png" else last
                    file.writestr(f"{folder.name}/{path.name}", content)

    command = ["prepare", "pairs", archive, "-o", out, "--lmdb"]
    archive.write_bytes(b"PK refused")
    fails(capsys, *command)
    assert not out.exists()  # made for nothing
    pack(b"damaged")
    fails(capsys, *command)
    (before,) = out.glob(".unpacked-*")
    pack()
    for left in (".train.lmdb.raw.building/content", ".removing-1", f"{before.name}/.set.zip.1.unpacking"):
        (out / left).mkdir(parents=True)
    (out / ".duplicates.txt.drsformer-01234567.tmp").touch()
    assert main([str(argument) for argument in command]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["duplicates.txt", "train.lmdb"]


def test_other_bad_input(tmp_path, capsys):
    rainy, clean = write_pairs(tmp_path / "source", 3)
    out = tmp_path / "out"
    assert "unknown data set 'rain20l'; did you mean 'rain200l'?" in fails(
        capsys, "prepare", "rain20l", rainy, "-o", out
    )
    assert "-o DST is missing" in fails(capsys, "prepare", "pairs", rainy, clean)
    assert "nowhere" in fails(capsys, "prepare", "pairs", tmp_path / "nowhere", clean, "-o", out)
    shutil.copy(rainy / "001.png", rainy / "extra.png")
    assert "extra.png" in fails(capsys, "prepare", "pairs", rainy, clean, "-o", out)
    (rainy / "extra.png").unlink()
    cv2.imwrite(str(rainy / "001.jpg"), cv2.imread(str(rainy / "001.png")))
    line = fails(capsys, "prepare", "pairs", rainy, clean, "-o", out)
    assert "001.png" in line
    assert "001.jpg" in line
    (rainy / "001.jpg").unlink()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.write(rainy / "001.png", "../escaped.png")
    assert "escaped.png" in fails(capsys, "prepare", "pairs", tmp_path / "evil.zip", "-o", out)
    assert not list(tmp_path.glob("**/escaped.png"))
    for folder, name in ((rainy, "im.v1"), (clean, "im.v1")):
        shutil.copy(folder / "001.png", folder / f"{name}.png")
    assert "BasicSR cuts a key at its first dot" in fails(
        capsys, "prepare", "pairs", rainy, clean, "-o", out, "--lmdb", "basicsr"
    )

    assert main(["prepare", "pairs", str(rainy), str(clean), "-o", str(out), "--lmdb"]) == 0
    before = files_below(out)
    assert "--overwrite" in fails(capsys, "prepare", "pairs", rainy, clean, "-o", out, "--lmdb", "raw")
    (tmp_path / "foreign/train.lmdb").mkdir(parents=True)
    (tmp_path / "foreign/train.lmdb/mine.txt").write_text("precious")
    line = fails(capsys, "prepare", "pairs", rainy, clean, "-o", tmp_path / "foreign", "--lmdb", "--overwrite")
    assert "was not made by this command" in line
    held = lock(out)
    line = fails(capsys, "prepare", "pairs", rainy, clean, "-o", out, "--lmdb", "raw", "--overwrite")
    assert "another process is preparing" in line
    os.close(held)
    assert files_below(out) == before
    (out / "train.lmdb/store.json").write_text("{")  # --overwrite needs nothing of what it replaces
    assert main(["prepare", "pairs", "--overwrite", str(rainy), "-o", str(out), "--lmdb", "raw", str(clean)]) == 0
    assert Store(out / "train.lmdb").encoding == "raw"
    for destination in (rainy, rainy / "out"):
        assert "would lie in the source" in fails(capsys, "prepare", "pairs", rainy, clean, "-o", destination)
    (out / "train.lmdb/shard-00000.mdb").unlink()
    assert "not complete" in fails(capsys, "prepare", "pairs", rainy, clean, "-o", out, "--lmdb", "raw")
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 40000, 40000, 8, 2, 0, 0, 0)
    (rainy / "001.png").write_bytes(header + struct.pack(">I", zlib.crc32(header[12:])) + b"\0" * 20)
    assert "001.png" in fails(capsys, "prepare", "pairs", rainy, clean, "-o", tmp_path / "huge")
    assert "no store" in fails(capsys, "prepare", "--verify", rainy)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files the way Linux does")
@pytest.mark.parametrize("form", [[], ["--lmdb"], ["--lmdb", "raw"], ["--lmdb", "basicsr"]])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, form):
    sources = write_pairs(tmp_path / "source", 6)
    limit = 20_000 if form in ([], ["--lmdb"]) else 60_000
    full = subprocess.run(
        [*COMMAND, *sources, "-o", tmp_path / "out", *form],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert full.returncode == 2, full.stderr
    assert full.stderr.splitlines()[-1].startswith("error: cannot write to ")
    assert "Traceback" not in full.stderr
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == []
    drsformer(tmp_path, "prepare", "pairs", *map(str, sources), "-o", "out", *form)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="becomes somebody without permission")
def test_no_permission(tmp_path):
    os.chmod(tmp_path, 0o755)
    write_pairs(tmp_path / "source", 2)
    code = (
        "import os, sys; from drsformer_arch import cli; from drsformer_arch.data.prepare import preparation;"
        "os.setuid(65534); sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["prepare", "pairs", tmp_path / "source/rainy", tmp_path / "source/clean", "-o", tmp_path / "out"]
    refused = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "Permission denied" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_a_benchmark_from_its_archive(tmp_path, capsys):
    """Rain800 as it circulates: side by side, train and test in one archive, one test picture leaked from train."""
    photograph = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "Rain800.zip", "w") as archive:
        for index in range(8):
            top, left = rng.integers(0, 300, 2)
            clean = photograph[top : top + 180, left : left + 200]
            both = np.hstack([clean, add_rain(clean, rng)])
            for name in [f"ID-CGAN/training/{index}.png"] + (["ID-CGAN/test_syn/0.png"] if index == 5 else []):
                archive.writestr(name, cv2.imencode(".png", both)[1].tobytes())
        other = cv2.cvtColor(data.cat(), cv2.COLOR_RGB2BGR)[:200, :220]
        archive.writestr("ID-CGAN/test_syn/1.png", cv2.imencode(".png", np.hstack([other, other]))[1].tobytes())
    arguments = ["prepare", "rain800", str(tmp_path / "Rain800.zip"), "-o", str(tmp_path / "out"), "--lmdb"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("complete already") == 2
    assert "Rain800 has 700 train pairs as published, this copy has 8" in printed
    assert "1 of 2 test.lmdb pictures are also in train.lmdb (exact): 0 = 5" in printed
    assert (tmp_path / "out/duplicates.txt").read_text() in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["duplicates.txt", "test.lmdb", "train.lmdb"]
    rainy, clean = Store(tmp_path / "out/train.lmdb").pair(0)
    assert rainy.shape == clean.shape == (180, 200, 3)
    assert rainy.whole().mean() > clean.whole().mean()  # rain adds light: the halves are the right way round


def test_shared_targets_are_stored_once(tmp_path):
    """DDN: fourteen rainy pictures of one clean one."""
    rng = np.random.default_rng(0)
    for split, count in (("training", 2), ("testing", 1)):
        for part in ("rainy_image", "ground_truth"):
            (tmp_path / "DDN" / split / part).mkdir(parents=True)
        for index in range(1, count + 1):
            clean = rng.integers(0, 200, (40, 50, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"DDN/{split}/ground_truth/{index}.jpg"), clean)
            for rain in range(1, 15):
                cv2.imwrite(str(tmp_path / f"DDN/{split}/rainy_image/{index}_{rain}.jpg"), add_rain(clean, rng))
    assert main(["prepare", "ddn", str(tmp_path / "DDN"), "-o", str(tmp_path / "out"), "--lmdb"]) == 0
    store = Store(tmp_path / "out/train.lmdb")
    assert len(store) == 28
    assert len([key for key, _ in store.items() if key.startswith("target/")]) == 2
    for index in range(28):
        lq, gt = store.names(index)
        assert gt.split("_")[0].removeprefix("target/") == lq.split("_")[0].removeprefix("input/")
        assert store.pair(index)[0].shape == store.pair(index)[1].shape
    assert main(["prepare", "ddn", str(tmp_path / "DDN"), "-o", str(tmp_path / "theirs"), "--lmdb", "basicsr"]) == 0
    lines = [(tmp_path / f"theirs/train/{part}.lmdb/meta_info.txt").read_text() for part in ("input", "target")]
    assert lines[0] == lines[1]
    assert len(lines[0].splitlines()) == 28


def test_the_manifest_is_json_lines(tmp_path):
    sources = write_pairs(tmp_path / "source", 2)
    assert main(["prepare", "pairs", *map(str, sources), "-o", str(tmp_path / "out"), "--lmdb"]) == 0
    lines = (tmp_path / "out/train.lmdb/manifest.jsonl").read_text().splitlines()
    assert [list(json.loads(line)) for line in lines[1:]] == [["name", "input", "target"]] * 2
