"""Option files: read safely, translate the published fork's names, fill in defaults, check what our classes read.

The checks cover the sections that `DerainModel`, our networks, data sets and metrics read. Keys of other people's
networks, models and data sets are never rejected.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from drsformer_arch.options.file_checks import check_file, check_names
from drsformer_arch.options.option_kinds import (
    ANY,
    BOOL,
    COUNT,
    POSITIVE,
    SECTION,
    TEXT,
    TEXT_OR_NONE,
    TYPED,
    Kind,
    choice,
    is_number,
    list_of,
    number,
    or_none,
    shown,
    whole,
)
from drsformer_arch.options.safe_yaml import OptionLoader, Options, load_yaml
from drsformer_arch.rain.rain_presets import PRESETS
from drsformer_arch.system.errors import UserError, did_you_mean

MODEL_TYPES = ("DerainModel", "ImageCleanModel")
# our data sets, and the section of SCHEMA that says what each reads
DATASET_TYPES = {
    "PairedRainDataset": "datasets",
    "Dataset_PairedImage": "datasets",
    "RainSynthesisDataset": "datasets: RainSynthesisDataset",
    "MixedRainDataset": "datasets: MixedRainDataset",
}
INHERITED = ("phase", "scale", "gt_size", "use_hflip", "use_rot")  # by the sets of a mixture
LOWER_IS_BETTER = ("calculate_niqe",)  # of BasicSR's metrics, which take the higher one for better if nothing is said
OFFICIAL_GRAD_CLIP = 0.01  # what `use_grad_clip: true` meant in the published model class


def _is_weights(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(WEIGHT.accepts(weight) for weight in value.values())


WEIGHT = POSITIVE._replace(name="a finite number above 0")
TEMPLATE = Kind(
    lambda value: isinstance(value, str) and value.count("{}") == 1 and value.count("{") == value.count("}") == 1,
    "a text with one {} in it",
)
SEED = whole(0, 2**32 - 2**16)  # numpy's generators take 32 bits, and every process adds its rank
ITERATIONS = whole(1, 10**9)
SIDE = whole(1, 2**16)  # of a picture, in pixels
BATCH = whole(1, 2**16)
PAIR = Kind(
    lambda value: list_of(number(0, below=1)).accepts(value) and len(value) == 2, "two numbers from 0 to below 1"
)
SHARE = number(0, 1)._replace(name="a number between 0 and 1")
FACTORS = Kind(
    lambda value: list_of(number(0.1, 10), 2).accepts(value) and len(value) == 2 and value[0] <= value[1],
    "two factors between 0.1 and 10, the smaller one first",
)
EFFECTIVE = whole(1, 10**6)  # batch, of all processes and accumulation steps

# read by BasicSR's loader and the model's batch plan
_LOADER = {
    "use_shuffle": Kind(lambda value: value is True, "true (training pictures are always shuffled)"),
    "num_worker_per_gpu": whole(0, 512),
    "batch_size_per_gpu": BATCH,
    "mini_batch_sizes": list_of(BATCH, 1),
    "gt_sizes": list_of(SIDE, 1),
    "iters": list_of(ITERATIONS, 1),
    "dataset_enlarge_ratio": number(1e-6, 10_000),
    "prefetch_mode": choice(None, "cpu", "cuda"),
    "num_prefetch_queue": whole(1, 1024),
    "pin_memory": BOOL,
    "persistent_workers": BOOL,
}
_EVERY_DATASET = {
    "name": TEXT,
    "type": TEXT,
    "io_backend": Kind(lambda value: TYPED.accepts(value) and value["type"] in {"disk", "lmdb"}, "disk or lmdb"),
    "gt_size": SIDE,
    "use_hflip": BOOL,
    "use_rot": BOOL,
    "phase": TEXT,
    "scale": COUNT,
    **_LOADER,
}

# The keys that our classes and commands read.
SCHEMA: dict[str, dict[str, Kind]] = {
    "": {
        "name": TEXT,
        "model_type": TEXT,
        "scale": COUNT,
        "num_gpu": Kind(lambda value: value == "auto" or whole(0, 4096).accepts(value), "auto or a whole number", True),
        "manual_seed": SEED,
        "channels_last": BOOL,
        "datasets": SECTION,
        "network_g": TYPED,
        "path": SECTION,
        "train": SECTION,
        "val": SECTION,
        "logger": SECTION,
        "dist_params": SECTION,
        "find_unused_parameters": BOOL,
        # written by BasicSR and our loaders while a run starts
        **dict.fromkeys(
            ("dist", "rank", "world_size", "is_train", "auto_resume", "root_path", "start_iter", "iters_per_epoch"), ANY
        ),
    },
    "train": {
        "total_iter": ITERATIONS,
        "warmup_iter": whole(-1, 10**9),
        "optim_g": TYPED,
        "scheduler": TYPED,
        "pixel_opt": or_none(TYPED),
        "perceptual_opt": or_none(TYPED),
        "ema_decay": number(0, below=1),
        "grad_clip": or_none(POSITIVE),
        "effective_batch_size": Kind(
            lambda value: EFFECTIVE.accepts(value) or list_of(EFFECTIVE, 1).accepts(value),
            f"{EFFECTIVE.name}, or one per stage",
        ),
        "amp": choice(False, None, "bf16", "fp16"),
        "max_nonfinite_skips": whole(0),
        "mixing_augs": SECTION,
    },
    "train.mixing_augs": {"mixup": BOOL, "mixup_beta": number(1e-3, 1e6), "use_identity": BOOL},
    "val": {
        "val_freq": COUNT,
        "save_img": BOOL,
        "suffix": TEXT_OR_NONE,
        "metrics": or_none(SECTION),
        "pbar": BOOL,
        "window_size": SIDE,
        "tile": whole(0),
        "tile_overlap": whole(0),
        "precision": choice(None, "float32", "bf16"),
        "allow_random_weights": BOOL,
    },
    "path": {
        "pretrain_network_g": TEXT_OR_NONE,
        "param_key_g": TEXT_OR_NONE,
        "strict_load_g": BOOL,
        "resume_state": TEXT_OR_NONE,
        "ignore_resume_networks": or_none(list_of(TEXT)),
        **dict.fromkeys(
            ("experiments_root", "models", "training_states", "log", "visualization", "results_root"), TEXT
        ),
    },
    "logger": {
        "print_freq": COUNT,
        "save_checkpoint_freq": COUNT,
        "use_tb_logger": BOOL,
        "keep_checkpoints": COUNT,
        "save_best": TEXT_OR_NONE,
        "wandb": or_none(SECTION),
    },
    "logger.wandb": {"project": TEXT_OR_NONE, "resume_id": TEXT_OR_NONE},
    "dist_params": {"backend": TEXT, "port": whole(1, 65535), "timeout_minutes": number(0.1, 10**6)},
    "datasets": {
        **_EVERY_DATASET,
        "dataroot": TEXT,
        "dataroot_gt": TEXT_OR_NONE,
        "dataroot_lq": TEXT,
        "partial": BOOL,
        "filename_tmpl": TEMPLATE,
        "use_vflip": BOOL,
        "resize": FACTORS,
    },
    "datasets: RainSynthesisDataset": {
        **_EVERY_DATASET,
        "dataroot_gt": TEXT,
        "partial": BOOL,
        "presets": Kind(
            lambda value: TEXT.accepts(value) or list_of(TEXT, 1).accepts(value) or _is_weights(value),
            "a name, a list of names, or names with weights",
        ),
        "rain_seed": SEED,
        "resize": FACTORS,
        "drawn_scenes": SHARE,
    },
    "datasets: MixedRainDataset": {
        **_EVERY_DATASET,
        "sets": Kind(list_of(TYPED, 1).accepts, "a list of data set sections"),
    },
}
# What arguments must be that a type of one's choice takes; which ones it takes, it says itself.
_WEIGHTS_OF_LOSSES = {"loss_weight": POSITIVE, "perceptual_weight": number(0), "style_weight": number(0)}
ARGUMENTS: dict[str, dict[str, Kind]] = {
    "train.optim_g": {"lr": number(0), "betas": PAIR},
    "train.scheduler": {
        "periods": list_of(ITERATIONS, 1),
        "restart_weights": list_of(number(0), 1),
        "eta_mins": list_of(number(0), 1),
        "eta_min": number(0),
        "milestones": list_of(whole(0)),
        "gamma": number(0),
        "restarts": list_of(whole(0)),
    },
    "train.pixel_opt": _WEIGHTS_OF_LOSSES,
    "train.perceptual_opt": _WEIGHTS_OF_LOSSES,
    "val.metrics": {"crop_border": whole(0), "test_y_channel": BOOL, "better": choice("higher", "lower")},
}
REQUIRED = {
    "": ("name", "model_type", "datasets", "network_g"),
    "train": ("total_iter", "optim_g", "scheduler"),
    "datasets: RainSynthesisDataset": ("dataroot_gt",),
    "datasets: MixedRainDataset": ("sets",),
}


def override(opt: Options, entries: Sequence[str]) -> None:
    """Apply `--force_yml` entries such as `train:optim_g:lr=1e-4`; values are read as YAML, nothing is evaluated.

    Raises:
        UserError: an entry without `=`, a section that does not exist, a value that is no YAML.
    """
    for entry in entries:
        keys, equals, value = entry.partition("=")
        if not equals:
            raise UserError(f"--force_yml {entry}: expected KEY:KEY=VALUE")
        *parents, leaf = (key.strip() for key in keys.split(":"))
        section = opt
        if parents and parents[0] in SCHEMA and opt.get(parents[0]) is None:
            opt[parents[0]] = {}  # a section that the file may leave out
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                raise UserError(f"--force_yml {entry}: there is no section '{parent}'{did_you_mean(parent, section)}")
            section = section[parent]
        try:
            section[leaf] = yaml.load(value, Loader=OptionLoader)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"--force_yml {entry}: {value!r} is no YAML value") from error


def translate_dataset(dataset: Options) -> list[str]:
    """Translate the published fork's data set keys in place; returns one message per change."""
    messages = []
    for part in dataset.get("sets") or () if dataset.get("type") == "MixedRainDataset" else ():
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
    opt.setdefault("scale", 1)
    opt.setdefault("num_gpu", "auto")
    if opt.get("manual_seed") is None:
        opt["manual_seed"] = 0  # one seed for all processes, and the same after a resume
    for key, value in {"print_freq": 100, "save_checkpoint_freq": 5000, "use_tb_logger": False}.items():
        opt["logger"].setdefault(key, value)
    for key, default in {"save_img": False, "suffix": None, "val_freq": 5000}.items():
        opt["val"].setdefault(key, default)
    opt["path"].setdefault("resume_state", None)
    for phase, dataset in opt["datasets"].items():
        if isinstance(dataset, dict):
            dataset.setdefault("name", phase)
            root = str(dataset.get("dataroot_lq", ""))
            dataset.setdefault("io_backend", {"type": "lmdb" if root.rstrip("/").endswith(".lmdb") else "disk"})
    metrics = opt["val"].get("metrics")
    for metric in metrics.values() if isinstance(metrics, dict) else ():
        if isinstance(metric, dict) and metric.get("type") in LOWER_IS_BETTER:
            metric.setdefault("better", "lower")


def check_section(section: str, values: Any, where: str | None = None) -> None:
    """Check one section against `SCHEMA`.

    Raises:
        UserError: an unknown key (with the nearest known one), a missing one, or a value of the wrong kind.
    """
    where = section if where is None else where
    prefix = f"{where}." if where else ""
    if not isinstance(values, dict):
        raise UserError(f"option {where} must be a section with keys, not {shown(values)}")
    known = SCHEMA[section]
    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        raise UserError(f"unknown option {prefix}{unknown}{did_you_mean(unknown, known)}")
    check_values(known, values, where)
    for key in REQUIRED.get(section, ()):
        if values.get(key) is None:
            raise UserError(f"option {prefix}{key} is missing")


def check_values(known: dict[str, Kind], values: Options, where: str) -> None:
    """Check the values of those keys that are known; whole numbers written as 4e3 become integers.

    Raises:
        UserError: a value of the wrong kind.
    """
    prefix = f"{where}." if where else ""
    for key, kind in ((key, known[key]) for key in list(values) if key in known):
        value = values[key]
        if not kind.accepts(value):
            raise UserError(f"option {prefix}{key} must be {kind.name}, not {shown(value)}")
        if kind.makes_integer and isinstance(value, float):
            values[key] = int(value)


def check_dataset(dataset: Options, where: str, schema: str | None = None) -> None:
    """Check the section of one of our data sets; those of other people are left alone.

    Args:
        dataset: the section, with its `type`.
        where: its name in messages.
        schema: the section of `SCHEMA`, where not the type says it.

    Raises:
        UserError: see `check_section`; no source, or two.
    """
    schema = schema or DATASET_TYPES.get(dataset["type"])
    if schema is None:
        return
    check_section(schema, dataset, where)
    if schema == "datasets":
        _check_source(dataset, where)
    presets = dataset.get("presets", ())
    for preset in [presets] if isinstance(presets, str) else presets:
        if preset not in PRESETS:
            raise UserError(f"option {where}.presets: unknown kind of rain {preset!r}{did_you_mean(preset, PRESETS)}")
    for index, part in enumerate(dataset.get("sets", ())):
        if not WEIGHT.accepts(part.get("weight", 1)):
            raise UserError(f"option {where}.sets[{index}].weight must be {WEIGHT.name}, not {shown(part['weight'])}")
        for key in ("gt_size", "phase", "sets", *_LOADER):
            if key in part:
                raise UserError(f"option {where}.sets[{index}].{key}: the mixture has one for all; give it in {where}")
        check_dataset({key: value for key, value in part.items() if key != "weight"}, f"{where}.sets[{index}]")


def _check_source(dataset: Options, where: str) -> None:
    if dataset.get("dataroot") is None:
        if dataset.get("dataroot_lq") is None:
            raise UserError(f"option {where}.dataroot is missing (or dataroot_lq and dataroot_gt)")
        if dataset.get("dataroot_gt") is None:
            raise UserError(f"option {where}.dataroot_gt is missing")
        return
    for key in ("dataroot_lq", "dataroot_gt", "filename_tmpl"):
        if dataset.get(key) is not None:
            raise UserError(f"{where}: give either dataroot, or dataroot_lq and dataroot_gt (option {key})")


def check_model_options(opt: Options) -> None:
    """Check everything that `DerainModel` and our data sets read; other model types are left alone.

    Raises:
        UserError: see `check_section`.
    """
    datasets = {key: value for key, value in (opt.get("datasets") or {}).items() if isinstance(value, dict)}
    for phase, dataset in datasets.items():
        if "type" in dataset:
            check_dataset(dataset, f"datasets.{phase}")
        if dataset.get("type") == "MixedRainDataset" and phase != "train":
            raise UserError(f"datasets.{phase}.type: a mixture is for training; validate on val_1, val_2, ...")
        _check_prefetching(dataset, f"datasets.{phase}")
    if opt.get("model_type") not in MODEL_TYPES:
        return
    top = {key: value for key, value in opt.items() if not (key.startswith("network_") and key != "network_g")}
    check_section("", top)
    opt.update(top)
    if opt.get("scale", 1) != 1:
        raise UserError(f"option scale must be 1, not {opt['scale']}: a derained picture keeps its size")
    for section in ("train", "val", "path", "logger", "dist_params"):
        if section in opt and not (section == "train" and not opt.get("is_train", True)):
            check_section(section, opt[section])
    train, val, logger = (opt.get(section) or {} for section in ("train", "val", "logger"))
    if "mixing_augs" in train:
        check_section("train.mixing_augs", train["mixing_augs"])
    if logger.get("wandb"):
        check_section("logger.wandb", logger["wandb"])
    metrics = val.get("metrics") or {}
    _check_arguments(train, metrics)
    _check_best(logger.get("save_best"), metrics)
    tile, overlap = val.get("tile", 0), val.get("tile_overlap", 32)
    if tile and overlap >= tile:
        raise UserError(f"option val.tile_overlap ({overlap}, by default 32) must be smaller than val.tile ({tile})")


def _check_arguments(train: Options, metrics: Options) -> None:
    """The values of arguments that `ARGUMENTS` knows."""
    lr = (train.get("optim_g") or {}).get("lr")
    if lr is not None and not is_number(lr):
        raise UserError(f"option train.optim_g.lr must be a number, not {shown(lr)}")
    if train.get("optim_g") and lr is None:
        raise UserError("option train.optim_g.lr is missing")
    for section in ("optim_g", "scheduler", "pixel_opt", "perceptual_opt"):
        check_values(ARGUMENTS[f"train.{section}"], train.get(section) or {}, f"train.{section}")
    for name, metric in metrics.items():
        if not TYPED.accepts(metric):
            raise UserError(f"val.metrics.{name} needs a type")
        check_values(ARGUMENTS["val.metrics"], metric, f"val.metrics.{name}")


def _check_prefetching(dataset: Options, where: str) -> None:
    mode = dataset.get("prefetch_mode")
    if not dataset.get("num_worker_per_gpu"):
        for key, value in (("prefetch_mode", "cpu"), ("persistent_workers", True)):
            if dataset.get(key) == value:
                raise UserError(f"{where}.{key}: {value} needs num_worker_per_gpu of at least 1")
    if mode == "cuda" and dataset.get("pin_memory") is not True:
        raise UserError(f"{where}.prefetch_mode: cuda needs pin_memory: true")


def _check_what_basicsr_reads(opt: Options) -> None:
    """The values of options that BasicSR itself reads, whatever model and data sets are named."""
    for section in ("", "path", "logger"):
        values = opt if not section else opt[section]
        check_values(SCHEMA[section], {key: value for key, value in values.items() if value is not None}, section)
    for section, keys in (("train", ("total_iter",)), ("val", ("val_freq", "save_img", "suffix"))):
        known = {key: SCHEMA[section][key] for key in keys}
        check_values(known, opt.get(section) or {}, section)
    for phase, dataset in opt["datasets"].items():
        known = {key: kind for key, kind in _LOADER.items() if key != "use_shuffle"}
        check_values(known, dataset, f"datasets.{phase}")
    if opt["is_train"]:
        for section, key in (("train", "total_iter"), ("datasets.train", "batch_size_per_gpu")):
            values = opt["datasets"]["train"] if section == "datasets.train" else opt[section]
            if values.get(key) is None:
                raise UserError(f"option {section}.{key} is missing")


def _check_best(metric: str | None, metrics: Options) -> None:
    if metric is not None and metric not in metrics:
        raise UserError(f"option logger.save_best: no metric {metric!r} in val.metrics{did_you_mean(metric, metrics)}")


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
        check_file(opt, is_train=is_train)
        messages = translate(opt)
        add_defaults(opt)
        if not is_train:
            opt["val"].setdefault("pbar", sys.stderr.isatty())
        ours = opt.get("model_type") in MODEL_TYPES
        for key in ("name", "model_type", *(("network_g",) if ours else ())):
            if opt.get(key) is None:
                raise UserError(f"option {key} is missing")
        if is_train:
            for section in ("train", "datasets"):
                if not isinstance(opt.get(section), dict):
                    raise UserError(f"option {section} is missing; a test file cannot train")
            if "train" not in opt["datasets"]:
                raise UserError("option datasets.train is missing; a test file cannot train")
        elif not opt["datasets"]:
            raise UserError("option datasets is missing: there is nothing to test on")
        check_names(opt, is_train=is_train)
        opt["is_train"] = is_train
        if not ours:
            _check_what_basicsr_reads(opt)
        check_model_options(opt)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return opt, messages
