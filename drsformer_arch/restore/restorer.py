"""Derain pictures in memory: weights in, pictures in, pictures out, whatever their size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from drsformer_arch.archs.contract import contract_of
from drsformer_arch.fast import dtype_of
from drsformer_arch.images.tensors import to_picture, to_tensor
from drsformer_arch.restore.inference import in_tiles, infer
from drsformer_arch.restore.networks import load_network
from drsformer_arch.restore.onnx_program import OnnxProgram
from drsformer_arch.restore.tiling import inference_form
from drsformer_arch.restore.weights import DEFAULT, SHIPPED_HABITS, Habits, find_weights, is_shipped
from drsformer_arch.restore.working_scale import Scale, at_scale, automatic_scale, parse_scale
from drsformer_arch.system import processor
from drsformer_arch.system.devices import choose_device
from drsformer_arch.system.errors import UserError, is_out_of_memory

if TYPE_CHECKING:
    from drsformer_arch.images.pictures import Picture

Precision = Literal["float32", "bf16"]
Runtime = Literal["torch", "onnx"]
ONNX = ".onnx"
SMALLEST_TILE = 64
SHARE_OF_FREE_MEMORY = 0.7


class Restorer:
    """A network with its weights that derains pictures.

        restorer = Restorer()  # or Restorer("net_g_latest.pth")
        derained = restorer(rainy)  # (H, W, 3) RGB, uint8 or uint16; gray (H, W) and (H, W, 1) stay gray
        restorer = Restorer(net)  # a torch.nn.Module of anybody's; its `contract`, if any, says what it takes

    Networks for gray pictures take those only.

    Args:
        weights: a checkpoint, own or published, or the name of shipped weights; the network is recognised from it. Or
            a file that `drsformer export` wrote as ONNX, or a network, which is copied with the weights that it has.
            Default: DRSformer-S, which is shipped.
        device: default: the GPU where there is one.
        precision: "bf16" computes features in bfloat16: faster where the hardware has it, far slower on CPUs without
            AVX-512; results differ slightly.
        tile: longest side of tiles in pixels; 0 takes whole pictures, "auto" whole ones where memory allows and tiles
            elsewhere. Tiles change the result a little, as the networks look at all pixels they are given; with shipped
            weights for the better, so that "auto" is 320 or less, but not with `published_inference`.
        overlap: pixels that neighbouring tiles share and blend over; default: 32, with shipped weights 64.
        scale: of the sides at which rain is looked for, above 0 and at most 1; what is found is enlarged and taken from
            the picture. "auto" halves it with shipped weights until no more than 2.5 megapixels are left, and is 1 with
            others and with `published_inference`.
        memory: bytes that "auto" may use; default: 70 % of what is free.
        ensemble: take the mean over the eight symmetries of each picture, which takes eight times as long; with shipped
            weights over four, as they know rain only as it falls.
        published_inference: run the network as its authors did for their scores, where its `contract` says how.
        fast: compute in the fused form, where the network has one; else what its file says, slower.
        runtime: what computes, PyTorch or ONNX Runtime; default: as the kind of file says.
        param_key: which weights of the checkpoint, "params" or "params_ema"; default: the averaged ones if there are.

    Attributes:
        used_tiles: whether a picture was computed in tiles so far, other than those of shipped weights.
        smallest_scale: at which a picture was derained so far.

    Raises:
        UserError: weights that cannot be used, or another scale.
    """

    def __init__(
        self,
        weights: Path | str | nn.Module = DEFAULT,
        *,
        device: torch.device | str | None = None,
        precision: Precision = "float32",
        tile: int | Literal["auto"] = "auto",
        overlap: int | None = None,
        scale: Scale = "auto",
        memory: int | None = None,
        ensemble: bool = False,
        published_inference: bool = False,
        fast: bool = True,
        runtime: Runtime | None = None,
        param_key: str | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.ensemble, self.published_inference = ensemble, published_inference
        self.used_tiles, self.smallest_scale = False, 1.0
        self.scale = parse_scale(scale)
        path = Path(type(weights).__name__) if isinstance(weights, nn.Module) else find_weights(weights)
        shipped = is_shipped(path)
        self._habits = SHIPPED_HABITS if shipped else Habits()
        self._scales_by_itself = shipped and not published_inference
        self._own_tile = 0 if published_inference else self._habits.tile
        self.tile, self.memory = tile, memory
        self.overlap = self._habits.overlap if overlap is None else overlap
        if (path.suffix == ONNX) != ((runtime or path.suffix.lstrip(".")) == "onnx"):
            raise UserError(f"{path}: the runtime onnx takes the .onnx files of drsformer export, and only it does")
        self.net: Any
        if path.suffix == ONNX:
            if precision != "float32":
                raise UserError(f"{path}: an ONNX file has its precision, float32; use --precision with other weights")
            self.net, self.autocast = OnnxProgram(path, self.device), False
        else:
            net = _inference_copy(weights) if isinstance(weights, nn.Module) else load_network(path, param_key)
            self.net, self.autocast = inference_form(net.to(self.device), bf16=precision == "bf16", fast=fast)
        self.channels = contract_of(self.net).picture_channels
        if self.channels not in (1, 3):
            raise UserError(
                f"{path}: a network for pictures of {self.channels} channels; those of gray (1) and colour (3) are used"
            )

    def __call__(self, picture: Picture) -> Picture:
        """Derain one picture, see `batch`."""
        return self.batch([picture])[0]

    def batch(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Derain pictures of equal size together.

        Args:
            pictures: (H, W, 3) RGB, or gray as (H, W) or (H, W, 1); uint8 or uint16. For a network that takes colour,
                gray ones count as R = G = B, and the mean of their results is returned.

        Returns:
            Pictures of the same shapes and types.

        Raises:
            ValueError: other shapes or types, or pictures of different sizes.
            UserError: not even the smallest tile fits the memory, a picture in colour for a network for gray ones, or
                the network returns NaN or infinite values.
            MemoryError, RuntimeError: the pictures themselves do not fit the memory.
        """
        rainy = torch.stack([_to_tensor(picture, self.channels) for picture in pictures])
        scale = self._scale_for(*rainy.shape[-2:])
        derained = at_scale(self._with_smaller_and_smaller_tiles, rainy, scale)
        self.smallest_scale = min(self.smallest_scale, scale)
        if not bool(derained.isfinite().all()):
            raise UserError(
                "the network returns NaN or infinite values; its weights are damaged, or diverged in training"
            )
        return [_like(picture, result) for picture, result in zip(pictures, derained, strict=True)]

    def describe(self) -> str:
        """Say in one line which network computes, where and how."""
        if isinstance(self.net, OnnxProgram):
            return f"{self._name()} by ONNX Runtime on {self.device}, float32"
        parameters = sum(value.numel() for value in self.net.state_dict().values()) / 1e6
        bf16 = self.autocast or dtype_of(self.net) is torch.bfloat16
        precision = "bf16" if bf16 else "float32"
        return f"{self._name()} ({parameters:.2f} M parameters) on {self.device}, {precision}"

    def note_on_tiles(self) -> str | None:
        """Say in one line that tiles changed results; None where they did not, or nobody knows."""
        why = contract_of(self.net).sees_all_pixels
        if not self.used_tiles or why is None:
            return None
        return f"tiles change the results of {self._name()}, which looks at whole pictures ({why})"

    def note_on_scale(self) -> str | None:
        """Say in one line that pictures were derained at a smaller size; None where they were not."""
        if self.smallest_scale == 1:
            return None
        return f"rain was looked for in large pictures at {self.smallest_scale:.3g} of their size"

    def _name(self) -> str:
        program = isinstance(self.net, OnnxProgram)
        return str(self.net.network["type"]) if program else type(self.net).__name__

    def _scale_for(self, height: int, width: int) -> float:
        if self.scale != "auto":
            return self.scale
        return automatic_scale(height, width) if self._scales_by_itself else 1.0

    def _with_smaller_and_smaller_tiles(self, rainy: torch.Tensor) -> torch.Tensor:
        """Derain (N, 3, H, W), RGB in [0, 1]; pictures stay on the CPU where they are computed in tiles."""
        tile = self.tile if self.tile != "auto" else self._tile_that_fits(rainy)
        while True:
            try:
                return self._derain(rainy, tile)
            except (RuntimeError, MemoryError) as error:
                if self.tile != "auto" or not is_out_of_memory(error):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            tile = (tile or max(rainy.shape[-2:])) // 2
            if tile < SMALLEST_TILE:
                raise UserError("not even a tile of 64x64 pixels fits the memory")

    def _derain(self, rainy: torch.Tensor, tile: int) -> torch.Tensor:
        overlap = min(self.overlap, tile // 4) if tile else 0
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            derained = infer(
                self.net,
                rainy,
                as_published=self.published_inference,
                ensemble=self.ensemble,
                upright=self._habits.upright,
                tile=tile,
                overlap=overlap,
                device=self.device,
            ).float()
        height, width = rainy.shape[-2:]
        tiled = in_tiles(contract_of(self.net), height, width, tile, as_published=self.published_inference)
        self.used_tiles |= tiled and tile != self._own_tile
        return derained

    def _tile_that_fits(self, rainy: torch.Tensor) -> int:
        """Choose the side of tiles by the weights and the free memory; 0 for whole pictures."""
        count, _, height, width = rainy.shape
        free = self.memory or int(SHARE_OF_FREE_MEMORY * processor.free_memory(self.device))
        pixels = free // (count * contract_of(self.net).bytes_per_pixel)
        fits = 0 if height * width <= pixels else max(int(pixels**0.5) // 8 * 8, SMALLEST_TILE)
        return min(fits or self._own_tile, self._own_tile or fits)


def _inference_copy(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).eval().requires_grad_(False)


def _to_tensor(picture: Picture, channels: int) -> torch.Tensor:
    """Convert a picture to (channels, H, W), float32 in [0, 1]."""
    if picture.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a picture must be uint8 or uint16, not {picture.dtype}")
    planes = picture[..., None] if picture.ndim == 2 else picture
    if planes.ndim != 3 or planes.shape[2] not in (1, 3) or 0 in planes.shape:
        raise ValueError(f"a picture must be (H, W), (H, W, 1) or (H, W, 3), not {picture.shape}")
    if planes.shape[2] > channels:
        raise UserError(
            "this is a picture in colour, the weights are of a network for gray ones; convert it, or use others"
        )
    return to_tensor(planes)[:channels]


def _like(picture: Picture, result: torch.Tensor) -> Picture:
    """Convert (C, H, W) in [0, 1] to the shape and type of the picture, rounded."""
    if picture.ndim == 2 or picture.shape[2] == 1:
        result = result.clamp(0, 1).mean(dim=0, keepdim=True)
    return to_picture(result, picture.dtype).reshape(picture.shape)
