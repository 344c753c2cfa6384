"""The files that pages are made of, which need no build step: styles, scripts and pieces of HTML."""

import base64
import hashlib
from importlib.resources import files
from string import Template

_ASSETS = files("drsformer_arch.page") / "assets"


def asset(name: str) -> str:
    """Read one of the files."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def assets(*names: str) -> str:
    """Read several files as one."""
    return "\n".join(map(asset, names))


def head(title: str, style: str, policy: str) -> str:
    """Return the HTML of a page up to its header.

    Args:
        title: as HTML.
        style: CSS.
        policy: its Content-Security-Policy.
    """
    return Template(asset("head.html")).substitute(title=title, style=style, policy=policy)


def viewer(legend: str = "") -> str:
    """Return the template of what shows two pictures with a divider, for viewer.js.

    Args:
        legend: HTML of what explains colours, if a page needs it.
    """
    return Template(asset("viewer.html")).substitute(legend=legend)


def hash_of(text: str) -> str:
    """Return the source of a Content-Security-Policy that allows this style or script, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
