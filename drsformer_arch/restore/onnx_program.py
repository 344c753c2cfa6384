"""Run networks that `drsformer export` wrote in ONNX Runtime."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drsformer_arch.archs.contract import Contract, contract_of
from drsformer_arch.restore.networks import kind_of
from drsformer_arch.restore.onnx_file import INPUT, OUTPUT, read_onnx
from drsformer_arch.restore.outline import outline
from drsformer_arch.system import packages
from drsformer_arch.system.errors import LONGEST_REASON, UserError, is_out_of_memory, line_of

MEMORY = 2  # at most, of what the network in PyTorch takes; measured
TRIAL = 16  # side in pixels of the picture that every program is tried with, where it has no size of its own


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        UserError: it or a package that the export needs is not installed.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - optional
        import onnxscript  # noqa: F401, PLC0415 - optional
    except ImportError as error:
        raise UserError(packages.missing(error) or line_of(error, "ONNX Runtime does not import")) from error
    return onnxruntime


class OnnxProgram:
    """An exported network, called like the original: (N, C, H, W), RGB in [0, 1], to the same shape.

    Its contract is the original's but for the value range, which is 1, and for the memory.

    Args:
        path: a file that `export` wrote.
        device: a GPU is used where ONNX Runtime can.

    Raises:
        UserError: no such file, one that `read_onnx` refuses, one that does not do what it says, or ONNX Runtime is
            missing.
    """

    def __init__(self, path: Path | str, device: torch.device | str = "cpu") -> None:
        onnxruntime = import_onnxruntime()
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"there is no file {path}")
        content, self.network, picture = read_onnx(self.path)
        kind, arguments = kind_of(self.network, path)
        original = outline(kind, arguments, f"{path}: network")
        promised = contract_of(original)
        self.contract: Contract = dataclasses.replace(
            promised, value_range=1.0, bytes_per_pixel=MEMORY * promised.bytes_per_pixel
        )
        channels, side = promised.picture_channels, promised.patch_size
        if picture != (channels, side, side):
            given, wanted = ("x".join(str(one or "any") for one in part) for part in (picture, (channels, side, side)))
            raise UserError(f"{path}: it takes pictures of {given}, its network {kind.__name__} {wanted} (C, H, W)")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what is fatal; errors are raised
        gpu = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
        providers = [name for name in (*gpu, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)
        except Exception as error:  # of many kinds without a common base
            raise UserError(f"ONNX Runtime cannot use {path}: {_first_line(error)}") from error
        self(torch.zeros(1, channels, side or TRIAL, side or TRIAL))

    def __call__(self, rainy: Tensor) -> Tensor:
        """Derain rainy, (N, C, H, W), to the same shape, on the CPU.

        Raises:
            MemoryError: there is not enough.
            UserError: the program fails, or returns something else.
        """
        try:
            result = self.session.run([OUTPUT], {INPUT: rainy.float().cpu().numpy()})[0]
        except Exception as error:  # of many kinds without a common base
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise UserError(f"{self.path} fails in ONNX Runtime: {_first_line(error)}") from error
        if result.shape != rainy.shape:
            raise UserError(f"{self.path} makes {result.shape} of pictures {tuple(rainy.shape)}, not the same shape")
        return torch.from_numpy(result)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:LONGEST_REASON]
