"""Make BasicSR importable and register our networks, losses, model, data sets and metrics.

Importing it, however often and in whichever process, repairs what fails in BasicSR and adds names, nothing else:
projects without our classes behave as before. It also hands out BasicSR's pipelines, so that a training script
needs no second import whose order matters:

    from drsformer_arch.plugin import train_pipeline

    if __name__ == "__main__":
        train_pipeline("/where/experiments/go")
"""

import functools
from typing import Any

from drsformer_arch.bridge import importable  # noqa: F401 - first of all: makes BasicSR importable

# isort: split
from basicsr.test import test_pipeline
from basicsr.train import train_pipeline
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)

from drsformer_arch import metrics
from drsformer_arch.archs import NETWORKS
from drsformer_arch.bridge import repairs
from drsformer_arch.data.datasets.mixed_dataset import MixedRainDataset
from drsformer_arch.data.datasets.paired_dataset import Dataset_PairedImage, PairedRainDataset
from drsformer_arch.data.datasets.rain_synthesis_dataset import RainSynthesisDataset
from drsformer_arch.fast.builders import NetworkBuilder
from drsformer_arch.training.derain_model import DerainModel, ImageCleanModel
from drsformer_arch.training.learned_distance import calculate_lpips
from drsformer_arch.training.losses import (
    EdgeLoss,
    FFTLoss,
    FrequencyContrastiveLoss,
    MultiOutputMSELoss,
    NegativeSSIMLoss,
    PSNRLoss,
)

__all__ = ["ARCH_REGISTRY", "OURS", "NetworkBuilder", "register", "test_pipeline", "train_pipeline"]


def for_basicsr(metric: metrics.Metric) -> Any:
    """Let a metric take `better`: BasicSR hands it all keys of its section, also the one that validation reads."""

    @functools.wraps(metric)
    def scored(img: Any, img2: Any, better: str = "higher", **options: Any) -> float:  # noqa: ARG001
        return metric(img, img2, **options)

    return scored


OURS: tuple[tuple[Registry, tuple[Any, ...]], ...] = (
    (ARCH_REGISTRY, tuple(map(NetworkBuilder, NETWORKS))),
    (LOSS_REGISTRY, (NegativeSSIMLoss, MultiOutputMSELoss, PSNRLoss, EdgeLoss, FFTLoss, FrequencyContrastiveLoss)),
    (MODEL_REGISTRY, (DerainModel, ImageCleanModel)),
    (DATASET_REGISTRY, (PairedRainDataset, Dataset_PairedImage, RainSynthesisDataset, MixedRainDataset)),
    (
        METRIC_REGISTRY,
        (
            *(for_basicsr(score) for scores in metrics.PROTOCOLS.values() for score in scores.values()),
            calculate_lpips,
        ),
    ),
)


def register() -> None:
    """Register our names; one that another package holds stays theirs, ours is then NAME_drsformer."""
    for registry, entries in OURS:
        for entry in entries:
            name = entry.__name__
            holder = dict(iter(registry)).get(name)
            if holder is None:
                registry.register(entry)
            elif not repairs.is_ours(holder) and f"{name}_{repairs.SUFFIX}" not in registry:
                registry.register(entry, suffix=repairs.SUFFIX)
                repairs.say_whose_name(name, holder)


repairs.apply()
register()
