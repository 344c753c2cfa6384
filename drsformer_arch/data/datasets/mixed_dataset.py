"""Several data sets as one, mixed by weight: one model for rain of several kinds."""

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from torch.utils.data import Dataset

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable, in worker processes too
from drsformer_arch.options import dataset_sections
from drsformer_arch.options.dataset_sections import INHERITED, section_of
from drsformer_arch.system.errors import UserError

# isort: split
from basicsr.data import build_dataset


class MixedRainDataset(Dataset[Any]):
    """Draws every training sample from one of several data sets, chosen by weight.

    Options: `sets`, a list of data set sections, each with its `type`, its sources and a `weight` (1): the share of its
    samples in a batch, however large it is. `gt_size`, `use_hflip` and `use_rot` of the mixture hold for sets that do
    not give their own. Its length, and so an epoch, is the sum of their lengths.

    Samples: those of the sets. The set and the picture are drawn from Python's global generator.

    Raises:
        UserError: no sets, or what the sets raise.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        section = section_of(opt, dataset_sections.MixedRainDataset)
        if opt["phase"] != "train":
            raise UserError(f"data set {opt['name']}: a mixture is for training; validate on val_1, val_2, ...")
        self.opt = opt
        inherited = {key: opt[key] for key in INHERITED if key in opt}
        self._sets: list[Any] = []
        for number, part in enumerate(opt["sets"]):
            options = {"name": f"{opt['name']}.sets[{number}]", **inherited, **part}
            options.pop("weight", None)
            self._sets.append(build_dataset(options))
        self._ends = list(accumulate(part.weight for part in section.sets))
        self._sizes: Sequence[int] = [len(part) for part in self._sets]

    def __len__(self) -> int:
        return sum(self._sizes)

    def __getitem__(self, _index: int) -> Any:
        chosen = random.choices(self._sets, cum_weights=self._ends)[0]
        return chosen[random.randrange(len(chosen))]
