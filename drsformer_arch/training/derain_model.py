"""The BasicSR model class for deraining: the one place where options, network, losses and schedules meet."""

import contextlib
import logging
import math
import random
import threading
import warnings
from collections import Counter, OrderedDict
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from drsformer_arch.archs.contract import contract_of
from drsformer_arch.archs.precision import at_least_float32
from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.options.reading import add_defaults, check_sections, translate
from drsformer_arch.restore.tiling import forward_scaled
from drsformer_arch.system.errors import TrainingStopped, UserError
from drsformer_arch.training.batch_plan import batch_plan
from drsformer_arch.training.dilated_convolutions import order_for_16_bits
from drsformer_arch.training.loaders import seed_everything, seed_of
from drsformer_arch.training.loss_terms import LossTerms, compare
from drsformer_arch.training.lr_scheduler import build_optimizer, build_schedule
from drsformer_arch.training.training_log import GRADIENT_NORM
from drsformer_arch.training.validated_model import ValidatedModel

# isort: split
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only

SCALER_SKIPS = 30  # float16's loss scale of 2^16 falls to nothing within so many halvings
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
stop_requested = threading.Event()  # set by signal handlers; the model saves and stops before the next iteration


class DerainModel(ValidatedModel):
    """Trains, validates and tests a deraining network.

    What it adds to SRModel, each by option: any torch optimizer, `CosineAnnealingRestartCyclicLR`, `grad_clip`,
    `effective_batch_size` by gradient accumulation, mixed precision (`amp`), mixup, progressive learning, padding to
    the network's size multiple and tiles in validation, a stop at non-finite losses, and a training state from which
    a resumed run continues exactly. docs/options.md has its options.

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
        logger.addFilter(concerns_us)
        refuse_random_weights(opt)
        self.nonfinite_in_a_row = 0
        super().__init__(opt)

    # ---- set-up ----------------------------------------------------------------------------------------------------

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to its device; wrap it for distributed training on CPUs too, and honour `channels_last`."""
        if self.opt.get("channels_last"):
            net = net.to(memory_format=torch.channels_last)
        if self.opt["dist"]:
            # A loss may leave out pictures of a network that returns several, and the layers that only they need.
            self.opt.setdefault("find_unused_parameters", len(contract_of(net).output_scales) > 1)
            # Weights of 1x1 have one layout under two names, of which torch tells with every training.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        if self.opt["dist"] and self.device.type == "cpu":
            return DistributedDataParallel(
                net.to(self.device), find_unused_parameters=self.opt["find_unused_parameters"]
            )
        return super().model_to_device(net)

    @master_only
    def print_network(self, net: nn.Module) -> None:
        """Log the size; the layers of a transformer fill thousands of lines."""
        bare = self.get_bare_model(net)
        count = sum(parameter.numel() for parameter in bare.parameters())
        get_root_logger().info(f"Network {type(bare).__name__}: {count:,} parameters")

    def init_training_settings(self) -> None:
        """Set up batch plan, mixed precision, average, losses, optimizer, schedule; SRModel knows no `train.losses`."""
        train = self.opt["train"]
        self.plan = batch_plan(self.opt)
        get_root_logger().info(self.plan.describe())
        self.amp_dtype = AMP_TYPES.get(train.get("amp"))
        # Only float16 loses small gradients and needs its loss scaled.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)
        if self.amp_dtype and not self.opt["dist"] and self.opt["num_gpu"] > 1:
            # DataParallel opens autocast in threads that do not know the chosen type and would take float16.
            raise UserError("train.amp with several GPUs needs one process per GPU: torchrun and --launcher pytorch")
        if self.amp_dtype and self.device.type == "cpu":
            order_for_16_bits(self.net_g)
        self.net_g.train()
        self.ema_decay = train.get("ema_decay", 0)
        if self.ema_decay > 0:
            self._begin_average()
        try:
            self.cri_pix, self.cri_perceptual = (
                build_loss(train[key]).to(self.device) if train.get(key) else None
                for key in ("pixel_opt", "perceptual_opt")
            )
            self.loss_terms = LossTerms(train["losses"]).to(self.device) if train.get("losses") else None
            if not (self.cri_pix or self.cri_perceptual or self.loss_terms):
                raise UserError("there is no loss: option train.pixel_opt is missing (or train.losses, for several)")
            self.setup_optimizers()
            self.setup_schedulers()
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"train: {error}") from error

    def _begin_average(self) -> None:
        """Build the averaged network: from its own weights where the pretrained file has some, else as the trained."""
        path = self.opt["path"]
        get_root_logger().info(f"The weights are averaged with a decay of {self.ema_decay}")
        self.net_g_ema = build_network(self.opt["network_g"]).to(self.device)
        if path.get("pretrain_network_g"):
            strict = path.get("strict_load_g", True)
            self.load_network(self.net_g_ema, path["pretrain_network_g"], strict, "params_ema")
        else:
            self.model_ema(0)
        self.net_g_ema.eval()

    def setup_optimizers(self) -> None:
        """Build the optimizer as SRModel does, but leave the options their `type`."""
        options = deepcopy(self.opt["train"]["optim_g"])
        super().setup_optimizers()
        self.opt["train"]["optim_g"] = options

    def get_optimizer(
        self, optim_type: str, params: list[nn.Parameter], lr: float, **options: Any
    ) -> torch.optim.Optimizer:
        """Build any optimizer of torch.optim by its name."""
        return build_optimizer(optim_type, params, {"lr": lr, **options})

    def setup_schedulers(self) -> None:
        """Build BasicSR's schedules or `CosineAnnealingRestartCyclicLR`."""
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
        """Take one optimizer step from as many backward passes as the batch plan says.

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
        """Compute the weighted sum of the configured losses and its parts, in float32 or better.

        Raises:
            UserError: the network refuses the patches, as batch norms do where one has a single pixel of one picture.
        """
        try:
            with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
                outputs = forward_scaled(self.net_g, lq, contract_of(self.get_bare_model(self.net_g)).value_range)
        except ValueError as error:
            count, _, height, width = lq.shape
            patches = f"{count} patch{'es' * (count > 1)} of {height}x{width}"
            raise UserError(f"the network does not train on {patches} at once: {error}") from error
        outputs = tuple(at_least_float32(output) for output in outputs)
        self.output = output = outputs[0]
        parts: dict[str, Tensor] = {}
        if self.cri_pix is not None:
            takes_all = getattr(self.cri_pix, "takes_all_outputs", False)
            parts["l_pix"] = compare(self.cri_pix, outputs if takes_all else (output,), gt, lq)
        if self.loss_terms is not None:
            parts.update(self.loss_terms(outputs, gt, lq))
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
        """Agree on whether a flag holds in any process: all must take one way, or they wait for each other for ever."""
        if not self.opt["dist"]:
            return bool(flag)
        agreed = torch.as_tensor(flag, device=self.device).float().reshape(1)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
        return bool(agreed)

    def _skip_nonfinite(self, quantity: str, current_iter: int, names: list[str], at_least: int = 0) -> None:
        allowed = max(at_least, int(self.opt["train"].get("max_nonfinite_skips", 0)))
        self.nonfinite_in_a_row += 1
        self.optimizer_g.zero_grad()
        message = f"the {quantity} of iteration {current_iter} is not finite; pictures of its batch: {', '.join(names)}"
        if self.nonfinite_in_a_row > allowed:
            wider = "bf16" if self.amp_dtype is torch.float16 else "false"
            advice = f" use amp: {wider}," if self.amp_dtype else ""
            raise UserError(
                f"{message} (lower train.optim_g.lr,{advice} or allow train.max_nonfinite_skips; "
                f"skipped in a row: {self.nonfinite_in_a_row - 1})"
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


class ImageCleanModel(DerainModel):
    """`DerainModel` under the name that option files of the published fork use."""


def concerns_us(record: logging.LogRecord) -> bool:
    """Drop what BasicSR's training says of several validation sets: that only SRModel takes them, which this is."""
    return not str(record.msg).startswith("Multiple validation datasets")


def refuse_random_weights(opt: dict[str, Any]) -> None:
    """Refuse to test a network that was never trained, whose numbers would look like results.

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
