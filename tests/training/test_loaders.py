"""Loaders: whole batches, new crops every epoch, the same pictures for any number of processes, faults that end."""

import logging
import multiprocessing
import shutil

import cv2
import numpy as np
import pytest
import torch
from basicsr.data.prefetch_dataloader import CPUPrefetcher

from drsformer_arch.system.errors import UserError
from drsformer_arch.training.loaders import ResumableSampler, create_train_val_dataloader


def drawn(sampler: ResumableSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    assert len(list(sampler)) == len(sampler)
    return list(sampler)


@pytest.mark.parametrize(("size", "batch", "processes"), [(12, 8, 1), (12, 16, 1), (10, 2, 3), (7, 7, 1), (1, 4, 2)])
def test_an_epoch_is_whole_batches_that_see_every_picture(size, batch, processes):
    ranks = [ResumableSampler(size, batch, processes=processes, rank=rank) for rank in range(processes)]
    epochs = [[drawn(sampler, epoch) for sampler in ranks] for epoch in (0, 1)]
    for shares in epochs:
        assert {len(share) for share in shares} == {ranks[0].iterations_per_epoch * batch}
        assert {index for share in shares for index, _ in share} == set(range(size))
    seeds = [seed for shares in epochs for share in shares for _, seed in share]
    assert len(set(seeds)) == len(seeds)  # no crop is replayed: not within an epoch, nor in the next

    alone = drawn(ResumableSampler(size, batch * processes), 0)
    for iteration in range(ranks[0].iterations_per_epoch):
        together = [pair for share in epochs[0] for pair in share[iteration * batch : (iteration + 1) * batch]]
        assert together == alone[iteration * batch * processes : (iteration + 1) * batch * processes]


def test_a_resumed_sampler_goes_on_where_the_first_stopped():
    whole = [pair for epoch in range(3) for pair in drawn(ResumableSampler(10, 4, seed=5), epoch)]
    for done in range(10):
        rest = [
            pair for epoch in range(3) for pair in drawn(ResumableSampler(10, 4, seed=5, start_iteration=done), epoch)
        ]
        assert rest == whole[done * 4 :]


def loaders(options: dict, **train: object) -> tuple:
    options["datasets"]["train"] |= train
    for phase, dataset in options["datasets"].items():
        dataset |= {"phase": phase, "scale": 1, "name": phase}
        dataset.setdefault("io_backend", {"type": "lmdb"})
    options |= {"dist": False, "world_size": 1, "rank": 0}
    return create_train_val_dataloader(options, logging.getLogger())


@pytest.mark.parametrize(("method", "workers"), [("fork", 0), ("fork", 2), ("spawn", 1)])
def test_samples_depend_on_the_seed_alone(options, method, workers):
    loader, sampler, (val_loader,), _, _ = loaders(options, num_worker_per_gpu=workers)
    next(iter(val_loader))  # the same LMDB files as the training set: opened here, then in the workers
    if workers:
        loader.multiprocessing_context = multiprocessing.get_context(method)
    crops = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        crops.append({tuple(batch["lq_path"]): batch["lq"] for batch in loader})
    expected, sampler, *_ = loaders(options, num_worker_per_gpu=0)
    for batch in expected:
        torch.testing.assert_close(crops[0][tuple(batch["lq_path"])], batch["lq"], rtol=0, atol=0)
    assert crops[0].keys() != crops[1].keys()


@pytest.mark.parametrize("prefetch", [None, "cpu"])
def test_an_unreadable_picture_ends_the_run_by_its_name(options, pairs, tmp_path, prefetch):
    shutil.copytree(pairs, tmp_path / "broken")
    (tmp_path / "broken/target/07.png").write_bytes(b"no picture")
    folders = {"dataroot_lq": str(tmp_path / "broken/input"), "dataroot_gt": str(tmp_path / "broken/target")}
    loader, *_ = loaders(options, **folders, io_backend={"type": "disk"}, prefetch_mode=prefetch, num_worker_per_gpu=1)
    prefetcher = CPUPrefetcher(loader)
    with pytest.raises(UserError, match=r"picture .*broken/target/07\.png cannot be read") as error:
        for _ in iter(prefetcher.next, None):
            pass
    assert "\n" not in str(error.value)


def test_pairs_of_different_size_are_named(options, pairs, tmp_path):
    shutil.copytree(pairs, tmp_path / "odd")
    folders = {"dataroot_lq": str(tmp_path / "odd/input"), "dataroot_gt": str(tmp_path / "odd/target")}
    cv2.imwrite(str(tmp_path / "odd/target/01.png"), np.zeros((62, 75, 3), np.uint8))
    _, _, (val_loader,), *_ = loaders(
        options | {"datasets": {**options["datasets"], "val": options["datasets"]["val"] | folders}}
    )
    with pytest.raises(UserError, match=r"01\.png is 75x61 but its target .*01\.png is 75x62 pixels"):
        list(val_loader)
