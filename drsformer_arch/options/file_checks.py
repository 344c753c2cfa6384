"""Rules for a whole option file, whoever's model and data sets it names, before anything of it is used."""

import math
import re
from typing import Any

from drsformer_arch.options.kinds import shown
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.names import check_name, refuse_equal

SECTIONS = ("datasets", "path", "train", "val", "logger", "dist_params")
LONGEST_TEXT = 4096  # bytes: a path's limit on Linux
BITS = 64  # of a whole number
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # and what no file system can store

# BasicSR writes these while a run starts: given in a file they would be ignored.
WRITTEN = {
    "dist": "comes from --launcher",
    "rank": "comes from the launcher",
    "world_size": "comes from the launcher",
    "local_rank": "comes from the launcher",
    "launcher": "is given on the command line: --launcher",
    "auto_resume": "is given on the command line: --auto_resume",
    "debug": "is given on the command line: --debug",
    "opt": "is given on the command line: -opt",
    "force_yml": "is given on the command line: --force_yml",
    "is_train": "follows from the command: drsformer train or drsformer test",
    "root_path": "is the working directory: run the command where experiments and results shall lie",
    "start_iter": "comes from the training state: --auto_resume, or path.resume_state",
    "iters_per_epoch": "follows from data set and batch",
}
PLACES = {
    "root": WRITTEN["root_path"],
    "experiments_root": "is ./experiments/NAME, of the option name: run the command where it shall lie",
    "results_root": "is ./results/NAME, of the option name: run the command where it shall lie",
    **dict.fromkeys(
        ("models", "training_states", "log", "visualization"),
        "lies in ./experiments/NAME or ./results/NAME, of the option name: run the command where it shall lie",
    ),
}
_OF_TRAININGS = ("resume_state", "ignore_resume_networks")
_OF_RECORDS = ("iter", "data_set")  # beside a validation's scores in training.jsonl


def check_file(opt: dict[str, Any], *, is_train: bool) -> None:
    """Check an option file as it was written: plain values, sections that are sections, nothing that is ignored.

    Raises:
        UserError: one line that names the option.
    """
    _check_values(opt, "")
    for name in SECTIONS:
        if not isinstance(opt.get(name), dict | None):
            raise UserError(f"option {name} must be a section with keys, not {shown(opt[name])}")
    for phase, dataset in (opt.get("datasets") or {}).items():
        if not isinstance(dataset, dict) or not isinstance(dataset.get("type"), str):
            raise UserError(f"option datasets.{phase} needs a type: it must be a section with keys")
        _check_phase(phase, is_train=is_train)
        for key, value in (("phase", phase.split("_")[0]), ("scale", opt.get("scale", 1))):
            if dataset.get(key) not in {None, value}:
                raise UserError(f"option datasets.{phase}.{key} has no place in an option file: it is always {value}")
    _refuse_ignored("", opt, WRITTEN)
    paths = opt.get("path") or {}
    _refuse_ignored("path.", paths, PLACES)
    if not is_train:
        _refuse_ignored("path.", paths, dict.fromkeys(_OF_TRAININGS, "is for drsformer train: a test resumes nothing"))


def check_names(opt: dict[str, Any], *, is_train: bool) -> None:
    """Check what becomes the name of a file or folder; the options have their defaults.

    Raises:
        UserError: one line that names the option.
    """
    check_name(opt.get("name"), "option name")
    sets = [(f"option datasets.{phase}.name", section["name"]) for phase, section in opt["datasets"].items()]
    for where, name in sets:
        check_name(name, where)
    refuse_equal((where, name) for where, name in sets if where != "option datasets.train.name")
    val = opt["val"]
    if val.get("suffix") and not is_train:
        check_name(val["suffix"], "option val.suffix")
    metrics = val.get("metrics") or {}
    if not isinstance(metrics, dict):
        raise UserError(f"option val.metrics must be a section with keys, not {shown(metrics)}")
    for name in metrics:
        check_name(name, f"the name of option val.metrics.{name}")
        if name in _OF_RECORDS:
            raise UserError(f"option val.metrics.{name}: the log of a training calls something else so; rename it")
    refuse_equal((f"option val.metrics.{name}", name) for name in metrics)


def _check_values(value: Any, where: str, *, plain_keys: bool = True) -> None:
    """Everything must be what an option file can mean: no bytes, dates, not-a-number, no control characters."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if plain_keys and not isinstance(key, str):
                raise UserError(f"option {where or 'names'}: a key must be a name, not {shown(key)}; put it in quotes")
            _check_text(key, f"a key of option {where}" if where else "a key")
            # what stands inside an argument of somebody's class is theirs
            _check_values(inner, f"{where}.{key}" if where else key, plain_keys=plain_keys and "type" not in value)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_values(inner, f"{where}[{number}]", plain_keys=False)
    elif isinstance(value, str):
        _check_text(value, f"option {where}")
    elif isinstance(value, int):
        if value.bit_length() > BITS:
            raise UserError(f"option {where}: a whole number of {value.bit_length()} bits is out of range")
    elif isinstance(value, float):
        if math.isnan(value):
            raise UserError(f"option {where} is not a number (nan)")
    elif value is not None:
        raise UserError(f"option {where}: {shown(value)} is no plain value; put it in quotes")


def _check_text(text: Any, where: str) -> None:
    if not isinstance(text, str):
        return
    bad = _CONTROL.search(text)
    if bad:
        raise UserError(f"{where} holds a control character, {bad[0]!r}: {shown(text)}")
    if len(text.encode()) > LONGEST_TEXT:
        raise UserError(f"{where} is a text of {len(text)} characters; at most {LONGEST_TEXT} bytes mean anything")


def _refuse_ignored(prefix: str, section: dict[str, Any], reasons: dict[str, str]) -> None:
    for key, reason in reasons.items():
        if section.get(key) is not None:
            raise UserError(f"option {prefix}{key} has no place in an option file: it {reason}")


def _check_phase(phase: str, *, is_train: bool) -> None:
    """BasicSR tells what a data set is for by its section's name up to the first `_`."""
    kind = phase.split("_", maxsplit=1)[0]
    if (phase == "train" and is_train) or kind in ({"val"} if is_train else {"val", "test"}):
        return
    if not is_train and kind == "train":
        raise UserError(f"datasets.{phase}: this is a training file; a test file has datasets.test")
    file, names = ("training", "train, val, val_1, val_2") if is_train else ("test", "test, test_1, test_2")
    raise UserError(f"option datasets.{phase}: a {file} file knows {names}, ...")
