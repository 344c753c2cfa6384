"""Tell what kind of file somebody gives as weights by its first bytes and its directory; nothing is executed."""

import codecs
import zipfile
from pathlib import Path
from typing import Literal

from drsformer_arch.system.errors import UserError

Kind = Literal["zip", "old", "safetensors"]  # torch.save since 1.6, torch.save before, safetensors
SAFETENSORS = ".safetensors"
HEAD = 512  # bytes that are looked at
_ZIP = b"PK\x03\x04"
_OLD = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # after a pickle's first two bytes: torch's magic number
_LFS = "version https://git-lfs"
_TENSORS = "tensors are wanted: torch.save(net.state_dict(), FILE), or safetensors"
_OTHERS = (
    (b"\x1f\x8b", "is packed with gzip; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x89HDF", f"is an HDF5 file, as Keras writes them; {_TENSORS}"),
    (b"GGUF", f"is a GGUF file; {_TENSORS}"),
    (b"\x93NUMPY", f"is a NumPy array; {_TENSORS}"),
    (b"\x89PNG", "is a picture, no weights"),
    (b"\xff\xd8\xff", "is a picture, no weights"),
)


def kind_of_weights(path: Path) -> Kind:
    """Tell how to read a file of weights.

    Raises:
        UserError: it is none, and what it is instead; or it holds less than it says.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file of weights")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise UserError(f"{path} is empty (0 bytes); copy or download it again")
    for magic, description in _OTHERS:
        if head.startswith(magic):
            raise UserError(f"{path} {description}")
    if path.suffix.lower() == ".onnx" or (head[0] == 0x08 and head[2:3] in {b"\x12", b":"}):  # version, then producer
        raise UserError(f"{path} is an ONNX program, which only derain takes, named .onnx; {_TENSORS}")
    if head.startswith(_ZIP):
        _check_zip(path)
        return "zip"
    if head[2:].startswith(_OLD):
        return "old"
    text = _text(head)
    if text is not None:
        raise UserError(f"{path} {_describe_text(text)}")
    if head[8:9] == b"{":  # after the length of its header
        return "safetensors"
    if head[0] == 0x80 and head[1:2] in b"\x02\x03\x04\x05":  # protocols
        raise UserError(f"{path} is a pickle that torch.save did not write; its objects are not loaded; {_TENSORS}")
    raise UserError(f"{path} is no file of weights (.pth, .safetensors), or damaged at its beginning")


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is damaged: it ends too early or its directory is wrong ({error})") from error
    names = {entry.filename.partition("/")[2] or entry.filename for entry in entries}
    if "constants.pkl" in names:
        raise UserError(f"{path} is a TorchScript program; {_TENSORS}")
    if "data.pkl" not in names:
        program = any(name.startswith(("archive_format", "serialized_exported_program", "models/")) for name in names)
        what = f"is a program of torch.export; {_TENSORS}" if program else "is a zip archive; unpack it first"
        raise UserError(f"{path} {what}")
    # torch.save packs nothing: a file cannot hold more than its size.
    claimed = sum(entry.file_size for entry in entries)
    if claimed > path.stat().st_size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{path} says that it holds {claimed:,} bytes, which torch.save never packs into so few")


def _text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    return text if all(character.isprintable() or character.isspace() for character in text) else None


def _describe_text(text: str) -> str:
    begin = " ".join(text.split())[:40]
    if text.startswith(_LFS):
        return "is a pointer of Git LFS, not the file itself; get it with: git lfs pull"
    if begin.startswith("<"):
        return "is a web page; the download went wrong (a page to confirm or to log in?); download the file itself"
    return f"is a text that begins with {begin!r}, no weights; download or copy the file again"
