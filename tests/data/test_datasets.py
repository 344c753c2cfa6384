"""Rain on the fly and mixtures: reproducible from the seed, in any worker; weights are kept; faults are named."""

import copy
import random
from collections import Counter
from importlib import import_module
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import tifffile
import torch
import yaml
from basicsr.data import build_dataset
from basicsr.utils.lmdb_util import LmdbMaker, make_lmdb_from_imgs
from basicsr.utils.registry import DATASET_REGISTRY

from drsformer_arch.bridge import command, repairs
from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.data.prepare.preparation import prepare_dataset
from drsformer_arch.options.dataset_sections import OURS
from drsformer_arch.options.reading import read_options
from drsformer_arch.rain.rain_presets import PRESETS
from drsformer_arch.system.errors import UserError
from drsformer_arch.training.loaders import CheckedDataset, ResumableSampler


def dataset(phase: str = "train", **options: object):
    return build_dataset({"name": "n", "phase": phase, "scale": 1, "gt_size": 48, **options})


@pytest.fixture(scope="module")
def store(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    prepare_dataset("pairs", [pairs / "input", pairs / "target"], root, output="compressed", workers=1)
    return root / "train.lmdb"


def synthesis(root: Path, phase: str = "train", **options: object):
    return dataset(phase, type="RainSynthesisDataset", dataroot_gt=str(root), **options)


def test_rain_follows_from_the_seed_in_any_worker(pairs, store):
    drawn = []
    for root, workers in ((pairs / "target", 0), (store, 2), (pairs / "target.lmdb", 1)):
        sampler = ResumableSampler(10, 2, seed=4)
        loader = torch.utils.data.DataLoader(
            CheckedDataset(synthesis(root, presets=list(PRESETS))), batch_size=2, sampler=sampler, num_workers=workers
        )
        epochs = []
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            epochs.append([(batch["lq"], batch["gt"]) for batch in loader])
        drawn.append(epochs)
    for other in drawn[1:]:
        for epoch, expected in zip(other, drawn[0], strict=True):
            for batch, wanted in zip(epoch, expected, strict=True):
                assert batch[0].equal(wanted[0])
                assert batch[1].equal(wanted[1])
    first, second = drawn[0]
    assert not any(one[0].equal(other[0]) for one in first for other in second)
    for rainy, clean in first:
        assert rainy.shape == clean.shape == (2, 3, 48, 48)
        assert not rainy.equal(clean)


def test_validation_rain_is_always_the_same(store):
    one, other = synthesis(store, "val", presets="rain200l"), synthesis(store, "val", presets="rain200l")
    for index in (3, 0, 3):
        random.seed(index)
        assert one[index]["lq"].equal(other[index]["lq"])
        assert one[index]["gt"].shape == (3, 61, 75)
    assert not one[0]["lq"].equal(synthesis(store, "val", presets="rain200l", rain_seed=1)[0]["lq"])


def test_a_mixture_keeps_its_weights(pairs, store):
    sets = [
        {"type": "PairedRainDataset", "dataroot": str(store), "weight": 3},
        {"type": "RainSynthesisDataset", "dataroot_gt": str(pairs / "target"), "presets": "light"},
        {
            "type": "PairedImageDataset",
            "dataroot_lq": str(pairs / "input"),
            "dataroot_gt": str(pairs / "target"),
            "io_backend": {"type": "disk"},
            "weight": 4,
        },
    ]
    mixed = dataset(type="MixedRainDataset", sets=sets, use_hflip=True, use_rot=True)
    assert len(mixed) == 30
    checked, counts = CheckedDataset(mixed), Counter()
    for seed in range(600):
        sample = checked[0, seed]
        assert sample["lq"].shape == (3, 48, 48)
        kind = "synthesis" if sample["lq_path"] == sample["gt_path"] else Path(sample["lq_path"]).parts[0]
        counts[kind] += 1
    # Five standard deviations of a binomial count.
    for kind, share in (("input", 3 / 8), ("synthesis", 1 / 8), ("/", 4 / 8)):
        assert abs(counts[kind] - 600 * share) < 5 * np.sqrt(600 * share * (1 - share)), counts
    assert checked[0, 7]["lq"].equal(checked[5, 7]["lq"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "PairedRainDataset"}, "option here.dataroot is missing"),
        ({"type": "PairedRainDataset", "dataroot": "a", "dataroot_gt": "b"}, "either dataroot, or dataroot_lq and"),
        ({"type": "PairedRainDataset", "dataroots": "a"}, "unknown option here.dataroots; did you mean 'dataroot'"),
        ({"type": "RainSynthesisDataset"}, "option here.dataroot_gt is missing"),
        ({"type": "RainSynthesisDataset", "dataroot_gt": "a", "presets": 3}, "here.presets must be a name, a list"),
        (
            {"type": "RainSynthesisDataset", "dataroot_gt": "a", "presets": ["rain200x"]},
            "here.presets: unknown kind of rain 'rain200x'; did you mean 'rain200",
        ),
        ({"type": "RainSynthesisDataset", "dataroot_gt": "a", "presets": []}, "here.presets must be a name, a list"),
        ({"type": "RainSynthesisDataset", "dataroot_gt": "a", "rain_seed": -1}, "here.rain_seed must be a whole"),
        (
            {"type": "PairedRainDataset", "dataroot_lq": "a", "dataroot_gt": "b", "filename_tmpl": "{x}"},
            "here.filename_tmpl must be a text with one {} in it",
        ),
        ({"type": "MixedRainDataset", "sets": []}, "here.sets must be a list of data set sections"),
        ({"type": "MixedRainDataset", "sets": [{"type": "PairedRainDataset"}]}, r"here.sets\[0\].dataroot is missing"),
        (
            {"type": "MixedRainDataset", "sets": [{"type": "PairedRainDataset", "dataroot": "a", "weight": 0}]},
            r"here.sets\[0\].weight must be a finite number above 0, not 0",
        ),
        (
            {"type": "MixedRainDataset", "sets": [{"type": "PairedRainDataset", "dataroot": "a", "gt_size": 8}]},
            r"here.sets\[0\].gt_size: the mixture has one for all",
        ),
        ({"type": "MixedRainDataset", "sets": [{"type": "MixedRainDataset"}]}, r"sets\[0\].type: a mixture holds no"),
    ],
)
def test_wrong_sections(section, message):
    with pytest.raises(UserError, match=message):
        OURS[section["type"]].read(section, "here")


def test_classes_derived_from_ours_read_further_options(pairs, options, tmp_path):
    @DATASET_REGISTRY.register()
    class DimmedPairs(PairedRainDataset):
        def __init__(self, opt: dict) -> None:
            super().__init__(opt)
            self.factor = opt["dim_by"]

        def __getitem__(self, index: int) -> dict:
            sample = super().__getitem__(index)
            return {**sample, "lq": sample["lq"] * self.factor}

    section = {"type": "DimmedPairs", "dataroot": str(pairs), "dim_by": 0.25}
    assert dataset("val", **section)[0]["lq"].max() <= 0.25
    with pytest.raises(UserError, match=r"data set n.dataroot must be a text, not 3"):
        dataset("val", **{**section, "dataroot": 3})
    with pytest.raises(UserError, match=r"unknown option data set n.dim_by"):
        dataset("val", **{**section, "type": "PairedRainDataset"})
    options["datasets"]["train"] = {**section, "gt_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
    path = tmp_path / "derived.yml"
    path.write_text(yaml.safe_dump(options))
    assert read_options(path, is_train=True)[0]["datasets"]["train"]["dim_by"] == 0.25


def test_clean_pictures_of_a_prepared_folder_are_its_targets(pairs):
    (root,) = {path.parent for path in (pairs / "input", pairs / "target")}
    clean = synthesis(root, "val", presets="light")
    assert len(clean) == 10
    assert all("target" in path["gt_path"] or "/" not in path["gt_path"] for path in clean.paths)


def test_missing_sources_are_named(tmp_path):
    for options, message in (
        ({"type": "RainSynthesisDataset", "dataroot_gt": str(tmp_path / "no")}, "data set n: there is no folder"),
        ({"type": "PairedRainDataset", "dataroot": str(tmp_path / "no")}, "drsformer prepare makes it"),
        ({"type": "PairedRainDataset", "dataroot": str(tmp_path)}, "is no store .* no folders input and target"),
    ):
        with pytest.raises(UserError, match=message):
            dataset(**options)
    for name in ("rainy", "clean", "GT"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="has two folders for one side: GT and clean; name the two of the pairs"):
        dataset(type="PairedRainDataset", dataroot=str(tmp_path))


NAMES = ["rain_1", "rain_1.5", "rain_2", "rain.png.x", "photo (1,2)", "v1.0 (3)"]


@pytest.fixture
def by_basicsr(tmp_path: Path) -> Path:
    """LMDBs that BasicSR makes of names with dots and brackets; the number of a name is the colour of its picture."""
    for part in ("input", "target"):
        (tmp_path / part).mkdir()
        for colour, name in enumerate(NAMES):
            cv2.imwrite(str(tmp_path / part / f"{name}.png"), np.full((50, 50, 3), 10 * colour, np.uint8))
        files = [f"{name}.png" for name in NAMES]
        make_lmdb_from_imgs(str(tmp_path / part), str(tmp_path / f"{part}.lmdb"), files, NAMES, map_size=2**20)
    return tmp_path


SINGLE = {"type": "SingleImageDataset", "io_backend": {"type": "lmdb"}}
FACES = {"type": "FFHQDataset", "io_backend": {"type": "lmdb"}, "use_hflip": False, "mean": [0] * 3, "std": [1] * 3}


@pytest.mark.parametrize(
    "options",
    [
        {"type": "PairedRainDataset"},
        {"type": "PairedImageDataset", "io_backend": {"type": "lmdb"}, "use_hflip": False, "use_rot": False},
        SINGLE,
        FACES,
    ],
    ids=lambda options: options["type"],
)
def test_names_in_an_lmdb_keep_their_dots(options, by_basicsr):
    roots = {"dataroot_lq": str(by_basicsr / "input.lmdb"), "dataroot_gt": str(by_basicsr / "target.lmdb")}
    data_set = dataset("val", **copy.deepcopy(options), **roots)  # BasicSR empties them
    colours = {}
    for sample in (data_set[index] for index in range(len(data_set))):
        colours[Path(sample.get("lq_path", sample.get("gt_path"))).stem] = sample
        assert all(np.ptp(sample[role].numpy()) == 0 for role in ("lq", "gt") if role in sample)
    found = {
        name: {round(float(sample[role][0, 0, 0]) * 25.5) for role in ("lq", "gt") if role in sample}
        for name, sample in colours.items()
    }
    assert found == {name: {colour} for colour, name in enumerate(NAMES)}


@pytest.mark.parametrize("options", [{"type": "PairedRainDataset"}, SINGLE], ids=lambda options: options["type"])
def test_an_lmdb_that_does_not_hold_what_it_names_is_refused(options, by_basicsr):
    maker = LmdbMaker(str(by_basicsr / "twice.lmdb"), map_size=2**20)
    for _ in range(2):
        maker.put(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes(), "rain_1.5", (8, 8, 3))
    maker.close()
    roots = {role: str(by_basicsr / "twice.lmdb") for role in ("dataroot_lq", "dataroot_gt")}
    with pytest.raises(UserError, match=r"twice.lmdb/meta_info.txt names 1 pictures more than once \(rain_1.5\)"):
        dataset("val", **copy.deepcopy(options), **roots)


def test_an_incomplete_lmdb_is_refused_when_opened(by_basicsr):
    with (
        lmdb.open(str(by_basicsr / "input.lmdb"), map_size=2**20) as environment,
        environment.begin(write=True) as left,
    ):
        left.delete(b"rain_1.5")
    with pytest.raises(UserError, match=r"input.lmdb holds 5 pictures, but its meta_info.txt names 6"):
        dataset(type="PairedRainDataset", dataroot=str(by_basicsr))


def test_basicsr_refuses_damaged_pictures_too(tmp_path, monkeypatch):
    """A TIFF whose last strips are missing, of which OpenCV makes black rows."""
    module = import_module("basicsr.data.paired_image_dataset")
    monkeypatch.setattr(module, "imfrombytes", module.imfrombytes)  # put back after the test
    repairs.apply(command.PICTURE_HOOKS)
    samples = np.full((40, 40, 3), 200, np.uint8)
    for part in ("input", "target"):
        (tmp_path / part).mkdir()
        tifffile.imwrite(tmp_path / part / "a.tif", samples, photometric="rgb", rowsperstrip=8, compression="lzw")
    with tifffile.TiffFile(tmp_path / "input/a.tif") as file:
        place = file.pages.first.tags["StripByteCounts"].valueoffset
    roots = {"dataroot_lq": str(tmp_path / "input"), "dataroot_gt": str(tmp_path / "target")}
    paired = dataset("val", type="PairedImageDataset", io_backend={"type": "disk"}, **roots)
    assert CheckedDataset(paired)[0]["lq"].shape == (3, 40, 40)
    content = (tmp_path / "input/a.tif").read_bytes()
    (tmp_path / "input/a.tif").write_bytes(content[:place] + bytes(2) + content[place + 2 :])
    with pytest.raises(
        UserError, match=r"data set n: cannot read .*input/a.tif.* 1 of its 5 strips or tiles are missing"
    ):
        CheckedDataset(paired)[0]
