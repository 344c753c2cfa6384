"""What the value of an option must be: tests of single values, each with its name for error messages."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin

LONGEST_SHOWN = 200  # characters of a value in a message


class Kind(NamedTuple):
    """What a value must be: a test, its name in error messages, and whether 4e3 stands for the integer 4000."""

    accepts: Callable[[Any], bool]
    name: str
    makes_integer: bool = False


def shown(value: Any) -> str:
    """A value in a message; a long one is cut."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, perhaps written as 4e3."""
    return is_number(value) and value == int(value)


def or_none(kind: Kind) -> Kind:
    """Also accepts nothing."""
    return Kind(lambda value: value is None or kind.accepts(value), f"{kind.name} or empty")


def list_of(kind: Kind, at_least: int = 0) -> Kind:
    """Accepts lists."""
    return Kind(
        lambda value: isinstance(value, list | tuple) and len(value) >= at_least and all(map(kind.accepts, value)),
        f"a list{' that is not empty' if at_least else ''}, each entry {kind.name}",
    )


def choice(*values: Any) -> Kind:
    """Accepts these values only."""
    return Kind(lambda value: any(value is v or value == v for v in values), f"one of {', '.join(map(str, values))}")


def whole(least: int, most: int | None = None) -> Kind:
    """Accepts whole numbers in a range."""
    return Kind(
        lambda value: is_whole(value) and value >= least and (most is None or value <= most),
        f"a whole number of at least {least}" + ("" if most is None else f" and at most {most}"),
        makes_integer=True,
    )


def number(least: float, most: float | None = None, *, below: float | None = None) -> Kind:
    """Accepts numbers in a range, of which ``most`` is part and ``below`` is not."""
    return Kind(
        lambda value: (
            is_number(value) and value >= least and (most is None or value <= most) and (below is None or value < below)
        ),
        f"a number of at least {least}"
        + ("" if most is None else f" and at most {most}")
        + ("" if below is None else f" and below {below}"),
    )


ANY = Kind(lambda _: True, "anything")
BOOL = Kind(lambda value: isinstance(value, bool), "true or false")
COUNT = whole(1)
NUMBER = Kind(is_number, "a number")
POSITIVE = Kind(lambda value: is_number(value) and value > 0, "a number above 0")
TEXT = Kind(lambda value: isinstance(value, str), "a text")
TEXT_OR_NONE = or_none(TEXT)
SECTION = Kind(lambda value: isinstance(value, dict), "a section with keys")
TYPED = Kind(lambda value: isinstance(value, dict) and isinstance(value.get("type"), str), "a section with a type")


def kind_of_annotation(annotation: Any, least: int) -> Kind:
    """Tell what an annotated argument accepts in an option file, whole numbers from `least` on.

    `ANY` where the annotation says nothing to us.
    """
    simple = {bool: BOOL, int: whole(least), float: NUMBER, str: TEXT, Sequence[int]: list_of(whole(least))}
    if get_origin(annotation) is Literal:
        return choice(*get_args(annotation))
    if get_origin(annotation) is UnionType and get_args(annotation)[1:] == (NoneType,):
        return or_none(kind_of_annotation(get_args(annotation)[0], least))
    return simple.get(annotation, ANY)
