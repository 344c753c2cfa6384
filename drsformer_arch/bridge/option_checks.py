"""Read an option file and find its mistakes before BasicSR's pipelines start."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drsformer_arch import plugin  # noqa: F401 - registers what option files name
from drsformer_arch.archs.contract import contract_of
from drsformer_arch.bridge import option_trials
from drsformer_arch.bridge.option_trials import check_arguments, find
from drsformer_arch.bridge.outside import imports_of, names_of, register_outside
from drsformer_arch.fast.builders import FAST, NetworkBuilder
from drsformer_arch.options.dataset_sections import NAMES as DATASETS
from drsformer_arch.options.kinds import shortened, shown
from drsformer_arch.options.reading import read_options
from drsformer_arch.options.run_sections import MODEL_TYPES
from drsformer_arch.restore.outline import outline
from drsformer_arch.restore.weights import find_weights
from drsformer_arch.system import processor
from drsformer_arch.system.errors import UserError, line_of
from drsformer_arch.system.files import expanded
from drsformer_arch.training.batch_plan import batch_plan, fewer_pictures
from drsformer_arch.training.derain_model import refuse_random_weights

# isort: split
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY

BASICSR_SETS = ("PairedImageDataset", "SingleImageDataset")
BASICSR_DEBUG = "debug"  # a name that holds it makes BasicSR validate and save every 8 iterations


def prepare(
    path: str,
    overrides: Sequence[str],
    *,
    imports: Sequence[str] = (),
    is_train: bool,
    distributed: bool,
    processes: int = 1,
    resumes: bool = False,
    debug: bool = False,
    elsewhere: bool = False,
) -> dict[str, Any]:
    """Read an option file and find its mistakes before anything is created or moved.

    Args:
        path: the option file.
        overrides: of `--force_yml`.
        imports: of `--import`, beside those that the file names.
        is_train: train or test.
        distributed: started by torchrun or Slurm.
        processes: that share an iteration.
        resumes: continues an experiment instead of moving its folder away.
        debug: BasicSR's debug mode, under a name of its own.
        elsewhere: only checked here, where there may be no GPU.

    Raises:
        UserError: one line that names the file and the option.
    """
    try:
        options, messages = read_options(path, overrides, is_train=is_train)
        if debug and not options["name"].startswith(BASICSR_DEBUG):
            options["name"] = f"debug_{options['name']}"  # as BasicSR does, but before anything is locked or moved
        register_outside([*imports_of(options, path), *imports])
        if imports:
            options["import"] = [*names_of(options), *imports]
        messages += _check(
            options, is_train=is_train, distributed=distributed, processes=processes, elsewhere=elsewhere
        )
        if is_train:
            _refuse_archiving_the_option_file(path, options, resumes)
    except UserError as error:
        raise UserError(line_of(error, path)) from None
    except Exception as error:  # a file can hold anything: what trips over it is said in one line too
        raise UserError(f"{path}: {line_of(error, 'the options cannot be used')}") from error
    for message in messages:
        print(f"{path}: {message}", flush=True)
    return options


def _check(options: dict[str, Any], *, is_train: bool, distributed: bool, processes: int, elsewhere: bool) -> list[str]:
    """Check options that were read; returns one message per thing that is done otherwise than the file says."""
    messages = []
    ours = options["model_type"] in MODEL_TYPES
    gpus = torch.cuda.device_count()
    wanted = options["num_gpu"]
    if wanted != "auto" and wanted > gpus and (gpus == 0 or not distributed):
        messages.append(f"num_gpu is {wanted}, this machine has {gpus}: using {gpus}")
        options["num_gpu"] = gpus
    network = check_names(options, is_train=is_train)
    refuse_random_weights(options)
    check_files(options)
    if ours:
        _check_sizes(options, network)
        if isinstance(network, nn.Module):
            _check_channels(options, network)
        why = contract_of(network).sees_all_pixels
        if why and options["val"].get("tile"):
            name = options["network_g"]["type"]
            messages.append(f"val.tile: tiles change the results of {name}, which looks at whole pictures ({why})")
        if options["num_gpu"] == 0 or gpus == 0:
            messages += _slow_precisions(options)
    if not is_train:
        return messages
    if BASICSR_DEBUG in options["name"]:
        messages.append("the name holds 'debug': val_freq and save_checkpoint_freq are 8, print_freq is 1")
    else:
        option_trials.check_loggers(options["logger"])
    if ours:
        messages += _check_training(options, network, distributed, processes, wanted)
        if options["datasets"]["train"].get("prefetch_mode") == "cuda" and not torch.cuda.is_available():
            lacking = "datasets.train.prefetch_mode: cuda needs a GPU"
            if not elsewhere:
                raise UserError(lacking)
            messages.append(f"{lacking}, and this machine has none")
    else:
        option_trials.try_basicsr(find(MODEL_REGISTRY, options["model_type"], "model_type"), options["train"])
    return messages


def check_names(options: dict[str, Any], *, is_train: bool) -> Any:
    """Check that all registered names exist and that their arguments do.

    Returns:
        What the network declares can be read from it: one of ours without weights, or another package's class. None
        where the options name no network.

    Raises:
        UserError: an unknown name or argument, with the nearest known one.
    """
    find(MODEL_REGISTRY, options["model_type"], "model_type")
    network = None
    if options.get("network_g") is not None:  # other people's models may name their networks otherwise
        network = _check_network(options["network_g"])
    for where, section in _data_sets(options):
        find(DATASET_REGISTRY, section["type"], f"{where}.type")
    option_trials.try_metrics(options["val"].get("metrics") or {})
    if is_train and options["model_type"] in MODEL_TYPES:
        option_trials.try_losses(options["train"], network)
    return network


def _data_sets(options: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sections of all data sets and, of a mixture, of its sets, each with its name in messages."""
    for phase, dataset in options["datasets"].items():
        yield f"datasets.{phase}", dataset
        for number, part in enumerate(dataset.get("sets", ()) if dataset.get("type") == "MixedRainDataset" else ()):
            yield f"datasets.{phase}.sets[{number}]", part


def _check_network(network: dict[str, Any]) -> Any:
    """Check the network's arguments; ours are also tried out. Returns what `check_names` does."""
    check_arguments(ARCH_REGISTRY, network, "network_g")
    built = find(ARCH_REGISTRY, network["type"], "network_g")
    arguments = {key: value for key, value in network.items() if key != "type"}
    if not isinstance(built, NetworkBuilder):
        option_trials.try_network(built, arguments)
        return built
    if not isinstance(fast := arguments.pop(FAST, True), bool):
        raise UserError(f"option network_g.{FAST} must be true or false, not {shown(fast)}")
    return outline(built.kind, arguments, "option network_g")


def check_files(options: dict[str, Any]) -> None:
    """Check that the files and folders named exist.

    Raises:
        UserError: one that does not.
    """
    for where, section in _data_sets(options):
        for key, value in section.items():
            if key.startswith("dataroot") and value is not None and not os.path.isdir(os.path.expanduser(value)):
                hint = "; drsformer prepare makes it (drsformer prepare --help)" if key == "dataroot" else ""
                raise UserError(f"{where}.{key}: there is no folder {shortened(str(value))}{hint}")
    for key, value in options["path"].items():
        if key.startswith("pretrain_network") and value == "":
            raise UserError(f"option path.{key} is empty: name a file, or ~ for none")
        if key.startswith("pretrain_network") and value is not None:
            try:
                find_weights(value)
            except (UserError, OSError, RuntimeError) as error:  # RuntimeError: ~somebody who is not there
                raise UserError(f"path.{key}: {error}") from error
        if key == "resume_state" and value:
            _check_state(value, options["name"])


def _check_state(state: str, name: str) -> None:
    """A training state must be one of this experiment: its weights are looked for there."""
    path = expanded(state)
    if not os.path.isfile(path):
        raise UserError(f"path.resume_state: there is no file {state}")
    states = Path("experiments", name, "training_states")
    if path.resolve().parent != states.resolve():
        raise UserError(
            f"path.resume_state: {state} is not of this experiment, whose states lie in {states}; go on from its "
            f"weights with path.pretrain_network_g instead, or set name to that of its experiment"
        )


def _check_channels(options: dict[str, Any], network: nn.Module) -> None:
    """Our sets and BasicSR's give pictures in colour, BasicSR's also luma; those of others are not known."""
    wanted = contract_of(network).picture_channels
    for where, section in _data_sets(options):
        given = 1 if section.get("color") == "y" else 3
        if section["type"] in {*DATASETS, *BASICSR_SETS} and given != wanted:
            raise UserError(
                f"network_g: this {options['network_g']['type']} takes pictures of {wanted} channel"
                f"{'s' * (wanted > 1)}, those of {where} have {given}; build it for {given}"
            )


def _check_sizes(options: dict[str, Any], network: Any) -> None:
    """Patches, padding and tiles must suit the network."""
    name = options["network_g"]["type"]
    multiple, only = contract_of(network).size_multiple, contract_of(network).patch_size
    smallest = contract_of(network).smallest_size
    train = options["datasets"].get("train", {})
    if train.get("type") in DATASETS and "gt_size" not in train:
        raise UserError("option datasets.train.gt_size is missing: the side of the patches in pixels")
    for key in ("gt_size", "gt_sizes"):
        sizes = train.get(key, [])
        for size in sizes if isinstance(sizes, list) else [sizes]:
            if only and size != only:
                raise UserError(f"datasets.train.{key}: {size} is not the {only} that {name} was built for")
            if size % multiple:
                raise UserError(f"datasets.train.{key}: {size} is no multiple of {multiple}, which the network needs")
            if size < smallest:
                raise UserError(
                    f"datasets.train.{key}: {size} is below {smallest}, the smallest that the network takes"
                )
    if options["val"].get("window_size", multiple) % multiple:
        raise UserError(f"val.window_size must be a multiple of {multiple}, which the network needs")
    if only and options["val"].get("tile"):
        raise UserError(f"val.tile: {name} has tiles of its own, {only}x{only}; remove the option")


def _check_training(
    options: dict[str, Any], network: Any, distributed: bool, processes: int, wanted: int | str
) -> list[str]:
    """Refuse what `DerainModel` would refuse while it starts; returns notes where there is something to say.

    Args:
        options: with the number of GPUs that are used.
        network: see `check_names`.
        distributed: started by torchrun or Slurm.
        processes: that share an iteration.
        wanted: the number of GPUs that the file names.
    """
    train = options["train"]
    if not any(train.get(loss) for loss in ("pixel_opt", "perceptual_opt", "losses")):
        raise UserError("there is no loss: option train.pixel_opt is missing (or train.losses, for several)")
    gpus = torch.cuda.device_count() if options["num_gpu"] == "auto" else options["num_gpu"]
    started = {**options, "num_gpu": gpus, "dist": distributed, "world_size": processes}
    plan = batch_plan(started)
    option_trials.check_batch(started, plan)
    notes = [] if wanted == "auto" else [fewer_pictures(started, plan, int(wanted))]
    option_trials.try_optimizer(train, network, gpu=gpus > 0)
    for network_name in options["path"].get("ignore_resume_networks") or ():
        if options.get(network_name) is None:
            raise UserError(f"option path.ignore_resume_networks: there is no network {network_name!r}")
        if not options["path"].get(f"pretrain_{network_name}"):
            raise UserError(
                f"option path.ignore_resume_networks: without its own weights {network_name} would go on from random "
                f"ones; give path.pretrain_{network_name}"
            )
    return [*filter(None, notes), *option_trials.check_best(options)]


def _slow_precisions(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield notes on the 16-bit types that are asked for and that a CPU is slow in."""
    slow = processor.note_on_bf16("cpu")
    amp = options.get("train", {}).get("amp")
    if amp == "fp16":
        faster, value = ("float32", "false") if slow else ("bf16", "bf16")
        yield f"train.amp: fp16 takes more than 10 times as long as {faster} on a CPU; set train.amp: {value}"
    elif amp and slow:
        yield f"train.amp: {slow}; set train.amp: false"
    if slow and options["val"].get("precision") == "bf16":
        yield f"val.precision: {slow}; set val.precision: float32"


def _refuse_archiving_the_option_file(path: str, options: dict[str, Any], resumes: bool) -> None:
    """A run that starts anew moves an old experiment folder away, before BasicSR reads the option file again."""
    folder = Path("experiments", options["name"]).resolve()
    if options["path"].get("resume_state") or (resumes and any(folder.glob("training_states/*.state"))):
        return
    if folder in Path(path).resolve().parents:
        raise UserError(f"the option file lies in {folder}, which this run would move away; copy it out first")
