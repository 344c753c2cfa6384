"""Stores: the samples of the folder, whatever reads them; damage, missing parts and newer formats are named."""

import json
import multiprocessing
import random
import shutil
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from skimage import data

from drsformer_arch.data.prepare.preparation import prepare_dataset
from drsformer_arch.data.store.environments import forget
from drsformer_arch.data.store.store import Store, _checksum, verify_store
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import crc32_of_file, sha256_of_file

# EXIF with one entry: orientation 6, a quarter turn.
TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of every kind a picture file can be, some smaller than a patch, with names of every kind."""
    root = tmp_path_factory.mktemp("kinds")
    photograph = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    rng = np.random.default_rng(0)
    for part in ("input", "target"):
        (root / part / "unter/ordner").mkdir(parents=True)

    def write(name: str, size: tuple[int, int], change, *options: object) -> None:
        top, left = rng.integers(0, 300, 2)
        for part in ("input", "target"):
            noise = rng.integers(-20, 20, (*size, 3))
            cut = np.clip(photograph[top : top + size[0], left : left + size[1]] + noise, 0, 255).astype(np.uint8)
            encoded = cv2.imencode(Path(name).suffix, change(cut), list(options))[1].tobytes()
            if name.startswith("turned"):
                encoded = encoded[:2] + b"\xff\xe1" + (len(TURNED) + 2).to_bytes(2, "big") + TURNED + encoded[2:]
            (root / part / name).write_bytes(encoded)

    write("color.png", (90, 130), lambda cut: cut)
    write("unter/ordner/größe 雨.png", (200, 70), lambda cut: cut)
    write("im.v1.png", (64, 64), lambda cut: cut)
    write("im.v2.png", (100, 101), lambda cut: cut)
    write("deep.png", (70, 80), lambda cut: cut.astype(np.uint16) * 256 + rng.integers(0, 256, cut.shape, np.uint16))
    write("gray.png", (80, 70), lambda cut: cut[..., 0])
    write("alpha.png", (80, 70), lambda cut: np.dstack([cut, cut[..., :1]]))
    write("turned.jpg", (75, 120), lambda cut: cut)
    write("small.bmp", (20, 30), lambda cut: cut)
    write("tiny.tiff", (1, 3), lambda cut: cut)
    return root


@pytest.fixture(scope="module")
def stores(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder's pairs as stores of several shards."""
    root = tmp_path_factory.mktemp("stores")
    for form in ("raw", "compressed"):
        prepare_dataset(
            "pairs", [folder / "input", folder / "target"], root / form, output=form, shard_size=40_000, workers=2
        )
    return {form: root / form / "train.lmdb" for form in ("raw", "compressed")}


def dataset(root: Path, phase: str = "train", **options: object) -> torch.utils.data.Dataset:
    section = {"type": "PairedRainDataset", "name": "n", "phase": phase, "scale": 1, "gt_size": 64, **options}
    return build_dataset(section | {"dataroot": str(root)})


@pytest.mark.parametrize("form", ["raw", "compressed"])
@pytest.mark.parametrize("phase", ["train", "val"])
def test_a_store_gives_the_samples_of_the_folder(folder, stores, form, phase):
    from_folder, from_store = dataset(folder, phase), dataset(stores[form], phase)
    assert len(from_folder) == len(from_store) == 10
    assert len(list(stores[form].glob("shard-*.mdb"))) > 2
    for index in range(10):
        for seed in range(6):
            samples = []
            for pairs in (from_folder, from_store):
                random.seed(seed)
                samples.append(pairs[index])
            for role in ("lq", "gt"):
                assert samples[0][role].shape[0] == 3
                assert phase == "val" or samples[0][role].shape[1:] == (64, 64)
                assert samples[0][role].equal(samples[1][role]), samples[0]["gt_path"]
            names = [Path(sample["gt_path"]).stem for sample in samples]
            assert names[0] == names[1]


def test_kinds_of_pictures_become_what_is_documented(folder, stores):
    pairs = dataset(stores["compressed"], "val")
    found = {Path(sample["gt_path"]).stem: sample["gt"] for sample in (pairs[index] for index in range(10))}
    raw = {name: cv2.imread(str(folder / "target" / name), cv2.IMREAD_UNCHANGED) for name in ("deep.png", "gray.png")}
    deep = torch.from_numpy(raw["deep.png"][..., ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(65535))
    assert found["deep"].equal(deep)
    assert found["gray"].equal(torch.from_numpy(raw["gray.png"].astype(np.float32) / np.float32(255)).expand(3, -1, -1))
    assert found["turned"].shape == (3, 120, 75)
    random.seed(0)
    small = dataset(stores["raw"], use_hflip=False, use_rot=False)
    index = next(one for one in range(10) if Path(small.paths[one]["gt_path"]).stem == "small")
    expected = np.pad(found["small"].numpy(), ((0, 0), (0, 44), (0, 34)), mode="reflect")
    assert small[index]["gt"].equal(torch.from_numpy(expected))


def test_samples_are_those_of_basicsr(pairs):
    """Where both can read, crops and symmetries are drawn and applied alike."""
    roots = {"dataroot_lq": str(pairs / "input.lmdb"), "dataroot_gt": str(pairs / "target.lmdb")}
    theirs = {"type": "PairedImageDataset", "io_backend": {"type": "lmdb"}, "use_hflip": True, "use_rot": True, **roots}
    both = [
        build_dataset({**theirs, "name": "n", "phase": "train", "scale": 1, "gt_size": 48}),
        dataset(pairs, gt_size=48),
    ]
    for index in range(10):
        samples = []
        for one in both:
            random.seed(index)
            samples.append(one[index])
        assert samples[0]["lq"].equal(samples[1]["lq"])
        assert samples[0]["gt"].equal(samples[1]["gt"])


def test_verify_finds_any_flipped_byte(stores, tmp_path):
    assert verify_store(stores["raw"]) == (10, [])
    rng = np.random.default_rng(0)
    for number, file in enumerate(sorted(stores["compressed"].iterdir())):
        for position in rng.integers(0, file.stat().st_size, 8):
            copy = tmp_path / f"{number}-{position}.lmdb"
            shutil.copytree(stores["compressed"], copy)
            content = bytearray((copy / file.name).read_bytes())
            content[position] ^= 1 << rng.integers(8)
            (copy / file.name).write_bytes(content)
            with pytest.raises(UserError, match=rf"{file.name}|{copy}") as caught:
                verify_store(copy)
            assert "\n" not in str(caught.value)


def test_parts_of_a_store(stores, tmp_path):
    copy = tmp_path / "part.lmdb"
    shutil.copytree(stores["raw"], copy)
    shards = sorted(copy.glob("shard-*.mdb"))
    shards[1].unlink()
    with pytest.raises(UserError, match=rf"1 of {len(shards)} shards are missing \({shards[1].name}.*partial: true"):
        dataset(copy)
    part = dataset(copy, "val", partial=True)
    assert 0 < len(part) < 10
    whole = dataset(stores["raw"], "val")
    expected = {whole.paths[index]["gt_path"]: index for index in range(10)}
    for index in range(len(part)):
        sample = part[index]
        assert sample["lq"].equal(whole[expected[sample["gt_path"]]]["lq"])
    assert verify_store(copy) == (len(part), [shards[1].name])

    forget(shards[0])  # a training opens it after it was copied
    shards[0].write_bytes(shards[0].read_bytes()[:-5000])
    with pytest.raises(UserError, match=rf"{shards[0].name}.* was cut short"):
        dataset(copy, partial=True)


def test_a_newer_format_is_refused(stores, tmp_path):
    copy = tmp_path / "newer.lmdb"
    shutil.copytree(stores["raw"], copy)
    description = json.loads((copy / "store.json").read_text())
    (copy / "store.json").write_text(json.dumps(description | {"format": 2}))
    with pytest.raises(UserError, match="format 2, this version reads up to 1: update"):
        dataset(copy)
    (copy / "store.json").write_text(json.dumps(description)[:100])
    with pytest.raises(UserError, match=r"store\.json is damaged"):
        Store(copy)


def retold(store: Path, **changes: object) -> None:
    """Change what a store says of itself, with a right checksum."""
    description = json.loads((store / "store.json").read_text()) | changes
    (store / "store.json").write_text(json.dumps(description | {"crc32": _checksum(description)}))


LIES = {
    "pairs: 10": ({"pairs": 10**9}, None, "1,000,000,000 pairs, but 10 in its shards"),
    "more pairs than bytes": ({"pairs": 10**9 + 9}, {"pairs": 10**9}, "cannot hold 1,000,000,000 pairs"),
    "pairs": ({"pairs": "10"}, None, "pairs makes no sense"),
    "negative": ({"pairs": 8}, {"pairs": -1}, "shard 0 makes no sense"),
    "encoding": ({"encoding": "png"}, None, "encoding makes no sense"),
    "format": ({"format": "1"}, None, "format makes no sense"),
    "shards": ({"shards": {}}, None, "shards makes no sense"),
    "a list": ({"shards": [[]]}, None, "shard 0 makes no sense"),
    "a path": ({}, {"file": "../raw/shard-00000.mdb"}, "the file of shard 0"),
    "bytes": ({}, {"bytes": 2**40}, "was cut short: .* instead of 1,099,511,627,776"),
    "one more key": ({}, {"more": 1}, "shard 0 makes no sense"),
    "checksum": ({}, {"crc32": 7}, "shard 0 makes no sense"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_store_that_lies_about_itself_is_refused(lie, stores, tmp_path):
    copy = tmp_path / "lies.lmdb"
    shutil.copytree(stores["raw"], copy)
    changes, of_shard, message = LIES[lie]
    shards = json.loads((copy / "store.json").read_text())["shards"]
    if of_shard is not None:
        shards[0] |= of_shard
        changes = changes | {"shards": shards}
    retold(copy, **changes)
    for read in (Store, verify_store, lambda path: dataset(path, partial=True)):
        with pytest.raises(UserError, match=message) as caught:
            read(copy)
        assert "\n" not in str(caught.value)


def test_verify_compares_what_a_store_says_with_what_it_holds(stores, tmp_path):
    copy = tmp_path / "lies.lmdb"
    shutil.copytree(stores["raw"], copy)
    shards = json.loads((copy / "store.json").read_text())["shards"]
    count, rows = shards[0]["pairs"], (copy / "manifest.jsonl").read_text().splitlines(keepends=True)
    retold(copy, pairs=11, shards=[shards[0] | {"pairs": count + 1}, *shards[1:]])
    with pytest.raises(UserError, match=rf"shard-00000.mdb holds {count} pairs instead of {count + 1}"):
        verify_store(copy)
    retold(copy, pairs=10, shards=shards, encoding="compressed")
    with pytest.raises(UserError, match=r"is not compressed, as store\.json says"):
        verify_store(copy)
    for manifest, message in (
        (rows[:-1], "no row that fits the pair"),
        ([*rows, rows[1]], "lists 11 pairs"),
        ([rows[0].replace('"pairs": 10', '"pairs": 11'), *rows[1:]], "counts 11, the store has 10"),
        ([rows[0], rows[2], rows[1], *rows[3:]], "no row that fits the pair"),
        ([*rows[:-1], "{}\n"], "line 11 is damaged"),
        ([*rows[:-1], "[" * 10**5], "line 11 is damaged"),
        ([rows[0], "\ud800"], "line 2 is damaged"),
    ):
        (copy / "manifest.jsonl").write_text("".join(manifest), encoding="utf-8", errors="surrogatepass")
        retold(copy, encoding="raw", manifest_sha256=sha256_of_file(copy / "manifest.jsonl"))
        with pytest.raises(UserError, match=message) as caught:
            verify_store(copy)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("victim", [b"input/", b"\0"])
def test_verify_misses_what_a_shard_lost(victim, stores, tmp_path):
    copy = tmp_path / "lost.lmdb"
    shutil.copytree(stores["raw"], copy)
    shards = json.loads((copy / "store.json").read_text())["shards"]
    file = copy / shards[1]["file"]
    environment = lmdb.open(str(file), subdir=False, lock=False, map_size=2**24)
    with environment, environment.begin(write=True) as transaction:
        cursor = transaction.cursor()
        cursor.set_range(victim)
        cursor.delete()
    shards[1] |= {"bytes": file.stat().st_size, "crc32": crc32_of_file(file)}
    retold(copy, shards=shards)
    with pytest.raises(UserError, match=r"is incomplete|holds \d pairs instead of"):
        verify_store(copy)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_every_kind_share_one_store(stores, method):
    pairs = dataset(stores["raw"])
    validation = dataset(stores["raw"], "val")
    expected = {sample["lq_path"]: sample["lq"] for sample in (validation[index] for index in range(10))}
    # Opened here, then in two workers at once, while this process goes on reading.
    context = multiprocessing.get_context(method)
    loader = torch.utils.data.DataLoader(
        validation, num_workers=2, persistent_workers=True, multiprocessing_context=context
    )
    for _ in range(2):
        for sample in loader:
            assert sample["lq"][0].equal(expected[sample["lq_path"][0]])
            pairs[0]
