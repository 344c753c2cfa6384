"""Repairs of what fails in BasicSR 1.4.2, for everybody who imports the plugin.

`HOOKS` says which attribute of which module of BasicSR is replaced by which function, whose docstring says why. No
repair changes what a working run of another project computes. State between BasicSR's steps travels in the options.
"""

import contextlib
import datetime
import errno
import functools
import gc
import importlib
import inspect
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from drsformer_arch.bridge import (
    importable,  # noqa: F401 - makes BasicSR importable
    peers,
)
from drsformer_arch.bridge.outside import copy_imported_files, imports_of, register_outside
from drsformer_arch.data.store.environments import open_shared
from drsformer_arch.data.store.meta_info import lmdb_keys, name_of_key
from drsformer_arch.restore.weights import load_file, read_weights
from drsformer_arch.system.errors import UserError, first_few, line_of
from drsformer_arch.training import checkpoints, loaders
from drsformer_arch.training.training_log import TrainingLog
from drsformer_arch.training.training_records import is_iteration
from drsformer_arch.training.validation import calculate_metric

# isort: split
from basicsr import train
from basicsr.archs import vgg_arch
from basicsr.data.ffhq_dataset import FFHQDataset
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.data.realesrgan_dataset import RealESRGANDataset
from basicsr.losses.basic_loss import PerceptualLoss
from basicsr.models import build_model as basicsr_build_model
from basicsr.utils import MessageLogger, check_resume, misc
from basicsr.utils.dist_util import init_dist as basicsr_init_dist
from basicsr.utils.options import copy_opt_file as basicsr_copy_opt_file
from basicsr.utils.options import parse_options as basicsr_parse_options
from basicsr.utils.registry import Registry

basicsr_create_train_val_dataloader = train.create_train_val_dataloader
basicsr_mkdir_and_rename = misc.mkdir_and_rename
basicsr_do_register = Registry._do_register
basicsr_init_perceptual_loss = PerceptualLoss.__init__

Hook = tuple[str, str, Callable[..., Any]]
SUFFIX = "drsformer"  # of our names where another package holds them


def parse_options(root_path: str, is_train: bool = True) -> tuple[dict[str, Any], Any]:
    """Import what the option file names under `import`, and what installed packages announce.

    And train on the CPU where there is no GPU: with `num_gpu: 1` in the file BasicSR ends in a driver's error.
    """
    opt, args = basicsr_parse_options(root_path, is_train)
    register_outside(imports_of(opt, args.opt))
    if opt["num_gpu"] and not torch.cuda.is_available():
        print(f"num_gpu is {opt['num_gpu']}, this machine has none: using the CPU", flush=True)
        opt["num_gpu"] = 0
    return opt, args


def init_dist(
    launcher: str, backend: str = "nccl", *, gpu: bool = True, timeout_minutes: float | None = None, **options: Any
) -> None:
    """Connect this process of a job with the others, by gloo without GPUs: BasicSR divides by their number.

    Args:
        launcher: "pytorch" or "slurm".
        backend: of torch, where there are GPUs.
        gpu: each process may use one, if there are.
        timeout_minutes: how long processes wait for each other.
        options: further ones of `dist_params`.

    Raises:
        UserError: Slurm with a timeout, or without GPUs; more processes on this machine than GPUs.
    """
    gpus = torch.cuda.device_count() if gpu else 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launcher == "pytorch" else 1  # Slurm hands GPUs out itself
    if 0 < gpus < here and backend == "nccl":  # which refuses to share one, but only in the first iteration
        raise UserError(
            f"{here} processes were started on {socket.gethostname()}, which has {gpus} GPU{'s' * (gpus > 1)} for one "
            f"process each: start {gpus} (PROCESSES of scripts/train_distributed.sh, --processes, --nproc_per_node)"
        )
    if timeout_minutes is not None:
        if launcher != "pytorch":
            raise UserError("dist_params.timeout_minutes works with torchrun and --launcher pytorch only")
        options["timeout"] = datetime.timedelta(minutes=timeout_minutes)
    if launcher == "pytorch":
        options.pop("port", None)  # torchrun chose one
        options |= _store_of_this_attempt()
        peers.meet(**{name: options[name] for name in ("store", "rank", "world_size")})
    if gpus:
        basicsr_init_dist(launcher, backend, **options)
    elif launcher == "pytorch":
        torch.distributed.init_process_group("gloo", **options)
    else:
        raise UserError(f"--launcher {launcher} needs GPUs; on CPUs use torchrun and --launcher pytorch")


def _store_of_this_attempt() -> dict[str, Any]:
    """Name the store anew where torchrun starts processes again: it holds the addresses of those that ended."""
    distributed: Any = torch.distributed  # whose module does not list what it has of these
    store, rank, world_size = next(iter(distributed.rendezvous("env://")))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": distributed.PrefixStore(f"attempt_{attempt}", store), "rank": rank, "world_size": world_size}


def disconnect_processes() -> None:
    """Join gloo's threads: one that lets go of its last tensor while Python ends aborts the process.

    Nothing may refer to the model any more, since `DistributedDataParallel` holds the connection.
    """
    if torch.distributed.is_initialized():
        # All is done or saved: a stop that ends what is left of this process would make a failure of it.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        gc.collect()  # the model refers to itself
        torch.distributed.destroy_process_group()


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Take the newest state that loads, without CUDA and from any working directory.

    BasicSR asks for the CUDA device, looks for `experiments` in the working directory only, and stumbles over files
    such as best.state.
    """
    path, state = _newest_state(opt) if opt["auto_resume"] else (None, {})
    if path is None:
        if not opt["path"].get("resume_state"):
            if opt["auto_resume"] and opt["rank"] == 0 and os.path.exists(opt["path"]["experiments_root"]):
                states = opt["path"]["training_states"]
                print(f"Nothing to resume from in {states}: the training begins anew, the old one is kept", flush=True)
            return None
        path = Path(opt["path"]["resume_state"])
        state = _load_state(path)
    opt["path"]["resume_state"], opt["start_iter"] = str(path), state["iter"]
    check_resume(opt, state["iter"])
    # check_resume names the weights to go on from. BasicSR would read them as options say that are meant for others:
    # another entry than the trained weights, or only what fits.
    for label in _resumed_networks(opt):
        opt["path"] |= {f"param_key_{label}": "params", f"strict_load_{label}": True}
    return state


def _newest_state(opt: dict[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """Read the newest of the experiment's training states that loads, with its weights, if there is one."""
    folder = Path(opt["path"]["training_states"])
    for candidate in sorted(folder.glob("*.state"), key=_iteration_of, reverse=True):
        if _iteration_of(candidate) < 0:
            continue
        try:
            state = _load_state(candidate)
            for label in _resumed_networks(opt):  # check_resume takes the weights of each from this iteration
                weights = Path(opt["path"]["models"], f"net_{label}_{candidate.stem}.pth")
                read_weights(weights, "params", finite=False, mmap=True)
        except UserError as error:
            print(f"Skipped {candidate}: {error}", flush=True)
        else:
            return candidate, state
    return None, {}


def _resumed_networks(opt: dict[str, Any]) -> list[str]:
    """List the networks that go on from a checkpoint: `g` for the section network_g."""
    ignored = opt["path"].get("ignore_resume_networks") or ()
    return [key.removeprefix("network_") for key in opt if key.startswith("network_") and key not in ignored]


def _iteration_of(state_file: Path) -> int:
    return int(state_file.stem) if state_file.stem.isdigit() else -1


def _load_state(path: Path) -> dict[str, Any]:
    checkpoints.verify(path)
    state = load_file(path)
    if not isinstance(state, dict) or not {"iter", "epoch", "optimizers", "schedulers"} <= state.keys():
        raise UserError(f"cannot resume from {path}: it is no training state")
    if not is_iteration(state["iter"]):
        raise UserError(f"cannot resume from {path}: it names no iteration")
    checkpoints.check_notes(state, path)
    return state


def copy_opt_file(opt_file: str, experiments_root: str) -> None:
    """Leave the option file in an experiment's folder alone when it is resumed from: copied onto itself it fails."""
    with contextlib.suppress(shutil.SameFileError):
        basicsr_copy_opt_file(opt_file, experiments_root)


def mkdir_and_rename(path: str) -> None:
    """Keep every old folder: its new name ends in the second, and a second run within one found it taken."""
    for attempts_left in reversed(range(30)):  # of a tenth of a second; a clock may stand still
        if not attempts_left or not os.path.exists(f"{path}_archived_{misc.get_time_str()}"):
            try:
                return basicsr_mkdir_and_rename(path)
            except OSError as error:  # another process took the name first
                if not attempts_left or error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
        time.sleep(0.1)
    return None


def create_train_val_dataloader(opt: dict[str, Any], logger: Any) -> tuple[Any, ...]:
    """Give our model class loaders that end with whole batches, draw new crops every epoch and go on mid-epoch."""
    ours = loaders.plans_batches(opt)
    return (loaders.create_train_val_dataloader if ours else basicsr_create_train_val_dataloader)(opt, logger)


def build_model(opt: dict[str, Any]) -> Any:
    """Keep our model for the moment at which BasicSR makes its log, which begins the training.

    BasicSR makes loaders, model and log one after another and hands each of them the options only.

    And keep what was imported in the experiment's folder, which has been made: BasicSR copies the option file alone.
    """
    if opt["rank"] == 0:
        copy_imported_files(opt, Path(opt["path"]["experiments_root"]))
    val_loaders = opt.pop("val_loaders", None)  # BasicSR copies the options deeply
    model = basicsr_build_model(opt)
    if val_loaders is not None:
        model.val_loaders = val_loaders
        opt["model"] = model
    return model


def message_logger(opt: dict[str, Any], start_iter: int = 1, tb_logger: Any = None) -> MessageLogger:
    """Let our model try its metrics and validate what a kill left unvalidated, and log as text and as JSON."""
    model = opt.pop("model", None)
    if model is None:
        return MessageLogger(opt, start_iter, tb_logger)
    model.begin(start_iter, tb_logger)
    return TrainingLog(opt, start_iter, tb_logger)


def run_prefetch_thread(self: Any) -> None:
    """Hand on what fails: with `prefetch_mode: cpu` the reading thread died alone and the training waited for ever."""
    try:
        for item in self.generator:
            self.queue.put(item)
    except BaseException as error:
        self.queue.put(error)
    self.queue.put(None)


def raising(next_batch: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Raise, where the next batch is asked for, what a reading thread or process handed on instead of one."""

    def next_or_raise(self: Any) -> Any:
        batch = next_batch(self)
        if isinstance(batch, BaseException):
            raise batch
        if isinstance(batch, dict) and loaders.FAILURE in batch:
            raise UserError(batch[loaders.FAILURE])
        return batch

    return next_or_raise


def init_lmdb_backend(self: Any, db_paths: Any, client_keys: Any = "default", **_options: Any) -> None:
    """Share environments: LMDB refuses to open one store twice in a process, for training and validation.

    Options of BasicSR (readonly, lock, readahead) are moot: nobody writes and nothing is locked here.
    """
    names = [client_keys] if isinstance(client_keys, str) else client_keys
    self.db_paths = [str(path) for path in (db_paths if isinstance(db_paths, list) else [db_paths])]
    if len(names) != len(self.db_paths):
        raise UserError(f"LMDB: {len(names)} client_keys for {len(self.db_paths)} db_paths")
    self._client = {name: open_shared(path) for name, path in zip(names, self.db_paths, strict=True)}


def get_from_lmdb_backend(self: Any, filepath: str, client_key: str) -> bytes:
    """Name a missing key, for which BasicSR gives None."""
    environment = self._client[client_key]
    keys = [os.fsencode(filepath), os.fsencode(str(filepath).removesuffix(".png"))]  # see paths_from_lmdb
    with environment.begin(write=False) as transaction:
        value = next((value for key in keys if (value := transaction.get(key)) is not None), None)
    if value is None:
        raise UserError(f"LMDB {environment.path()} has no key '{filepath}'")
    return value


def paths_from_lmdb(folder: str) -> list[str]:
    """Keep dots in the keys of an LMDB, which BasicSR cuts at the first: `rain_1.5` gave the picture `rain_1`.

    A key with a dot is named with an ending, because BasicSR names results by what stands before the last dot.
    """
    return [name_of_key(key) if "." in key else key for key in lmdb_keys(folder)]


def paired_paths_from_lmdb(folders: Sequence[str], keys: Sequence[str]) -> list[dict[str, str]]:
    """Keep dots in keys, see `paths_from_lmdb`."""
    of_input, of_target = map(paths_from_lmdb, folders)
    alone = set(of_input) ^ set(of_target)
    if alone:
        raise UserError(f"{' and '.join(folders)} do not hold the same keys ({first_few(sorted(alone))})")
    return [{f"{key}_path": name for key in keys} for name in sorted(of_input)]


def with_whole_keys(init: Callable[[Any, dict[str, Any]], None]) -> Callable[[Any, dict[str, Any]], None]:
    """Let a data set that reads the keys in its constructor keep their dots, see `paths_from_lmdb`."""

    def init_with_whole_keys(self: Any, opt: dict[str, Any]) -> None:
        init(self, opt)
        if self.io_backend_opt["type"] == "lmdb":
            self.paths = paths_from_lmdb(self.gt_folder)

    return init_with_whole_keys


def register_or_yield(self: Registry, name: str, obj: Any, suffix: str | None = None) -> None:
    """Yield a name that we hold to a project that registers its own later, where BasicSR ends in an AssertionError.

    A method with an underscore: both ways to register, as a decorator and by a call, end in it.
    """
    holder = self._obj_map.get(name)
    if suffix is None and holder is not None and is_ours(holder) and not is_ours(obj):
        self._obj_map[f"{name}_{SUFFIX}"] = self._obj_map.pop(name)
        say_whose_name(name, obj)
    basicsr_do_register(self, name, obj, suffix)


@functools.wraps(basicsr_init_perceptual_loss)
def init_perceptual_loss(self: PerceptualLoss, *args: Any, weights: str | None = None, **kwargs: Any) -> None:
    """Take the file with the weights of VGG, which BasicSR fetches from the network where it is not in one place."""
    usual_place = vgg_arch.VGG_PRETRAIN_PATH
    if weights is not None:
        vgg_arch.VGG_PRETRAIN_PATH = os.path.expanduser(weights)
        if not os.path.isfile(vgg_arch.VGG_PRETRAIN_PATH):
            raise UserError(f"option train.perceptual_opt.weights: there is no file {weights}")
    try:
        basicsr_init_perceptual_loss(self, *args, **kwargs)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        where = "option train.perceptual_opt.weights"
        if weights is not None:
            raise UserError(f"{where}: {weights} holds no weights of this VGG as torchvision has them") from error
        raise UserError(line_of(error, f"{where} is not given, and they cannot be fetched")) from error
    finally:
        vgg_arch.VGG_PRETRAIN_PATH = usual_place


_signature = inspect.signature(basicsr_init_perceptual_loss)
init_perceptual_loss.__signature__ = _signature.replace(  # type: ignore[attr-defined]  # what option files may say
    parameters=[
        *_signature.parameters.values(),
        inspect.Parameter("weights", inspect.Parameter.KEYWORD_ONLY, default=None),
    ]
)


def is_ours(registered: Any) -> bool:
    """Tell whether a registered class or function is of this package."""
    return registered.__module__.partition(".")[0] == __name__.partition(".")[0]


def say_whose_name(name: str, holder: Any) -> None:
    """Say once, in the main process, that a name which we would hold is another package's."""
    if multiprocessing.parent_process() is None:
        print(f"{name} is registered by {holder.__module__}; ours is {name}_{SUFFIX}", flush=True)


# Modules of BasicSR (several hold the name of one function), the attribute there, what replaces it.
HOOKS: tuple[Hook, ...] = (
    ("utils.registry", "Registry._do_register", register_or_yield),
    ("train test", "parse_options", parse_options),
    ("utils.dist_util utils.options", "init_dist", init_dist),
    ("train", "load_resume_state", load_resume_state),
    ("train", "copy_opt_file", copy_opt_file),
    ("train utils.misc", "mkdir_and_rename", mkdir_and_rename),
    ("train", "create_train_val_dataloader", create_train_val_dataloader),
    ("train", "build_model", build_model),
    ("train", "MessageLogger", message_logger),
    ("losses.basic_loss", "PerceptualLoss.__init__", init_perceptual_loss),
    ("data.prefetch_dataloader", "PrefetchGenerator.run", run_prefetch_thread),
    ("data.prefetch_dataloader", "CPUPrefetcher.next", raising(CPUPrefetcher.next)),
    ("data.prefetch_dataloader", "CUDAPrefetcher.next", raising(CUDAPrefetcher.next)),
    ("utils.file_client", "LmdbBackend.__init__", init_lmdb_backend),
    ("utils.file_client", "LmdbBackend.get", get_from_lmdb_backend),
    ("data.data_util data.single_image_dataset", "paths_from_lmdb", paths_from_lmdb),
    ("data.data_util data.paired_image_dataset", "paired_paths_from_lmdb", paired_paths_from_lmdb),
    ("data.realesrgan_paired_dataset", "paired_paths_from_lmdb", paired_paths_from_lmdb),
    ("data.ffhq_dataset", "FFHQDataset.__init__", with_whole_keys(FFHQDataset.__init__)),
    ("data.realesrgan_dataset", "RealESRGANDataset.__init__", with_whole_keys(RealESRGANDataset.__init__)),
    ("models.sr_model models.video_base_model models.video_recurrent_model", "calculate_metric", calculate_metric),
)


def apply(hooks: Sequence[Hook] = HOOKS) -> None:
    """Put functions in the place of BasicSR's; safe to call again.

    Args:
        hooks: as `HOOKS`.
    """
    for modules, attribute, function in hooks:
        for module in modules.split():
            owner: Any = importlib.import_module(f"basicsr.{module}")
            *classes, name = attribute.split(".")
            for class_name in classes:
                owner = getattr(owner, class_name)
            setattr(owner, name, function)
