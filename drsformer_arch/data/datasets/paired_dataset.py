"""Pairs of rainy and clean pictures from stores, folders or BasicSR's LMDB."""

from typing import Any

from torch.utils.data import Dataset

from drsformer_arch.data.datasets import samples
from drsformer_arch.data.datasets.sources import Pairs, Paths, log, match_pairs, open_pairs
from drsformer_arch.images.tensors import to_tensor
from drsformer_arch.options import dataset_sections
from drsformer_arch.options.dataset_sections import section_of
from drsformer_arch.options.reading import translate_dataset
from drsformer_arch.system.errors import UserError


class PairedRainDataset(Dataset[Any]):
    """Reads pairs of equal size as BasicSR's PairedImageDataset does, without decoding more than a patch needs.

    Options: `dataroot`, a store or a folder with `input` and `target` (or `lq` and `gt`, and the like); or
    `dataroot_lq` and `dataroot_gt`, two folders or two LMDBs in BasicSR's layout, with `filename_tmpl`. Further
    `partial` (accept a store with missing shards), `stage` (copy a store to the node's disk first), `gt_size`,
    `use_hflip`, `use_rot` (upside down and transposed), `use_vflip` (upside down; for `use_rot: false`), and `resize`,
    two factors between which training resizes both pictures of a pair. An unknown option is an error instead of being
    ignored.

    Samples: `lq` and `gt` (3, H, W) float32 RGB in [0, 1], `lq_path`, `gt_path`. Training draws a random crop and one
    of 8 symmetries from Python's global generator, in BasicSR's order; pictures smaller than the patch are reflected.
    Gray pictures become three equal channels, 16 bits keep their depth, alpha is dropped, EXIF turns.

    Raises:
        UserError: missing or empty sources, pairs that do not match, unreadable pictures.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        for message in translate_dataset(opt):
            log(message)
        self.opt, self._section = opt, section_of(opt, dataset_sections.PairedRainDataset)
        try:
            self._pairs = _open(self._section)
        except UserError as error:
            raise UserError(f"data set {opt['name']}: {error}") from error
        if len(self._pairs) == 0:
            raise UserError(f"data set {opt['name']} is empty")
        self.paths = Paths(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        lq_path, gt_path = self._pairs.names(index)
        try:
            lq, gt = self._pairs.pair(index)
        except UserError as error:
            raise UserError(f"data set {self.opt['name']}: {error}") from error
        if lq.shape[:2] != gt.shape[:2]:
            raise UserError(
                f"data set {self.opt['name']}: {lq_path} is {lq.shape[1]}x{lq.shape[0]} but its target {gt_path} is "
                f"{gt.shape[1]}x{gt.shape[0]} pixels"
            )
        if self.opt["phase"] == "train":
            section = self._section
            flips = {"use_hflip": section.use_hflip, "use_rot": section.use_rot, "use_vflip": section.use_vflip}
            patches = list(map(samples.draw_patch(gt.shape, section.gt_size, section.resize, **flips), (lq, gt)))
        else:
            patches = [picture[samples.WHOLE] for picture in (lq, gt)]
        lq_patch, gt_patch = map(to_tensor, patches)
        return {"lq": lq_patch, "gt": gt_patch, "lq_path": lq_path, "gt_path": gt_path}


class Dataset_PairedImage(PairedRainDataset):
    """`PairedRainDataset` under the published fork's name."""


def _open(section: dataset_sections.PairedRainDataset) -> Pairs:
    if section.dataroot is not None:
        return open_pairs(section.dataroot, partial=section.partial, stage=section.stage)
    return match_pairs(section.dataroot_lq, section.dataroot_gt or "", section.filename_tmpl)
