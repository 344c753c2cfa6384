"""Plan how the pictures of each iteration are cut, chosen and split: progressive stages and gradient accumulation.

An iteration is one optimizer step, however many backward passes it needs: 300,000 iterations at an effective batch of
16 are the same training on one GPU that holds a single patch as on four that hold four each.
"""

import random
from bisect import bisect_left
from typing import Any, NamedTuple

from torch import Tensor

from drsformer_arch.options.dataset_sections import Patches
from drsformer_arch.options.run_sections import Accumulation
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
        """Give the stage of a 1-based iteration; the last one goes on for ever."""
        ends = [stage.last_iteration for stage in self.stages]
        return self.stages[min(bisect_left(ends, iteration), len(ends) - 1)]

    def effective_batch(self, iteration: int) -> int:
        """Count the pictures of a 1-based iteration, in all processes together."""
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
        """Describe the plan in one line for the log."""
        stages = "; ".join(
            f"until iteration {stage.last_iteration}: "
            * (len(self.stages) > 1)
            + f"{stage.patch} px, effective batch {self.effective_batch(stage.last_iteration)} = "
            f"{self.processes} process(es) x {stage.micro_batch} picture(s) x {stage.steps} accumulation step(s)"
            for stage in self.stages
        )
        return f"Batch plan: {stages}"


def _remedy(whole: int, workers: int) -> str:
    if whole % workers:
        return f"make it a multiple of {workers}, or use another number of them"
    fitting = [str(n) for n in range(1, whole // workers + 1) if whole // workers % n == 0]
    numbers = " or ".join(filter(None, (", ".join(fitting[:-1]), fitting[-1])))
    return f"change datasets.train.batch_size_per_gpu (or mini_batch_sizes) to {numbers}"


def batch_plan(opt: dict[str, Any]) -> BatchPlan:
    """Work out stages and accumulation steps from an option file.

    Args:
        opt: of the run, of which the sections `datasets.train` (see `Patches`) and `train` (see `Accumulation`) are
            read, and on how many processes and GPUs it runs.

    Raises:
        UserError: see `Patches.stages`; an effective batch that the processes and their batch do not divide.
    """
    patches = Patches.read(opt["datasets"]["train"], "datasets.train", further_keys=True)
    train = Accumulation.read(opt["train"], "train", further_keys=True)
    # Without a launcher, several GPUs share one process through DataParallel, and the loader serves them together.
    processes, gpus = int(opt.get("world_size", 1)), 1 if opt.get("dist") else max(1, int(opt.get("num_gpu") or 0))

    stages, last, loaded = [], 0, 0
    for mini, side, length, whole in patches.stages(train.total_iter, train.effective_batch_size):
        at_once = processes * gpus * mini
        if whole is not None and whole % at_once:
            raise UserError(
                f"train.effective_batch_size {whole} is no multiple of {processes * gpus} process(es) or GPU(s) x "
                f"{mini} pictures each; {_remedy(whole, processes * gpus)}"
            )
        steps = 1 if whole is None else whole // at_once
        last += length
        # Official recipes load more than they keep (8, of which a random 4 are used): honoured where nothing is
        # accumulated.
        loaded = max(loaded, patches.batch_size_per_gpu if whole is None else mini * steps)
        stages.append(Stage(last, side, mini * gpus, steps))
    return BatchPlan(tuple(stages), loaded, processes)


def fewer_pictures(opt: dict[str, Any], plan: BatchPlan, gpus: int) -> str | None:
    """Say that a file written for more GPUs trains with a smaller batch here; None where it does not.

    Args:
        opt: as `batch_plan` takes it.
        plan: of this machine.
        gpus: for which the file was written.
    """
    if Accumulation.read(opt["train"], "train", further_keys=True).effective_batch_size is not None:
        return None
    meant = batch_plan({**opt, "dist": False, "world_size": 1, "num_gpu": gpus})
    was, now = (
        [batches.effective_batch(stage.last_iteration) for stage in batches.stages] for batches in (meant, plan)
    )
    if all(before <= here for before, here in zip(was, now, strict=True)):
        return None
    before, here = (numbers[0] if len(numbers) == 1 else numbers for numbers in (was, now))
    return (
        f"the effective batch was {before} on the {gpus} GPUs of num_gpu, is {here} here: set "
        f"train.effective_batch_size: {before} to train as it was meant"
    )
