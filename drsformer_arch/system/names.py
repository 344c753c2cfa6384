"""Names that become names of files and folders, checked before anything gets one."""

from collections.abc import Iterable
from typing import Any

from drsformer_arch.system.errors import UserError

LONGEST_NAME = (
    128  # bytes in UTF-8: file systems allow 255, of which a time, an iteration or a picture's name take some
)


def check_name(name: Any, where: str) -> str:
    """Refuse what is no plain name: a path, a hidden file, what some system cuts off, what a terminal does not show.

    Args:
        name: to be one file's or folder's.
        where: what it is the name of, in messages, such as `option name`.

    Returns:
        the name.

    Raises:
        UserError: it cannot name a file.
    """
    problem = problem_of(name)
    if problem:
        shown = f"{name[:LONGEST_NAME]}..." if isinstance(name, str) and len(name) > LONGEST_NAME else name
        raise UserError(f"{where} names a file or folder, which {shown!r} cannot: {problem}")
    return name


def problem_of(name: Any) -> str | None:
    """Return why something cannot be the name of a file; None where it can."""
    if not isinstance(name, str):
        return "it is no text"
    problems = {
        "it is empty": not name,
        "it holds characters that cannot be seen": not name.isprintable(),
        "it is a path": "/" in name or "\\" in name,
        "it begins or ends with a dot or a space": name.startswith((".", " ")) or name.endswith((".", " ")),
        f"it is longer than {LONGEST_NAME} bytes": len(name.encode(errors="replace")) > LONGEST_NAME,
    }
    return next((problem for problem, is_one in problems.items() if is_one), None)


def refuse_equal(names: Iterable[tuple[str, str]]) -> None:
    """Refuse names that are equal where a file system ignores case.

    Args:
        names: what each is the name of, in messages, and the name.

    Raises:
        UserError: two are equal.
    """
    known: dict[str, str] = {}
    for where, name in names:
        other = known.setdefault(name.casefold(), where)
        if other is not where:
            raise UserError(f"{other} and {where} have the same name {name!r}: their results would be mixed up")
