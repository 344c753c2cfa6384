"""Exhibits of results that are scored while the page is written."""

from collections.abc import Sequence
from typing import Any

from drsformer_arch import __version__
from drsformer_arch.data.datasets.samples import to_picture
from drsformer_arch.evaluate.evaluation import columns, score_pictures
from drsformer_arch.evaluate.score_names import DESCRIPTIONS, INPUT_PREFIX
from drsformer_arch.images.pictures import Picture
from drsformer_arch.page.page import Exhibit


def scores_and_version(which: Sequence[str]) -> list[tuple[str, str]]:
    """Return facts of a page: what its scores are, and which version made it."""
    scores = [(f"Scores: {group}", DESCRIPTIONS[group]) for group in which]
    return [*scores, ("Version", f"drsformer-basicsr {__version__}")]


def exhibit_of(name: str, result: Picture, sample: dict[str, Any], which: Sequence[str]) -> Exhibit:
    """Score a result and return it as an exhibit.

    Args:
        name: shown on the page.
        result: (H, W, C) RGB or gray.
        sample: of a data set of BasicSR: `lq`, and `gt` where there is a target, (C, H, W) in [0, 1].
        which: column groups of the scores.
    """
    rainy, target = to_picture(sample["lq"]), to_picture(sample["gt"]) if "gt" in sample else None
    scores = score_pictures(result, target, which)
    if target is not None:
        before = score_pictures(rainy, target, which)
        scores |= {f"{INPUT_PREFIX}{column}": before[column] for column in columns(which)}
    return Exhibit(name, lambda: result, None if target is None else lambda: target, lambda: rainy, scores)
