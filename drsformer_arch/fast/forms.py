"""What all fast forms have in common: which class they stand for, and when they may."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from drsformer_arch.archs import drsformer_arch, u_shape

# Layers that a fast form may find inside the module it stands for; anything else, such as an adapter, was put there.
PARTS = {
    *(nn.Conv2d, nn.Linear, nn.ReLU, nn.AvgPool2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.Sequential, nn.ModuleList),
    *(u_shape.LayerNorm, u_shape.LayerNormBody),
    *(drsformer_arch.Expert, drsformer_arch.ExpertStep, drsformer_arch.PointwiseReLU),
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
        """Whether the form computes what this module does: nothing of it was changed, exchanged or hooked into."""
        parts = [part for part in module.modules() if part is not module]
        if not cls._is_unchanged(module) or not all(type(part) in PARTS and not _has_hooks(part) for part in parts):
            return False
        with torch.device("meta"):
            try:
                return repr(cls.built_anew(module)) == repr(module)
            except (AttributeError, LookupError, TypeError, ValueError):  # it lacks what a new one has
                return False

    @classmethod
    def built_anew(cls, module: Any) -> nn.Module:
        """A new module of the plain class and of the sizes of this one."""
        raise NotImplementedError

    @classmethod
    def _is_unchanged(cls, module: nn.Module) -> bool:
        own = module.forward.__func__  # type: ignore[attr-defined]
        return type(module) is cls.replaces and own is cls._plain_forward

    def prepare(self, dtype: torch.dtype | None, tile: int) -> None:
        """Get ready for inference: features in `dtype`, default: as they come; tiles of `tile` pixels."""
        self.dtype, self.tile = dtype, tile
        for layer in self.layers_in_dtype():
            layer.to(dtype)

    def layers_in_dtype(self) -> Iterable[nn.Module]:
        """Those whose weights take the type of the features; all others keep theirs."""
        return ()

    def enter(self, x: Tensor) -> Tensor:
        """Features in the type they are computed in."""
        return x if self.dtype is None else x.to(self.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        """Exchanging a part for another kind of part makes the module plain again."""
        before = self._modules.get(name)
        super().__setattr__(name, value)
        if isinstance(value, nn.Module) and (type(value) is not type(before) or repr(value) != repr(before)):
            self.__class__ = self.replaces  # type: ignore[assignment]


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
