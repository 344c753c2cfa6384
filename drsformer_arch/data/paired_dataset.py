"""Pairs of rainy and clean pictures from folders or BasicSR's LMDB."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from drsformer_arch import basicsr_fixes  # noqa: F401 - makes BasicSR importable, in worker processes too
from drsformer_arch.errors import UserError
from drsformer_arch.options import check_section, translate_dataset

# isort: split
from basicsr.data.data_util import paired_paths_from_lmdb
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import FileClient, get_root_logger, scandir


class PairedRainDataset(Dataset):
    """What BasicSR's PairedImageDataset does, for pairs of equal size and with every fault named.

    Reads its options (`dataroot_lq`, `dataroot_gt`, `io_backend`, `filename_tmpl`, `gt_size`, `use_hflip`,
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
        self.opt = opt
        self.io_backend_opt = opt["io_backend"]
        self.lq_folder, self.gt_folder = opt["dataroot_lq"], opt["dataroot_gt"]
        self.file_client = None
        if opt["io_backend"]["type"] == "lmdb":
            self.io_backend_opt |= {"db_paths": [self.lq_folder, self.gt_folder], "client_keys": ["lq", "gt"]}
            try:
                self.paths = paired_paths_from_lmdb([self.lq_folder, self.gt_folder], ["lq", "gt"])
            except ValueError as error:
                raise UserError(f"data set {opt['name']}: {str(error).splitlines()[0]}") from error
        else:
            self.paths = self._pair_folders(opt.get("filename_tmpl", "{}"))
        if not self.paths:
            raise UserError(f"data set {opt['name']} is empty: no pictures in {opt['dataroot_lq']}")

    def _pair_folders(self, template: str) -> list[dict[str, str]]:
        """Pairs by file name; BasicSR searches a list for every name, which takes an hour for 600,000 pairs."""
        lq_names, gt_names = set(scandir(self.lq_folder)), sorted(scandir(self.gt_folder))
        if len(lq_names) != len(gt_names):
            raise UserError(
                f"data set {self.opt['name']}: {len(lq_names)} pictures in {self.lq_folder} but {len(gt_names)} in "
                f"{self.gt_folder}"
            )
        pairs = []
        for gt_name in gt_names:
            stem, extension = os.path.splitext(gt_name)
            lq_name = template.format(stem) + extension
            if lq_name not in lq_names:
                raise UserError(f"data set {self.opt['name']}: {self.lq_folder} has no {lq_name} for {gt_name}")
            pairs.append(
                {"lq_path": os.path.join(self.lq_folder, lq_name), "gt_path": os.path.join(self.gt_folder, gt_name)}
            )
        return pairs

    def __len__(self) -> int:
        return len(self.paths)

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
