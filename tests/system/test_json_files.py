"""JSON that others may have written: one kind of error for everything that can be wrong with it."""

import json
import os
from pathlib import Path

import pytest

from drsformer_arch.system.json_files import MOST_LEVELS, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "no JSON"),
        (b'{"iter": 1', "no JSON"),
        (b"\xff\xfe{}", "no text in UTF-8"),
        (json.dumps({"a": 1}).encode("utf-16"), "no text in UTF-8"),
        (b"\0" * 20, "no JSON"),
        (b"9" * 5000, "thousands of digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 900 + b"]" * 900, "nested too deeply"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nested too deeply"),
        (rb'{"name": "\ud800"}', "no text in UTF-8"),
        (rb'{"\uDC00": 1}', "no text in UTF-8"),
    ],
)
def test_what_is_wrong_is_a_value_error_of_few_words(text, reason, tmp_path):
    for read in (lambda: parse_json(text), lambda: read_json(tmp_path / "file.json")):
        (tmp_path / "file.json").write_bytes(text)
        with pytest.raises(ValueError, match=reason) as error:
            read()
        assert len(str(error.value)) < 100


def test_what_is_right_comes_back():
    deep: object = 1
    for _ in range(MOST_LEVELS):
        deep = [deep]
    content = {"deep": deep[0], "many": [[]] * 500, "text": "ä 😀 [[[ \\ud", "number": 10**40, "nothing": None}
    for text in (json.dumps(content), json.dumps(content, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == content


def test_what_is_no_file_or_too_large(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="it is no file"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing")
    (tmp_path / "large.json").write_text(" " * 2**20 + "1")
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        read_json(tmp_path / "large.json", 2**20)
