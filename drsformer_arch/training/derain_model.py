"""The BasicSR model class for deraining: the one place where options, network, losses and schedules meet."""

import contextlib
import math
import random
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from drsformer_arch.archs.contract import contract_of
from drsformer_arch.archs.precision import at_least_float32
from drsformer_arch.bridge import basicsr_fixes  # noqa: F401 - makes BasicSR importable
from drsformer_arch.data.datasets.result_names import ResultNames, refuse_equal_results, result_path
from drsformer_arch.data.datasets.samples import to_picture
from drsformer_arch.fast.builders import is_fast
from drsformer_arch.images.pictures import encode_png
from drsformer_arch.options.reading import add_defaults, check_sections, translate
from drsformer_arch.restore import inference_form, restore, restored
from drsformer_arch.system.errors import TrainingStopped, UserError
from drsformer_arch.system.files import write_atomically
from drsformer_arch.training import checkpoints, training_records
from drsformer_arch.training.batch_plan import batch_plan
from drsformer_arch.training.checkpointed_model import CheckpointedModel
from drsformer_arch.training.loaders import seed_everything, seed_of
from drsformer_arch.training.lr_scheduler import build_optimizer, build_schedule
from drsformer_arch.training.training_log import GRADIENT_NORM
from drsformer_arch.training.validation import (
    MetricError,
    Scores,
    Share,
    is_quick,
    needs_target,
    protocol_of,
    replaced,
    tell_others,
    try_metric,
)

# isort: split
from basicsr.metrics import METRIC_REGISTRY
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only

SCALER_SKIPS = 30  # float16's loss scale of 2^16 falls to nothing within so many halvings
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
stop_requested = threading.Event()  # set by signal handlers; the model saves and stops before the next iteration


class DerainModel(CheckpointedModel):
    """Trains, validates and tests a deraining network.

    What it adds to SRModel, each by option: any torch optimizer, `CosineAnnealingRestartCyclicLR`, `grad_clip`,
    `effective_batch_size` by gradient accumulation, mixed precision (`amp`), mixup, progressive learning, padding to
    the network's size multiple and tiles in validation, a stop at non-finite losses, and a training state from which
    a resumed run continues exactly. Options: see the README.

    Raises:
        UserError: options that are unknown, of a wrong kind or do not fit together; weights that do not fit.
    """

    plans_batches = True  # our loaders deliver what the batch plan says

    def __init__(self, opt: dict[str, Any]) -> None:
        logger = get_root_logger()
        for message in translate(opt):
            logger.info(message)
        add_defaults(opt)
        check_sections(opt)
        refuse_random_weights(opt)
        self.nonfinite_in_a_row = 0
        self.sample_names: list[str] = []
        self.own_pictures: int | None = None  # of this process, while several share a validation
        self._metric_results: dict[str, Any] | None = None
        self.result_place: Callable[[str], Path] | None = None  # of a rainy picture, while a validation saves results
        self.inference_net: nn.Module | None = None  # while a validation runs
        self.autocasts_inference = False
        super().__init__(opt)

    # ---- set-up ----------------------------------------------------------------------------------------------------

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Also wraps for distributed training on CPUs, and honours `channels_last`."""
        if self.opt.get("channels_last"):
            net = net.to(memory_format=torch.channels_last)
        if self.opt["dist"] and self.device.type == "cpu":
            return DistributedDataParallel(
                net.to(self.device), find_unused_parameters=self.opt.get("find_unused_parameters", False)
            )
        return super().model_to_device(net)

    @master_only
    def print_network(self, net: nn.Module) -> None:
        """Log the size; the layers of a transformer fill thousands of lines."""
        bare = self.get_bare_model(net)
        count = sum(parameter.numel() for parameter in bare.parameters())
        get_root_logger().info(f"Network {type(bare).__name__}: {count:,} parameters")

    def init_training_settings(self) -> None:
        """Losses, optimizer and schedule of SRModel, then the batch plan and mixed precision."""
        train = self.opt["train"]
        self.plan = batch_plan(self.opt)
        get_root_logger().info(self.plan.describe())
        self.amp_dtype = AMP_TYPES.get(train.get("amp"))
        # Only float16 loses small gradients and needs its loss scaled.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)
        if self.amp_dtype and not self.opt["dist"] and self.opt["num_gpu"] > 1:
            # DataParallel opens autocast in threads that do not know the chosen type and would take float16.
            raise UserError("train.amp with several GPUs needs one process per GPU: torchrun and --launcher pytorch")
        try:
            super().init_training_settings()
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"train: {error}") from error

    def setup_optimizers(self) -> None:
        """SRModel's, but the options keep their `type`."""
        options = deepcopy(self.opt["train"]["optim_g"])
        super().setup_optimizers()
        self.opt["train"]["optim_g"] = options

    def get_optimizer(
        self, optim_type: str, params: list[nn.Parameter], lr: float, **options: Any
    ) -> torch.optim.Optimizer:
        """Any optimizer of torch.optim by its name."""
        return build_optimizer(optim_type, params, {"lr": lr, **options})

    def setup_schedulers(self) -> None:
        """BasicSR's schedules and `CosineAnnealingRestartCyclicLR`."""
        train = self.opt["train"]
        self.schedulers = [build_schedule(o, train["scheduler"], int(train["total_iter"])) for o in self.optimizers]

    # ---- training --------------------------------------------------------------------------------------------------

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the rate of an iteration; the warm-up scales what the schedule says instead of replacing its memory.

        Raises:
            TrainingStopped: a stop was requested; the finished iteration was saved.
        """
        if self._any_process(stop_requested.is_set()):
            self.save(epoch=(current_iter - 1) // self.opt.get("iters_per_epoch", 1), current_iter=current_iter - 1)
            if self.opt["dist"]:  # the first process to end makes torchrun end the others: none may before rank 0 saved
                torch.distributed.barrier()
            raise TrainingStopped(current_iter - 1)
        scheduled = [scheduler.get_last_lr() for scheduler in self.schedulers]
        self._set_lr(scheduled)
        super().update_learning_rate(current_iter, warmup_iter=-1)
        self.warm_up(current_iter, warmup_iter)

    def warm_up(self, iteration: int, length: int | None = None) -> None:
        """Scale the rates of an iteration of the warm-up, by default the one of the options."""
        length = self.opt["train"].get("warmup_iter", -1) if length is None else length
        if iteration < length:
            self._set_lr([[rate * iteration / length for rate in s.get_last_lr()] for s in self.schedulers])

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: `lq` (N, C, H, W) RGB in [0, 1], `gt` of the same shape where there is one."""
        self.lq = self._to_device(data["lq"])
        self.sample_names = list(data.get("lq_path", []))
        if "gt" in data:
            self.gt = self._to_device(data["gt"])
        elif hasattr(self, "gt"):
            del self.gt  # a target of an earlier batch must not be scored against this one

    def _to_device(self, batch: Tensor) -> Tensor:
        layout = torch.channels_last if self.opt.get("channels_last") else torch.preserve_format
        return batch.to(self.device, non_blocking=True, memory_format=layout)

    def optimize_parameters(self, current_iter: int) -> None:
        """One optimizer step from as many backward passes as the batch plan says.

        Raises:
            UserError: a loss or gradient is not finite and no skips are left.
        """
        # All randomness of an iteration follows from its number, so that a resumed run draws the same.
        seed_everything(seed_of(self.opt.get("manual_seed") or 0, self.opt.get("rank", 0), current_iter))
        names = self.sample_names or [""] * len(self.lq)
        lq, gt, names = self.plan.select(current_iter, self.lq, self.gt, names)
        lq, gt = self._mixup(lq, gt)
        steps = self.plan.stage(current_iter).steps
        self.optimizer_g.zero_grad()
        logs: Counter[str] = Counter()
        for step, (lq_part, gt_part) in enumerate(zip(lq.chunk(steps), gt.chunk(steps), strict=True)):
            with self._gradients_synchronised(step == steps - 1):
                loss, parts = self._losses(lq_part, gt_part)
                if self._any_process(not loss.isfinite()):
                    return self._skip_nonfinite("loss", current_iter, names)
                self.scaler.scale(loss / steps).backward()
            logs.update({name: value.detach() / steps for name, value in parts.items()})
        self.scaler.unscale_(self.optimizer_g)
        norm = nn.utils.clip_grad_norm_(self.net_g.parameters(), self.opt["train"].get("grad_clip") or math.inf)
        if not norm.isfinite() and not self.scaler.is_enabled():
            return self._skip_nonfinite("gradient", current_iter, names)
        self.scaler.step(self.optimizer_g)
        self.scaler.update()
        if not norm.isfinite():  # float16: the scaler left the step out and lowered its scale, as it is meant to
            return self._skip_nonfinite("gradient", current_iter, names, SCALER_SKIPS)
        self.nonfinite_in_a_row = 0
        self.log_dict = self.reduce_loss_dict(OrderedDict(logs))
        self.log_dict[GRADIENT_NORM] = float(norm)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)
        return None

    def _losses(self, lq: Tensor, gt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the configured losses and its parts, computed in float32 or better."""
        with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            outputs = restored(self.net_g, lq, contract_of(self.get_bare_model(self.net_g)).value_range)
        outputs = tuple(at_least_float32(output) for output in outputs)
        self.output = output = outputs[0]
        parts: dict[str, Tensor] = {}
        if self.cri_pix is not None:
            all_of_them = getattr(self.cri_pix, "takes_all_outputs", False)
            parts["l_pix"] = self.cri_pix(outputs if all_of_them else output, gt)
        if self.cri_perceptual is not None:
            perceptual, style = self.cri_perceptual(output, gt)
            parts.update({k: v for k, v in (("l_percep", perceptual), ("l_style", style)) if v is not None})
        return torch.stack(list(parts.values())).sum(), parts

    def _mixup(self, lq: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        """Blend the batch with a shuffled copy of itself, share ~ Beta(b, b); with identity, every other time."""
        options = self.opt["train"].get("mixing_augs") or {}
        if not options.get("mixup") or (options.get("use_identity", True) and random.random() < 0.5):
            return lq, gt
        beta = float(options.get("mixup_beta", 1.2))
        share, order = float(np.random.beta(beta, beta)), torch.randperm(len(lq))
        return share * lq + (1 - share) * lq[order], share * gt + (1 - share) * gt[order]

    def _gradients_synchronised(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Processes exchange gradients once per optimizer step, with its last backward pass."""
        if last or not isinstance(self.net_g, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.net_g.no_sync()

    def _any_process(self, flag: bool | Tensor) -> bool:
        """Whether the flag holds in any process: all must take the same way, or they wait for each other for ever."""
        if not self.opt["dist"]:
            return bool(flag)
        agreed = torch.as_tensor(flag, device=self.device).float().reshape(1)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
        return bool(agreed)

    def _skip_nonfinite(self, what: str, current_iter: int, names: list[str], at_least: int = 0) -> None:
        allowed = max(at_least, int(self.opt["train"].get("max_nonfinite_skips", 0)))
        self.nonfinite_in_a_row += 1
        self.optimizer_g.zero_grad()
        message = f"the {what} of iteration {current_iter} is not finite; pictures of its batch: {', '.join(names)}"
        if self.nonfinite_in_a_row > allowed:
            raise UserError(
                f"{message} (lower train.optim_g.lr, use amp: bf16 instead of fp16, or allow "
                f"train.max_nonfinite_skips; skipped in a row: {self.nonfinite_in_a_row - 1})"
            )
        get_root_logger().warning(f"Skipped: {message} ({self.nonfinite_in_a_row} in a row, {allowed} allowed)")
        self.log_dict = OrderedDict()

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged network towards the trained one; buffers are copied."""
        trained = self.get_bare_model(self.net_g)
        with torch.no_grad():
            pairs = zip(self.net_g_ema.parameters(), trained.parameters(), strict=True)
            for average, current in pairs:
                average.lerp_(current, 1 - decay)
            for average, current in zip(self.net_g_ema.buffers(), trained.buffers(), strict=True):
                average.copy_(current)

    # ---- validation and test ---------------------------------------------------------------------------------------

    def test(self) -> None:
        """Derain `lq` with the averaged network where there is one: padded, in tiles where asked for."""
        val = self.opt["val"]
        net, bf16 = self.inference_net, self.autocasts_inference
        if net is None:
            net, bf16 = self.network_to_test(), val.get("precision") == "bf16"
        training = net.training
        net.eval()
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            self.output = restore(
                net,
                self.lq,
                multiple=int(val.get("window_size", contract_of(net).size_multiple)),
                tile=int(val.get("tile", 0)),
                overlap=int(val.get("tile_overlap", 32)),
            )
        self.output = at_least_float32(self.output)
        net.train(training)

    def network_to_test(self) -> nn.Module:
        """The averaged network, or the trained one where none is averaged."""
        return self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)

    def dist_validation(self, dataloader: DataLoader[Any], current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Every process takes its share of the pictures; the scores are those of one process, to the bit."""
        share = Share(dataloader.dataset, self.opt["rank"], self.opt["world_size"])
        self.own_pictures = share.own
        try:
            with replaced(self.opt["val"], "pbar", self.opt["val"].get("pbar", False) and self.opt["rank"] == 0):
                self.nondist_validation(DataLoader(share), current_iter, tb_logger, save_img)
        except MetricError as failure:
            if not failure.shared:
                tell_others(failure)
            raise
        finally:
            self.own_pictures = None

    @property
    def metric_results(self) -> dict[str, Any]:
        """Mean scores of the last validation; while one runs, what they are computed from."""
        if self._metric_results is None:
            raise AttributeError("metric_results")
        return self._metric_results

    @metric_results.setter
    def metric_results(self, zeros: dict[str, int]) -> None:
        self._metric_results = {name: Scores(self.own_pictures) for name in zeros}

    def nondist_validation(
        self, dataloader: DataLoader[Any], current_iter: int, tb_logger: Any, save_img: bool
    ) -> None:
        """SRModel's loop; sets without targets are scored by metrics that need none; results have a place each."""
        dataset: Any = dataloader.dataset
        name = dataset.opt["name"]
        if len(dataset) == 0:
            raise UserError(f"data set {name} is empty")
        if save_img:
            refuse_equal_results(dataset, name, keeps_folders=True)
            names = ResultNames(dataset)
            self.result_place = lambda path: result_path(self.opt, name, names[path], current_iter)
        metrics = self._computable_metrics(dataset)
        self._metric_results = None  # of the metrics of another data set
        net = self.network_to_test()
        # Made anew for each validation, during which no weights change.
        bf16 = self.opt["val"].get("precision") == "bf16"
        fast = is_fast(self.opt["network_g"])
        self.inference_net, self.autocasts_inference = inference_form(net, bf16=bf16, fast=fast)
        try:
            with replaced(self.opt["val"], "metrics", metrics):
                # BasicSR names results by their stems alone: `get_current_visuals` saves them
                super().nondist_validation(dataloader, current_iter, tb_logger, save_img=False)
        except MetricError as failure:
            if failure.shared:
                raise
            picture = self.sample_names[0]
            raise MetricError(f"val.metrics: data set {name}, {picture}: {failure}") from failure
        finally:
            self.inference_net = None
            self.result_place = None

    def _computable_metrics(self, dataset: Any) -> dict[str, Any] | None:
        """The metrics of the options, without those that compare with targets where a data set has none."""
        metrics = self.opt["val"].get("metrics") or {}
        if not metrics or dataset.opt.get("dataroot_gt") is not None or "gt" in dataset[0]:
            return metrics or None
        left = {name: metric for name, metric in metrics.items() if not needs_target(metric)}
        name, scored = dataset.opt["name"], f"scored by {', '.join(left)} only" if left else "not scored"
        get_root_logger().warning(f"{name} has no targets: the pictures are restored but {scored}")
        return left or None

    def get_current_visuals(self) -> dict[str, Tensor]:
        """What a validation scores: `lq`, `result` and perhaps `gt`, (1, C, H, W); the result is saved if asked for.

        Raises:
            UserError: a test in which the result is NaN or infinite; a training goes on with a warning.
            OSError: the folder is not writable, the disk is full.
        """
        visuals = super().get_current_visuals()
        if not bool(visuals["result"].isfinite().all()):  # BasicSR would take it for a black picture
            problem = f"{self.sample_names[0]}: the network returns NaN or infinite values"
            if not self.is_train:
                raise UserError(f"{problem}; its weights are damaged, or diverged in training")
            get_root_logger().warning(f"{problem}: nothing is saved, and its scores are those of a black picture")
            return visuals
        if self.result_place is not None:
            path = self.result_place(self.sample_names[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, encode_png(to_picture(visuals["result"][0])))
        return visuals

    def _update_best_metric_result(self, dataset_name: str, metric: str, val: float, current_iter: int) -> None:
        """Plain floats, as numpy's must not be in a state file; `logger.save_best` keeps the best weights."""
        record = self.best_metric_results[dataset_name][metric]
        before = record["val"]
        if math.isnan(val):
            get_root_logger().warning(f"{dataset_name}: {metric} gives no number (NaN), which is never the best score")
        super()._update_best_metric_result(dataset_name, metric, float(val), current_iter)
        if self.is_train and metric == self.opt["logger"].get("save_best") and record["val"] != before:
            first = next(one["name"] for phase, one in self.opt["datasets"].items() if phase.startswith("val"))
            if dataset_name == first:
                self._save_weights("best")

    def validation(
        self, dataloader: DataLoader[Any], current_iter: Any, tb_logger: Any, save_img: bool = False
    ) -> None:
        """SRModel's, but once for the last iteration: BasicSR's loop does it again with one iteration too many."""
        name = name_of(dataloader)
        if self.is_train:
            last = int(self.opt["train"]["total_iter"])
            if current_iter > last and self.validated.get(name) == last:
                return
            current_iter = min(current_iter, last)
        try:
            super().validation(dataloader, current_iter, tb_logger, save_img)
        except Exception as error:  # whatever it is, no iteration that is done may be lost by it
            self._save_despite(error, current_iter)
            raise
        self.validated[name] = current_iter
        if self.is_train and self.opt["rank"] == 0:  # BasicSR saves before it validates
            checkpoints.add_notes(self._state_path(current_iter), self._notes_on_validation())

    def _save_despite(self, error: Exception, current_iter: int) -> None:
        """Write the checkpoint of an iteration whose validation fails, unless it was due and is there already."""
        together = isinstance(error, MetricError) and error.shared  # other errors end the process they happen to
        if not self.is_train or self.saved == current_iter or (self.opt["dist"] and not together):
            return
        try:
            self.save(epoch=current_iter // self.opt.get("iters_per_epoch", 1), current_iter=current_iter)
            get_root_logger().info(f"Saved iteration {current_iter}, whose validation fails.")
        except (UserError, OSError) as failure:
            get_root_logger().warning(f"Iteration {current_iter} cannot be saved: {failure}")
        if self.opt["dist"]:  # as above: none may end before rank 0 saved
            torch.distributed.barrier()

    def try_metrics(self, dataloader: DataLoader[Any]) -> None:
        """Score random pictures of the size of a data set's first one, before a training that would end by it.

        Raises:
            UserError: a metric refuses the size, or leaves nothing of such pictures to score.
        """
        dataset: Any = dataloader.dataset
        metrics = self.opt["val"].get("metrics") or {}
        if not metrics or len(dataset) == 0:
            return
        sample = dataset[0]
        height, width = sample["lq"].shape[-2:]
        for name, metric in metrics.items():
            if is_quick(METRIC_REGISTRY.get(metric["type"])) and ("gt" in sample or not needs_target(metric)):
                try_metric(metric, f"val.metrics.{name} on {sample['lq_path']} of {name_of(dataloader)}", height, width)

    def make_up_for_validation(self, dataloader: DataLoader[Any], current_iter: int, tb_logger: Any) -> None:
        """Validate a resumed iteration if it should have been and was not: the run ended after it was saved."""
        val = self.opt["val"]
        validated = self.validated.get(name_of(dataloader)) == current_iter
        if self.resumed and current_iter % val["val_freq"] == 0 and not validated:
            self.validation(dataloader, current_iter, tb_logger, val["save_img"])

    def _log_validation_metric_values(self, current_iter: int, dataset_name: str, tb_logger: Any) -> None:
        """Log every score with its protocol: numbers of different protocols must not be compared."""
        lines = [f"Validation {dataset_name}"]
        for name, value in self.metric_results.items():
            best = self.best_metric_results[dataset_name][name]
            at = f"  best: {best['val']:.4f} at iteration {best['iter']}" if best["iter"] != -1 else "  best: none yet"
            at = at if self.is_train else ""
            lines.append(f"\t# {name} [{protocol_of(self.opt['val']['metrics'][name])}]: {value:.4f}{at}")
            if tb_logger:
                tb_logger.add_scalar(f"metrics/{dataset_name}/{name}", value, current_iter)
        get_root_logger().info("\n".join(lines))
        folder = self.opt["path"].get("experiments_root")
        if self.is_train and folder and self.opt["rank"] == 0:
            training_records.append(folder, {"iter": current_iter, "data_set": dataset_name, **self.metric_results})


class ImageCleanModel(DerainModel):
    """`DerainModel` under the name that option files of the published fork use."""


def name_of(dataloader: DataLoader[Any]) -> str:
    """The name of its data set."""
    dataset: Any = dataloader.dataset
    return dataset.opt["name"]


def refuse_random_weights(opt: dict[str, Any]) -> None:
    """Testing a network that was never trained gives numbers that look like results.

    Raises:
        UserError: no weights are given to a test, and `val.allow_random_weights` does not ask for that.
    """
    if opt.get("is_train", True) or opt["val"].get("allow_random_weights"):
        return
    if not opt["path"].get("pretrain_network_g"):
        raise UserError(
            "path.pretrain_network_g is empty: a test needs trained weights "
            "(val.allow_random_weights: true tests random ones)"
        )
