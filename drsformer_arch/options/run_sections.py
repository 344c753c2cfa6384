"""The sections of an option file but for its data sets: what BasicSR reads of everybody's, and what our model reads."""

from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import model_validator

from drsformer_arch.options import kinds
from drsformer_arch.options.dataset_sections import AnyDataset, MixedRainDataset
from drsformer_arch.options.kinds import Said
from drsformer_arch.options.section_base import Section, basicsr, fork, option, refusal
from drsformer_arch.system.errors import did_you_mean

MODEL_TYPES = ("DerainModel", "ImageCleanModel")
OF_OTHERS: dict[str, Any] = {"not": {"enum": MODEL_TYPES}}


class Typed(Section, extra="allow"):
    """A class and its arguments, which the class itself knows."""

    type: str = basicsr("the name of the class")


class Network(Typed):
    """The network and its arguments."""

    fast: Annotated[Any, Said("true or false")] = option("use fast forms of our networks; `false`: plain ones", True)


class Optimizer(Typed):
    """Any optimizer of torch.optim and its arguments."""

    type: str = basicsr("an optimizer of torch.optim")
    lr: kinds.NotNegative = basicsr("learning rate")
    betas: kinds.Betas = option("decay rates of Adam's moving averages", [0.9, 0.999], source="torch")


class Schedule(Typed):
    """The course of the learning rate."""

    type: str = basicsr("CosineAnnealingRestartCyclicLR, or one of BasicSR's schedules")
    periods: kinds.Lengths = option("length of each cycle of the learning rate", None, "iterations")
    restart_weights: kinds.Rates = option("factor of the learning rate in each cycle", [1], "factor")
    eta_mins: kinds.Rates = option("learning rate at the end of each cycle", [0])
    eta_min: kinds.NotNegative = option("learning rate at the end of all cycles (CosineAnnealingRestartLR)", 0)
    milestones: list[kinds.Natural] = option("where the learning rate falls (MultiStepLR)", None, "iterations")
    gamma: kinds.NotNegative = option("by which factor the learning rate falls (MultiStepLR)", 0.1, "factor")
    restarts: list[kinds.Natural] = option("where the schedule begins anew", [0], "iterations")


class Loss(Typed):
    """A loss and its arguments."""

    loss_weight: kinds.Positive = basicsr("factor of the loss in the sum of losses", 1, "factor")
    perceptual_weight: kinds.NotNegative = basicsr("factor of the perceptual part of PerceptualLoss", 1, "factor")
    style_weight: kinds.NotNegative = basicsr("factor of the style part of PerceptualLoss", 0, "factor")
    weights: str | None = option(
        "file with the weights of VGG for PerceptualLoss, as torchvision has them; by default they are fetched", None
    )


class LossTerm(Loss):
    """A term of a sum of losses, with the arguments of its class."""

    outputs: Annotated[list[kinds.Natural], MinLen(1)] = option(
        "which of the network's pictures it compares, each with the target at its size; 0 is the best", [0]
    )
    name: str | None = option("its name in the log, behind `l_`; by default that of its class", None)

    @property
    def log_name(self) -> str:
        """The name of its values in logs and curves."""
        return f"l_{self.name or self.type.removesuffix('Loss').lower()}"


class Mixing(Section):
    """Mixup: training on sums of two pairs."""

    mixup: bool = fork("train on weighted sums of two pairs of pictures", False)
    mixup_beta: kinds.MixupBeta = option("both parameters of the beta distribution of the weights", 1.2)
    use_identity: bool = fork("leave a random half of the batches as they are", True)


class AnyTrain(Section, extra="allow"):
    """Options that BasicSR reads of every training."""

    total_iter: kinds.Iterations = basicsr("length of the training", unit="iterations")


class Accumulation(AnyTrain):
    """Options that the batch plan reads of a training, also of a class that somebody derived from ours."""

    effective_batch_size: kinds.EffectiveBatch = option(
        "pictures per optimizer step in all processes together; gradients are accumulated up to it", None, "pictures"
    )


def problem_of_cycles(periods: list[int] | None, total_iter: int) -> str | None:
    """Say why a schedule's cycles do not do for a training, behind the option's name; None where they do."""
    if periods is None or sum(periods) >= total_iter:
        return None
    return f" sum to {sum(periods)} but train.total_iter is {total_iter}: the cycles must cover the training"


class Train(Accumulation, extra="forbid"):
    """The training: optimizer, schedule, losses, batch."""

    warmup_iter: kinds.WarmUp = basicsr("how long the learning rate rises from 0; -1: it does not", -1, "iterations")
    optim_g: Optimizer = basicsr("the optimizer")
    scheduler: Schedule = basicsr("the course of the learning rate")
    pixel_opt: Loss | None = basicsr("the loss that compares result and target", None)
    perceptual_opt: Loss | None = basicsr("a perceptual loss that is added to it", None)
    losses: list[LossTerm] | None = option("a sum of losses, beside `pixel_opt` or instead of it", None)
    ema_decay: kinds.Decay = basicsr("decay of the moving average of the weights; 0: none is kept", 0)
    grad_clip: kinds.Positive | None = option("norm that longer gradients are cut to; DRSformer's: 0.01", None)
    amp: Literal[False, "bf16", "fp16"] | None = option("type of mixed precision; false: all in float32", False)
    max_nonfinite_skips: kinds.Natural = option(
        "how many steps in a row may be skipped because their loss or gradient is not finite", 0, "iterations"
    )
    mixing_augs: Mixing = fork("mixup: training on sums of two pairs", None)

    @model_validator(mode="after")
    def _check_names_of_losses(self) -> "Train":
        names = ["l_pix", "l_percep", "l_style", *(term.log_name for term in self.losses or ())]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise refusal(f": two terms are called {twice} in the log; give one another `name`", "losses")
        return self

    @model_validator(mode="after")
    def _check_cycles(self) -> "Train":
        problem = problem_of_cycles(self.scheduler.periods, self.total_iter)
        if problem:
            raise refusal(problem, "scheduler.periods")
        return self


class AnyVal(Section, extra="allow"):
    """Options that BasicSR reads of every validation."""

    val_freq: kinds.Count = basicsr("how often a training validates", 5000, "iterations")
    save_img: bool = basicsr("save the derained pictures", False)
    suffix: str | None = basicsr("what ends the names of a test's pictures; by default the option `name`", None)


class Metric(Typed):
    """A metric and its arguments."""

    crop_border: kinds.Natural = basicsr("margin that is not scored; needed by BasicSR's metrics", 0, "pixels")
    test_y_channel: bool = basicsr("score the luma channel only", False)
    better: Literal["higher", "lower"] = basicsr("which score is better; `lower` for NIQE and LPIPS", "higher")
    weights: str | None = option(
        "file with the weights of AlexNet, VGG16 or SqueezeNet 1.1 for `calculate_lpips`", None
    )


class Val(AnyVal, extra="forbid"):
    """Validation and test."""

    metrics: dict[str, Metric] | None = basicsr("metrics to compute, each under a name of your choice", None)
    pbar: bool = basicsr("show a progress bar; by default only tests on a terminal do", False)
    window_size: kinds.Side = basicsr(
        "pad the sides of pictures to multiples of this; by default of what the network needs", None, "pixels"
    )
    tile: kinds.Natural = option(
        "longest side of tiles, for pictures too large for the memory; 0: whole pictures; in a test of DRSformer-S 320",
        0,
        "pixels",
    )
    tile_overlap: kinds.Natural = option(
        "how far neighbouring tiles overlap; where DRSformer-S has its own tiles 64", 32, "pixels"
    )
    ensemble: bool = option(
        "take the mean over the eight symmetries of each picture, eight times as slow; DRSformer-S: four, upright",
        False,
    )
    published_inference: bool = option(
        "run networks as their authors did for their scores: NeRDRain in windows of 256 pixels, FADformer as the mean "
        "of four corners",
        False,
    )
    precision: Literal["float32", "bf16"] | None = option("`bf16`: bfloat16, but for norms, scores, gates", None)
    allow_random_weights: bool = option("allow a test of a network that was never trained", False)

    @model_validator(mode="after")
    def _check_tiles(self) -> "Val":
        if self.tile and self.tile_overlap >= self.tile:
            said = f" ({self.tile_overlap}, by default 32) must be smaller than val.tile ({self.tile})"
            raise refusal(said, "tile_overlap")
        return self


class AnyPaths(Section, extra="allow"):
    """Options that BasicSR reads of everybody's weights to begin with."""

    pretrain_network_g: str | None = basicsr("weights: a file, or the name of those that come with the package", None)
    param_key_g: str | None = basicsr("which weights of the file: `params` or `params_ema`", "params")
    strict_load_g: bool = basicsr("refuse weights that do not all fit the network", True)
    resume_state: str | None = basicsr("a training state of this experiment to go on from", None)
    ignore_resume_networks: list[str] | None = basicsr("networks that do not go on from `resume_state`", None)


class Paths(AnyPaths, extra="forbid"):
    """Weights to begin with."""


class Free(Section, extra="allow"):
    """A section that is not ours."""


class Wandb(Free, extra="forbid"):
    """Weights & Biases, which gets TensorBoard's curves."""

    project: str | None = basicsr("name of the project at Weights & Biases; empty: nothing is sent there", None)
    resume_id: str | None = basicsr("identifier of a run at Weights & Biases to go on with", None)


class AnyLogger(Section, extra="allow"):
    """Options that BasicSR reads of everybody's logs."""

    print_freq: kinds.Count = basicsr("how often a line is logged", 100, "iterations")
    save_checkpoint_freq: kinds.Count = basicsr("how often weights and state are saved", 5000, "iterations")
    use_tb_logger: bool = basicsr("write curves for TensorBoard", False)
    keep_checkpoints: kinds.Count = option("how many of the newest states are kept; by default all", None, "states")
    save_best: str | None = option("keep the weights best by this metric of `val.metrics`", None)
    wandb: Free | None = basicsr("logging to Weights & Biases", None)


class Logger(AnyLogger, extra="forbid"):
    """Logs and checkpoints: what is written, and how often."""

    wandb: Wandb | None = basicsr("logging to Weights & Biases", None)


class DistParams(Free, extra="forbid"):
    """Several processes that work together."""

    backend: str = basicsr("how processes communicate: a backend of torch.distributed", "nccl")
    port: kinds.Port = basicsr("network port of the first process under Slurm", None)
    timeout_minutes: kinds.Minutes = option("how long torchrun's processes wait for each other", None, "minutes")


class AnyRun(Section, extra="allow"):
    """Options that BasicSR reads of every option file, whoever's model it names."""

    name: str = basicsr("name of the experiment; results go to experiments/NAME or results/NAME")
    model_type: str = basicsr("class of the model", **OF_OTHERS)
    imports: str | list[str] = option("files (.py) or modules that are executed first", None, alias="import")
    num_gpu: kinds.GPUs = basicsr("GPUs of this machine to use; 0: none", "auto", "GPUs")
    manual_seed: kinds.Seed = basicsr("seed of all random numbers", 0)
    scale: kinds.Count = basicsr("how much larger results are than inputs", 1, "factor")
    channels_last: bool = option("keep the channels of a pixel together in memory; fast forms always do", False)
    find_unused_parameters: bool = basicsr("DistributedDataParallel: expect parameters without gradient", False)
    network_g: Typed = basicsr("the network", None)
    datasets: dict[str, AnyDataset] = basicsr("data sets `train`, `val`, `val_1`, ...; of a test `test`, `test_1`, ...")
    path: AnyPaths | None = basicsr("weights to begin with", None)
    train: AnyTrain = basicsr("the training; a test file has none", None)
    val: AnyVal | None = basicsr("how pictures are validated and tested", None)
    logger: AnyLogger | None = basicsr("what is logged and saved, and how often", None)
    dist_params: Free = basicsr("how several processes work together", None)

    @model_validator(mode="after")
    def _check_mixtures(self) -> "AnyRun":
        for phase, dataset in self.datasets.items():
            if isinstance(dataset, MixedRainDataset) and phase != "train":
                raise refusal(": a mixture is for training; validate on val_1, val_2, ...", f"datasets.{phase}.type")
        return self


class DerainRun(AnyRun, extra="forbid", json_schema_extra={"patternProperties": {"^network_": {"type": "object"}}}):
    """An option file for our model class, DerainModel."""

    model_type: Literal["DerainModel", "ImageCleanModel"] = basicsr("class of the model")
    scale: kinds.ScaleOne = basicsr("how much larger results are than inputs: always 1", 1)
    network_g: Network = basicsr("the network")
    path: Paths | None = basicsr("weights to begin with", None)
    train: Train = basicsr("the training; a test file has none", None)
    val: Val | None = basicsr("how pictures are validated and tested", None)
    logger: Logger | None = basicsr("what is logged and saved, and how often", None)
    dist_params: DistParams = basicsr("how several processes work together", None)

    @staticmethod
    def is_of_others(key: str) -> bool:
        """Further networks belong to somebody's class that derives from ours."""
        return str(key).startswith("network_") and key != "network_g"

    @model_validator(mode="after")
    def _check_best(self) -> "DerainRun":
        best, metrics = self.logger and self.logger.save_best, (self.val and self.val.metrics) or {}
        if best and best not in metrics:
            raise refusal(f": no metric {best!r} in val.metrics{did_you_mean(best, metrics)}", "logger.save_best")
        return self
