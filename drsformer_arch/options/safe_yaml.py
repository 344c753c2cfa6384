"""Read the YAML of option files: nothing is executed, and nothing grows beyond what anyone writes."""

import re
from pathlib import Path
from typing import Any

import yaml

from drsformer_arch.system.errors import UserError

Options = dict[str, Any]
MOST_VALUES, MOST_LEVELS = 100_000, 100  # in an option file


class OptionLoader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` and `5e3` as numbers and refuses what no option file needs.

    That is a key given twice, references (`*name`) that contain themselves or grow to more values than anyone writes
    (nine lines can stand for a billion), and nesting so deep that Python's stack ends first.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A part of the text as a tree."""
        self.depth += 1
        if self.depth > MOST_LEVELS:
            problem = f"more than {MOST_LEVELS} sections or lists inside each other"
            place = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # types-PyYAML leaves it out
            raise yaml.constructor.ConstructorError(None, None, problem, place)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_data(self) -> Any:
        """The whole text as Python objects."""
        node = self.get_single_node()
        if node is None:
            return None
        self._values_of(node, {})
        return self.construct_document(node)

    def _values_of(self, node: yaml.Node, known: dict[int, int | None]) -> int:
        """Count the values that a node stands for with its references written out."""
        key = id(node)
        if key not in known:
            known[key] = None
            parts = node.value if isinstance(node, yaml.CollectionNode) else ()
            inner = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
            known[key] = 1 + sum(self._values_of(part, known) for part in inner)
        count = known[key]
        if count is None:
            raise yaml.constructor.ConstructorError(None, None, "a reference contains itself", node.start_mark)
        if count > MOST_VALUES:
            problem = f"references grow to more than {MOST_VALUES} values"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return count

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A dict."""
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


OptionLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_yaml(path: Path | str) -> Options:
    """Read an option file with the safe loader.

    Raises:
        UserError: the file is missing, is no YAML, or holds no keys.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the option file {path}: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path | str) -> Options:
    """Read the text of an option file with the safe loader.

    Args:
        text: of the file.
        path: for messages.

    Raises:
        UserError: the text is no YAML, or holds no keys.
    """
    try:
        opt = yaml.load(text, Loader=OptionLoader)
    except ValueError as error:  # a date of month 13, a number of 5,000 digits
        raise UserError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{where}: {problem}") from error
    if not isinstance(opt, dict):
        raise UserError(f"{path} holds no options (keys and values)")
    return opt
