"""Rain on the fly and mixtures: reproducible from the seed, in any worker; weights are kept; faults are named."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset

from drsformer_arch.data.loaders import CheckedDataset, ResumableSampler
from drsformer_arch.data.prepare import prepare
from drsformer_arch.data.rain_presets import PRESETS
from drsformer_arch.errors import UserError
from drsformer_arch.options import check_dataset


def dataset(phase: str = "train", **options: object):
    return build_dataset({"name": "n", "phase": phase, "scale": 1, "gt_size": 48, **options})


@pytest.fixture(scope="module")
def store(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    prepare("pairs", [pairs / "input", pairs / "target"], root, output="compressed", workers=1)
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
    ],
)
def test_wrong_sections(section, message):
    with pytest.raises(UserError, match=message):
        check_dataset(section, "here")


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
