"""What validation needs beside BasicSR's loop: names of protocols, checks of names, options set for a while."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drsformer_arch import basicsr_fixes  # noqa: F401 - makes BasicSR importable
from drsformer_arch.errors import UserError

# isort: split
from basicsr.metrics import METRIC_REGISTRY


def protocol_of(metric: dict[str, Any]) -> str:
    """Which scores a metric's options give, in words."""
    function = METRIC_REGISTRY.get(metric["type"])
    named = getattr(function, "protocol", None)
    if named:
        return f"{named} protocol"
    return f"{metric['type']}, {'float Y' if metric.get('test_y_channel') else 'RGB'}"


def refuse_equal_names(dataset: Any, name: str) -> None:
    """BasicSR names results by the stem: a.png and a.jpg would overwrite each other.

    Raises:
        UserError: two pictures of the set have one stem.
    """
    paths = getattr(dataset, "paths", None) or []
    stems = Counter(Path(p["lq_path"] if isinstance(p, dict) else p).stem for p in paths)
    twice = [stem for stem, count in stems.items() if count > 1]
    if twice:
        raise UserError(
            f"data set {name}: several pictures are named {twice[0]}; their results would overwrite each other"
        )


@contextlib.contextmanager
def replaced(section: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    """Set an option for a while."""
    before = section.get(key)
    section[key] = value
    try:
        yield
    finally:
        section[key] = before
