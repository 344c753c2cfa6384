"""Go through all that comes before a training's first iteration, start nothing and leave nothing behind."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from drsformer_arch.bridge import command, repairs
from drsformer_arch.bridge.option_trials import find
from drsformer_arch.data.store.staging import refuse_no_store
from drsformer_arch.options.recipes import estimated_memory
from drsformer_arch.system import processor
from drsformer_arch.system.files import expanded
from drsformer_arch.training import loaders
from drsformer_arch.training.batch_plan import batch_plan
from drsformer_arch.training.memory import activation_bytes

# isort: split
from basicsr.models import build_model
from basicsr.utils import get_root_logger
from basicsr.utils.registry import ARCH_REGISTRY

GIBIBYTE = 2**30


def check(options: dict[str, Any], args: argparse.Namespace, processes: int) -> None:
    """Build network, optimizer and data sets of a training, read a batch, and print what a training would do.

    Args:
        options: read and checked; they are filled in.
        args: of `drsformer train`.
        processes: that would share an iteration, of which one is here.

    Raises:
        MachineError: trouble of the machine, such as too little memory.
        UserError: something in the input is wrong.
    """
    logger = _plain_logger()
    repairs.apply(command.PICTURE_HOOKS)
    command.refuse_second_run(options["name"])
    options |= {"dist": False, "rank": 0, "world_size": processes, "root_path": os.getcwd()}
    with command.explained(options):
        command.complete(options, args, os.getcwd(), is_train=True)
        gpus = options["num_gpu"]
        state = repairs.load_resume_state(options)
        if processes > 1 or args.processes is not None or args.launcher != "none":
            options["num_gpu"] = min(gpus, 1)  # of each process
        read = {**options, "datasets": deepcopy(options["datasets"])}
        lines = list(_leave_unstaged(read["datasets"]))
        train_loader, sampler, val_loaders, _, total = loaders.create_train_val_dataloader(read, logger)
        options["iters_per_epoch"] = read["iters_per_epoch"]
        sampler.set_epoch(options.get("start_iter", 0) // sampler.iterations_per_epoch)
        batch = loaders.collate([train_loader.dataset[index] for index in islice(sampler, train_loader.batch_size)])
        for loader in val_loaders:
            loader.dataset[0]
        model = build_model(options)
        if loaders.plans_batches(options):
            for loader in val_loaders:
                model.try_metrics(loader)
        model.feed_data(batch)
        if state is not None:
            if hasattr(model, "started_with"):
                model.started_with["num_gpu"] = gpus  # as the run itself says
            model.resume_training(state)
        lines += [*_of_memory(options, model), *_of_folder(options, state, total), "Checked: nothing was started."]
    print(*lines, sep="\n", flush=True)


def _leave_unstaged(sections: dict[str, Any]) -> Iterator[str]:
    """Let stores be read where they are; a check copies nothing."""
    for phase, section in sections.items():
        for part in (section, *(section.get("sets") or ())):
            if part.pop("stage", None) is not None:
                refuse_no_store(expanded(part.get("dataroot") or part["dataroot_gt"]))
                yield f"datasets.{phase}: a store that is copied to the node's disk first (stage); not now"


def _plain_logger() -> logging.Logger:
    """Let BasicSR's logger print what a training would log, each line once and without the time."""
    logger, said = get_root_logger(), set()

    def is_news(record: logging.LogRecord) -> bool:
        line = record.getMessage()
        new = line not in said and not re.search(r"\] .*is (created|built)\.$", line)
        said.add(line)
        return new

    logger.setLevel(logging.INFO)
    logging.raiseExceptions = False  # of lines that nobody reads any more
    for handler in list(logger.handlers):
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.addFilter(is_news)
        if isinstance(handler, logging.StreamHandler) and sys.stdout is None:  # closed
            logger.removeHandler(handler)
        elif isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stdout)
    return logger


def _of_folder(options: dict[str, Any], state: dict[str, Any] | None, total: int) -> Iterator[str]:
    """Say where a training would begin, and what becomes of an old experiment."""
    folder = Path(options["path"]["experiments_root"])
    if state is not None:
        yield f"It would go on from iteration {state['iter']} of {total}: {options['path']['resume_state']}"
    elif folder.exists():
        yield f"It would begin anew; {folder} is there and would be kept under another name"
    else:
        yield f"It would begin anew, in {folder}"


def _of_memory(options: dict[str, Any], model: Any) -> Iterator[str]:
    """Estimate the memory of a process, where the network can be gone through without computing."""
    if not loaders.plans_batches(options):
        return
    section = deepcopy(options["network_g"])
    network, half = find(ARCH_REGISTRY, section.pop("type"), "network_g"), bool(options["train"].get("amp"))
    get_root_logger().setLevel(logging.WARNING)  # the network was described already
    gpus = max(1, options["num_gpu"])
    try:
        kept = max(
            stage.micro_batch / gpus * activation_bytes(lambda: network(**section), 1, stage.patch, bf16=half)
            for stage in batch_plan(options).stages
        )
    except Exception as error:  # other people's networks may ask for values
        yield f"Memory: not estimated ({type(error).__name__})"
        return
    device = model.device
    whole = torch.cuda.get_device_properties(0).total_memory if device.type == "cuda" else processor.whole_memory()
    what = torch.cuda.get_device_name(0) if device.type == "cuda" else "this machine"
    needed, there = estimated_memory(kept / GIBIBYTE), whole / GIBIBYTE
    hint = "" if needed < there else ", which is too little: lower datasets.train.batch_size_per_gpu"
    yield f"Memory: about {needed:.1f} GiB per process, an estimate; {what} has {there:.1f} GiB{hint}"
