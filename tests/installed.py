"""Environments with a part of the packages that are installed here: links, so that nothing is copied or fetched."""

import re
import shutil
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def needed(*names: str) -> set[str]:
    """List packages and all that they need in turn, in this environment."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = _plain(left.pop())
        if name not in found:
            found.add(name)
            wanted = [Requirement(text) for text in metadata.requires(name) or ()]
            left += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def link_packages(folder: Path, *, only: Collection[str] | None = None, without: Collection[str] = ()) -> Path:
    """Fill a folder, as one in which Python looks for modules, with links to this repository and to packages."""
    folder.mkdir()
    (folder / "drsformer_arch").symlink_to(ROOT / "drsformer_arch")
    for package in metadata.distributions():
        name = _plain(package.name)
        if name.startswith("drsformer") or name in without or (only is not None and name not in only):
            continue
        for top in {path.parts[0] for path in package.files or ()} - {"..", "__pycache__"}:
            if (folder / top).exists():
                continue
            if top == "cv2":  # looks for its library where its own file really lies, and refuses two places
                shutil.copytree(str(package.locate_file(top)), folder / top)
            else:
                (folder / top).symlink_to(package.locate_file(top))
    return folder


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
