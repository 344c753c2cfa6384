"""Training and validation loaders whose samples depend on nothing but the seed, the epoch and the position.

BasicSR's own drop the last batch while counting it, replay the same crops every epoch, and start the epoch again on
resume. These pad the epoch to whole batches, give every sample its own seed and skip what was consumed.
"""

import math
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, default_collate, get_worker_info

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable, in worker processes too
from drsformer_arch.data.datasets.result_names import refuse_equal_results
from drsformer_arch.data.store.environments import release
from drsformer_arch.system.errors import UserError, show_traceback
from drsformer_arch.training.batch_plan import batch_plan

# isort: split
from basicsr.data import build_dataloader, build_dataset
from basicsr.utils.registry import MODEL_REGISTRY

SAMPLES_BETWEEN_RELEASES = 256  # in a worker process: opening a store again takes as long as reading a few samples
FAILURE = "failure"  # key of a batch that a worker process could not read; its value is the message


def plans_batches(opt: dict[str, Any]) -> bool:
    """Tell whether the model of a run is ours or derived from it, under whatever name."""
    model = dict(iter(MODEL_REGISTRY)).get(opt.get("model_type"))
    return getattr(model, "plans_batches", False)


def seed_of(*numbers: int) -> int:
    """A 32-bit seed from several numbers, well mixed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators, those of GPUs too."""
    seed_sample(seed)
    torch.manual_seed(seed)


def seed_sample(seed: int) -> None:
    """Seed the global generators that a data set may draw from, which are those of the processor.

    `torch.manual_seed` also notes the call stack for GPUs that may wake up later: it takes longer than reading a patch.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


class CheckedDataset(Dataset[Any]):
    """A data set whose samples are reproducible and whose unreadable pictures are named.

    Indices are plain integers, or pairs (index, seed) from `ResumableSampler`. For those a worker process hands on what
    it cannot read as a sample with the key `FAILURE`, for the main process to raise: torch would hand on a traceback.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._read = 0

    def __getattr__(self, name: str) -> Any:
        # Pickling asks for special methods, and for everything before `dataset` is back: those are not the data set's.
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        if not isinstance(index, tuple):
            return self._sample(index)
        index, seed = index
        seed_sample(seed)
        self._read += 1
        if self._read % SAMPLES_BETWEEN_RELEASES == 0 and get_worker_info() is not None:
            # The system maps 16 pages for each that is read: a process would seem to hold all of a store at last.
            release()
        try:
            return self._sample(index)
        except UserError as error:
            if get_worker_info() is None:
                raise
            show_traceback(error)
            return {FAILURE: str(error)}

    def _sample(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UserError:
            raise
        except Exception as error:
            paths = getattr(self, "paths", None)
            sample = paths[index] if paths else f"sample {index}"
            where = ", ".join(sorted(set(sample.values()))) if isinstance(sample, dict) else sample
            raise UserError(
                f"data set {self.opt['name']}: cannot read {where} ({type(error).__name__}: {error})"
            ) from error


class ResumableSampler(Sampler[tuple[int, int]]):
    """Yields (index, seed) for one process; the epoch is padded to whole batches and can be entered anywhere.

    Batches are consecutive slices of one permutation, so that the pictures of an iteration do not depend on how many
    processes share them.

    Args:
        size: pictures in the data set.
        batch: pictures per process and iteration.
        processes, rank: how many processes share an iteration, and which of them this is.
        seed: of the run.
        ratio: `dataset_enlarge_ratio`, epochs per pass.
        start_iteration: iterations already done in earlier runs.
    """

    def __init__(
        self,
        size: int,
        batch: int,
        *,
        processes: int = 1,
        rank: int = 0,
        seed: int = 0,
        ratio: float = 1,
        start_iteration: int = 0,
    ) -> None:
        self.size, self.batch, self.processes, self.rank, self.seed = size, batch, processes, rank, seed
        self.start_iteration = start_iteration
        self.iterations_per_epoch = math.ceil(size * ratio / (batch * processes))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def _skip(self) -> int:
        done = self.start_iteration - self.epoch * self.iterations_per_epoch
        return min(max(done, 0), self.iterations_per_epoch)

    def __len__(self) -> int:
        return (self.iterations_per_epoch - self._skip()) * self.batch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        whole = self.iterations_per_epoch * self.batch * self.processes
        order = torch.randperm(whole, generator=generator)  # a list of numbers would take five times the memory
        for iteration in range(self._skip(), self.iterations_per_epoch):
            first = (iteration * self.processes + self.rank) * self.batch
            for position in range(first, first + self.batch):
                yield int(order[position]) % self.size, seed_of(self.seed, self.epoch, position)


def collate(samples: list[Any]) -> Any:
    """Put samples together as `default_collate` does; of an unreadable one only what `CheckedDataset` says of it.

    In the main process torch's threads are left out, which take longer to wake than the copy takes.
    """
    failure = next((sample for sample in samples if isinstance(sample, dict) and FAILURE in sample), None)
    if failure is not None:
        return failure
    if get_worker_info() is not None or not isinstance(samples[0], dict):
        return default_collate(samples)
    return {
        key: torch.from_numpy(np.stack([sample[key].numpy() for sample in samples]))
        if isinstance(value, torch.Tensor)
        else default_collate([sample[key] for sample in samples])
        for key, value in samples[0].items()
    }


def build_checked_dataset(dataset_opt: dict[str, Any]) -> CheckedDataset:
    """BasicSR's `build_dataset` with errors that name the data set.

    Raises:
        UserError: a missing folder, an empty set, pairs that do not match.
    """
    name = dataset_opt.get("name")
    try:
        dataset = build_dataset(dataset_opt)
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"data set {name}: option {error} is missing") from error
    except (OSError, ValueError, AssertionError, TypeError) as error:
        raise UserError(f"data set {name}: {str(error).strip().splitlines()[0]}") from error
    if len(dataset) == 0:
        raise UserError(f"data set {name} is empty")
    return CheckedDataset(dataset)


def refuse_equal_names(dataset: CheckedDataset, opt: dict[str, Any]) -> None:
    """Refuse pictures of a validation or test set whose results would overwrite each other.

    Raises:
        UserError: there are some, and results are saved.
    """
    if (opt.get("val") or {}).get("save_img"):
        refuse_equal_results(dataset, dataset.opt["name"], keeps_folders=plans_batches(opt))


def _obey_the_main_process_only(_worker: int) -> None:
    """Ctrl-C and the end of a job reach all processes; the workers must last until the main one has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main_process = multiprocessing.parent_process()
    if main_process is None or not hasattr(signal, "sigwaitinfo"):  # macOS cannot tell who sent a signal
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait_for_the_main_process() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main_process.pid:
            pass
        os._exit(0)  # as torch's own workers do: it takes any other code for a crash

    threading.Thread(target=wait_for_the_main_process, daemon=True).start()


def create_train_val_dataloader(opt: dict[str, Any], logger: Any) -> tuple[Any, ...]:
    """BasicSR's function of this name, with the loaders of this module.

    Returns:
        Training loader, its sampler, validation loaders, epochs, iterations.
    """
    sections = opt["datasets"]
    if "train" not in sections:
        raise UserError("option datasets.train is missing")
    for phase in sections:
        if phase != "train" and phase.split("_")[0] != "val":
            raise UserError(f"option datasets.{phase}: a training file knows train, val and val_1, val_2, ...")
    datasets = {phase: build_checked_dataset(section) for phase, section in sections.items()}
    loader_opt = {"num_worker_per_gpu": 0, **sections["train"]}
    if plans_batches(opt):
        loader_opt["batch_size_per_gpu"] = batch_plan(opt).loader_batch
    sampler = ResumableSampler(
        len(datasets["train"]),
        loader_opt["batch_size_per_gpu"] * (1 if opt["dist"] else max(1, opt["num_gpu"])),
        processes=opt["world_size"],
        rank=opt["rank"],
        seed=opt["manual_seed"],
        ratio=loader_opt.get("dataset_enlarge_ratio", 1),
        start_iteration=opt.get("start_iter", 0),
    )
    common = {"num_gpu": opt["num_gpu"], "dist": opt["dist"], "seed": opt["manual_seed"]}
    train_loader = build_dataloader(datasets.pop("train"), loader_opt, sampler=sampler, **common)
    train_loader.worker_init_fn = _obey_the_main_process_only
    train_loader.collate_fn = collate
    val_loaders = [build_dataloader(dataset, sections[phase], **common) for phase, dataset in datasets.items()]
    for loader in val_loaders:
        refuse_equal_names(loader.dataset, opt)
        logger.info(f"Number of validation pictures in {loader.dataset.opt['name']}: {len(loader.dataset)}")
    for loader in (train_loader, *val_loaders):
        # An own generator: starting an epoch or a validation must not advance the one that training draws from.
        loader.generator = torch.Generator().manual_seed(opt["manual_seed"])
    per_epoch, total = sampler.iterations_per_epoch, int(opt["train"]["total_iter"])
    opt["iters_per_epoch"] = per_epoch  # the model files its state under the right epoch
    if plans_batches(opt):
        opt["val_loaders"] = val_loaders  # the model begins with them
    epochs = math.ceil(total / per_epoch)
    logger.info(
        f"Training: {sampler.size} pictures, {sampler.batch * sampler.processes} per iteration, "
        f"{per_epoch} iterations per epoch, {epochs} epochs, {total} iterations."
    )
    return train_loader, sampler, val_loaders, epochs, total
