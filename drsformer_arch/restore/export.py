"""Write networks for other programs: ONNX, torch.export and safetensors, checked before they get their name."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from drsformer_arch import __version__
from drsformer_arch.archs.contract import contract_of
from drsformer_arch.fast import fuse
from drsformer_arch.restore.file_kinds import SAFETENSORS
from drsformer_arch.restore.networks import build_network, network_of
from drsformer_arch.restore.onnx_file import CHECKSUM, INPUT, OUTPUT, seal
from drsformer_arch.restore.onnx_program import OnnxProgram, import_onnxruntime
from drsformer_arch.restore.tiling import forward_scaled, pad_to_multiple
from drsformer_arch.restore.weights import save_safetensors
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import atomic_path, is_stream

SMALLEST = 16  # side in pixels of the pictures that exported networks take, where they have no size of their own
RELATIVE_ERROR = 1e-4  # that an exported network may differ from the original by
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": SAFETENSORS}
CHECKED = ((1, 64, 64), (2, 61, 83), (3, 128, 40))  # number, height, width; the last two are not the example's
CHECKED_PATCHES = (1, 2, 3)  # of networks for one size


class ForPictures(nn.Module):
    """A network that takes RGB in [0, 1] and returns its best picture.

    Args:
        net: in a form that is one graph.
        pads: take any size; otherwise height and width must be multiples of `step`.
    """

    def __init__(self, net: nn.Module, *, pads: bool) -> None:
        super().__init__()
        self.net, self.contract = net, contract_of(net)
        self.multiple, self.value_range = self.contract.size_multiple, self.contract.value_range
        self.step = 1 if pads else self.multiple

    def forward(self, rainy: Tensor) -> Tensor:
        """Derain rainy, (N, 3, H, W) in [0, 1], to the same shape, not clamped; H and W are at least 16."""
        if self.step == self.multiple:
            return forward_scaled(self.net, rainy, self.value_range)[0]
        height, width = rainy.shape[-2:]
        padded = pad_to_multiple(rainy, self.multiple)
        return forward_scaled(self.net, padded, self.value_range)[0][..., :height, :width]


class Exported(NamedTuple):
    """An exported network."""

    path: Path
    network: dict[str, Any]  # `type` and arguments
    error: float | None  # largest difference to the network in PyTorch relative to its largest value, where it runs


def export(
    weights: Path | str, out: Path, kind: str, *, param_key: str | None = None, notes: Mapping[str, str] | None = None
) -> Exported:
    """Write a network as a file for other programs.

    An exported network takes `rainy`, (N, 3, H, W) float32, RGB in [0, 1], and returns `derained` of the same shape,
    not clamped. N, H and W are free, H and W at least 16; IDT has one size only. Programs of torch.export take
    multiples of the network's size multiple. `type` and arguments of the network are in the file.

    Args:
        weights: a checkpoint, own or published, or the name of shipped weights.
        out: what to write; there is the old file or the new one, never a part.
        kind: "onnx", "torch" (a program of torch.export) or "safetensors" (weights only).
        param_key: which weights of the checkpoint, "params" or "params_ema"; default: the averaged ones if there are.
        notes: further metadata, such as the data and the licence of the weights; not "network", which is ours.

    Raises:
        UserError: weights that cannot be used, a missing package, a network that is not the same after export.
        OSError: the folder is not writable, the disk is full.
    """
    if out.suffix != SUFFIXES[kind] and not is_stream(out):
        raise UserError(f"{out}: the name of this kind of file must end with {SUFFIXES[kind]}")
    notes = notes or {}
    if reserved := notes.keys() & {*metadata({}), CHECKSUM}:
        raise UserError(f"the note {min(reserved)} has its meaning already; give it another name")
    section, state = network_of(weights, param_key)
    net = build_network(section, state, weights)  # also refuses what does not fit
    if kind == "onnx" and (reason := contract_of(net).not_as_onnx):
        raise UserError(f"{section['type']} is not exported as ONNX: {reason}; write .pt2 or .safetensors")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "safetensors":
        save_safetensors(out, net.state_dict(), section, **notes)
        return Exported(out, section, None)
    # Tiles are loops over sizes, which a graph for all sizes cannot hold.
    program = ForPictures(fuse(net, tile=0), pads=kind == "onnx").eval()
    write, load = KINDS[kind]
    with atomic_path(out, SUFFIXES[kind]) as unchecked:
        write(program, unchecked, {**metadata(section), **notes})
        error = largest_error(program, load(unchecked))
        if not error < RELATIVE_ERROR:
            name = section["type"]
            raise UserError(f"{name} is not the same after its export: relative error {error:.1e}; nothing was written")
    return Exported(out, section, error)


def metadata(section: Mapping[str, Any]) -> dict[str, str]:
    """Write down what a file says about its network."""
    return {
        "network": json.dumps(section),
        "drsformer_version": __version__,
        "pictures": "RGB in [0, 1], (N, 3, H, W), float32",
    }


def _example(program: ForPictures) -> tuple[Tensor, dict[int, Any]]:
    """Make a picture to trace the graph with, and say which of its dimensions are free."""
    side, channels, step = program.contract.patch_size, program.contract.picture_channels, program.step
    free: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if side:
        return torch.rand(2, channels, side, side), free
    for axis, name in ((2, "height"), (3, "width")):
        size = torch.export.Dim(name, min=max(SMALLEST // step, 1))
        free[axis] = size if step == 1 else step * size
    # Sizes that are no multiples where any will do: a graph traced with others would leave the padding out.
    return torch.rand(2, channels, *((77, 93) if step == 1 else (10 * step, 12 * step))), free


def write_onnx(program: ForPictures, path: Path, notes: Mapping[str, str]) -> None:
    """Write an ONNX file with notes and a checksum; nothing is checked.

    Raises:
        UserError: a package is missing.
    """
    import_onnxruntime()
    picture, free = _example(program)
    with _quiet():
        onnx = torch.onnx.export(
            program,
            (picture,),
            dynamic_shapes=(free,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            verbose=False,
        )
    assert onnx is not None
    onnx.model.metadata_props.update(notes)
    onnx.save(path)
    seal(path)


def _write_torch(program: ForPictures, path: Path, notes: Mapping[str, str]) -> None:
    picture, free = _example(program)
    with _quiet():
        exported = torch.export.export(
            program, (picture,), dynamic_shapes=(free,), prefer_deferred_runtime_asserts_over_guards=True
        )
    torch.export.save(exported, path, extra_files=dict(notes))


def _load_torch(path: Path) -> nn.Module:
    return torch.export.load(path).module()


KINDS: dict[str, tuple[Callable[[ForPictures, Path, Mapping[str, str]], None], Callable[[Path], Any]]] = {
    "onnx": (write_onnx, OnnxProgram),
    "torch": (_write_torch, _load_torch),
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence exporters: they report each step and warn of their internals; what matters is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def largest_error(program: ForPictures, other: Callable[[Tensor], Tensor]) -> float:
    """Measure the largest difference of two networks at three sizes, relative to the largest value of the result."""
    side, channels = program.contract.patch_size, program.contract.picture_channels

    def legal(length: int) -> int:
        return max(length // program.step, 1) * program.step

    shapes = [(n, side, side) for n in CHECKED_PATCHES] if side else [(n, *map(legal, size)) for n, *size in CHECKED]
    generator = torch.Generator().manual_seed(0)
    errors = []
    with torch.inference_mode():
        for number, height, width in shapes:
            rainy = torch.rand(number, channels, height, width, generator=generator)
            expected = program(rainy)
            errors.append(((other(rainy) - expected).abs().max() / expected.abs().max()).item())
    return max(errors)
