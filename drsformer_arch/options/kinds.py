"""Kinds of values that options share, as types that pydantic checks, and the words for them in messages and docs."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AfterValidator, BeforeValidator, ConfigDict, StringConstraints

LONGEST_SHOWN = 200  # characters of a value in a message
SECTION = "a section with keys"
STRICT = ConfigDict(strict=True, allow_inf_nan=False)  # no text is a number, nor is true, nor nan
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_LIMITS = ((Ge, "ge", "of at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))


class Said(NamedTuple):
    """Stands in `Annotated`: the words for a kind where its parts give no good ones, and a reason behind them."""

    words: str
    reason: str = ""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ordered(values: list[float]) -> list[float]:
    if values != sorted(values):
        raise ValueError
    return values


WHOLE = BeforeValidator(_whole)  # whole numbers may be written as 4e3
Count = Annotated[int, Ge(1), WHOLE]
Natural = Annotated[int, Ge(0), WHOLE]
Seed = Annotated[int, Ge(0), Le(2**32 - 2**16), WHOLE]  # numpy's take 32 bits, and every process adds its rank
Iterations = Annotated[int, Ge(1), Le(10**9), WHOLE]
Side = Annotated[int, Ge(1), Le(2**16), WHOLE]  # of a picture, in pixels
Batch = Annotated[int, Ge(1), Le(2**16), WHOLE]
Batches = Annotated[int, Ge(1), Le(10**6), WHOLE]  # of all processes and accumulation steps
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1), Said("a number between 0 and 1")]
Decay = Annotated[float, Ge(0), Lt(1)]
Betas = Annotated[list[Decay], MinLen(2), MaxLen(2), Said("two numbers from 0 to below 1")]
Factors = Annotated[
    list[Annotated[float, Ge(0.1), Le(10)]],
    MinLen(2),
    MaxLen(2),
    AfterValidator(_ordered),
    Said("two factors between 0.1 and 10, the smaller one first"),
]
Template = Annotated[str, StringConstraints(pattern=r"^[^{}]*\{\}[^{}]*$"), Said("a text with one {} in it")]
Workers = Annotated[int, Ge(0), Le(512), WHOLE]
Queue = Annotated[int, Ge(1), Le(1024), WHOLE]
Port = Annotated[int, Ge(1), Le(65535), WHOLE]
WarmUp = Annotated[int, Ge(-1), Le(10**9), WHOLE]
GPUs = Annotated[Literal["auto"] | Annotated[int, Ge(0), Le(4096), WHOLE], Said("auto or a whole number")]
Passes = Annotated[float, Ge(1e-6), Le(10_000)]
Minutes = Annotated[float, Ge(0.1), Le(10**6)]
MixupBeta = Annotated[float, Ge(1e-3), Le(10**6)]
BatchOfStages = Annotated[list[Batch], MinLen(1)]
SideOfStages = Annotated[list[Side], MinLen(1)]
Lengths = Annotated[list[Iterations], MinLen(1)]
Rates = Annotated[list[NotNegative], MinLen(1)]
EffectiveBatch = Annotated[
    Batches | Annotated[list[Batches], MinLen(1)], Said("a whole number from 1 to 1000000, or one per stage")
]
AlwaysTrue = Annotated[Literal[True], Said("true (training pictures are always shuffled)")]
ScaleOne = Annotated[Literal[1], Said("1", ": a derained picture keeps its size")]


def shown(value: Any) -> str:
    """A value in a message; a long one is cut."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def reason_of(annotation: Any) -> str:
    """Give the reason that a kind has for its limits, to stand behind a message."""
    return next((note.reason for note in get_args(annotation)[1:] if isinstance(note, Said)), "")


def kind_of(annotation: Any) -> str:
    """The words for what a value of an annotation must be, such as `a whole number of at least 1`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind_with_limits(parts[0], parts[1:])
    if origin in {Union, UnionType}:
        return " or ".join([kind_of(part) for part in parts if part is not NoneType] + ["empty"] * (NoneType in parts))
    if origin is Literal:
        return f"one of {', '.join('false' if part is False else str(part) for part in parts)}"
    if origin in {list, Sequence}:
        return f"a list, each entry {kind_of(parts[0])}"
    return _PLAIN.get(annotation, "anything" if annotation is Any else SECTION)


def _kind_with_limits(annotation: Any, notes: Sequence[Any]) -> str:
    said = [note.words for note in notes if isinstance(note, Said)]
    if said:
        return said[-1]
    words = kind_of(annotation)
    if any(isinstance(note, MinLen) for note in notes):
        words = words.replace("a list", "a list that is not empty")
    limits = (f"{text} {getattr(note, key)}" for kind, key, text in _LIMITS for note in notes if isinstance(note, kind))
    return " ".join([words, " and ".join(limits)]).strip()
