"""Entry points of torch.hub.

net = torch.hub.load("PATH_OR_REPOSITORY", "drsformer", source="local", with_mefc=False)
net = torch.hub.load("PATH_OR_REPOSITORY", "drsformer", source="local", weights="deraining.pth")
restorer = torch.hub.load("PATH_OR_REPOSITORY", "restorer", source="local")  # or weights="deraining.pth"
"""

from functools import partial
from typing import Any

from torch import nn

from drsformer_arch import archs as _archs
from drsformer_arch.fast import accelerate

dependencies = ["torch", "einops"]


def _network(kind: type[nn.Module], weights: str | None = None, *, fast: bool = True, **arguments: Any) -> nn.Module:
    """Build a network, untrained, or with weights and then ready for inference.

    Args:
        kind: the network's class.
        weights: a file, own or published (.pth, .safetensors), or the name of weights that are shipped; its arguments
            follow from it.
        fast: in the fast form, where there is one: the same parameters, keys and results.
        arguments: of the network's class, for an untrained one.

    Raises:
        ValueError: weights that cannot be used or are another network's, arguments that do not fit together.
    """
    if weights is None:
        return accelerate(kind(**arguments)) if fast else kind(**arguments)
    from drsformer_arch.restore.networks import load_network  # noqa: PLC0415 - a plain network needs only torch

    if arguments:
        raise ValueError(f"{', '.join(arguments)}: arguments follow from the weights; give one or the other")
    net = load_network(weights)
    if type(net) is not kind:
        raise ValueError(f"{weights} holds a {type(net).__name__}, not a {kind.__name__}")
    return accelerate(net) if fast else net


def _entry(kind: type[nn.Module]) -> Any:
    entry = partial(_network, kind)
    entry.__doc__ = f"{kind.__name__}; weights=FILE loads it for inference, other arguments are those of its class."
    return entry


globals().update({kind.__name__.lower(): _entry(kind) for kind in _archs.NETWORKS})


def restorer(weights: str = "DRSformer-S", **options: Any) -> Any:
    """Make a function from pictures to derained pictures, see `drsformer_arch.Restorer`."""
    from drsformer_arch import Restorer  # noqa: PLC0415 - a plain network needs only torch

    return Restorer(weights, **options)
