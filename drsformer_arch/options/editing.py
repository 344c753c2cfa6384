"""Options set in the text of an option file, whose comments and order stay."""

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from drsformer_arch.options.reading import Override, override, parse_override
from drsformer_arch.options.safe_yaml import OptionLoader, parse_yaml
from drsformer_arch.system.errors import UserError


def set_options(text: str, entries: Sequence[str], flag: str) -> str:
    """Set options in the text of an option file.

    Args:
        text: the file's.
        entries: such as `train:optim_g:lr=1e-4`, as `reading.override` takes them.
        flag: of the command line that gave them, for messages.

    Returns:
        the text with other values where they stood, and new keys at the end of their sections. What it holds is what
        `override` makes of the file.

    Raises:
        UserError: see `override`; a value that cannot be written into this text.
    """
    options = parse_yaml(text, "the recipe")
    override(options, entries, flag)
    for entry in entries:
        text = _with(text, parse_override(entry, flag))
    if parse_yaml(text, "the recipe") != options:
        raise UserError(f"{flag} {' '.join(entries)}: cannot be written into this file; edit a copy of it by hand")
    return text


def _with(text: str, entry: Override) -> str:
    node: Any = OptionLoader(text).get_single_node()
    keys = list(entry.keys)
    while keys:
        key = keys.pop(0)
        pair = next((pair for pair in node.value if pair[0].value == key), None)
        if pair is None:
            return _inserted(text, node, key, _written(entry, keys))
        name, value = pair
        if not keys or not isinstance(value, yaml.MappingNode):
            # What stands behind a plain value on its line stays; a section goes with all that is in it.
            start = value.start_mark.index
            if isinstance(value, yaml.CollectionNode) and not value.flow_style:
                start = text.index(":", name.end_mark.index) + 1
            gap = "" if text[start - 1].isspace() else " "
            return text[:start] + gap + _written(entry, keys) + text[_end(value) :]
        node = value
    return text


def _inserted(text: str, section: yaml.MappingNode, key: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", key) or yaml.load(key, Loader=OptionLoader) != key:  # `no` is a truth value
        key = json.dumps(key, ensure_ascii=False)
    if section.flow_style:
        end = section.end_mark.index - 1
        return f"{text[:end].rstrip()}{', ' * bool(section.value)}{key}: {value}{text[end:]}"
    end = text.find("\n", _end(section))
    end = len(text) if end < 0 else end
    return f"{text[:end]}\n{' ' * section.start_mark.column}{key}: {value}{text[end:]}"


def _end(node: yaml.Node) -> int:
    """Find where a node's last value ends; a section in blocks ends for YAML only where the next one begins."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return node.end_mark.index


def _written(entry: Override, keys: Sequence[str]) -> str:
    """The value as it was typed, where that means the same inside a file, and below keys that the file lacks."""
    value: Any = entry.value
    for key in reversed(keys):
        value = {key: value}
    if not keys and "\n" not in entry.text and _means(entry.text.strip(), value):
        return entry.text.strip()
    return json.dumps(value, ensure_ascii=False)


def _means(text: str, value: Any) -> bool:
    try:
        return yaml.load(f"key: {text}\nnext: 1", Loader=OptionLoader) == {"key": value, "next": 1}
    except (yaml.YAMLError, ValueError):
        return False
