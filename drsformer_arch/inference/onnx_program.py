"""Networks that `drsformer export` wrote, in ONNX Runtime."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drsformer_arch.archs.restoration_network import declared
from drsformer_arch.errors import UserError
from drsformer_arch.inference.networks import instantiate

INPUT, OUTPUT = "rainy", "derained"


def import_onnxruntime() -> Any:
    """The module of ONNX Runtime.

    Raises:
        UserError: it or a package that the export needs is not installed.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - optional
        import onnxscript  # noqa: F401, PLC0415 - optional
    except ImportError as error:
        raise UserError(f"ONNX needs the package {error.name}: pip install 'drsformer-basicsr[onnx]'") from error
    return onnxruntime


class OnnxProgram:
    """An exported network, called like the original: (N, 3, H, W), RGB in [0, 1], to the same shape.

    It declares what the original declares (`RestorationNetwork`) but for the value range, which is 1.

    Args:
        path: a file that `export` wrote.
        device: a GPU is used where ONNX Runtime can.

    Raises:
        UserError: no such file, not ONNX, not written by `export`, or ONNX Runtime is missing.
    """

    def __init__(self, path: Path | str, device: torch.device | str = "cpu") -> None:
        onnxruntime = import_onnxruntime()
        if not Path(path).is_file():
            raise UserError(f"there is no file {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only
        gpu = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
        providers = [one for one in (*gpu, "CPUExecutionProvider") if one in onnxruntime.get_available_providers()]
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=providers)
            notes = self.session.get_modelmeta().custom_metadata_map
        except Exception as error:  # of many kinds without a common base
            raise UserError(f"{path} is damaged or no ONNX file: {str(error).splitlines()[0]}") from error
        if "network" not in notes:
            raise UserError(f"{path} was not written by drsformer export: it names no network")
        self.network: dict[str, Any] = json.loads(notes["network"])
        original = instantiate(self.network, path)
        for name in ("picture_channels", "size_multiple", "smallest_size", "patch_size", "patch_overlap"):
            setattr(self, name, declared(original, name))
        self.patch_weights = original.patch_weights
        # Measured: a whole picture at once needs six times what a fused network takes, which computes in small tiles.
        self.bytes_per_pixel = declared(original, "bytes_per_pixel") * (6 if hasattr(original, "fused") else 2)

    def __call__(self, rainy: Tensor) -> Tensor:
        """rainy: (N, 3, H, W) → the same shape, on the CPU.

        Raises:
            MemoryError: there is not enough.
        """
        try:
            return torch.from_numpy(self.session.run([OUTPUT], {INPUT: rainy.float().cpu().numpy()})[0])
        except Exception as error:  # of many kinds without a common base
            if "allocate" in str(error):
                raise MemoryError(str(error)) from error
            raise
