"""Run several networks on the same data sets and measure quality and cost, each in a process of its own."""

import copy
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, bmm_flop, sdpa_flop_count
from tqdm import tqdm

from drsformer_arch import processor
from drsformer_arch.data.paired_dataset import PairedRainDataset
from drsformer_arch.data.pictures import encode_png
from drsformer_arch.data.samples import to_picture
from drsformer_arch.files import write_atomically
from drsformer_arch.inference import build_network, inference_form, load_network, read_weights, restore
from drsformer_arch.metrics import PROTOCOLS

INPUT = "rainy input"
MACS_AT = 256  # side in pixels of the picture for which multiplications are counted
Run = Callable[[torch.Tensor], torch.Tensor]
UNCOUNTED = {  # operations that torch's counter does not know
    torch.ops.aten.baddbmm_: lambda _, a, b, **__: bmm_flop(a, b),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
}


class Pictures(NamedTuple):
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
    val: dict[str, Any]  # precision, tile and tile_overlap of an option file
    pictures: tuple[Pictures, ...]


class Settings(NamedTuple):
    """Of a whole comparison."""

    out: Path
    limit: int | None  # of the pictures of a data set, the first ones
    device: str


class Scores(NamedTuple):
    """Of one method on one data set."""

    names: list[str]
    psnr: list[float]  # dB
    ssim: list[float]
    seconds: list[float]  # per picture

    def mean(self, what: str) -> float:
        """Of all pictures."""
        return fmean(getattr(self, what))


class Measured(NamedTuple):
    """A method's results."""

    label: str
    network: str | None  # its type
    parameters: int
    macs: int  # multiplications and additions counted as one, for MACS_AT x MACS_AT
    memory: int  # bytes at the peak beyond what the process held before the first picture
    scores: dict[str, Scores]  # by data set


def measure(methods: Sequence[Method], settings: Settings) -> list[Measured]:
    """Measure all methods one after the other; result pictures go to OUT/pictures/METHOD/DATASET.

    Raises:
        UserError: weights or pictures that cannot be used.
    """
    results = []
    context = multiprocessing.get_context("spawn")
    for method in methods:
        # A new process for each: what one network left in memory must not count for the next.
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            results.append(executor.submit(measure_one, method, settings).result())
    return results


def measure_one(method: Method, settings: Settings) -> Measured:
    """Measure one method in this process."""
    device = torch.device(settings.device)
    if device.type == "cpu":
        processor.tune()
    run, parameters, macs, kind = None, 0, 0, None
    if method.weights is not None:
        net = loaded(method)
        parameters, macs, kind = sum(p.numel() for p in net.parameters()), count_macs(net), type(net).__name__
        net, autocast = inference_form(net.to(device), bf16=method.val.get("precision") == "bf16")
        run = partial(derain, net, val=method.val, device=device, autocast=autocast)
    before = processor.memory_held(device)
    processor.reset_peak_memory(device)  # loading takes more than the weights
    scores = {pictures.name: score(method, run, pictures, settings) for pictures in method.pictures}
    memory = processor.peak_memory(device) - before if run is not None else 0
    return Measured(method.label, kind, parameters, macs, memory, scores)


def loaded(method: Method) -> nn.Module:
    """The method's network on the CPU."""
    assert method.weights is not None
    if method.network is None:
        return load_network(method.weights, method.param_key)
    state = read_weights(method.weights, method.param_key or "params").state
    return build_network(method.network, state, method.weights)


def score(method: Method, run: Run | None, pictures: Pictures, settings: Settings) -> Scores:
    """Restore, time and score the pictures of a data set; without a network they are scored as they are."""
    dataset = PairedRainDataset({**pictures.options, "phase": "val"})
    folder = settings.out / "pictures" / method.label / pictures.name
    folder.mkdir(parents=True, exist_ok=True)
    result = Scores([], [], [], [])
    count = min(len(dataset), settings.limit or len(dataset))
    for index in tqdm(range(count), desc=f"{method.label} on {pictures.name}", delay=2, leave=False):
        sample = dataset[index]
        rainy = sample["lq"][None]
        if index == 0 and run is not None:
            run(rainy)  # the first call is slower than all others
        start = time.perf_counter()
        derained = rainy if run is None else run(rainy)
        seconds = time.perf_counter() - start
        picture, target = to_picture(derained[0]), to_picture(sample["gt"])
        result.names.append(Path(sample["lq_path"]).stem)
        result.seconds.append(seconds)
        for what, metric in PROTOCOLS[pictures.protocol].items():
            getattr(result, what).append(float(metric(picture, target, channel_order="rgb")))
        write_atomically(folder / f"{result.names[-1]}.png", encode_png(picture))
    return result


def derain(
    net: nn.Module, rainy: torch.Tensor, *, val: dict[str, Any], device: torch.device, autocast: bool
) -> torch.Tensor:
    """(1, 3, H, W) RGB in [0, 1] on the CPU → the same; ends when the device is done."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        tile, overlap = int(val.get("tile", 0)), int(val.get("tile_overlap", 32))
        return restore(net, rainy.to(device), tile=tile, overlap=overlap).float().cpu()


def count_macs(net: nn.Module) -> int:
    """Multiply-accumulates for one picture of MACS_AT x MACS_AT, of convolutions and matrix products."""
    net = copy.deepcopy(net).requires_grad_(False)  # the counter refuses gradients
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    with FakeTensorMode(allow_non_fake_inputs=True), counter, torch.no_grad():  # shapes only, nothing is computed
        restore(net, torch.empty(1, 3, MACS_AT, MACS_AT))
    return counter.get_total_flops() // 2
