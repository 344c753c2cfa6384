"""The half of the model class that writes and reads checkpoints: weights, training state and their manifest."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.fast.builders import without_switch
from drsformer_arch.restore.networks import drop_unused, explain_mismatch
from drsformer_arch.restore.weights import PARAM_KEYS, read_weights
from drsformer_arch.system.errors import UserError
from drsformer_arch.training import checkpoints
from drsformer_arch.training.checkpoints import save_atomically
from drsformer_arch.training.resuming import catch_up, memory_of, taken_over

# isort: split
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only


class CheckpointedModel(SRModel):
    """An SRModel whose checkpoints are whole, verified, kept or forgotten as asked for, and resumed exactly.

    Attributes:
        started_with: the options as they were given, to compare later runs with.
        scaler: of losses, for float16.
        best_metric_results: BasicSR's record of the best scores.
        validated: each data set's last validated iteration.
        resumed: from a checkpoint that says what was validated.
        saved: the last iteration whose checkpoint is whole.
    """

    scaler: torch.amp.GradScaler

    def __init__(self, opt: dict[str, Any]) -> None:
        self.started_with = checkpoints.comparable(opt)
        self.best_metric_results: dict[str, dict[str, Any]] = {}
        self.validated: dict[str, int] = {}
        self.resumed = False
        self.saved: int | None = None
        super().__init__(opt)

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load published or own weights; a mismatch is explained in one line.

        Raises:
            UserError: no such file, no weights in it, weights that are NaN, weights of another network; with `strict`
                off, nothing that fits.
        """
        net = self.get_bare_model(net)
        # A training that allows steps that are not finite goes on from what it saved.
        state, _, entry = read_weights(load_path, param_key, finite=not self.opt["path"].get("resume_state"))
        if param_key not in {None, entry, *PARAM_KEYS}:  # those have each other as substitutes
            raise UserError(f"{load_path} has no entry {param_key!r}, which path.param_key_g names")
        get_root_logger().info(f"Loading {type(net).__name__} from {load_path}, entry: {entry or 'the bare file'}.")
        state = drop_unused(net, state)
        problem = explain_mismatch(net, state)
        if problem and strict:
            raise UserError(f"{load_path} does not fit {type(net).__name__}: {problem}")
        if problem:
            own = net.state_dict()
            state = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
            if not state:
                raise UserError(f"{load_path}: nothing in it fits {type(net).__name__}: {problem}")
            get_root_logger().warning(f"{load_path}: {problem}; loading the {len(state)} of {len(own)} that fit")
        net.load_state_dict(state, strict=strict)

    def save(self, epoch: int, current_iter: int) -> None:
        """Weights, training state and their manifest; older checkpoints go where `logger.keep_checkpoints` says so.

        Raises:
            UserError: something cannot be written; earlier checkpoints are intact.
        """
        self._save_weights(current_iter)
        self.save_training_state(epoch, current_iter)
        if current_iter != -1:
            self._complete_checkpoint(current_iter)
            self.saved = current_iter

    def _save_weights(self, label: Any) -> None:
        averaged = hasattr(self, "net_g_ema")
        nets, keys = [self.net_g], ["params"]
        if averaged:
            nets, keys = [self.net_g, self.net_g_ema], ["params", "params_ema"]
        self.save_network(nets, "net_g", label, param_key=keys)

    @master_only
    def _complete_checkpoint(self, current_iter: int) -> None:
        state, models = self._state_path(current_iter), Path(self.opt["path"]["models"])
        notes = {"iter": current_iter, "options": self.started_with, **self._notes_on_validation()}
        checkpoints.write_manifest(state, sorted(models.glob(f"net_*_{current_iter}.pth")), notes)
        keep = self.opt["logger"].get("keep_checkpoints")
        if keep:
            checkpoints.forget_all_but(keep, state.parent, models)

    def _notes_on_validation(self) -> dict[str, Any]:
        notes = {"best": self.best_metric_results, "validated": self.validated}
        return {**notes, "save_best": self.opt["logger"].get("save_best")}

    def _state_path(self, current_iter: int) -> Path:
        return Path(self.opt["path"]["training_states"], f"{current_iter}.state")

    @master_only
    def save_network(self, net: Any, net_label: str, current_iter: int, param_key: Any = "params") -> None:
        """Write `net_g_ITERATION.pth` in BasicSR's format, with the network's arguments beside the weights."""
        nets, keys = (net, param_key) if isinstance(net, list) else ([net], [param_key])
        content: dict[str, Any] = {
            key: {name: value.cpu() for name, value in self.get_bare_model(network).state_dict().items()}
            for key, network in zip(keys, nets, strict=True)
        }
        content["network"] = deepcopy(without_switch(self.opt["network_g"]))
        label = "latest" if current_iter == -1 else current_iter
        save_atomically(content, Path(self.opt["path"]["models"], f"{net_label}_{label}.pth"))

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write `ITERATION.state`: BasicSR's content, the loss scaler and the best scores."""
        if current_iter == -1:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler.state_dict(),
            **self._notes_on_validation(),
        }
        save_atomically(state, self._state_path(current_iter))

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Continue from a training state; options that are other than when it was saved are applied and logged.

        Hyperparameters of the optimizer and the schedule, its past included, are those of this run's options.

        Raises:
            UserError: the state is of another optimizer or network, or beyond `train.total_iter`.
        """
        path, iteration = self.opt["path"].get("resume_state"), resume_state["iter"]
        manifest = checkpoints.read_manifest(Path(path)) if path else {}
        before = manifest.get("options", self.started_with)
        changes = checkpoints.changes(before, self.started_with)
        for change in changes:
            get_root_logger().warning(f"Option changed since iteration {iteration}: {change}")
        self._take_up(resume_state, path)
        if any(change.startswith("train.optim_g.") for change in changes):
            memory = ", ".join(memory_of(self.optimizers[0])) or "nothing"
            get_root_logger().warning(f"Kept as saved: what the optimizer remembers of each parameter ({memory})")
        self.saved = iteration
        notes = {**resume_state, **manifest}  # the manifest is missing where the run was killed before it was written
        self.validated, self.resumed = notes.get("validated", {}), "validated" in notes
        self.best_metric_results = self._comparable_scores(notes, before)
        if "iters_per_epoch" in self.opt:
            # The epoch of this run's batch size, which need not be that of the interrupted one.
            resume_state["epoch"] = iteration // self.opt["iters_per_epoch"]

    def _take_up(self, resume_state: dict[str, Any], path: str | None) -> None:
        """Optimizers and schedules as they are after the saved iteration, by this run's options."""
        iteration, total = resume_state["iter"], int(self.opt["train"]["total_iter"])
        if iteration > total:
            raise UserError(f"option train.total_iter is {total}, but {path} is the state of iteration {iteration}")
        saved = resume_state["optimizers"]
        try:
            if len(saved) != len(self.optimizers):
                raise UserError(f"it holds {len(saved)} optimizers, this model has {len(self.optimizers)}")
            for schedule in self.schedulers:
                catch_up(schedule, iteration)
            self.warm_up(iteration)
            optimizers = [taken_over(own, theirs) for own, theirs in zip(self.optimizers, saved, strict=True)]
            schedules = [schedule.state_dict() for schedule in self.schedulers]
            super().resume_training({"optimizers": optimizers, "schedulers": schedules})
            if resume_state.get("scaler"):
                self.scaler.load_state_dict(resume_state["scaler"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            weights = Path(self.opt["path"]["models"], f"net_g_{iteration}.pth")
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise UserError(
                f"cannot resume from {path}: {reason}; to go on from its weights alone, start anew under another name "
                f"with path.pretrain_network_g: {weights}"
            ) from error

    def warm_up(self, iteration: int) -> None:
        """Set the rates of an iteration where this model warms up."""

    def _comparable_scores(self, notes: dict[str, Any], before: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The best scores so far by those metrics that are what they were; numbers of others must not be compared.

        Nor is there a best score by the metric of `logger.save_best` where the weights kept are the best by another.
        """
        best, wanted = notes.get("best", {}), self.opt["logger"].get("save_best")
        metrics = checkpoints.comparable(self.opt["val"].get("metrics") or {})
        val = before.get("val")
        were = (val.get("metrics") if isinstance(val, dict) else None) or metrics
        were = were if isinstance(were, dict) else {}
        same = {name for name, section in metrics.items() if were.get(name) == section}
        if notes.get("save_best", wanted) != wanted:
            same.discard(wanted)
        if others := {name for records in best.values() for name in records} - same:
            names = ", ".join(sorted(others))
            get_root_logger().warning(f"Best scores start anew, as val.metrics or logger.save_best changed: {names}")
        return {
            data_set: {name: record for name, record in records.items() if name in same}
            for data_set, records in best.items()
        }
