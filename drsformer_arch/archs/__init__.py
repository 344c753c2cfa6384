"""Networks: torch only; they know nothing of options, data or files."""

from .drsformer_arch import DRSformer
from .dualgcn_arch import DualGCN
from .idt_arch import IDT
from .restormer_arch import Restormer
from .spdnet_arch import SPDNet

# Registered with BasicSR and recognised in checkpoints; a new network is imported above and named here.
NETWORKS = (DRSformer, Restormer, IDT, SPDNet, DualGCN)

__all__ = ["IDT", "NETWORKS", "DRSformer", "DualGCN", "Restormer", "SPDNet"]
