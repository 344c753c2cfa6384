"""Try out what an option file names, before anything is created: arguments, optimizer, loss, metrics, loggers.

What a class or function refuses it says itself. Those of BasicSR, torch and ours take a step on a small input; other
people's may load weights or take their time, so that only their arguments are compared.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from drsformer_arch.archs.contract import contract_of
from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.options.kinds import shown
from drsformer_arch.options.safe_yaml import Options
from drsformer_arch.restore.outline import LARGEST_NUMBER
from drsformer_arch.system import packages, processor
from drsformer_arch.system.errors import UserError, did_you_mean
from drsformer_arch.training.batch_plan import BatchPlan
from drsformer_arch.training.loss_terms import OWN_KEYS, compare
from drsformer_arch.training.lr_scheduler import SCHEDULES, build_optimizer, build_schedule, optimizer_names
from drsformer_arch.training.validation import QUICK, is_quick, needs_target, try_metric, trying

# isort: split
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import LOSS_REGISTRY, METRIC_REGISTRY, Registry

Build = Callable[[Options], object]  # something from a section, or an exception
LOADS_WEIGHTS, PERCEPTUAL = "PerceptualLoss", "train.perceptual_opt"  # of BasicSR: VGG's
SIDE = 256  # of the pictures that metrics are tried on, in pixels; NIQE needs 2 x 2 blocks of 96
LAUNCHERS = {
    "pytorch": ("torchrun (scripts/train_distributed.sh)", ("RANK", "WORLD_SIZE"), ("MASTER_ADDR", "MASTER_PORT")),
    "slurm": ("srun (scripts/train_slurm.sh)", ("SLURM_PROCID", "SLURM_NTASKS"), ("SLURM_NODELIST",)),
}


def find(registry: Registry, name: str, where: str) -> Any:
    """Look up what is registered under a name.

    Raises:
        UserError: nothing is; names the nearest known one.
    """
    known = dict(iter(registry))
    found = known.get(name) or known.get(f"{name}_basicsr")
    if found is None:
        raise UserError(f"{where}: nothing is registered as {name!r}{did_you_mean(name, known)}")
    return found


def check_arguments(
    registry: Registry, section: Any, where: str, *, given: Sequence[str] = (), extra: Sequence[str] = ()
) -> None:
    """Compare a section's keys with the arguments of what its type names; Python would refuse them later anyway.

    Args:
        registry: where its type is registered.
        section: `type` and arguments.
        where: its name in messages.
        given: arguments that no option gives.
        extra: keys that are no arguments.

    Raises:
        UserError: an unknown type or argument, with the nearest known one; a missing argument.
    """
    if not isinstance(section, dict) or not isinstance(section.get("type"), str):
        raise UserError(f"{where} needs a type")
    thing = find(registry, section["type"], where)
    parameters = inspect.signature(thing).parameters.values()
    for parameter in parameters:
        named = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        if named and parameter.default is parameter.empty and parameter.name not in {*given, *section}:
            raise UserError(f"option {where}.{parameter.name} is missing")
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if takes_any and not (registry is METRIC_REGISTRY and is_quick(thing)):  # BasicSR's metrics ignore what they take
        return
    known = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD} - set(given)
    for key in section:
        if key not in {"type", *known, *extra}:
            raise UserError(f"unknown option {where}.{key}{did_you_mean(key, known)}")


def try_network(network_class: type[nn.Module], arguments: dict[str, Any]) -> None:
    """Build a network of BasicSR, which says itself whether its arguments fit together; ours are tried without memory.

    Raises:
        UserError: they do not, or are larger than any network's.
    """
    if not network_class.__module__.startswith(QUICK):
        return
    for key, value in arguments.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, int | float) and not abs(part) <= LARGEST_NUMBER:
                raise UserError(f"option network_g.{key} must be at most {LARGEST_NUMBER:,}, not {shown(value)}")
    with trying("network_g"):
        network_class(**arguments)


def try_optimizer(train: dict[str, Any], network: Any, *, gpu: bool) -> None:
    """Build optimizer and schedule, and take a step.

    Args:
        train: the section.
        network: whose parameters they are for; on the meta device, or something else where it is not ours.
        gpu: it will run on one; what only works there is not tried.
    """
    arguments = dict(train["optim_g"])
    kind = arguments.pop("type")
    with trying("train.optim_g"):
        parameter = nn.Parameter(torch.zeros(2, 3))
        if isinstance(network, nn.Module):
            build_optimizer(kind, list(network.parameters()), arguments)
        optimizer = build_optimizer(kind, [parameter], arguments)
        if not gpu:
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
    with trying("train.scheduler"):
        build_schedule(optimizer, train["scheduler"], train["total_iter"])


def try_basicsr(model_class: Any, train: dict[str, Any]) -> None:
    """Try out optimizers, schedule and losses of a model of BasicSR, which takes fewer than ours.

    Args:
        model_class: anything but SRModel and BasicSR's models that derive from it is let pass.
        train: the section.

    Raises:
        UserError: a missing section, a type that the model does not take, arguments that the type does not take.
    """
    if not model_class.__module__.startswith("basicsr.") or not issubclass(model_class, SRModel):
        return
    for key in ("optim_g", "scheduler"):
        section = train.get(key)
        if not isinstance(section, dict) or not isinstance(section.get("type"), str):
            raise UserError(f"option train.{key}.type is missing")
    model: Any = object.__new__(model_class)  # what is tried asks for nothing but what it is given here
    model.optimizers, model.schedulers = [], []

    def optimizer_of(section: dict[str, Any]) -> torch.optim.Optimizer:
        arguments = {"lr": 1e-4, **section}
        return model.get_optimizer(arguments.pop("type"), [nn.Parameter(torch.zeros(2, 3))], **arguments)

    def set_schedule(section: dict[str, Any]) -> None:
        model.opt = {"train": {**train, "scheduler": deepcopy(section)}}
        model.setup_schedulers()

    for key, section in train.items():
        if key.startswith("optim_") and isinstance(section, dict) and isinstance(section.get("type"), str):
            _check_taken(model_class, f"train.{key}", section, optimizer_of, optimizer_names())
            if "lr" not in section:
                raise UserError(f"option train.{key}.lr is missing")
            with trying(f"train.{key}"):
                model.optimizers = [optimizer_of(section)]
    _check_taken(model_class, "train.scheduler", train["scheduler"], set_schedule, SCHEDULES)
    with trying("train.scheduler"):
        set_schedule(train["scheduler"])
        build_schedule(model.optimizers[0], train["scheduler"], train["total_iter"])
    losses = {key: train.get(key) for key in ("pixel_opt", "perceptual_opt")}
    if not any(losses.values()) and model_class.init_training_settings is SRModel.init_training_settings:
        raise UserError("there is no loss: option train.pixel_opt is missing")
    try_losses(losses)


def _check_taken(model: type, where: str, section: Options, build: Build, names: Iterable[str]) -> None:
    """Ask a model of BasicSR whether it takes a type; those that it takes are named."""

    def takes(kind: str) -> bool:
        try:
            build({**section, "type": kind})
        except NotImplementedError:
            return False
        except Exception:  # arguments of another type, or wrong ones, which are tried for themselves
            return True
        return True

    if not takes(section["type"]):
        raise UserError(
            f"option {where}.type: {model.__name__} takes {', '.join(filter(takes, names))}, not "
            f"{section['type']}; model_type: DerainModel takes more"
        )


def try_losses(train: dict[str, Any], network: Any = None) -> None:
    """Compare the losses' arguments, and compute those that take no time to load.

    Args:
        train: the section.
        network: whose pictures are compared; its contract says which there are.
    """
    scales = contract_of(network).output_scales
    for name, section in train.items():
        if name.endswith("_opt") and section is not None:
            loss = _try_loss(section, f"train.{name}", all_scales=scales)
            if loss is not None and name == "perceptual_opt":
                wrong = f"option train.{name}.type: {section['type']} is no perceptual loss"
                raise UserError(f"{wrong}; give it as train.pixel_opt")
    for number, section in enumerate(train.get("losses") or ()):
        where = f"train.losses[{number}]"
        chosen = section.get("outputs", [0])
        if max(chosen) >= len(scales):
            raise UserError(f"option {where}.outputs: the network's pictures are 0 to {len(scales) - 1}, not {chosen}")
        chosen_scales = [scales[index] for index in chosen]
        _try_loss(section, where, chosen_scales, own_keys=OWN_KEYS, all_scales=chosen_scales)


def _try_loss(
    section: Options,
    where: str,
    scales: Sequence[int] = (1,),
    *,
    own_keys: Sequence[str] = (),
    all_scales: Sequence[int] = (1,),
) -> Any:
    """Compute a loss on small pictures.

    Args:
        section: its type and arguments.
        where: its name in messages.
        scales: how much smaller than the target the pictures are that it compares.
        own_keys: keys that are no arguments.
        all_scales: those of the pictures that a loss of all of them gets.

    Returns:
        The loss; None where it takes its time.
    """
    check_arguments(LOSS_REGISTRY, section, where, extra=own_keys)
    loss_class = find(LOSS_REGISTRY, section["type"], where)
    if loss_class.__name__ == LOADS_WEIGHTS:
        if where != PERCEPTUAL:
            raise UserError(f"option {where}.type: {LOADS_WEIGHTS} gives two losses at once; give it as {PERCEPTUAL}")
        file = section.get("weights")
        if file is not None and not os.path.isfile(os.path.expanduser(file)):
            raise UserError(f"option {where}.weights: there is no file {file}")
        return None
    if not is_quick(loss_class):
        return None
    with trying(where):
        loss = loss_class(**{key: value for key, value in section.items() if key not in {"type", *own_keys}})
        scales = all_scales if getattr(loss, "takes_all_outputs", False) else scales
        target, rainy = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.75)
        for level in (0.25, 0.5):  # far from the target, and equal to it, as parts of good results are
            outputs = [torch.full((1, 3, 16 // scale, 16 // scale), level, requires_grad=True) for scale in scales]
            value = compare(loss, outputs, target, rainy)
            slopes = torch.autograd.grad(value, outputs, allow_unused=True) if value.requires_grad else ()
            if not all(part.isfinite().all() for part in (value, *slopes) if part is not None):
                raise UserError(f"{where}: with these arguments the loss or its gradient is not finite")
    return loss


def try_metrics(metrics: dict[str, Any]) -> None:
    """Compare the metrics' arguments, and compute BasicSR's and ours."""
    for name, section in metrics.items():
        where = f"val.metrics.{name}"
        check_arguments(METRIC_REGISTRY, section, where, given=("img", "img2"), extra=("better",))
        if is_quick(find(METRIC_REGISTRY, section["type"], where)):
            try_metric(section, where, SIDE, SIDE)


def check_best(options: dict[str, Any]) -> list[str]:
    """Check that `logger.save_best` can be obeyed.

    Returns:
        a note, where it is but says little.

    Raises:
        UserError: the best weights could never be written.
    """
    metric, val = options["logger"].get("save_best"), options["val"]
    if metric is None:
        return []
    first = next((phase for phase in options["datasets"] if phase != "train"), None)
    if first is None:
        raise UserError("option logger.save_best needs a validation set: datasets.val")
    dataset = options["datasets"][first]
    if dataset["type"] == "SingleImageDataset" and needs_target(val["metrics"][metric]):
        raise UserError(
            f"option logger.save_best: {metric} compares with targets, and the first validation set, datasets.{first}, "
            f"has none (SingleImageDataset); put another set first, or name a metric such as calculate_niqe"
        )
    if val["val_freq"] > options["train"]["total_iter"]:
        return [
            f"logger.save_best: val.val_freq is {val['val_freq']}, beyond train.total_iter: only the last weights are "
            f"validated, and so the best"
        ]
    return []


def check_batch(options: dict[str, Any], plan: BatchPlan) -> None:
    """Refuse a batch that this machine's memory cannot even load.

    Raises:
        UserError: the patches of one iteration are larger.
    """
    patch = int(options["datasets"]["train"]["gt_size"])
    loaded = plan.loader_batch * max(1, 1 if options["dist"] else options["num_gpu"])
    size, memory = loaded * 2 * 3 * patch**2 * 4, processor.whole_memory()  # pairs, float32
    if size > memory:
        raise UserError(
            f"option datasets.train.batch_size_per_gpu: the {loaded} pairs of {patch} px of an iteration take "
            f"{size / 2**30:.0f} GiB, this machine has {memory / 2**30:.0f} GiB of memory; lower it, gt_size or "
            f"train.effective_batch_size"
        )


def check_loggers(logger: dict[str, Any]) -> None:
    """Check that TensorBoard and Weights & Biases are there if they are asked for.

    Raises:
        UserError: a package is missing, or wandb is asked for without TensorBoard, whose curves it gets.
    """
    wandb = (logger.get("wandb") or {}).get("project") is not None
    if wandb and logger.get("use_tb_logger") is not True:
        raise UserError("option logger.wandb: it gets TensorBoard's curves; set logger.use_tb_logger: true too")
    for package, key, wanted in (("tensorboard", "use_tb_logger", logger["use_tb_logger"]), ("wandb", "wandb", wandb)):
        if wanted and not packages.is_installed(package):
            raise UserError(f"option logger.{key} needs the package {package}: pip install {package}")


def check_launcher(launcher: str) -> None:
    """Check that the processes were started by what `--launcher` names.

    Raises:
        UserError: its environment variables are missing, or no numbers.
    """
    if launcher not in LAUNCHERS:
        return
    program, numbers, texts = LAUNCHERS[launcher]
    for name in (*numbers, *texts):
        value = os.environ.get(name, "")
        if not value or (name in numbers and not value.isdigit()):
            raise UserError(f"--launcher {launcher} is for processes of {program}: {name} is {value or 'not set'}")
