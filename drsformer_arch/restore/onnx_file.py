"""ONNX files of `drsformer export`: sealed with a checksum, and looked through before anything computes with them.

A stranger's graph can loop for ever or read other files. Ours have no loops, branches, functions or other files, so a
graph that has is refused.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from drsformer_arch.restore.weights import parse_network
from drsformer_arch.system.errors import UserError

INPUT, OUTPUT = "rainy", "derained"
CHECKSUM = "sha256"  # in the metadata: of the file's bytes with zeros in its place
_UNSEALED = "0" * 64
_MOST_BYTES = 2**31 - 1  # of a protocol buffer
_DOMAINS = ("", "ai.onnx")  # of the operators of the standard
_AGAIN = "write it again with drsformer export"


class OnnxFile(NamedTuple):
    """An ONNX file that was looked through."""

    content: bytes
    network: dict[str, Any]  # `type` and arguments, still to be tried
    picture: tuple[int | None, ...]  # channels, height and width; None: any


def seal(path: Path) -> None:
    """Add the checksum to a file that was just written."""
    import onnx  # noqa: PLC0415 - optional

    model = onnx.load(path)
    model.metadata_props.add(key=CHECKSUM, value=_UNSEALED)
    content = model.SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    path.write_bytes(content.replace(_UNSEALED.encode(), digest.encode()))


def read_onnx(path: Path) -> OnnxFile:
    """Read a file that `export` wrote; nothing in it is executed. Files without a checksum are from earlier versions.

    Raises:
        UserError: it is damaged, changed, not from `export`, or holds what no export holds.
    """
    import onnx  # noqa: PLC0415 - optional

    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} is no ONNX file: it is larger than one can be")
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's kinds of errors are not public
        raise UserError(f"{path} is damaged or no ONNX file") from error
    if not model.HasField("graph"):
        raise UserError(f"{path} is damaged or no ONNX file")
    try:
        return _checked(model, content, path)
    except (TypeError, AttributeError) as error:  # names that are no UTF-8 come as bytes
        raise UserError(f"{path} is damaged: there are bytes where names should be") from error


def _checked(model: Any, content: bytes, path: Path) -> OnnxFile:
    notes = {note.key: note.value for note in model.metadata_props}
    if "network" not in notes:
        raise UserError(f"{path} was not written by drsformer export: it names no network")
    network = parse_network(notes["network"], path)
    if CHECKSUM in notes:
        unsealed = content.replace(notes[CHECKSUM].encode(), _UNSEALED.encode())
        if hashlib.sha256(unsealed).hexdigest() != notes[CHECKSUM]:
            raise UserError(f"{path} is not what drsformer export wrote (SHA-256): it is damaged, or was changed")
    problem = _problem_of(model)
    if problem:
        raise UserError(f"{path}: {problem}; {_AGAIN}")
    return OnnxFile(content, network, _picture_of(model.graph, path))


def _problem_of(model: Any) -> str | None:
    """Say what a program holds that no export does; None where it is like one."""
    if model.functions or model.graph.sparse_initializer or model.training_info:
        return "it holds functions, sparse weights or a training, as no export does"
    if any(part.domain not in _DOMAINS for part in (*model.opset_import, *model.graph.node)):
        return "it needs operators that are not of the ONNX standard"
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return f"it holds a loop or a branch ({node.op_type[:40]}), as no export does"
    return next((problem for tensor in _tensors(model.graph) if (problem := _problem_of_tensor(tensor))), None)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _problem_of_tensor(tensor: Any) -> str | None:
    import onnx  # noqa: PLC0415 - optional

    name = tensor.name[:80] or "a constant"
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return f"{name} is in another file, as no export's is"
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # of many kinds; numpy's and protobuf's among them
        return f"{name} is damaged ({type(error).__name__})"
    # Single infinities are no weights: DRSformer's masks are filled with one.
    if values.dtype.kind == "f" and (np.isnan(values).any() or (values.size > 1 and np.isinf(values).any())):
        return f"{name} holds values that are NaN or infinite"
    return None


def _picture_of(graph: Any, path: Path) -> tuple[int | None, ...]:
    """Read channels, height and width of the pictures that a graph takes, where they are fixed.

    Raises:
        UserError: it takes or gives anything but pictures.
    """
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    for values, name in ((inputs, INPUT), (graph.output, OUTPUT)):
        if [value.name for value in values] != [name]:
            names = ", ".join(value.name[:40] for value in values[:3])
            raise UserError(f"{path}: it has {names or 'nothing'} where exports have {name}; {_AGAIN}")
        kind = values[0].type.tensor_type
        dimensions = [dimension.dim_value or None for dimension in kind.shape.dim]
        if kind.elem_type != 1 or len(dimensions) != 4 or dimensions[0] is not None:
            shape = "x".join(str(one or "any") for one in dimensions[:6])
            raise UserError(f"{path}: {name} is no float32 (N, C, H, W) with any N, but {shape}; {_AGAIN}")
        if values is inputs:
            picture = tuple(dimensions[1:])
    return picture
