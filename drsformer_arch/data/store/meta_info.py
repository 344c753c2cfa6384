"""The pictures of an LMDB in BasicSR's layout, as its `meta_info.txt` names them: lines `KEY.png (h,w,c) LEVEL`.

BasicSR cuts a line at its first dot, so that `rain_1.5` becomes `rain_1`. Here a key keeps its dots, blanks and
brackets.
"""

import re
from collections import Counter
from pathlib import Path

from drsformer_arch.system.errors import UserError, first_few

META_INFO = "meta_info.txt"
# Lists made by hand may lack the shape, or have another ending.
_LINE = re.compile(
    r"(?P<key>.+?)(?:\.(?:png|jpe?g|bmp|tiff?|webp))?(?: \(\d+, ?\d+(?:, ?\d+)?\)(?: \d+)?)?", re.IGNORECASE | re.DOTALL
)


def lmdb_keys(folder: Path | str) -> list[str]:
    """Return the keys in the order of the file; bytes that are no UTF-8 become surrogates, as in names of files.

    Raises:
        UserError: the file cannot be read, or names a picture twice.
    """
    path = Path(folder, META_INFO)
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            fits = (_LINE.fullmatch(line.rstrip()) for line in lines)
            keys = [fit["key"] for fit in fits if fit is not None]  # an empty line does not fit
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(set(keys)) < len(keys):
        twice = [key for key, count in Counter(keys).items() if count > 1]
        raise UserError(
            f"{path} names {len(twice)} pictures more than once ({first_few(twice)}), but an LMDB holds one of a name; "
            "make it anew from files with different names"
        )
    return keys


def name_of_key(key: str) -> str:
    """Return a name whose stem is the key: results are named by what stands before the last dot, `im.v1` has one."""
    return f"{key}.png"
