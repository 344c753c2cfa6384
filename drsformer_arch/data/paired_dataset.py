"""Pairs of rainy and clean pictures from folders or BasicSR's LMDB."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from drsformer_arch import basicsr_fixes  # noqa: F401 - makes BasicSR importable, in worker processes too
from drsformer_arch.errors import UserError
from drsformer_arch.options import check_section, translate_dataset

# isort: split
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import FileClient, get_root_logger


class PairedRainDataset(PairedImageDataset):
    """BasicSR's PairedImageDataset for pairs of equal size, with every fault named.

    Reads the same options (`dataroot_lq`, `dataroot_gt`, `io_backend`, `filename_tmpl`, `gt_size`, `use_hflip`,
    `use_rot`); crops before converting to float; pictures of different sizes are an error instead of being cut, and
    an unknown option is an error instead of being ignored.

    Samples: `lq` and `gt` (3, H, W) float32 RGB in [0, 1], `lq_path`, `gt_path`. Training draws a random crop and one
    of 8 symmetries from Python's global generator.

    Raises:
        UserError: missing or empty folders, pairs that do not match, unreadable pictures, patches that do not fit.
    """

    file_client: FileClient | None

    def __init__(self, opt: dict[str, Any]) -> None:
        for message in translate_dataset(opt):
            get_root_logger().info(message)
        check_section("datasets", opt, f"data set {opt.get('name', '')}")
        if opt.get("dataroot_gt") is None:
            raise UserError(f"data set {opt['name']}: option dataroot_gt is missing")
        if opt["io_backend"]["type"] not in ("disk", "lmdb"):
            raise UserError(f"data set {opt['name']}: io_backend.type must be disk or lmdb")
        opt.setdefault("use_hflip", True)
        opt.setdefault("use_rot", True)
        opt["io_backend"] = dict(opt["io_backend"])
        for key in ("dataroot_lq", "dataroot_gt"):
            opt[key] = str(opt[key]).rstrip("/")
            if not os.path.isdir(opt[key]):
                raise UserError(f"data set {opt['name']}: {key}: there is no folder {opt[key]}")
            if opt["io_backend"]["type"] == "lmdb" and not Path(opt[key], "meta_info.txt").exists():
                raise UserError(f"data set {opt['name']}: {key}: {opt[key]} is no LMDB of BasicSR (no meta_info.txt)")
        try:
            super().__init__(opt)
        except (AssertionError, ValueError) as error:
            raise UserError(f"data set {opt['name']}: {str(error).splitlines()[0]}") from error
        self.paths.sort(key=lambda pair: pair["lq_path"])
        if not self.paths:
            raise UserError(f"data set {opt['name']} is empty: no pictures in {opt['dataroot_lq']}")

    def __getstate__(self) -> dict[str, Any]:
        # An opened LMDB cannot be sent to a worker process; each opens its own.
        return {**self.__dict__, "file_client": None}

    def _read(self, path: str, kind: str) -> np.ndarray:
        if self.file_client is None:
            backend = {key: value for key, value in self.io_backend_opt.items() if key != "type"}
            self.file_client = FileClient(self.io_backend_opt["type"], **backend)
        content = self.file_client.get(path, kind)
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            folder = self.lq_folder if kind == "lq" else self.gt_folder
            where = f"{folder}, key {path}" if self.io_backend_opt["type"] == "lmdb" else path
            raise UserError(f"data set {self.opt['name']}: cannot decode the picture {where}")
        return picture

    def __getitem__(self, index: int) -> dict[str, Any]:
        lq_path, gt_path = self.paths[index]["lq_path"], self.paths[index]["gt_path"]
        lq, gt = self._read(lq_path, "lq"), self._read(gt_path, "gt")
        if lq.shape != gt.shape:
            raise UserError(
                f"data set {self.opt['name']}: {lq_path} is {lq.shape[1]}x{lq.shape[0]} but its target {gt_path} is "
                f"{gt.shape[1]}x{gt.shape[0]} pixels"
            )
        if self.opt["phase"] == "train":
            size = int(self.opt["gt_size"])
            if min(lq.shape[:2]) < size:
                shape = f"{lq.shape[1]}x{lq.shape[0]}"
                raise UserError(f"data set {self.opt['name']}: {lq_path} is {shape}, smaller than gt_size {size}")
            gt, lq = paired_random_crop(gt, lq, size, 1, gt_path)
            gt, lq = augment([gt.copy(), lq.copy()], self.opt["use_hflip"], self.opt["use_rot"])
        return {"lq": _to_tensor(lq), "gt": _to_tensor(gt), "lq_path": lq_path, "gt_path": gt_path}


class Dataset_PairedImage(PairedRainDataset):
    """`PairedRainDataset` under the published fork's name."""


def _to_tensor(bgr: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 BGR → (3, H, W) float32 RGB in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1))).float().div_(255)
