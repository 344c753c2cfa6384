"""Inputs spoiled at random, from a seed: bytes of files, values of options and of JSON, names."""

import copy
import math
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"
INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER = 256  # bytes at the beginning, and at the end, that are hit as often as all the rest
VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "a",
    "\0",
    "../x",
    "\x1b[31m",
    "x" * 5000,
    -1,
    0,
    1,
    3,
    10**9,
    2**70,
    10**30,
    -0.5,
    1e-320,
    1e300,
    math.nan,
    math.inf,
    [],
    [[]],
    [None],
    [10**9] * 4,
    [1] * 9,
    {},
    {"a": 1},
)


def spoiled(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Spoil one to four places of a content; checksums of PNG are put right in half of the cases, to get behind them.

    Args:
        content: of a sound file.
        others: sound files of the same kind, of which pieces are put in.
        rng: source of all randomness; it is advanced.
    """
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        rng.choice(SPOILERS)(data, others, rng)
    if content.startswith(PNG) and rng.random() < 0.5:
        return _with_right_checksums(bytes(data))
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    where = rng.choice(("start", "end", "anywhere", "anywhere"))
    low = max(0, len(data) - HEADER) if where == "end" else 0
    high = min(len(data), HEADER) if where == "start" else len(data)
    return rng.randrange(low, high) if high > low else 0


def _flip(data: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] = rng.randrange(256)


def _number(data: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    place, size = _place(data, rng), struct.calcsize(form)
    data[place : place + size] = struct.pack(form, rng.choice(INTEGERS) & (256**size - 1))


def _truncate(data: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.randint(1, 64)]


def _repeat(data: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = data[place : place + rng.randint(1, 64)]


def _clear(data: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    place, length = _place(data, rng), rng.randint(1, 64)
    data[place : place + length] = bytes(len(data[place : place + length]))


def _insert(data: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = rng.randbytes(rng.randint(1, 32))


def _splice(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(others)
    place, source = _place(data, rng), rng.randrange(len(other))
    piece = other[source : source + rng.randint(1, 256)]
    data[place : place + len(piece)] = piece


SPOILERS: tuple[Callable[[bytearray, Sequence[bytes], random.Random], None], ...] = (
    _flip,
    _overwrite,
    _number,
    _number,
    _truncate,
    _remove,
    _repeat,
    _clear,
    _insert,
    _splice,
)


def _with_right_checksums(content: bytes) -> bytes:
    """Give the chunks of a PNG the checksums of what they hold, as far as its chunks can be told apart."""
    data, place = bytearray(content), len(PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(data)


def spoiled_values(
    tree: Any, rng: random.Random, values: Sequence[Any] = VALUES, keys: Sequence[Any] = ("", "a", "type")
) -> Any:
    """Copy nested dicts and lists, in which one to three values, or keys, are others.

    Args:
        tree: dicts, lists and plain values, as JSON or YAML has them.
        rng: source of all randomness; it is advanced.
        values: what is put in.
        keys: what keys become, beside what they are with an ending or in capitals.
    """
    spoiled_tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(spoiled_tree))
        if not places:
            break
        parent, key = rng.choice(places)
        action = rng.random()
        if action < 0.7:
            parent[key] = copy.deepcopy(rng.choice(values))
        elif action < 0.85:
            del parent[key]
        elif isinstance(parent, dict):
            parent[rng.choice((*keys, f"{key}_", str(key).upper()))] = parent.pop(key)
        else:
            parent.append(rng.choice(values))
    return spoiled_tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container inside a tree with each of its keys."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)
