"""Sums of weighted losses, `train.losses`: each term says which of the network's pictures it compares."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.options.run_sections import LossTerm
from drsformer_arch.training.losses import pyramid_level

# isort: split
from basicsr.losses import build_loss

OWN_KEYS = ("outputs", "name")  # of a term; all others are arguments of its loss


def compare(loss: nn.Module, outputs: Sequence[Tensor], target: Tensor, rainy: Tensor) -> Tensor:
    """Compute a loss of some outputs of a network.

    Args:
        loss: BasicSR's or ours; one with `takes_all_outputs` gets them together, others one after the other, which are
            added up. One with `takes_rainy_pictures` gets those too.
        outputs: (N, C, H/2^n, W/2^n), RGB in [0, 1].
        target: (N, C, H, W), as small as an output by a Gaussian pyramid.
        rainy: likewise.

    Returns:
        A scalar.

    Raises:
        ValueError: a loss that gives something else for a pair of pictures.
    """
    if getattr(loss, "takes_all_outputs", False):
        return _scalar(loss(tuple(outputs), target))
    values = []
    for output in outputs:
        further = (pyramid_level(rainy, output),) if getattr(loss, "takes_rainy_pictures", False) else ()
        values.append(_scalar(loss(output, pyramid_level(target, output), *further)))
    return torch.stack(values).sum()


def _scalar(value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ValueError("it gives no single number for two pictures")
    return value.reshape(())


class LossTerms(nn.Module):
    """The terms of `train.losses`, each under its name in the log.

    Args:
        sections: of an option file.
    """

    def __init__(self, sections: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.terms = [LossTerm.read(section, f"train.losses[{index}]") for index, section in enumerate(sections)]
        self.losses = nn.ModuleList(
            build_loss({key: value for key, value in section.items() if key not in OWN_KEYS}) for section in sections
        )

    def forward(self, outputs: Sequence[Tensor], target: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        """Compute all terms, see `compare`.

        Returns:
            The terms by their names in the log.
        """
        return {
            term.log_name: compare(loss, [outputs[index] for index in term.outputs], target, rainy)
            for term, loss in zip(self.terms, self.losses, strict=True)
        }
