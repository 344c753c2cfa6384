"""The base of all fast forms: which class they stand for, and when they may."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from drsformer_arch.archs import drsformer_arch, fadformer_arch, nerdrain_arch, sfhformer_arch, u_shape

# Modules that a fast form may find inside and around the one it stands for, with their forwards as they were written;
# anything else, such as an adapter, was put there.
PARTS: dict[type[nn.Module], Any] = {
    kind: kind.forward
    for kind in (
        *(nn.Conv2d, nn.Linear, nn.ReLU, nn.AvgPool2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.Sequential),
        *(nn.ModuleList, nn.Identity, u_shape.LayerNorm, u_shape.LayerNormBody, u_shape.Level),
        *(drsformer_arch.Expert, drsformer_arch.ExpertStep, drsformer_arch.PointwiseReLU),
        nerdrain_arch.DepthwiseConv,
        *(nn.BatchNorm2d, nn.AdaptiveAvgPool2d, nn.Sigmoid, nn.GELU),
        *(sfhformer_arch.FourierUnit, sfhformer_arch.GlobalMixer, sfhformer_arch.LocalMixer),
        *(sfhformer_arch.TokenMixer, sfhformer_arch.MultiKernelFeedForward),
        *(fadformer_arch.FourierUnit, fadformer_arch.GlobalMixer, fadformer_arch.TokenMixer),
        fadformer_arch.PriorGatedFeedForward,
        drsformer_arch.MixtureOfExpertsFeatureCompensator,
    )
}


class FastForm(nn.Module):
    """Computes what a plain module computes, on its parameters and with its keys.

    A module becomes its fast form, and plain again, by a change of its class: parameters, hooks and places in
    optimizers stay as they are. It is fast only as long as it is what the form was written for. What computes the parts
    inside is the form: forward hooks on them are not called.

    Attributes:
        replaces: the plain class; exactly it, as a subclass may compute something else.
        dtype: of features, where inference computes them in another type than the parameters have.
        tile: side in pixels of what inference computes at once; 0: all.
    """

    replaces: ClassVar[type[nn.Module]]
    dtype: torch.dtype | None = None
    tile = 0
    _plain_forward: ClassVar[Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "replaces" in vars(cls):
            cls._plain_forward = cls.replaces.forward

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Tell whether the form computes what this module does: nothing of it was changed, exchanged or hooked into."""
        if not cls._is_unchanged(module) or not all(part is module or is_as_written(part) for part in module.modules()):
            return False
        with torch.device("meta"):
            try:
                new = cls.built_anew(module)
                return repr(new) == repr(module) and _shapes(new) == _shapes(module)
            except (AttributeError, LookupError, TypeError, ValueError):  # it lacks what a new one has
                return False

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new module of the plain class and of the sizes of this one."""
        raise NotImplementedError

    @classmethod
    def _is_unchanged(cls, module: nn.Module) -> bool:
        return type(module) is cls.replaces and _has_forward(module, cls._plain_forward)

    def prepare(self, dtype: torch.dtype | None, tile: int) -> None:
        """Get ready for inference: features in `dtype`, default: as they come; tiles of `tile` pixels."""
        self.dtype, self.tile = dtype, tile
        for layer in self.layers_in_dtype():
            layer.to(dtype)

    def layers_in_dtype(self) -> Iterable[nn.Module]:
        """Name the layers whose weights take the type of the features; all others keep theirs."""
        return ()

    def enter(self, x: Tensor) -> Tensor:
        """Bring features into the type they are computed in."""
        return x if self.dtype is None else x.to(self.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        """Exchanging a part for one that the form was not written for makes the module plain again."""
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self._remain_if_fit()

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Exchange a part, as an assignment does."""
        super().add_module(name, module)
        self._remain_if_fit()

    def _remain_if_fit(self) -> None:
        form = type(self)
        # The parts of a replica, which DataParallel makes in every pass, have no parameters yet. A parametrized module
        # has a class of its own, which it must keep.
        if "_is_replica" in vars(self) or not is_form(self):
            return
        self.__class__ = self.replaces  # type: ignore[assignment]  # it was one
        if form.fits(self):
            self.__class__ = form


class FeedForwardForm(FastForm):
    """A feed-forward whose first 1x1 convolution makes twice the hidden channels, as MSFN and GDFN have it."""

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new plain module of the same sizes, see `FastForm`."""
        first = module.project_in
        return cls.replaces(first.in_channels, first.out_channels // 2, first.bias is not None)


def is_form(module: nn.Module) -> bool:
    """Tell whether a module runs in a fast form, and nobody derived another class from that."""
    return "replaces" in vars(type(module))


def has_hooks(module: nn.Module) -> bool:
    """Tell whether anybody listens to what the module gets or returns, forward or backward."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


def is_as_written(module: nn.Module) -> bool:
    """Tell whether a module is one of PARTS, or in a fast form, and nobody changed its forward or hooked into it."""
    return (
        not has_hooks(module)
        and "forward" not in vars(module)
        and (is_form(module) or _has_forward(module, PARTS.get(type(module))))
    )


def _has_forward(module: nn.Module, forward: Any) -> bool:
    return "forward" not in vars(module) and type(module).forward is forward


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.named_parameters()}
