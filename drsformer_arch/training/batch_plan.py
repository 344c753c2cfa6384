"""How one iteration's pictures are cut, chosen and split: progressive stages and gradient accumulation.

An iteration is one optimizer step, however many backward passes it needs: 300,000 iterations at an effective batch of
16 are the same training on one GPU that holds a single patch as on four that hold four each.
"""

import random
from bisect import bisect_left
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor

from drsformer_arch.system.errors import UserError


class Stage(NamedTuple):
    """One stage of progressive learning, as one process sees it.

    Attributes:
        last_iteration: the stage ends with it.
        patch: side of the square patches in pixels.
        micro_batch: pictures per backward pass of the process (DataParallel spreads them over its GPUs).
        steps: backward passes per optimizer step.
    """

    last_iteration: int
    patch: int
    micro_batch: int
    steps: int


class BatchPlan(NamedTuple):
    """All stages, how many pictures the loader reads per GPU and iteration, and the number of processes."""

    stages: tuple[Stage, ...]
    loader_batch: int
    processes: int

    def stage(self, iteration: int) -> Stage:
        """The stage of a 1-based iteration; the last one goes on for ever."""
        ends = [stage.last_iteration for stage in self.stages]
        return self.stages[min(bisect_left(ends, iteration), len(ends) - 1)]

    def effective_batch(self, iteration: int) -> int:
        """Pictures of a 1-based iteration, in all processes together."""
        stage = self.stage(iteration)
        return self.processes * stage.micro_batch * stage.steps

    def select(self, iteration: int, lq: Tensor, gt: Tensor, names: list[str]) -> tuple[Tensor, Tensor, list[str]]:
        """Keep what this iteration uses: a random subset of the loaded pictures and one random crop for all of them.

        Args:
            iteration: 1-based.
            lq: rainy pictures, (N, C, H, W), N the loader's batch, H and W the largest patch.
            gt: clean pictures of the same shape.
            names: N names, for error messages.

        Raises:
            UserError: a loader that is not ours gave fewer pictures than the plan needs.
        """
        stage = self.stage(iteration)
        wanted = stage.micro_batch * stage.steps
        if wanted > lq.shape[0]:
            raise UserError(f"iteration {iteration} needs {wanted} pictures, the loader gave {lq.shape[0]}")
        if wanted < lq.shape[0]:
            chosen = random.sample(range(lq.shape[0]), k=wanted)
            lq, gt, names = lq[chosen], gt[chosen], [names[i] for i in chosen]
        slack = lq.shape[-1] - stage.patch
        if slack > 0:
            top, left = int(slack * random.random()), int(slack * random.random())
            window = (..., slice(top, top + stage.patch), slice(left, left + stage.patch))
            lq, gt = lq[window], gt[window]
        return lq, gt, names

    def describe(self) -> str:
        """One line for the log."""
        stages = "; ".join(
            f"until iteration {stage.last_iteration}: "
            * (len(self.stages) > 1)
            + f"{stage.patch} px, effective batch {self.effective_batch(stage.last_iteration)} = "
            f"{self.processes} process(es) x {stage.micro_batch} picture(s) x {stage.steps} accumulation step(s)"
            for stage in self.stages
        )
        return f"Batch plan: {stages}"


def batch_plan(opt: dict[str, Any]) -> BatchPlan:
    """Work out stages and accumulation steps from an option file.

    Reads `datasets.train`: `batch_size_per_gpu`, `gt_size` and, for progressive learning, lists of equal length
    `mini_batch_sizes`, `gt_sizes`, `iters`; and `train.effective_batch_size` (one number, or one per stage).

    Raises:
        UserError: lists of different lengths, a stage larger than what is loaded, an effective batch that the
            processes and their batch do not divide.
    """
    dataset, train = opt["datasets"]["train"], opt["train"]
    if dataset.get("batch_size_per_gpu") is None or dataset.get("gt_size") is None:
        raise UserError("options datasets.train.batch_size_per_gpu and datasets.train.gt_size are needed to train")
    batch, patch = int(dataset["batch_size_per_gpu"]), int(dataset["gt_size"])
    # Without a launcher, several GPUs share one process through DataParallel, and the loader serves them together.
    processes, gpus = (opt["world_size"], 1) if opt.get("dist") else (1, max(1, int(opt.get("num_gpu") or 0)))

    minis = [int(size) for size in dataset.get("mini_batch_sizes") or [batch]]
    patches = [int(size) for size in dataset.get("gt_sizes") or [patch]]
    iters = [int(number) for number in dataset.get("iters") or [train["total_iter"]]]
    if not len(minis) == len(patches) == len(iters):
        raise UserError(
            f"datasets.train: mini_batch_sizes, gt_sizes and iters need equal lengths, not "
            f"{len(minis)}, {len(patches)} and {len(iters)}"
        )
    if max(minis) > batch or max(patches) > patch:
        raise UserError(
            f"datasets.train: mini_batch_sizes {minis} and gt_sizes {patches} must not exceed "
            f"batch_size_per_gpu {batch} and gt_size {patch}"
        )

    effective = train.get("effective_batch_size")
    if effective is None:
        steps = [1] * len(minis)
    else:
        effectives = [int(e) for e in effective] if isinstance(effective, list) else [int(effective)] * len(minis)
        if len(effectives) != len(minis):
            raise UserError(f"train.effective_batch_size has {len(effectives)} entries for {len(minis)} stages")
        for whole, mini in zip(effectives, minis, strict=True):
            if whole % (processes * gpus * mini):
                raise UserError(
                    f"train.effective_batch_size {whole} is no multiple of {processes * gpus} process(es) or GPU(s) x "
                    f"{mini} pictures each; change datasets.train.batch_size_per_gpu (or mini_batch_sizes)"
                )
        steps = [whole // (processes * gpus * mini) for whole, mini in zip(effectives, minis, strict=True)]

    stages = tuple(map(Stage, accumulate(iters), patches, [mini * gpus for mini in minis], steps))
    # Official recipes load more than they keep (8, of which a random 4 are used): honoured where nothing accumulates.
    loaded = batch if effective is None else max(mini * step for mini, step in zip(minis, steps, strict=True))
    return BatchPlan(stages, loaded, processes)
