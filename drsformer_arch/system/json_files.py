"""JSON from files that others may have written or damaged: read, or refused with a short reason."""

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 2**26  # of a file; as Python's objects JSON takes up to twenty times its size
MOST_LEVELS = 100  # of lists and objects inside each other: what looks at the content may call itself for each


def parse_json(text: str | bytes) -> Any:
    r"""Call `json.loads` so that it fails in one way only, whatever the text is.

    Args:
        text: UTF-8 where it is bytes.

    Raises:
        ValueError: it is no JSON, nested more than `MOST_LEVELS` deep, holds a number of thousands of digits, or half
            a character (`"\ud800"`), which no file takes. The message says so in a few words.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        content = json.loads(text)
        if r"\ud" in text or r"\uD" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeError:
        raise ValueError("it is no text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON (line {error.lineno}: {error.msg})") from None
    except ValueError:  # the only one left
        raise ValueError("it holds a number of thousands of digits") from None
    if text.count("[") + text.count("{") > MOST_LEVELS and _levels(content) > MOST_LEVELS:
        raise ValueError("it is nested too deeply")
    return content


def _levels(content: Any) -> int:
    level, levels = [content], 0
    while level := [part for part in level if isinstance(part, list | dict)]:
        levels += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return levels


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Return the content of a JSON file.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: as `parse_json`, or it is no regular file, or larger than `most_bytes`.
    """
    if path.exists() and not path.is_file():  # a pipe may never end
        raise ValueError("it is no file")
    with path.open("rb") as file:
        text = file.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes >> 20} MiB")
    return parse_json(text)
