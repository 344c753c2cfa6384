"""The sections of an option file but for its data sets: what BasicSR reads of everybody's, and what our model reads."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import model_validator

from drsformer_arch.options.dataset_sections import AnyDataset, MixedRainDataset
from drsformer_arch.options.kinds import (
    WHOLE,
    Batches,
    Betas,
    Count,
    Decay,
    Iterations,
    Natural,
    NotNegative,
    Positive,
    Said,
    Seed,
    Side,
)
from drsformer_arch.options.section_base import Section, option, refusal
from drsformer_arch.system.errors import did_you_mean

MODEL_TYPES = ("DerainModel", "ImageCleanModel")


class Typed(Section, extra="allow"):
    """A class and its arguments, which the class itself knows."""

    type: str = option("the name of the class", source="BasicSR")


class Network(Typed):
    """The network and its arguments."""

    fast: Annotated[Any, Said("true or false")] = option(
        "of our networks: `false` computes step by step what the network's file says, and is slower", True
    )


class Optimizer(Typed):
    """Any optimizer of torch.optim and its arguments."""

    type: str = option("an optimizer of torch.optim", source="BasicSR")
    lr: NotNegative = option("learning rate", source="BasicSR")
    betas: Betas = option("decay of Adam's moments", [0.9, 0.999], source="torch")


class Schedule(Typed):
    """The course of the learning rate."""

    type: str = option(
        "CosineAnnealingRestartCyclicLR, CosineAnnealingRestartLR, MultiStepLR or MultiStepRestartLR", source="BasicSR"
    )
    periods: Annotated[list[Iterations], MinLen(1)] = option("length of each cycle", None, unit="iterations")
    restart_weights: Annotated[list[NotNegative], MinLen(1)] = option("scale of each cycle", [1], unit="factor")
    eta_mins: Annotated[list[NotNegative], MinLen(1)] = option("learning rate at the end of each cycle", [0])
    eta_min: NotNegative = option("learning rate at the end of all cycles (CosineAnnealingRestartLR)", 0)
    milestones: list[Natural] = option("where the rate falls (MultiStepLR)", None, unit="iterations")
    gamma: NotNegative = option("by which factor it falls (MultiStepLR)", 0.1, unit="factor")
    restarts: list[Natural] = option("where it begins anew (MultiStepRestartLR)", [0], unit="iterations")


class Loss(Typed):
    """A loss and its arguments."""

    loss_weight: Positive = option("factor of the loss", 1, unit="factor", source="BasicSR")
    perceptual_weight: NotNegative = option("factor of PerceptualLoss", 1, unit="factor", source="BasicSR")
    style_weight: NotNegative = option("factor of PerceptualLoss's style", 0, unit="factor", source="BasicSR")


class Mixing(Section):
    """Mixup: training on sums of two pairs."""

    mixup: bool = option("whether", False, source="published fork")
    mixup_beta: Annotated[float, Ge(1e-3), Le(1e6)] = option("of the beta distribution of shares", 1.2)
    use_identity: bool = option("leave a random half of the batches as they are", True, source="published fork")


class AnyTrain(Section, extra="allow"):
    """What BasicSR reads of every training."""

    total_iter: Iterations = option("length of the training", unit="iterations", source="BasicSR")


class Accumulation(AnyTrain):
    """What the batch plan reads of a training, also of a class that somebody derived from ours."""

    effective_batch_size: Annotated[
        Batches | Annotated[list[Batches], MinLen(1)],
        Said("a whole number of at least 1 and at most 1000000, or one per stage"),
    ] = option("pictures per optimizer step, of all processes: the rest is accumulated", None, unit="pictures")


def problem_of_cycles(periods: list[int] | None, total_iter: int) -> str | None:
    """Why a schedule's cycles do not do for a training, to stand behind the option's name; None where they do."""
    if periods is None or sum(periods) >= total_iter:
        return None
    return f" sum to {sum(periods)} but train.total_iter is {total_iter}: the cycles must cover the training"


class Train(Accumulation, extra="forbid"):
    """The training: optimizer, schedule, losses, batch."""

    warmup_iter: Annotated[int, Ge(-1), Le(10**9), WHOLE] = option(
        "the learning rate rises from 0 for so long; -1: it does not", -1, unit="iterations", source="BasicSR"
    )
    optim_g: Optimizer = option("the optimizer", source="BasicSR")
    scheduler: Schedule = option("the course of the learning rate", source="BasicSR")
    pixel_opt: Loss | None = option("the loss", None, source="BasicSR")
    perceptual_opt: Loss | None = option("a perceptual loss that is added", None, source="BasicSR")
    ema_decay: Decay = option("keep a moving average of the weights; 0: none", 0, source="BasicSR")
    grad_clip: Positive | None = option("largest norm of the gradient; 0.01 in the published code of DRSformer", None)
    amp: Literal[False, "bf16", "fp16"] | None = option("mixed precision", False)
    max_nonfinite_skips: Natural = option(
        "so many steps in a row may be left out because the loss is not finite", 0, unit="iterations"
    )
    mixing_augs: Mixing = option("mixup", None, source="published fork")

    @model_validator(mode="after")
    def _check_cycles(self) -> "Train":
        problem = problem_of_cycles(self.scheduler.periods, self.total_iter)
        if problem:
            raise refusal(problem, "scheduler.periods")
        return self


class AnyVal(Section, extra="allow"):
    """What BasicSR reads of every validation."""

    val_freq: Count = option("how often a training validates", 5000, unit="iterations", source="BasicSR")
    save_img: bool = option("save the results", False, source="BasicSR")
    suffix: str | None = option("behind the names of a test's results; by default `name`", None, source="BasicSR")


class Metric(Typed):
    """A metric and its arguments."""

    crop_border: Natural = option("margin that is left out", 0, unit="pixels", source="BasicSR")
    test_y_channel: bool = option("score luma", False, source="BasicSR")
    better: Literal["higher", "lower"] = option("which score is better; `lower` for NIQE", "higher", source="BasicSR")


class Val(AnyVal, extra="forbid"):
    """Validation and test."""

    metrics: dict[str, Metric] | None = option("names of one's choice, each a metric", None, source="BasicSR")
    pbar: bool = option("show the progress; by default tests on a terminal do", False, source="BasicSR")
    window_size: Side = option(
        "pad pictures to a multiple of it; by default what the network needs", None, unit="pixels", source="BasicSR"
    )
    tile: Natural = option("side of tiles for pictures too large for the memory; 0: whole pictures", 0, unit="pixels")
    tile_overlap: Natural = option("how far tiles overlap", 32, unit="pixels")
    precision: Literal["float32", "bf16"] | None = option("of the network; by default that of the training", None)
    allow_random_weights: bool = option("test a network that was never trained", False)

    @model_validator(mode="after")
    def _check_tiles(self) -> "Val":
        if self.tile and self.tile_overlap >= self.tile:
            said = f" ({self.tile_overlap}, by default 32) must be smaller than val.tile ({self.tile})"
            raise refusal(said, "tile_overlap")
        return self


class AnyPaths(Section, extra="allow"):
    """What BasicSR reads of everybody's weights to begin with."""

    pretrain_network_g: str | None = option(
        "weights of the network: a file, or the name of weights that come with the package", None, source="BasicSR"
    )
    param_key_g: str | None = option("which weights of the file: `params` or `params_ema`", "params", source="BasicSR")
    strict_load_g: bool = option("whether all of them must fit", True, source="BasicSR")
    resume_state: str | None = option("a training state of this experiment to go on from", None, source="BasicSR")
    ignore_resume_networks: list[str] | None = option("networks that do not go on from it", None, source="BasicSR")


class Paths(AnyPaths, extra="forbid"):
    """Weights to begin with."""


class Wandb(Section):
    """Weights & Biases, which gets TensorBoard's curves."""

    project: str | None = option("name of the project; empty: no logging there", None, source="BasicSR")
    resume_id: str | None = option("of a run to go on with", None, source="BasicSR")


class AnyLogger(Section, extra="allow"):
    """What BasicSR reads of everybody's logs."""

    print_freq: Count = option("how often a line is logged", 100, unit="iterations", source="BasicSR")
    save_checkpoint_freq: Count = option(
        "how often weights and state are saved", 5000, unit="iterations", source="BasicSR"
    )
    use_tb_logger: bool = option("write curves for TensorBoard", False, source="BasicSR")
    keep_checkpoints: Count = option("how many of the newest states are kept; by default all", None, unit="states")
    save_best: str | None = option("keep the weights best by this metric of `val.metrics`", None)
    wandb: Any = option("Weights & Biases", None, source="BasicSR")


class Logger(AnyLogger, extra="forbid"):
    """What is logged and saved, and how often."""

    wandb: Wandb | None = option("Weights & Biases", None, source="BasicSR")


class AnyDistParams(Section, extra="allow"):
    """Several processes, of whoever's model."""


class DistParams(AnyDistParams, extra="forbid"):
    """Several processes."""

    backend: str = option("of torch.distributed", "nccl", source="BasicSR")
    port: Annotated[int, Ge(1), Le(65535), WHOLE] = option("Slurm: of the first process", None, source="BasicSR")
    timeout_minutes: Annotated[float, Ge(0.1), Le(10**6)] = option(
        "how long processes wait for each other", None, unit="minutes"
    )


class AnyRun(Section, extra="allow"):
    """What BasicSR reads of every option file, whoever's model it names."""

    name: str = option("of the experiment: results go to experiments/NAME or results/NAME", source="BasicSR")
    model_type: str = option("the model class", source="BasicSR", schema={"not": {"enum": MODEL_TYPES}})
    imports: str | list[str] = option("modules or files of Python to import first", None, alias="import")
    num_gpu: Annotated[Literal["auto"] | Annotated[int, Ge(0), Le(4096), WHOLE], Said("auto or a whole number")] = (
        option("GPUs of this machine to use; 0: none", "auto", unit="GPUs", source="BasicSR")
    )
    manual_seed: Seed = option("of everything that is random", 0, source="BasicSR")
    scale: Count = option("of the pictures' sides", 1, unit="factor", source="BasicSR")
    find_unused_parameters: bool = option("of DistributedDataParallel", False, source="BasicSR")
    network_g: Typed = option("the network", None, source="BasicSR")
    datasets: dict[str, AnyDataset] = option(
        "`train` and `val`, `val_1`, ...; in a test file `test`, `test_1`, ...", None, source="BasicSR"
    )
    path: AnyPaths = option("weights to begin with", None, source="BasicSR")
    train: AnyTrain = option("the training; a test file has none", None, source="BasicSR")
    val: AnyVal = option("validation and test", None, source="BasicSR")
    logger: AnyLogger = option("logs and checkpoints", None, source="BasicSR")
    dist_params: AnyDistParams = option("several processes", None, source="BasicSR")

    @model_validator(mode="after")
    def _check_mixtures(self) -> "AnyRun":
        for phase, dataset in (self.datasets or {}).items():
            if isinstance(dataset, MixedRainDataset) and phase != "train":
                raise refusal(": a mixture is for training; validate on val_1, val_2, ...", f"datasets.{phase}.type")
        return self


class DerainRun(AnyRun, extra="forbid", json_schema_extra={"patternProperties": {"^network_": {"type": "object"}}}):
    """An option file for our model class, DerainModel."""

    model_type: Literal["DerainModel", "ImageCleanModel"] = option("the model class", source="BasicSR")
    scale: Annotated[Literal[1], Said("1", ": a derained picture keeps its size")] = option(
        "always 1", 1, source="BasicSR"
    )
    channels_last: bool = option("memory layout: channels last, faster on most machines", False)
    network_g: Network = option("the network", source="BasicSR")
    datasets: dict[str, AnyDataset] = option(
        "`train` and `val`, `val_1`, ...; in a test file `test`, `test_1`, ...", source="BasicSR"
    )
    path: Paths = option("weights to begin with", None, source="BasicSR")
    train: Train = option("the training; a test file has none", None, source="BasicSR")
    val: Val = option("validation and test", None, source="BasicSR")
    logger: Logger = option("logs and checkpoints", None, source="BasicSR")
    dist_params: DistParams = option("several processes", None, source="BasicSR")

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
