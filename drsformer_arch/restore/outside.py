"""Find networks from outside this package by their names: announced by installed packages, or registered with BasicSR.

A package announces a network by an entry point, and needs to register it nowhere:

    [project.entry-points."drsformer_arch.networks"]
    MyNetwork = "my_package.my_network:MyNetwork"
"""

import functools
import sys
from importlib import metadata

from torch import nn

from drsformer_arch.archs import NETWORKS
from drsformer_arch.system.errors import line_of

GROUP = "drsformer_arch.networks"  # of entry points


@functools.cache
def installed_networks() -> dict[str, type[nn.Module]]:
    """Import the networks that installed packages announce; a package that fails is named on stderr and left out."""
    networks: dict[str, type[nn.Module]] = {}
    for entry in metadata.entry_points(group=GROUP):
        try:
            network = entry.load()
            if not (isinstance(network, type) and issubclass(network, nn.Module)):
                raise TypeError("it is no class of torch.nn.Module")
            if network.__name__ in {own.__name__ for own in NETWORKS}:
                raise ValueError(f"{network.__name__} is the name of one of ours")
            if networks.get(network.__name__, network) is not network:
                raise ValueError(f"{networks[network.__name__].__module__} announces {network.__name__} too")
        except (Exception, SystemExit) as error:  # of somebody else's code; the other networks work
            reason = error if isinstance(error, Exception) else RuntimeError(f"it ends the program: {error!r}")
            print(f"warning: {line_of(reason, f'network {entry.name} ({entry.value})')}", file=sys.stderr, flush=True)
        else:
            networks[network.__name__] = network
    return networks


def outside_networks() -> dict[str, type[nn.Module]]:
    """List networks that installed packages announce or that were registered with BasicSR, but for BasicSR's own."""
    basicsr = sys.modules.get("basicsr.utils.registry")  # where it is not loaded, nothing can be registered with it
    registered = {name: getattr(entry, "kind", entry) for name, entry in getattr(basicsr, "ARCH_REGISTRY", ())}
    foreign = {
        name: kind
        for name, kind in registered.items()
        if isinstance(kind, type) and not kind.__module__.startswith("basicsr.")
    }
    return installed_networks() | foreign
