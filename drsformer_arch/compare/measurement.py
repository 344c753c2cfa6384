"""Run several networks on the same data sets and measure quality and cost, each in a process of its own."""

import copy
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, bmm_flop, sdpa_flop_count
from tqdm import tqdm

from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.data.datasets.result_names import ResultNames, refuse_equal_results
from drsformer_arch.fast.builders import is_fast, without_switch
from drsformer_arch.images.pictures import encode_png
from drsformer_arch.images.tensors import to_picture
from drsformer_arch.metrics import PROTOCOLS
from drsformer_arch.restore.inference import infer, inference_options
from drsformer_arch.restore.networks import build_network, load_network
from drsformer_arch.restore.tiling import inference_form, restore
from drsformer_arch.restore.weights import Habits, habits_of, read_weights
from drsformer_arch.system import processor, terminal
from drsformer_arch.system.errors import UserError, line_of, printable
from drsformer_arch.system.files import write_atomically

RAINY_INPUT = "rainy input"
MACS_AT = 256  # side in pixels of the picture for which multiplications are counted
PROCESSES = multiprocessing.get_context("spawn")  # safe whatever threads this one has
Run = Callable[[torch.Tensor], torch.Tensor]
UNCOUNTED = {  # operations that torch's counter does not know
    torch.ops.aten.baddbmm_: lambda _, a, b, **__: bmm_flop(a, b),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
}


class ComparedSet(NamedTuple):
    """A data set to compare on."""

    name: str
    options: dict[str, Any]  # a section of an option file, for `PairedRainDataset`
    protocol: str


class Method(NamedTuple):
    """A network with its weights."""

    label: str
    weights: str | None  # None: the rainy pictures as they are
    network: dict[str, Any] | None  # a section of an option file; None: as the weights say
    param_key: str | None
    val: dict[str, Any]  # of an option file: precision, tile, tile_overlap, ensemble and published_inference
    pictures: tuple[ComparedSet, ...]
    imports: tuple[str, ...] = ()  # modules and files that its process imports for it
    group: str = ""  # shared by trainings of one network that differ in their seeds


class Settings(NamedTuple):
    """The settings that all methods of a comparison share."""

    out: Path
    limit: int | None  # of the pictures of a data set, the first ones
    device: str


class MethodScores(NamedTuple):
    """Scores and times of one method on one data set, picture by picture."""

    names: list[str]
    psnr: list[float]  # dB
    ssim: list[float]
    seconds: list[float]  # per picture
    at: list[int]  # indices in the data set

    def mean(self, what: str) -> float:
        """Return `mean_of_finite` of the pictures."""
        return mean_of_finite(getattr(self, what))


def mean_of_finite(values: Sequence[float]) -> float:
    """Return the mean of the finite values; infinite where all are, since all pictures equal their targets."""
    return fmean(list(filter(math.isfinite, values)) or values)


class Measurement(NamedTuple):
    """A method's results."""

    label: str
    network: str | None  # its type
    parameters: int
    macs: int  # multiplications and additions counted as one, for MACS_AT x MACS_AT
    memory: int  # bytes at the peak beyond what the process held before the first picture
    scores: dict[str, MethodScores]  # by data set
    group: str = ""  # of the method
    failed: tuple[str, ...] = ()  # a line for each picture that could not be restored or scored


def measure(methods: Sequence[Method], settings: Settings, complain: Callable[[str], None]) -> list[Measurement]:
    """Measure all methods one after the other; result pictures go to OUT/pictures/METHOD/DATASET.

    Args:
        methods: first the rainy pictures as they are. What of them cannot be read or scored is left out for all.
        settings: of the comparison.
        complain: takes a line for every picture, data set and network that fails; the rest goes on.

    Raises:
        UserError: no picture can be used.
    """
    rainy, left_out, problems = measure_input(methods[0], settings)
    for problem in problems:
        complain(problem)
    if not rainy.scores:
        raise UserError("no picture can be compared; the problems are named above")
    results = [rainy]
    for method in methods[1:]:
        pictures = tuple(compared for compared in method.pictures if compared.name in rainy.scores)
        if not pictures:
            continue  # its data sets were named
        measured = _in_a_process(method._replace(pictures=pictures), settings, left_out)
        if isinstance(measured, str):
            complain(measured)
            continue
        first = next((result for result in results if measured.group and result.group == measured.group), measured)
        if _network_of(first) != _network_of(measured):
            complain(
                f"{measured.label}: {_network_of(measured)}, but {first.label} is {_network_of(first)}; files of one "
                "name are trainings of one network"
            )
            continue
        for problem in measured.failed:
            complain(problem)
        results.append(measured)
    return results


def _network_of(result: Measurement) -> str:
    return f"a {result.network} of {result.parameters:,} parameters and {result.macs:,} MACs"


def _in_a_process(method: Method, settings: Settings, left_out: Mapping[str, Set[int]]) -> Measurement | str:
    """Call `attempt` in a new process: what one network left in memory must not count for the next."""
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as executor:
        try:
            return executor.submit(attempt, method, settings, left_out).result()
        except BrokenProcessPool:
            return f"{printable(method.label)} ({printable(method.weights)}): its process ended early (out of memory?)"


def measure_input(method: Method, settings: Settings) -> tuple[Measurement, dict[str, set[int]], list[str]]:
    """Score the rainy pictures as they are.

    Returns:
        the scores of the data sets in which there are some, indices of pictures that cannot be used by data set, and
        a line for each of these and for data sets that cannot be used.
    """
    left_out: dict[str, set[int]] = {}
    problems: list[str] = []
    scores = {}
    for pictures in method.pictures:
        bad: dict[int, str] = {}
        try:
            found = score(method, None, pictures, settings, bad=bad)
        except Exception as error:  # of the libraries that read pictures; the other data sets go on
            problems.append(line_of(error, f"data set {pictures.name}"))
            continue
        problems += bad.values()
        left_out[pictures.name] = set(bad)
        if found.names:
            scores[pictures.name] = found
    return Measurement(method.label, None, 0, 0, 0, scores), left_out, problems


def attempt(method: Method, settings: Settings, left_out: Mapping[str, Set[int]]) -> Measurement | str:
    """Call `measure_one`, and return one line that says why where it fails."""
    with terminal.guarded():
        try:
            if method.imports:
                from drsformer_arch.bridge.outside import register_outside  # noqa: PLC0415 - needs BasicSR

                register_outside(method.imports)
            return measure_one(method, settings, left_out)
        except Exception as error:  # whatever a stranger's network raises; the others go on
            return line_of(error, f"{method.label} ({method.weights})")


def measure_one(method: Method, settings: Settings, left_out: Mapping[str, Set[int]]) -> Measurement:
    """Measure a network in this process, on all pictures but those left out."""
    device = torch.device(settings.device)
    if device.type == "cpu":
        processor.tune()
    net = load_method(method)
    parameters, macs, kind = sum(p.numel() for p in net.parameters()), count_macs(net), type(net).__name__
    bf16, fast = method.val.get("precision") == "bf16", is_fast(method.network or {})
    net, autocast = inference_form(net.to(device), bf16=bf16, fast=fast)
    habits = habits_of(method.weights)
    run = partial(run_network, net, val=method.val, habits=habits, device=device, autocast=autocast)
    before = processor.memory_held(device)
    processor.reset_peak_memory(device)  # loading takes more than the weights
    scores, failed = dict[str, MethodScores](), list[str]()
    for data in method.pictures:
        bad: dict[int, str] = {}
        works = any(of_set.names for of_set in scores.values())
        found = score(method, run, data, settings, left_out[data.name], bad=bad, works=works)
        if found.names:
            scores[data.name] = found
        failed += [f"{method.label}: {line}" for line in bad.values()]
    memory = processor.peak_memory(device) - before
    return Measurement(method.label, kind, parameters, macs, memory, scores, method.group, tuple(failed))


def load_method(method: Method) -> nn.Module:
    """Load the method's network on the CPU."""
    assert method.weights is not None
    if method.network is None:
        return load_network(method.weights, method.param_key)
    state = read_weights(method.weights, method.param_key or "params").state
    return build_network(without_switch(method.network), state, method.weights, named_by="the options")


def score(
    method: Method,
    run: Run | None,
    pictures: ComparedSet,
    settings: Settings,
    left_out: Set[int] = frozenset(),
    *,
    bad: dict[int, str],
    works: bool = False,
) -> MethodScores:
    """Restore, time and score the pictures of a data set; without a network they are scored as they are.

    Args:
        method: names what is scored.
        run: its network; None scores the pictures as they are.
        pictures: the data set.
        settings: of the comparison: its folder, its protocol, how many pictures.
        left_out: indices of pictures that are not looked at.
        bad: takes a line for each picture that fails.
        works: the network has restored some picture. One that fails on its very first is not tried on others.
    """
    dataset = PairedRainDataset({**pictures.options, "phase": "val"})
    refuse_equal_results(dataset, pictures.name, keeps_folders=True)
    names = ResultNames(dataset)
    folder = settings.out / "pictures" / method.label / pictures.name
    result = MethodScores([], [], [], [], [])
    indices = [at for at in range(min(len(dataset), settings.limit or len(dataset))) if at not in left_out]
    for index in tqdm(indices, desc=f"{method.label} on {pictures.name}", delay=2, leave=False):
        try:
            sample = dataset[index]
            name, rainy = names[sample["lq_path"]], sample["lq"][None]
            if not result.names and run is not None:
                run(rainy)  # the first call is slower than all others
            start = time.perf_counter()
            derained = rainy if run is None else run(rainy)
            seconds = time.perf_counter() - start
            picture, target = to_picture(derained[0]), to_picture(sample["gt"])
            scored = {
                what: float(metric(picture, target, channel_order="rgb"))
                for what, metric in PROTOCOLS[pictures.protocol].items()
            }
            content = encode_png(picture)
        except Exception as error:  # of the libraries that read pictures
            if run is not None and not works and not result.names:
                raise UserError(line_of(error, f"{dataset.paths[index]['lq_path']} of {pictures.name}")) from error
            bad[index] = line_of(error, dataset.paths[index]["lq_path"])
            continue
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        for what, value in {**scored, "seconds": seconds}.items():
            getattr(result, what).append(value)
        result.names.append(name)
        result.at.append(index)
    return result


def run_network(
    net: nn.Module, rainy: torch.Tensor, *, val: dict[str, Any], habits: Habits, device: torch.device, autocast: bool
) -> torch.Tensor:
    """Derain (1, 3, H, W) RGB in [0, 1], on the CPU as the result is; returns when the device is done.

    Raises:
        UserError: the result is not finite.
    """
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        derained = infer(net, rainy.to(device), **inference_options(val, habits))
        derained = derained.float().cpu()
    if not bool(derained.isfinite().all()):
        raise UserError("the network returns NaN or infinite values; its weights are damaged, or diverged in training")
    return derained


def count_macs(net: nn.Module) -> int:
    """Count multiply-accumulates for a picture of MACS_AT x MACS_AT, of convolutions and matrix products."""
    net = copy.deepcopy(net).requires_grad_(False)  # the counter refuses gradients
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    with FakeTensorMode(allow_non_fake_inputs=True), counter, torch.no_grad():  # shapes only, nothing is computed
        restore(net, torch.empty(1, 3, MACS_AT, MACS_AT))
    return counter.get_total_flops() // 2
