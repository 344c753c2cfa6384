"""Run BasicSR's pipelines for the `drsformer` command, which hands over options that were checked already."""

import argparse
import contextlib
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from drsformer_arch import plugin
from drsformer_arch.archs.contract import InputError
from drsformer_arch.bridge import repairs
from drsformer_arch.bridge.trouble import MachineError, trouble_of
from drsformer_arch.images.picture_headers import PictureError, read_picture_header
from drsformer_arch.system import processor
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import lock
from drsformer_arch.training import loaders

# isort: split
from basicsr.utils import imfrombytes as basicsr_imfrombytes
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info


def work_where_it_ran(path: str) -> str:
    """Change to the folder that an option file belongs to, if it is the copy in an experiment's own folder.

    Its relative paths are meant from there, and its experiment goes on from wherever the command runs.

    Returns:
        the option file's path from the new working directory.
    """
    file = Path(path).resolve()
    experiments = file.parent.parent
    root = experiments.parent
    if experiments.name != "experiments" or not (file.parent / "training_states").is_dir() or root == Path.cwd():
        return path
    print(f"{path} belongs to an experiment of {root}: working there", flush=True)
    os.chdir(root)
    return str(file.relative_to(root))


def lock_experiment(name: str, *, distributed: bool) -> None:
    """Keep other runs away from an experiment's folder: a new one would move it, two would mix their files.

    The first process of a run holds the lock until it ends.

    Raises:
        UserError: another run is at it.
    """
    if distributed and int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))):
        return
    path = _lock_of(name)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    _take(path, name)
    for left in Path("experiments", name).glob("*/.*.tmp"):  # what a killed run was writing
        left.unlink()


def refuse_second_run(name: str) -> None:
    """Refuse an experiment that another run is at, and leave nothing behind.

    Raises:
        UserError: another run is at it.
    """
    if _lock_of(name).exists():
        os.close(_take(_lock_of(name), name))


def _lock_of(name: str) -> Path:
    return Path("experiments", f".{name}.lock")


def _take(path: Path, name: str) -> int:
    try:
        return lock(path, wait=False)
    except BlockingIOError:
        raise UserError(
            f"another training named {name} is running here; give this one another name (--force_yml name=...)"
        ) from None


def start(options: dict[str, Any], args: argparse.Namespace, *, root: str, is_train: bool) -> None:
    """Run BasicSR's training or test pipeline.

    Args:
        options: read and checked; they are filled in.
        args: of the command line: `opt`, `launcher`, and for a training `auto_resume`.
        root: the folder below which experiments and results go.
        is_train: train or test.

    Raises:
        MachineError: something that may be gone when the same command runs again.
        UserError: something in the input is wrong.
    """
    if options["num_gpu"] == 0 or not torch.cuda.is_available():  # a process that feeds a GPU needs no memory kept
        processor.tune()
    repairs.apply(
        (
            ("train test", "parse_options", partial(fill_in, options, args)),
            ("train", "create_train_val_dataloader", loaders.create_train_val_dataloader),  # of every model
            ("test", "build_dataset", partial(build_test_dataset, options)),
            *PICTURE_HOOKS,
        )
    )
    with explained(options):
        (plugin.train_pipeline if is_train else plugin.test_pipeline)(root)


@contextlib.contextmanager
def explained(options: dict[str, Any]) -> Iterator[None]:
    """Say what ends a run in one line, as far as it is known.

    Args:
        options: of the run.

    Raises:
        MachineError: see `start`.
        UserError: see `start`.
    """
    try:
        yield
    except Exception as error:
        try:
            trouble = trouble_of(error, options["datasets"])
        except RuntimeError as later:  # torch says that a worker has ended by interrupting whatever runs, this too
            trouble = trouble_of(later, options["datasets"])
        if trouble is not None:
            raise MachineError(trouble) from error
        if isinstance(error, InputError):
            raise UserError(str(error)) from error
        raise


def fill_in(
    options: dict[str, Any], args: argparse.Namespace, root_path: str, is_train: bool = True
) -> tuple[dict[str, Any], argparse.Namespace]:
    """Start processes and complete checked options as BasicSR's `parse_options` does those of a file.

    That one executes Python tags, leaves `1e-4` a text, and reads the command line of the process.

    Args:
        options: read and checked, `--force_yml` and the name of debugging applied.
        args: see `start`.
        root_path: see `start`.
        is_train: train or test.

    Returns:
        the same options, the same arguments.
    """
    options["dist"] = args.launcher != "none"
    if options["dist"]:  # BasicSR passes dist_params on to Slurm's processes only
        repairs.init_dist(args.launcher, gpu=options["num_gpu"] != 0, **(options.get("dist_params") or {}))
    else:
        print("Disable distributed.", flush=True)
    options["rank"], options["world_size"] = get_dist_info()
    complete(options, args, root_path, is_train)
    return options, args


def complete(options: dict[str, Any], args: argparse.Namespace, root_path: str, is_train: bool) -> None:
    """Complete checked options of a process whose rank among how many is known; see `fill_in`."""
    if options.get("manual_seed") is None:
        options["manual_seed"] = random.randint(1, 10000)
    set_random_seed(options["manual_seed"] + options["rank"])
    options["auto_resume"] = is_train and args.auto_resume
    options["is_train"] = is_train
    if options["num_gpu"] == "auto":
        options["num_gpu"] = torch.cuda.device_count()
    for phase, section in options["datasets"].items():
        section["phase"] = phase.split("_")[0]
        if "scale" in options:
            section["scale"] = options["scale"]
        expand_users(section, ("dataroot_gt", "dataroot_lq"))
    path = options["path"]
    expand_users(path, [key for key in path if "resume_state" in key or "pretrain_network" in key])
    folder = os.path.join(root_path, "experiments" if is_train else "results", options["name"])
    path |= {"experiments_root" if is_train else "results_root": folder, "log": folder}
    for name in ("models", "training_states", "visualization") if is_train else ("visualization",):
        path[name] = os.path.join(folder, name)
    if is_train and "debug" in options["name"]:
        options["val"]["val_freq"] = 8
        options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 8}


def expand_users(section: dict[str, Any], keys: Any) -> None:
    """Replace `~` in paths that are given."""
    section |= {key: os.path.expanduser(section[key]) for key in keys if section.get(key) is not None}


def build_test_dataset(options: dict[str, Any], section: dict[str, Any]) -> Any:
    """Build a test set that names bad files; refuse one whose results would overwrite each other.

    Raises:
        UserError: a missing folder, an empty set, pairs that do not match, pictures of equal names.
    """
    dataset = loaders.build_checked_dataset(section)
    loaders.refuse_equal_names(dataset, options)
    return dataset


def imfrombytes(content: bytes, flag: str = "color", float32: bool = False) -> Any:
    """Refuse damaged pictures: OpenCV fills with black what a file lacks, and allocates what its header claims."""
    try:
        read_picture_header(content, "of this sample")
    except PictureError as error:
        raise ValueError(str(error)) from error  # to which CheckedDataset adds the name of the file
    return basicsr_imfrombytes(content, flag, float32)


SETS_OF_PICTURES = "ffhq paired_image realesrgan realesrgan_paired reds single_image vimeo90k"
PICTURE_HOOKS: tuple[repairs.Hook, ...] = (
    (" ".join(f"data.{kind}_dataset" for kind in SETS_OF_PICTURES.split()), "imfrombytes", imfrombytes),
)
