"""Every patch of BasicSR 1.4.2, each with its reason; nothing is patched anywhere else.

Importing this module makes `import basicsr` work on a current stack. `apply` repairs what fails for everybody;
`apply_for_command` installs the stricter behaviour of the `drsformer` command. No patch changes what a working run of
another project computes.
"""

import contextlib
import datetime
import errno
import gc
import importlib
import importlib.util
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from drsformer_arch.bridge.trouble import trouble_of
from drsformer_arch.data.store.environments import open_shared
from drsformer_arch.data.store.meta_info import lmdb_keys, name_of_key
from drsformer_arch.images.picture_headers import PictureError, read_header
from drsformer_arch.restore.weights import load_file, read_weights
from drsformer_arch.system.errors import UserError, first_few, line_of
from drsformer_arch.training import checkpoints
from drsformer_arch.training.training_records import is_iteration


def make_importable() -> None:
    """Provide the modules that BasicSR imports and current releases no longer have."""
    # basicsr.data.degradations imports a torchvision module that was removed in torchvision 0.17.
    name = "torchvision.transforms.functional_tensor"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        from torchvision.transforms.functional import rgb_to_grayscale  # noqa: PLC0415 - torchvision is slow to import

        stub = ModuleType(name)
        stub.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
        sys.modules[name] = stub
    # basicsr.archs.arch_util imports distutils, which Python 3.12 only has through setuptools.
    if importlib.util.find_spec("distutils") is None:
        import setuptools  # noqa: F401, PLC0415 - its import puts distutils into place


make_importable()
_cpu_only = False  # the command was told num_gpu: 0


def apply(loaders: Any) -> None:
    """Repair what fails in BasicSR; safe to call again.

    Args:
        loaders: the module `drsformer_arch.training.loaders`, which itself needs this one to import BasicSR.
    """
    train: Any = importlib.import_module("basicsr.train")
    if getattr(train, "_repaired_by_drsformer", False):
        return
    train._repaired_by_drsformer = True
    train.load_resume_state = _load_resume_state
    train.copy_opt_file = _skip_copy_onto_itself(train.copy_opt_file)
    train.create_train_val_dataloader = _loaders_for_our_model(train.create_train_val_dataloader, loaders)
    _begin_with_our_model(train, loaders)
    _archive_once_a_second(train)
    _pass_on_errors_of_the_prefetch_thread()
    _share_lmdb_environments()
    _keep_dots_in_names()
    _keep_every_old_experiment(train)
    _start_processes_without_cuda()
    _say_which_metric_fails()


def _load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Works without CUDA and from any working directory, and takes the newest state that loads.

    BasicSR asks for the CUDA device, looks for `experiments` in the working directory only, and stumbles over files
    such as best.state.
    """
    path = opt["path"].get("resume_state")
    found = _newest_state(opt) if opt["auto_resume"] else None
    if found is None and path:
        checkpoints.verify(Path(path))
        found = path, _load_state(Path(path))
    if found is None:
        return None
    path, state = found
    opt["path"]["resume_state"] = str(path)
    opt["start_iter"] = state["iter"]
    importlib.import_module("basicsr.train").check_resume(opt, state["iter"])
    # check_resume names the weights to go on from. BasicSR would read them as options say that are meant for others:
    # another entry than the trained weights, or only what fits.
    ignored = opt["path"].get("ignore_resume_networks") or ()
    for network in (key for key in opt if key.startswith("network_") and key not in ignored):
        label = network.removeprefix("network_")
        opt["path"] |= {f"param_key_{label}": "params", f"strict_load_{label}": True}
    return state


def _newest_state(opt: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The newest of the experiment's training states that loads, with its weights; None where there is none."""
    folder = Path(opt["path"]["training_states"])
    ignored = opt["path"].get("ignore_resume_networks") or ()
    for candidate in sorted(folder.glob("*.state"), key=_iteration_of, reverse=True):
        if _iteration_of(candidate) < 0:
            continue
        try:
            checkpoints.verify(candidate)
            state = _load_state(candidate)
            for network in opt:  # check_resume takes the weights of every network from this iteration
                if network.startswith("network_") and network not in ignored:
                    label = network.removeprefix("network_")
                    weights = Path(opt["path"]["models"], f"net_{label}_{candidate.stem}.pth")
                    read_weights(weights, "params", finite=False, mmap=True)
        except UserError as error:
            print(f"Skipped {candidate}: {error}", flush=True)
        else:
            return str(candidate), state
    return None


def _iteration_of(state_file: Path) -> int:
    return int(state_file.stem) if state_file.stem.isdigit() else -1


def _load_state(path: Path) -> dict[str, Any]:
    state = load_file(path)
    if not isinstance(state, dict) or not {"iter", "epoch", "optimizers", "schedulers"} <= state.keys():
        raise UserError(f"cannot resume from {path}: it is no training state")
    if not is_iteration(state["iter"]):
        raise UserError(f"cannot resume from {path}: it names no iteration")
    checkpoints.check_notes(state, path)
    return state


def _skip_copy_onto_itself(copy_opt_file: Callable[..., Any]) -> Callable[..., Any]:
    """A run resumed from the option file in its experiment folder must not copy it onto itself (SameFileError)."""

    def copy(opt_file: str, experiments_root: str) -> None:
        with contextlib.suppress(shutil.SameFileError):
            copy_opt_file(opt_file, experiments_root)

    return copy


def _loaders_for_our_model(original: Callable[..., Any], loaders: Any) -> Callable[..., Any]:
    """Our model class gets loaders that end with whole batches, draw new crops every epoch and can go on mid-epoch."""

    def create(opt: dict[str, Any], logger: Any) -> tuple[Any, ...]:
        if loaders.wanted(opt):
            return loaders.create_train_val_dataloader(opt, logger)
        return original(opt, logger)

    return create


def _begin_with_our_model(train: Any, loaders: Any) -> None:
    """Our model class tries its metrics, validates what a kill left unvalidated, and logs as text and as JSON.

    BasicSR makes the loaders, the model and the log one after another, then enters its loop.
    """
    create_loaders, build_model, create_log = train.create_train_val_dataloader, train.build_model, train.MessageLogger
    made: dict[str, Any] = {}

    def remember_loaders(opt: dict[str, Any], logger: Any) -> tuple[Any, ...]:
        result = create_loaders(opt, logger)
        made["val_loaders"] = result[2]
        return result

    def remember_model(opt: dict[str, Any]) -> Any:
        made["model"] = build_model(opt)
        return made["model"]

    def begin(opt: dict[str, Any], start_iter: int, tb_logger: Any) -> Any:
        model, val_loaders = made.pop("model"), made.pop("val_loaders")
        if not loaders.plans_batches(opt):
            return create_log(opt, start_iter, tb_logger)
        for loader in val_loaders:
            model.try_metrics(loader)
        for loader in val_loaders:
            model.make_up_for_validation(loader, start_iter, tb_logger)
        return importlib.import_module("drsformer_arch.training.training_log").TrainingLog(opt, start_iter, tb_logger)

    train.create_train_val_dataloader, train.build_model, train.MessageLogger = remember_loaders, remember_model, begin


def _archive_once_a_second(train: Any) -> None:
    """Old folders are renamed by the second: a second run within one could not move the first one's away."""
    misc: Any = importlib.import_module("basicsr.utils.misc")
    original = misc.mkdir_and_rename

    def mkdir_and_rename(path: str) -> None:
        for _ in range(20):  # of a tenth of a second; a clock may stand still
            if not os.path.exists(f"{path}_archived_{misc.get_time_str()}"):
                break
            time.sleep(0.1)
        original(path)

    misc.mkdir_and_rename = train.mkdir_and_rename = mkdir_and_rename


def _keep_every_old_experiment(train: Any) -> None:
    """An old folder's new name ends in the second: where a launcher starts runs faster, the next one finds it taken."""
    misc: Any = importlib.import_module("basicsr.utils.misc")
    original = misc.mkdir_and_rename

    def mkdir_and_rename(path: str) -> None:
        try:
            original(path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            time.sleep(1)
            original(path)

    misc.mkdir_and_rename = train.mkdir_and_rename = mkdir_and_rename


def _pass_on_errors_of_the_prefetch_thread() -> None:
    """`prefetch_mode: cpu` waits for ever when a picture cannot be read: the reading thread dies alone."""
    module: Any = importlib.import_module("basicsr.data.prefetch_dataloader")

    def run(self: Any) -> None:
        try:
            for item in self.generator:
                self.queue.put(item)
        except BaseException as error:
            self.queue.put(error)
        self.queue.put(None)

    def following(self: Any) -> Any:
        item = self.queue.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            raise StopIteration
        return item

    module.PrefetchGenerator.run = run
    module.PrefetchGenerator.__next__ = following


def _share_lmdb_environments() -> None:
    """LMDB refuses to open one store twice in a process (train and val), and a missing key gives None."""
    module: Any = importlib.import_module("basicsr.utils.file_client")

    def init(
        self: Any,
        db_paths: Any,
        client_keys: Any = "default",
        **_options: Any,  # readonly, lock and readahead of BasicSR: nobody writes and nothing is locked here
    ) -> None:
        names = [client_keys] if isinstance(client_keys, str) else client_keys
        self.db_paths = [str(path) for path in (db_paths if isinstance(db_paths, list) else [db_paths])]
        if len(names) != len(self.db_paths):
            raise UserError(f"LMDB: {len(names)} client_keys for {len(self.db_paths)} db_paths")
        self._client = {name: open_shared(path) for name, path in zip(names, self.db_paths, strict=True)}

    def get(self: Any, filepath: str, client_key: str) -> bytes:
        environment = self._client[client_key]
        keys = [os.fsencode(filepath), os.fsencode(str(filepath).removesuffix(".png"))]  # see _keep_dots_in_names
        with environment.begin(write=False) as transaction:
            value = next((value for key in keys if (value := transaction.get(key)) is not None), None)
        if value is None:
            raise UserError(f"LMDB {environment.path()} has no key '{filepath}'")
        return value

    module.LmdbBackend.__init__ = init
    module.LmdbBackend.get = get


def _keep_dots_in_names() -> None:
    """BasicSR cuts the keys of an LMDB at their first dot: `rain_1.5` gives the picture `rain_1`.

    A key with a dot is named with an ending, because BasicSR names results by what stands before the last dot.
    """

    def names(folder: str) -> list[str]:
        return [name_of_key(key) if "." in key else key for key in lmdb_keys(folder)]

    def paired_paths_from_lmdb(folders: Sequence[str], keys: Sequence[str]) -> list[dict[str, str]]:
        of_input, of_target = map(names, folders)
        alone = set(of_input) ^ set(of_target)
        if alone:
            raise UserError(f"{' and '.join(folders)} do not hold the same keys ({first_few(sorted(alone))})")
        return [{f"{key}_path": name for key in keys} for name in sorted(of_input)]

    def paths_from_lmdb(folder: str) -> list[str]:
        return names(folder)

    def init_of(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(self: Any, opt: dict[str, Any]) -> None:
            original(self, opt)
            if self.io_backend_opt["type"] == "lmdb":
                self.paths = names(self.gt_folder)

        return init

    for name in ("data_util", "paired_image_dataset", "realesrgan_paired_dataset", "single_image_dataset"):
        module: Any = importlib.import_module(f"basicsr.data.{name}")
        module.paired_paths_from_lmdb, module.paths_from_lmdb = paired_paths_from_lmdb, paths_from_lmdb
    for name, kind in (("ffhq_dataset", "FFHQDataset"), ("realesrgan_dataset", "RealESRGANDataset")):
        data_set: Any = getattr(importlib.import_module(f"basicsr.data.{name}"), kind)
        data_set.__init__ = init_of(data_set.__init__)


def _store_of_this_attempt() -> dict[str, Any]:
    """Where torchrun starts processes again, its store still holds the addresses of those that ended."""
    distributed: Any = torch.distributed  # whose module does not list what it has of these
    store, rank, world_size = next(iter(distributed.rendezvous("env://")))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": distributed.PrefixStore(f"attempt_{attempt}", store), "rank": rank, "world_size": world_size}


def _start_processes_without_cuda() -> None:
    """`init_dist` divides by the number of GPUs: without one it fails, where gloo between CPUs works."""
    original = importlib.import_module("basicsr.utils.dist_util").init_dist

    def init_dist(launcher: str, backend: str = "nccl", timeout_minutes: float | None = None, **options: Any) -> None:
        if timeout_minutes is not None:
            if launcher != "pytorch":
                raise UserError("dist_params.timeout_minutes works with torchrun and --launcher pytorch only")
            options["timeout"] = datetime.timedelta(minutes=timeout_minutes)
        if launcher == "pytorch":
            options.pop("port", None)  # torchrun chose one
            options |= _store_of_this_attempt()
        if torch.cuda.is_available() and not _cpu_only:
            original(launcher, backend, **options)
        elif launcher == "pytorch":
            torch.distributed.init_process_group("gloo", **options)
        else:
            raise UserError(f"--launcher {launcher} needs GPUs; on CPUs use torchrun and --launcher pytorch")

    for name in ("basicsr.utils.dist_util", "basicsr.utils.options"):
        module: Any = importlib.import_module(name)
        module.init_dist = init_dist


def _say_which_metric_fails() -> None:
    """A metric fails in its own way on a picture that is too small for it, or warns about it in NumPy's words."""
    for name in ("sr_model", "video_base_model", "video_recurrent_model"):
        module: Any = importlib.import_module(f"basicsr.models.{name}")
        module.calculate_metric = _naming_itself(module.calculate_metric)


def _naming_itself(calculate_metric: Callable[..., Any]) -> Callable[..., Any]:
    def calculate(data: dict[str, Any], metric: dict[str, Any]) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return calculate_metric(data, metric)
        except Exception as error:  # of whatever package the metric is
            if trouble_of(error) is not None:
                raise
            height, width = data["img"].shape[:2]
            failed = importlib.import_module("drsformer_arch.training.validation").MetricError
            raise failed(line_of(error, f"metric {metric['type']} on a picture of {height}x{width}")) from error

    return calculate


def disconnect_processes() -> None:
    """Join gloo's threads: one that lets go of its last tensor while Python ends aborts the process.

    Nothing may refer to the model any more, since `DistributedDataParallel` holds the connection.
    """
    if torch.distributed.is_initialized():
        gc.collect()  # the model refers to itself
        torch.distributed.destroy_process_group()


def apply_for_command(options: dict[str, Any], loaders: Any) -> None:
    """Make BasicSR's pipelines run on options that were read and checked already, with data sets that name bad files.

    Replaces the loader of `parse_options`, which executes Python tags and leaves `1e-4` a text.
    """
    global _cpu_only  # noqa: PLW0603 - one switch per process
    _cpu_only = options["num_gpu"] == 0

    class CheckedOptions:
        """What `yaml.load(file, Loader=...)` needs of a loader."""

        def __init__(self, _stream: Any) -> None: ...

        def get_single_data(self) -> dict[str, Any]:
            return options

        def dispose(self) -> None: ...

    option_parser: Any = importlib.import_module("basicsr.utils.options")
    option_parser.ordered_yaml = lambda: (CheckedOptions, None)
    init_dist = importlib.import_module("basicsr.utils.dist_util").init_dist
    given = options.get("dist_params") or {}  # BasicSR passes them on to Slurm's processes only
    option_parser.init_dist = lambda launcher, **_same: init_dist(launcher, **given)
    loaders.use_for_every_model()
    test: Any = importlib.import_module("basicsr.test")

    def build_dataset(section: dict[str, Any]) -> Any:
        dataset = loaders.build_checked_dataset(section)
        loaders.refuse_equal_names(dataset, options)
        return dataset

    test.build_dataset = build_dataset
    refuse_damaged_pictures()


def refuse_damaged_pictures() -> None:
    """OpenCV fills what a picture's file lacks with black, and allocates what its header claims."""
    original = importlib.import_module("basicsr.utils").imfrombytes

    def imfrombytes(content: bytes, flag: str = "color", float32: bool = False) -> Any:
        try:
            read_header(content, "of this sample")
        except PictureError as error:
            raise ValueError(str(error)) from error  # to which CheckedDataset adds the name of the file
        return original(content, flag, float32)

    for name, module in list(sys.modules.items()):
        if name.startswith("basicsr.data.") and hasattr(module, "imfrombytes"):
            vars(module)["imfrombytes"] = imfrombytes
