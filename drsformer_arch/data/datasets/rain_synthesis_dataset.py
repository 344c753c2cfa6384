"""Pairs made on the fly: clean pictures in, rain drawn on them in the worker processes."""

import random
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable, in worker processes too
from drsformer_arch.data.datasets import samples
from drsformer_arch.data.datasets.sources import Paths, open_pictures
from drsformer_arch.images.tensors import to_tensor
from drsformer_arch.options import dataset_sections
from drsformer_arch.options.dataset_sections import section_of
from drsformer_arch.rain.drawn_scenes import draw_scene
from drsformer_arch.rain.rain_presets import RainParameters
from drsformer_arch.rain.rain_synthesis import add_rain
from drsformer_arch.system.errors import UserError


class RainSynthesisDataset(Dataset[Any]):
    """Clean pictures with synthetic rain, drawn anew for every sample from its seed.

    Options: `dataroot_gt`, a folder of clean pictures, an LMDB in BasicSR's layout, or a store, of which the clean
    pictures are taken; `presets`, one name of `rain_presets.PRESETS`, a list of them, or names with weights
    (default: `rain_presets.RAINS`); `gt_size`, `use_hflip`, `use_rot`, `partial`, `stage` as in `PairedRainDataset`;
    `resize`, two factors between which training resizes a picture before it rains; `drawn_scenes`, the share of
    training samples in which `drawn_scenes.draw_scene` puts lines, text, grass, hair or walls in the picture's place
    or in front of it.

    Samples: as of `PairedRainDataset`. Training draws everything from Python's global generator; in other phases the
    whole picture gets rain that depends on its index and `rain_seed` alone, so that scores can be compared.

    Raises:
        UserError: missing or empty sources, unreadable pictures.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt, self._section = opt, section_of(opt, dataset_sections.RainSynthesisDataset)
        presets: Any = self._section.presets
        weights = (
            presets
            if isinstance(presets, dict)
            else dict.fromkeys([presets] if isinstance(presets, str) else presets, 1)
        )
        self._presets, self._weights = list(weights), list(weights.values())
        try:
            self._pictures = open_pictures(
                self._section.dataroot_gt, partial=self._section.partial, stage=self._section.stage
            )
        except UserError as error:
            raise UserError(f"data set {opt['name']}: {error}") from error
        self.paths = Paths(self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self._pictures.name(index)
        try:
            picture = self._pictures.picture(index)
        except UserError as error:
            raise UserError(f"data set {self.opt['name']}: {error}") from error
        if self.opt["phase"] == "train":
            section = self._section
            flips = {"use_hflip": section.use_hflip, "use_rot": section.use_rot}
            # Symmetry comes before the rain: transposed rain would fall sideways.
            clean = samples.draw_patch(picture.shape, section.gt_size, section.resize, **flips)(picture)
            clean = np.ascontiguousarray(clean)
            rng = np.random.default_rng(random.getrandbits(64))
            if "drawn_scenes" in section.model_fields_set and rng.random() < section.drawn_scenes:
                clean = draw_scene(rng, clean)
        else:
            clean = picture[samples.WHOLE]
            rng = np.random.default_rng([self._section.rain_seed, index])
        chosen = self._presets[rng.choice(len(self._presets), p=np.array(self._weights) / sum(self._weights))]
        rainy = add_rain(np.broadcast_to(clean, (*clean.shape[:2], 3)), rng, RainParameters.sample(rng, chosen))
        return {"lq": to_tensor(rainy), "gt": to_tensor(clean), "lq_path": path, "gt_path": path}
