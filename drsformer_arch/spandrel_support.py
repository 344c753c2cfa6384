"""Our networks for tools that load models by spandrel (chaiNNer and others); needs the extra `spandrel`.

    import spandrel
    from drsformer_arch import spandrel_support

    spandrel_support.install()
    model = spandrel.ModelLoader().load_from_file("deraining.pth")

Own and published files of all networks load, also safetensors. A model takes pictures of any size.
"""

from torch import nn
from typing_extensions import override

from drsformer_arch.system import packages

try:
    import spandrel
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(packages.missing(error) or str(error), name=error.name) from None

from drsformer_arch.archs import NETWORKS
from drsformer_arch.archs.contract import contract_of
from drsformer_arch.fast import accelerate
from drsformer_arch.restore.networks import build_network, recognise
from drsformer_arch.restore.tiling import restore
from drsformer_arch.restore.weights import without_by_products
from drsformer_arch.system.errors import UserError


class DerainingArchitecture(spandrel.Architecture[nn.Module]):
    """A network for spandrel: one of ours."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__(id=kind.__name__, detect=self._is_mine)
        self.kind = kind

    def _is_mine(self, state_dict: spandrel.StateDict) -> bool:
        recognised = recognise(without_by_products(state_dict))
        return recognised is not None and recognised[0] is self.kind

    @override
    def load(self, state_dict: spandrel.StateDict) -> spandrel.ImageModelDescriptor[nn.Module]:
        """Build the network with its weights.

        Raises:
            UserError: weights of another network.
        """
        state_dict = without_by_products(state_dict)
        recognised = recognise(state_dict)
        if recognised is None:
            raise UserError(f"these weights are not of {self.name}")
        kind, arguments = recognised
        net = accelerate(build_network({"type": kind.__name__, **arguments}, state_dict, "this file"))
        contract = contract_of(net)
        return spandrel.ImageModelDescriptor(
            net,
            net.state_dict(),  # of published files only what is used
            architecture=self,
            purpose="Restoration",
            tags=["derain"],
            supports_half=False,
            supports_bfloat16=False,
            scale=1,
            input_channels=contract.picture_channels,
            output_channels=contract.picture_channels,
            tiling=spandrel.ModelTiling.INTERNAL if contract.patch_size else spandrel.ModelTiling.SUPPORTED,
            call_fn=restore,
        )


def install(registry: spandrel.ArchRegistry = spandrel.MAIN_REGISTRY) -> None:
    """Make our networks known to spandrel; doing it twice does nothing more.

    They are detected by all of their keys and shapes, and therefore before all others.
    """
    known = [support.architecture for support in registry]
    others = tuple(network.id for network in known if not isinstance(network, DerainingArchitecture))
    for kind in NETWORKS:
        support = spandrel.ArchSupport.from_architecture(DerainingArchitecture(kind), before=others)
        registry.add(support, ignore_duplicates=True)
