"""Networks as option files build them: in their fast form, unless `network_g.fast` is false.

The switch belongs to whoever builds a network for use. It reaches neither the network's constructor nor the metadata of
weight files: both forms have the same arguments and weights.
"""

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from drsformer_arch.fast import ACCELERATED, accelerate, form_and_exceptions, has_fast_form

FAST = "fast"


def is_fast(section: Mapping[str, Any]) -> bool:
    """Tell whether a section `network_g` asks for the fast form, as it does by default."""
    return bool(section.get(FAST, True))


def without_switch(section: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the switch from a section `network_g`: the metadata of weights have its `type` and arguments."""
    return {key: value for key, value in section.items() if key != FAST}


class NetworkBuilder:
    """A network for BasicSR's registry: called with the arguments of its class and `fast`, it returns the network.

    Attributes:
        kind: the network's class.
    """

    def __init__(self, kind: type[nn.Module]) -> None:
        functools.update_wrapper(self, kind, updated=())
        self.kind = kind
        signature = inspect.signature(kind)
        switch = inspect.Parameter(FAST, inspect.Parameter.KEYWORD_ONLY, default=True, annotation=bool)
        self.__signature__ = signature.replace(parameters=[*signature.parameters.values(), switch])

    def __call__(self, *args: Any, fast: bool = True, **arguments: Any) -> nn.Module:
        """Build the network with random weights.

        Raises:
            ValueError: arguments that do not fit together.
        """
        net = self.kind(*args, **arguments)
        if fast:
            accelerate(net)
        if has_fast_form(net, ACCELERATED):  # the others train plain
            logging.getLogger("basicsr").info(describe(net))
        return net


def describe(net: nn.Module) -> str:
    """Say in one line for logs which form of a network runs, and how to switch."""
    form, kept = form_and_exceptions(net)
    but_for = f" but for {', '.join(kept)}" if kept else ""
    other = "true: the fast one" if form == "plain" else "false: the plain one, which its file says"
    return f"{type(net).__name__} runs in its {form} form{but_for} (network_g.{FAST}: {other})."
