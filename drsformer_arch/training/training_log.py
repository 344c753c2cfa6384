"""One line per log step that says what a training does, and the same as JSON lines beside BasicSR's log."""

import logging
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import torch

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.system import processor
from drsformer_arch.training import training_records
from drsformer_arch.training.batch_plan import batch_plan

# isort: split
from basicsr.utils import MessageLogger, get_root_logger
from basicsr.utils.dist_util import master_only

GRADIENT_NORM = "grad_norm"  # of a model's log


class Measures(logging.LoggerAdapter):  # type: ignore[type-arg]  # Python 3.10 has no LoggerAdapter[...]
    """Ends each message with what was measured."""

    text = ""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The message and what follows it."""
        return f"{msg}{self.text}", kwargs


class TrainingLog(MessageLogger):
    """BasicSR's line, then iterations per second, share of waiting for data, effective batch, gradient, memory."""

    def __init__(self, opt: dict[str, Any], start_iter: int = 1, tb_logger: Any = None) -> None:
        super().__init__(opt, start_iter, tb_logger)
        self.last_iter = self.max_iters
        self.max_iters += (
            1  # BasicSR takes one more from the iterations left, which made the last eta "-1 day, 23:59:59"
        )
        self.plan = batch_plan(opt)
        self.folder = Path(opt["path"]["experiments_root"])
        gpu = torch.cuda.is_available() and opt["num_gpu"] != 0
        self.device = torch.device("cuda" if gpu else "cpu")
        self.logger = self.measures = Measures(get_root_logger())
        if opt["rank"] == 0:
            training_records.forget_after(self.folder, start_iter, self.measures.logger.warning)
        times = training_records.clock(training_records.read(self.folder))
        self.seconds_before = training_records.seconds_until(times, start_iter)  # of the runs that this one goes on
        self.began = time.monotonic()

    @master_only
    def __call__(self, log_vars: dict[str, Any]) -> None:
        """Log a step.

        Args:
            log_vars: `epoch`, `iter`, `lrs`, `time` and `data_time` in seconds, losses, `grad_norm`.
        """
        values = dict(log_vars)
        iteration, seconds, waiting = values["iter"], values["time"], values["data_time"]
        gradient = values.pop(GRADIENT_NORM, None)
        batch = self.plan.effective_batch(iteration)
        memory = processor.peak_memory(self.device)
        rate, share = (1 / seconds, waiting / seconds) if seconds > 0 else (0.0, 0.0)
        norm = "" if gradient is None else f", gradient {gradient:.2e}"
        self.measures.text = f"[{rate:.2f} it/s, data {share:.0%}, batch {batch}{norm}, {memory / 2**30:.2f} GiB]"
        losses = {key: value for key, value in values.items() if key.startswith("l_")}
        done = max(iteration - self.start_iter, 1)
        record = {
            "iter": iteration,
            "epoch": values["epoch"],
            "lr": values["lrs"][0],
            **losses,
            **({} if gradient is None else {GRADIENT_NORM: gradient}),
            "seconds_per_iter": seconds,
            training_records.ELAPSED: self.seconds_before + time.monotonic() - self.began,
            "data_share": share,
            "batch": batch,
            "peak_memory_bytes": memory,
            "eta_seconds": (time.time() - self.start_time) / done * (self.last_iter - iteration),
        }
        training_records.append(self.folder, record)
        super().__call__(values)
        if self.use_tb_logger and gradient is not None:
            self.tb_logger.add_scalar(GRADIENT_NORM, gradient, iteration)
