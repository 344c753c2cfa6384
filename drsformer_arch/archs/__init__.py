"""Networks as their papers write them, one file each: torch and einops only; they know nothing of options or data."""

from drsformer_arch.archs.contract import RestorationNetwork
from drsformer_arch.archs.drsformer_arch import DRSformer
from drsformer_arch.archs.dualgcn_arch import DualGCN
from drsformer_arch.archs.fadformer_arch import FADformer
from drsformer_arch.archs.idt_arch import IDT
from drsformer_arch.archs.nerdrain_arch import NeRDRain
from drsformer_arch.archs.restormer_arch import Restormer
from drsformer_arch.archs.sfhformer_arch import SFHformer
from drsformer_arch.archs.spdnet_arch import SPDNet

# Registered with BasicSR and recognised in checkpoints; a new network is imported above and named here.
NETWORKS: tuple[type[RestorationNetwork], ...] = (
    DRSformer,
    Restormer,
    IDT,
    SPDNet,
    DualGCN,
    NeRDRain,
    SFHformer,
    FADformer,
)

__all__ = [
    "IDT",
    "NETWORKS",
    "DRSformer",
    "DualGCN",
    "FADformer",
    "NeRDRain",
    "Restormer",
    "SFHformer",
    "SPDNet",
]
