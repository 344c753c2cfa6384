"""Networks as their papers write them, one file each: torch and einops only; they know nothing of options or data."""

from drsformer_arch.archs.contract import RestorationNetwork
from drsformer_arch.archs.drsformer_arch import DRSformer
from drsformer_arch.archs.dualgcn_arch import DualGCN
from drsformer_arch.archs.idt_arch import IDT
from drsformer_arch.archs.restormer_arch import Restormer
from drsformer_arch.archs.spdnet_arch import SPDNet

# Registered with BasicSR and recognised in checkpoints; a new network is imported above and named here.
NETWORKS: tuple[type[RestorationNetwork], ...] = (DRSformer, Restormer, IDT, SPDNet, DualGCN)

__all__ = ["IDT", "NETWORKS", "DRSformer", "DualGCN", "Restormer", "SPDNet"]
