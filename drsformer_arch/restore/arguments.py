"""Which plain values an argument of a network takes, as its annotation says; without pydantic, for use in scripts."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin


def problem_of_argument(value: Any, annotation: Any, least: int) -> str | None:
    """Say why a value from a file is none for an argument of a network; None where it is one.

    No text is a number, nor is true; whole numbers may be written as 4.0.

    Args:
        value: a plain value, or a list of plain values.
        annotation: of the argument; one that says nothing to us accepts everything.
        least: whole numbers begin with it.
    """
    return None if _fits(value, annotation, least) else f"must be {_words(annotation, least)}"


def _fits(value: Any, annotation: Any, least: int) -> bool:
    if _is_optional(annotation):
        return value is None or _fits(value, get_args(annotation)[0], least)
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    if _is_list(annotation):
        return isinstance(value, list | tuple) and all(_fits(part, int, least) for part in value)
    if annotation is int:
        is_whole = type(value) is int or (type(value) is float and value.is_integer())
        return is_whole and value >= least
    if annotation is float:
        return type(value) in (int, float)
    return not (annotation in (bool, str) and type(value) is not annotation)


def _words(annotation: Any, least: int) -> str:
    if _is_optional(annotation):
        return f"{_words(get_args(annotation)[0], least)} or empty"
    if get_origin(annotation) is Literal:
        return f"one of {', '.join('false' if choice is False else str(choice) for choice in get_args(annotation))}"
    if _is_list(annotation):
        return f"a list, each entry {_words(int, least)}"
    words = {int: f"a whole number of at least {least}", float: "a number", bool: "true or false"}
    return words.get(annotation, "a text")


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) is UnionType and get_args(annotation)[1:] == (NoneType,)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is Sequence and get_args(annotation) == (int,)
