"""The half of the model class that derains and scores pictures, while it trains and in a test."""

import contextlib
import math
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from drsformer_arch.archs.contract import contract_of
from drsformer_arch.archs.precision import at_least_float32
from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.data.datasets.result_names import ResultNames, refuse_equal_results, result_path
from drsformer_arch.fast.builders import is_fast
from drsformer_arch.images.pictures import encode_png
from drsformer_arch.images.tensors import to_picture
from drsformer_arch.restore.inference import infer, inference_options
from drsformer_arch.restore.tiling import inference_form
from drsformer_arch.restore.weights import Habits, habits_of
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import write_atomically
from drsformer_arch.training import checkpoints, training_records
from drsformer_arch.training.checkpointed_model import CheckpointedModel
from drsformer_arch.training.validation import (
    MetricError,
    calculate_metric,
    gather_scores,
    infinite_scores,
    is_quick,
    mean_score,
    needs_target,
    protocol_of,
    try_metric,
)

# isort: split
from basicsr.metrics import METRIC_REGISTRY
from basicsr.utils import get_root_logger, tensor2img


class ValidatedModel(CheckpointedModel):
    """A model that is validated on pictures of any size, by metrics with and without targets, by several processes.

    Attributes:
        val_loaders: of the training that this model begins.
        sample_names: of the pictures of the current batch.
        inference_net: the network that derains, in its fastest form, while a validation runs.
        autocasts_inference: whether it computes in bfloat16 by autocast.
        metric_results: mean scores of the last validation by the names of the metrics.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.val_loaders: list[DataLoader[Any]] = []
        self.sample_names: list[str] = []
        self.inference_net: nn.Module | None = None
        self.autocasts_inference = False
        self.metric_results: dict[str, float] = {}
        super().__init__(opt)

    # ---- one picture -----------------------------------------------------------------------------------------------

    def test(self) -> None:
        """Derain `lq` with the averaged network where there is one: padded, in tiles where asked for."""
        val = self.opt["val"]
        net, bf16 = self.inference_net, self.autocasts_inference
        if net is None:
            net, bf16 = self.network_to_test(), val.get("precision") == "bf16"
        # In training they are no longer the weights that it began with.
        habits = Habits() if self.is_train else habits_of(self.opt["path"].get("pretrain_network_g"))
        training = net.training
        net.eval()
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            self.output = infer(
                net,
                self.lq,
                multiple=int(val.get("window_size", contract_of(net).size_multiple)),
                **inference_options(val, habits),
            )
        self.output = at_least_float32(self.output)
        net.train(training)

    def network_to_test(self) -> nn.Module:
        """Give the averaged network, or the trained one where none is averaged."""
        return self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)

    def get_current_visuals(self) -> dict[str, Tensor]:
        """Give what a validation scores: `lq`, `result` and perhaps `gt`, each (1, C, H, W), RGB in [0, 1].

        Raises:
            UserError: a test in which the result is NaN or infinite; a training goes on with a warning.
        """
        visuals = super().get_current_visuals()
        if not is_finite(visuals["result"]):  # BasicSR would take it for a black picture
            problem = f"{self.sample_names[0]}: the network returns NaN or infinite values"
            if not self.is_train:
                raise UserError(f"{problem}; its weights are damaged, or diverged in training")
            get_root_logger().warning(f"{problem}: nothing is saved, and its scores are those of a black picture")
        return visuals

    # ---- a data set ------------------------------------------------------------------------------------------------

    def validation(
        self, dataloader: DataLoader[Any], current_iter: Any, tb_logger: Any, save_img: bool = False
    ) -> None:
        """Validate, but once for the last iteration: BasicSR's loop does it again with one iteration too many."""
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

    def dist_validation(self, dataloader: DataLoader[Any], current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Let every process take its share of the pictures; the scores are those of one process, to the bit."""
        for buffer in self.network_to_test().buffers():  # statistics of batch norms, until here each process's own
            torch.distributed.broadcast(buffer, 0)
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(
        self, dataloader: DataLoader[Any], current_iter: Any, tb_logger: Any, save_img: bool
    ) -> None:
        """Derain a data set, score it, save the results if asked for, and record the mean scores.

        Args:
            dataloader: gives one picture at a time; its data set may have no targets.
            current_iter: of a training, or the name of a test.
            tb_logger: of TensorBoard, or None.
            save_img: write the results below `path.visualization`.

        Raises:
            UserError: the set is empty, results would overwrite each other, a metric fails.
            OSError: the folder of the results is not writable, the disk is full.
        """
        dataset: Any = dataloader.dataset
        name = name_of(dataloader)
        if len(dataset) == 0:
            raise UserError(f"data set {name} is empty")
        if save_img:
            refuse_equal_results(dataset, name, keeps_folders=True)
        result_names = ResultNames(dataset) if save_img else None
        metrics = self._computable_metrics(dataset)
        shared = self.opt["dist"]
        if shared:
            dataloader = DataLoader(Subset(dataset, range(self.opt["rank"], len(dataset), self.opt["world_size"])))
        scores: list[dict[str, float]] = []
        failure: MetricError | None = None
        try:
            with contextlib.closing(self._derain(dataloader)) as results:
                for visuals in results:
                    if result_names is not None and is_finite(visuals["result"]):
                        path = result_path(self.opt, name, result_names[self.sample_names[0]], current_iter)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        write_atomically(path, encode_png(to_picture(visuals["result"][0])))
                    pictures = {"img": tensor2img([visuals["result"]])}
                    if "gt" in visuals:
                        pictures["img2"] = tensor2img([visuals["gt"]])
                    scores.append({key: float(calculate_metric(pictures, metric)) for key, metric in metrics.items()})
        except MetricError as error:
            failure = MetricError(f"val.metrics: data set {name}, {self.sample_names[0]}: {error}")
            failure.__cause__ = error
        if shared and metrics:
            scores = gather_scores(failure or scores)
        elif failure:
            raise failure
        self.metric_results = {key: mean_score([score[key] for score in scores]) for key in metrics}
        for problem in infinite_scores(scores):
            get_root_logger().warning(f"{name}: {problem}")
        for metric, mean in self.metric_results.items():
            self._update_best_metric_result(name, metric, mean, current_iter)
        if metrics:
            self._log_validation_metric_values(current_iter, name, tb_logger)

    def _derain(self, dataloader: DataLoader[Any]) -> Generator[dict[str, Tensor], None, None]:
        """Derain one picture after the other; its name is in `sample_names` meanwhile.

        Yields:
            See `get_current_visuals`.
        """
        shows_progress = self.opt["val"].get("pbar", False) and self.opt["rank"] == 0
        bf16, fast = self.opt["val"].get("precision") == "bf16", is_fast(self.opt["network_g"])
        # Made anew for each validation, during which no weights change.
        self.inference_net, self.autocasts_inference = inference_form(self.network_to_test(), bf16=bf16, fast=fast)
        try:
            with tqdm(dataloader, unit="image", disable=not shows_progress) as bar:
                for sample in bar:
                    self.feed_data(sample)
                    self.test()
                    yield self.get_current_visuals()
                    bar.set_description(f"Test {Path(self.sample_names[0]).stem}")
                    del self.lq, self.output  # for the memory of the next picture, perhaps a larger one
                    if hasattr(self, "gt"):
                        del self.gt
                    torch.cuda.empty_cache()
        finally:
            self.inference_net = None

    def _computable_metrics(self, dataset: Any) -> dict[str, Any]:
        """Choose the metrics of the options, without those that compare with targets where a data set has none."""
        metrics = self.opt["val"].get("metrics") or {}
        if not metrics or dataset.opt.get("dataroot_gt") is not None or "gt" in dataset[0]:
            return metrics
        without_target = {name: metric for name, metric in metrics.items() if not needs_target(metric)}
        name = dataset.opt["name"]
        scored = f"scored by {', '.join(without_target)} only" if without_target else "not scored"
        get_root_logger().warning(f"{name} has no targets: the pictures are restored but {scored}")
        return without_target

    def _update_best_metric_result(self, dataset_name: str, metric: str, val: float, current_iter: Any) -> None:
        """Record the best score as a plain float; `logger.save_best` keeps its weights."""
        if math.isnan(val):
            get_root_logger().warning(f"{dataset_name}: {metric} gives no number (NaN), which is never the best score")
            return
        self._initialize_best_metric_results(dataset_name, (metric,))
        record = self.best_metric_results[dataset_name][metric]
        before = record["val"]
        super()._update_best_metric_result(dataset_name, metric, float(val), current_iter)
        if self.is_train and metric == self.opt["logger"].get("save_best") and record["val"] != before:
            sections = self.opt["datasets"].items()
            if dataset_name == next(section["name"] for phase, section in sections if phase.startswith("val")):
                self._save_weights("best")

    def _initialize_best_metric_results(self, dataset_name: str, metrics: Iterable[str] | None = None) -> None:
        """Begin the records of metrics that have none, by default of all of the options."""
        records = self.best_metric_results.setdefault(dataset_name, {})
        for name in self.opt["val"]["metrics"] if metrics is None else metrics:
            better = self.opt["val"]["metrics"][name].get("better", "higher")
            worst = -math.inf if better == "higher" else math.inf
            records.setdefault(name, {"better": better, "val": worst, "iter": -1})

    def _log_validation_metric_values(self, current_iter: Any, dataset_name: str, tb_logger: Any) -> None:
        """Log every score with its protocol: numbers of different protocols must not be compared."""
        lines = [f"Validation {dataset_name}"]
        for name, value in self.metric_results.items():
            best = self.best_metric_results.get(dataset_name, {}).get(name)
            at = f"  best: {best['val']:.4f} at iteration {best['iter']}" if best else "  best: none yet"
            at = at if self.is_train else ""
            lines.append(f"\t# {name} [{protocol_of(self.opt['val']['metrics'][name])}]: {value:.4f}{at}")
            if tb_logger:
                tb_logger.add_scalar(f"metrics/{dataset_name}/{name}", value, current_iter)
        get_root_logger().info("\n".join(lines))
        folder = self.opt["path"].get("experiments_root")
        if self.is_train and folder and self.opt["rank"] == 0:
            training_records.append(folder, {"iter": current_iter, "data_set": dataset_name, **self.metric_results})

    def _save_despite(self, error: Exception, current_iter: int) -> None:
        """Write the checkpoint of an iteration whose validation fails, unless it was due and is there already."""
        together = isinstance(error, MetricError)  # gathered; other errors end the process they happen to
        if not self.is_train or self.saved == current_iter or (self.opt["dist"] and not together):
            return
        try:
            self.save(epoch=current_iter // self.opt.get("iters_per_epoch", 1), current_iter=current_iter)
            get_root_logger().info(f"Saved iteration {current_iter}, whose validation fails.")
        except (UserError, OSError) as failure:
            get_root_logger().warning(f"Iteration {current_iter} cannot be saved: {failure}")
        if self.opt["dist"]:  # as above: none may end before rank 0 saved
            torch.distributed.barrier()

    # ---- the beginning of a training -------------------------------------------------------------------------------

    def begin(self, current_iter: int, tb_logger: Any) -> None:
        """Try the metrics on all validation sets, then validate what should have been and was not.

        Args:
            current_iter: the iteration from which a training goes on; 0 at its start.
            tb_logger: of TensorBoard, or None.

        Raises:
            UserError: see `try_metrics` and `nondist_validation`.
        """
        for loader in self.val_loaders:
            self.try_metrics(loader)
        val = self.opt["val"]
        for loader in self.val_loaders:
            validated = self.validated.get(name_of(loader)) == current_iter
            if self.resumed and current_iter % val["val_freq"] == 0 and not validated:  # it ended after it was saved
                self.validation(loader, current_iter, tb_logger, val["save_img"])

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


def is_finite(picture: Tensor) -> bool:
    """Tell whether no value of a picture is NaN or infinite."""
    return bool(picture.isfinite().all())


def name_of(dataloader: DataLoader[Any]) -> str:
    """Give the name of a loader's data set."""
    dataset: Any = dataloader.dataset
    return dataset.opt["name"]
