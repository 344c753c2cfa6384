"""Give networks their fast forms, take them away again, and say which form runs."""

import collections
import copy
import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from drsformer_arch.archs.drsformer_arch import DRSformer, MixtureOfExpertsFeatureCompensator
from drsformer_arch.archs.restormer_arch import Restormer
from drsformer_arch.archs.u_shape import Level
from drsformer_arch.fast.batch_norm import FoldedFADformerBlock, FoldedSFHformerBlock
from drsformer_arch.fast.channel_attention import (
    FoldedNeRDRainAttention,
    FoldedTopKAttention,
    FoldedTransposedAttention,
)
from drsformer_arch.fast.channels_last import (
    ChannelReductionInDtype,
    ChannelsLastEmbedding,
    ChannelsLastNorm,
    DownsampleInDtype,
    UpsampleInDtype,
)
from drsformer_arch.fast.experts import FoldedExpertStep
from drsformer_arch.fast.forms import FastForm, is_as_written, is_form
from drsformer_arch.fast.slabs import ArrangedFeedForward, SlabFeedForward
from drsformer_arch.fast.tiles import (
    InPlace,
    TiledExpertSteps,
    TiledFeedForward,
    TiledNeRDRainBlock,
    TiledNeRDRainFeedForward,
    TiledSparseTransformerBlock,
    TiledTransformerBlock,
)

Network = TypeVar("Network", bound=nn.Module)
Forms = Iterable[type[FastForm]]

SHARED: tuple[type[FastForm], ...] = (
    ChannelsLastEmbedding,
    ChannelsLastNorm,
    FoldedTopKAttention,
    FoldedTransposedAttention,
    FoldedNeRDRainAttention,
    FoldedExpertStep,
)
ACCELERATED: Forms = (*SHARED, SlabFeedForward)  # on the parameters of the plain network, for training too
ONLY_INFERENCE: tuple[type[FastForm], ...] = (
    FoldedSFHformerBlock,
    FoldedFADformerBlock,
)  # of networks that train plain
FUSED: Forms = (  # for inference
    *SHARED,
    ArrangedFeedForward,
    TiledFeedForward,
    TiledNeRDRainBlock,
    TiledNeRDRainFeedForward,
    TiledSparseTransformerBlock,
    TiledTransformerBlock,
    TiledExpertSteps,
    DownsampleInDtype,
    UpsampleInDtype,
    ChannelReductionInDtype,
    *ONLY_INFERENCE,
)
ONLY_FUSED = tuple(set(FUSED) - set(ACCELERATED))
# None of their maps is used again once a level has it, by these methods and with these parts.
OWN_NETWORKS: dict[type[nn.Module], Any] = {kind: (kind.forward, kind.features) for kind in (DRSformer, Restormer)}
RESAMPLERS = {
    "patch_embed": ChannelsLastEmbedding,
    **dict.fromkeys(("down1_2", "down2_3", "down3_4"), DownsampleInDtype),
    **dict.fromkeys(("up4_3", "up3_2", "up2_1"), UpsampleInDtype),
}
BYTES_PER_PIXEL_AND_FEATURE = 52  # features of the embedding; measured at 512x512 on CPUs, larger pictures take less
TILE_OF_CPUS, TILE_ELSEWHERE = 128, 512  # on CPUs tiles in the cache are also faster, elsewhere only memory gains


def accelerate(net: Network, forms: Forms = ACCELERATED) -> Network:
    """Let a network compute the same faster, in training and inference.

    Parameters, keys, hooks and optimizers stay as they are; `plain` takes it back. Only modules of exactly the classes
    that the forms were written for change; all others, subclasses among them, compute what their own forward says.

    Args:
        net: any network; it is changed itself.
        forms: the fast forms to give it.

    Returns:
        The network.
    """
    _become(net, forms)
    return net


def plain(net: Network) -> Network:
    """Let an accelerated network compute what its file says, by the code that is written there.

    Raises:
        ValueError: a fused network, whose weights may have another order and type.
    """
    for module in net.modules():
        if isinstance(module, ONLY_FUSED):
            raise ValueError("a fused network stays what it is; the one that it was made of is as it was")
        if isinstance(module, FastForm) and is_form(module):
            module.__class__ = module.replaces  # type: ignore[assignment]  # it was one
    return net


def fuse(net: Network, dtype: torch.dtype | None = None, tile: int | None = None) -> Network:
    """Return the same function for inference: weights arranged once, the inside of blocks computed in tiles, in place.

    The result is a network of its own: training this one on does not change it. It is saved and loaded under the same
    keys. As maps are overwritten, what hooks of the result keep of one may be that of a later block.

    Args:
        net: plain or accelerated; modules without a fast form are taken over as they are.
        dtype: of the features and convolutions, for example torch.bfloat16; normalisation, attention scores, gates, the
            first and the last convolution, and modules without a fast form, keep the type of this network. Default:
            all keep it.
        tile: side of a feed-forward's tile in pixels of each level, twice that in the other parts; 0 computes whole
            pictures, for export and torch.compile. Default: 128 on CPUs, 512 elsewhere.
    """
    if tile is None:
        parameter = next(net.parameters(), torch.empty(0))
        tile = TILE_OF_CPUS if parameter.device.type == "cpu" else TILE_ELSEWHERE
    net = plain(copy.deepcopy(net)).eval().requires_grad_(False)
    for module in _become(net, FUSED):
        module.prepare(dtype, tile)
    _mark_own_inputs(net)
    if isinstance(net, DRSformer | Restormer) and _is_own(net) and tile:
        memory = BYTES_PER_PIXEL_AND_FEATURE * net.patch_embed.proj.out_channels
        net.contract = dataclasses.replace(net.contract, bytes_per_pixel=memory)
    if dtype is not None:
        _keep_types(net, dtype)
    return net


def _mark_own_inputs(net: nn.Module) -> None:
    """Let blocks overwrite maps that nobody else uses: what the block before returned, what our networks pass on."""
    places = collections.Counter(child for module in net.modules() for child in module._modules.values())

    def own(block: nn.Module | None) -> None:
        if isinstance(block, InPlace) and places[block] == 1:  # elsewhere, others may use its input
            block.owns_input = True

    for level in net.modules():
        if type(level) is Level and is_as_written(level):
            for before, block in itertools.pairwise(level):
                if isinstance(before, InPlace) and is_as_written(before) and is_as_written(block):
                    own(block)
    for child in net.children() if _is_own(net) else ():
        if places[child] == 1:
            first = next(child.children(), None) if type(child) is Level else None
            own(child.layers[1] if type(child) is MixtureOfExpertsFeatureCompensator else first)


def _is_own(net: nn.Module) -> bool:
    """Tell whether a network is one of ours with all parts, and nobody changed or hooked into what passes maps on."""
    methods = OWN_NETWORKS.get(type(net))
    return (
        methods == (type(net).forward, getattr(type(net), "features", None))
        and not {"forward", "features"} & vars(net).keys()
        and all(type(getattr(net, name, None)) is kind for name, kind in RESAMPLERS.items())
        and all(map(is_as_written, net.children()))
    )


def _become(net: nn.Module, forms: Forms) -> list[FastForm]:
    """Change the classes of the modules that have a form, and return those modules."""
    by_class = {form.replaces: form for form in forms}
    found = [(module, form) for module in net.modules() if (form := by_class.get(type(module))) and form.fits(module)]
    changed: list[FastForm] = []
    for module, form in found:
        module.__class__ = form
        assert isinstance(module, form)
        changed.append(module)
    return changed


def _keep_types(net: nn.Module, dtype: torch.dtype) -> None:
    """Let modules without a fast form compute in the type of their parameters whatever comes in."""
    for module in net.modules():
        types = [value.dtype for value in module.parameters(recurse=False)]
        if {*types} - {dtype} and not isinstance(module, FastForm):
            module.register_forward_pre_hook(functools.partial(_in_type, types[0]))


def _in_type(dtype: torch.dtype, module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:  # noqa: ARG001
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def has_fast_form(net: nn.Module, forms: Forms = FUSED) -> bool:
    """Tell whether a part of a network has a fast form, by default one of inference, or runs in it."""
    classes = {form.replaces for form in forms}
    return any(type(module) in classes or isinstance(module, FastForm) for module in net.modules())


def form_of(net: nn.Module) -> str:
    """Tell which form of a network runs: "plain", "fast" or "fused", and "but for" which parts."""
    form, kept = form_and_exceptions(net)
    return f"{form} but for {', '.join(kept)}" if kept else form


def form_and_exceptions(net: nn.Module) -> tuple[str, list[str]]:
    """Tell which form of a network runs, and the classes of a fast one that run plain."""
    forms = [module for module in net.modules() if isinstance(module, FastForm)]
    if not forms:
        return "plain", []
    fused = any(isinstance(module, ONLY_FUSED) for module in forms)
    names = {form.replaces.__name__ for form in (*ACCELERATED, *(ONLY_INFERENCE if fused else ()))}
    kept = sorted({type(module).__name__ for module in net.modules() if _is_plain(module, names)})
    return "fused" if fused else "fast", kept


def _is_plain(module: nn.Module, names: set[str]) -> bool:
    """Tell whether a module runs plain although it, what it was derived from or what it is a copy of has a fast form.

    A copy of a network's file has classes of its own under the same names.
    """
    return not isinstance(module, FastForm) and any(kind.__name__ in names for kind in type(module).__mro__)


def dtype_of(net: nn.Module) -> torch.dtype | None:
    """Tell in which type a fused network computes features, where not in that of its parameters."""
    return next((module.dtype for module in net.modules() if isinstance(module, FastForm) and module.dtype), None)
