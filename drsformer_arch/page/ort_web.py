"""ONNX Runtime Web, which runs networks in browsers: the pinned version, its files and its licence."""

import os
from pathlib import Path
from typing import NamedTuple

from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import sha256_of_file

VERSION = "1.30.0"
_FILES = {  # SHA-256 of what the package of npm holds in dist/
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LICENCE = """MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
DEALINGS IN THE SOFTWARE.
"""


class OrtWeb(NamedTuple):
    """The two files that a page holds."""

    script: bytes  # a module of JavaScript
    program: bytes  # WebAssembly


def default_folder() -> Path:
    """Return where `scripts/fetch_onnxruntime_web.sh` puts the files: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "drsformer" / f"onnxruntime-web-{VERSION}"


def read_ort_web(folder: Path | None = None) -> OrtWeb:
    """Read the files of ONNX Runtime Web.

    Args:
        folder: that has them, itself or in its dist/; default: `default_folder`.

    Raises:
        UserError: they are not there, or are not those of the pinned version.
    """
    root = default_folder() if folder is None else folder
    root = next(
        (place for place in (root, root / "dist", root / "package/dist") if (place / min(_FILES)).is_file()), root
    )
    for name, digest in _FILES.items():
        path = root / name
        if not path.is_file():
            raise UserError(
                f"{path} is missing: a page needs ONNX Runtime Web {VERSION}; scripts/fetch_onnxruntime_web.sh fetches "
                f"it, or unpack what `npm pack onnxruntime-web@{VERSION}` gives and name the folder with --ort-web"
            )
        if sha256_of_file(path) != digest:
            raise UserError(
                f"{path} is not that of ONNX Runtime Web {VERSION} (SHA-256), or damaged; remove it and fetch it again"
            )
    return OrtWeb(*((root / name).read_bytes() for name in _FILES))
