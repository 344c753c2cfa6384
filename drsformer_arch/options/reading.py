"""Option files: read safely, translate the published fork's names, fill in defaults, check what our classes read.

Keys of other people's networks, models and data sets are never rejected.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from drsformer_arch.options.file_checks import PLACES, SECTIONS, WRITTEN, check_file, check_names
from drsformer_arch.options.run_sections import MODEL_TYPES, AnyLogger, AnyPaths, AnyRun, AnyVal, DerainRun
from drsformer_arch.options.safe_yaml import OptionLoader, Options, load_yaml
from drsformer_arch.options.section_base import Section
from drsformer_arch.system.errors import UserError, did_you_mean

# BasicSR takes the higher score for better if nothing is said.
LOWER_IS_BETTER = ("calculate_niqe", "calculate_lpips")
OFFICIAL_GRAD_CLIP = 0.01  # what `use_grad_clip: true` meant in the published model class


class Override(NamedTuple):
    """An entry such as `train:optim_g:lr=1e-4`: keys, the value that they get, and its text."""

    keys: tuple[str, ...]
    value: Any
    text: str


def parse_override(entry: str, flag: str) -> Override:
    """Read an entry; its value is read as YAML, nothing is evaluated.

    Raises:
        UserError: no `=`, or a value that is no YAML.
    """
    keys, equals, value = entry.partition("=")
    if not equals:
        raise UserError(f"{flag} {entry}: expected KEY:KEY=VALUE")
    try:
        return Override(tuple(key.strip() for key in keys.split(":")), yaml.load(value, Loader=OptionLoader), value)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{flag} {entry}: {value!r} is no YAML value") from error


def override(opt: Options, entries: Sequence[str], flag: str = "--force_yml") -> None:
    """Apply entries such as `train:optim_g:lr=1e-4`.

    Args:
        opt: of a file; changed in place.
        entries: see `parse_override`.
        flag: of the command line that gave them, for messages.

    Raises:
        UserError: see `parse_override`; a section that does not exist.
    """
    for entry in entries:
        (*parents, leaf), value, _ = parse_override(entry, flag)
        section = opt
        if parents and parents[0] in SECTIONS and opt.get(parents[0]) is None:
            opt[parents[0]] = {}  # a section that the file may leave out
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                raise UserError(f"{flag} {entry}: there is no section '{parent}'{did_you_mean(parent, section)}")
            section = section[parent]
        section[leaf] = value


def translate_dataset(dataset: Options) -> list[str]:
    """Translate the published fork's data set keys in place; returns one message per change."""
    messages = []
    parts = dataset.get("sets") if dataset.get("type") == "MixedRainDataset" else None
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict):
            messages += translate_dataset(part)
    if dataset.get("type") == "Dataset_PairedImage":
        dataset["type"] = "PairedRainDataset"
        messages.append("data set type Dataset_PairedImage is PairedRainDataset here")
    if "geometric_augs" in dataset and dataset.get("type") == "PairedRainDataset":
        augment = dataset.pop("geometric_augs")
        dataset.setdefault("use_hflip", augment)
        dataset.setdefault("use_rot", augment)
        messages.append(f"geometric_augs: {augment} is use_hflip and use_rot here (the same 8 symmetries)")
    return messages


def translate(opt: Options) -> list[str]:
    """Translate option files of the published DRSformer/Restormer fork in place; returns one message per change."""
    messages = []
    if opt.get("model_type") == "ImageCleanModel":
        opt["model_type"] = "DerainModel"
        messages.append("model_type ImageCleanModel is DerainModel here")
    if opt.get("model_type") == "DerainModel":
        train, val = opt.get("train") or {}, opt.get("val") or {}
        if "use_grad_clip" in train:
            clip = OFFICIAL_GRAD_CLIP if train.pop("use_grad_clip") else None
            train.setdefault("grad_clip", clip)
            messages.append(f"use_grad_clip is grad_clip: {train['grad_clip']} here (the fork's hidden constant)")
        for key in ("rgb2bgr", "use_image", "max_minibatch"):
            if key in val:
                messages.append(f"val.{key}: {val.pop(key)} is not needed here and ignored")
    for dataset in (opt.get("datasets") or {}).values():
        if isinstance(dataset, dict):
            messages += translate_dataset(dataset)
    return messages


def add_defaults(opt: Options) -> None:
    """Fill in what BasicSR reads without a default; sections left empty become empty dicts."""
    for section in ("path", "val", "logger", "datasets"):
        if opt.get(section) is None:
            opt[section] = {}
    if opt.get("manual_seed") is None:
        opt["manual_seed"] = 0  # one seed for all processes, and the same after a resume
    needed: tuple[tuple[type[Section], Options, tuple[str, ...]], ...] = (
        (AnyRun, opt, ("scale", "num_gpu")),
        (AnyLogger, opt["logger"], ("print_freq", "save_checkpoint_freq", "use_tb_logger")),
        (AnyVal, opt["val"], ("save_img", "suffix", "val_freq")),
        (AnyPaths, opt["path"], ("resume_state",)),
    )
    for kind, values, keys in needed:
        for key in keys:
            values.setdefault(key, kind.model_fields[key].default)
    for phase, dataset in opt["datasets"].items():
        if isinstance(dataset, dict):
            dataset.setdefault("name", phase)
            root = str(dataset.get("dataroot_lq", ""))
            dataset.setdefault("io_backend", {"type": "lmdb" if root.rstrip("/").endswith(".lmdb") else "disk"})
    metrics = opt["val"].get("metrics")
    for metric in metrics.values() if isinstance(metrics, dict) else ():
        if isinstance(metric, dict) and metric.get("type") in LOWER_IS_BETTER:
            metric.setdefault("better", "lower")


def check_sections(opt: Options) -> AnyRun:
    """Check everything that BasicSR, `DerainModel` and our data sets read, and put whole numbers for `4e3` in place.

    Args:
        opt: an option file's content, perhaps with what BasicSR adds while a run starts.

    Returns:
        the sections.

    Raises:
        UserError: see `Section.read`.
    """
    ours = opt.get("model_type") in MODEL_TYPES
    given = {key: value for key, value in opt.items() if key not in WRITTEN}
    if isinstance(opt.get("path"), dict):
        given["path"] = {key: value for key, value in opt["path"].items() if key not in PLACES}
    if not opt.get("is_train", True):
        given.pop("train", None)
    if not ours:  # BasicSR's files leave options empty
        given = _without_empty(given) | {key: _without_empty(given[key]) for key in ("path", "logger") if key in given}
    run = (DerainRun if ours else AnyRun).read(given)
    _put(run.as_dict(), opt)
    return run


def _without_empty(section: Options) -> Options:
    return {key: value for key, value in section.items() if value is not None}


def _put(values: Options, opt: Options) -> None:
    """Replace values in place, as others hold these sections too."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(opt.get(key), dict):
            _put(value, opt[key])
        else:
            opt[key] = value


def _refuse_missing_sections(opt: Options, *, is_train: bool) -> None:
    for key in ("name", "model_type", *(("network_g",) if opt.get("model_type") in MODEL_TYPES else ())):
        if opt.get(key) is None:
            raise UserError(f"option {key} is missing")
    if not is_train:
        if not opt["datasets"]:
            raise UserError("option datasets is missing: there is nothing to test on")
        return
    for key, section in (("train", opt), ("datasets", opt), ("datasets.train", opt["datasets"])):
        if not isinstance(section.get(key.rpartition(".")[2]), dict):
            raise UserError(f"option {key} is missing; a test file cannot train")


def read_options(path: Path | str, overrides: Sequence[str] = (), *, is_train: bool) -> tuple[Options, list[str]]:
    """Read, translate, complete and check an option file.

    Args:
        path: the YAML file.
        overrides: entries such as `train:total_iter=100`.
        is_train: whether the file is to train (needs a train section and a training set) or to test.

    Returns:
        The options for BasicSR, and one message per translated key.

    Raises:
        UserError: one line that names the key and what to do.
    """
    opt = load_yaml(path)
    override(opt, overrides)
    try:
        return opt, complete(opt, is_train=is_train)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def complete(opt: Options, *, is_train: bool) -> list[str]:
    """Translate, complete and check in place what an option file holds.

    Args:
        opt: as it was written.
        is_train: see `read_options`.

    Returns:
        one message per translated key.

    Raises:
        UserError: one line that names the key and what to do.
    """
    check_file(opt, is_train=is_train)
    messages = translate(opt)
    add_defaults(opt)
    if not is_train:
        opt["val"].setdefault("pbar", sys.stderr.isatty())
    _refuse_missing_sections(opt, is_train=is_train)
    check_names(opt, is_train=is_train)
    opt["is_train"] = is_train
    run = check_sections(opt)
    if is_train and not isinstance(run, DerainRun) and run.datasets["train"].batch_size_per_gpu is None:
        raise UserError("option datasets.train.batch_size_per_gpu is missing")
    return messages
