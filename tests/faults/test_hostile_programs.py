"""ONNX files of strangers: looked through before anything computes with them, and ours checked with their checksum."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from skimage import data

from drsformer_arch.cli import main
from drsformer_arch.restore.onnx_file import seal
from drsformer_arch.restore.onnx_program import OnnxProgram
from drsformer_arch.system.errors import UserError

NETWORK = {"type": "DRSformer", "dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 1, 1], "with_mefc": False}
FREE = ["batch", 3, "height", "width"]


def program(
    nodes: list[Any] | None = None,
    *,
    weights: list[Any] | None = None,
    names: tuple[str, str] = ("rainy", "derained"),
    shapes: tuple[list, list] = (FREE, FREE),
    network: str | None = None,
    domain: str = "",
) -> onnx.ModelProto:
    """Make a graph that returns what it gets, with the metadata of an export."""
    nodes = nodes or [helper.make_node("Mul", [names[0], "one"], [names[1]])]
    one = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "one")
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip(names, shapes, strict=True)
    ]
    graph = helper.make_graph(nodes, "main", values[:1], values[1:], [one, *(weights or [])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 20)], ir_version=10)
    model.metadata_props.add(key="network", value=json.dumps(NETWORK) if network is None else network)
    return model


def endless() -> Any:
    """Make a loop of 2^62 rounds."""
    scalar = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", 9))]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        scalar,
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    rounds = numpy_helper.from_array(np.array(2**62, np.int64), "rounds")
    nodes = [
        helper.make_node("Constant", [], ["n"], value=rounds),
        helper.make_node("Loop", ["n", ""], [], body=body),
        helper.make_node("Mul", ["rainy", "one"], ["derained"]),
    ]
    return program(nodes)


def branch() -> Any:
    inner = [
        helper.make_graph(
            [helper.make_node("Identity", ["rainy"], [f"same{n}"])],
            "g",
            [],
            [helper.make_tensor_value_info(f"same{n}", TensorProto.FLOAT, FREE)],
        )
        for n in range(2)
    ]
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    return program([yes, helper.make_node("If", ["yes"], ["derained"], then_branch=inner[0], else_branch=inner[1])])


def elsewhere() -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return program(weights=[tensor])


def with_function() -> Any:
    model = program([helper.make_node("Own", ["rainy"], ["derained"], domain="own")])
    model.opset_import.append(helper.make_opsetid("own", 1))
    node = helper.make_node("Own", ["x"], ["y"], domain="own")  # calls itself
    model.functions.append(helper.make_function("own", "Own", ["x"], ["y"], [node], [helper.make_opsetid("own", 1)]))
    return model


def array(values: Any) -> list[Any]:
    return [numpy_helper.from_array(np.array(values, np.float32), "w")]


HOSTILE: dict[str, tuple[Callable[[], Any], str]] = {
    "endless loop": (endless, "a loop or a branch (Loop)"),
    "branch": (branch, "a loop or a branch (If)"),
    "other file": (elsewhere, "w is in another file"),
    "function": (with_function, "it holds functions"),
    "other operators": (
        lambda: program([helper.make_node("Gelu", ["rainy"], ["derained"], domain="com.microsoft")]),
        "operators that are not of the ONNX standard",
    ),
    "other input": (lambda: program(names=("x", "derained")), "it has x where exports have rainy"),
    "other output": (lambda: program(names=("rainy", "y")), "it has y where exports have derained"),
    "fixed size": (
        lambda: program(shapes=([1, 3, 64, 64], FREE)),
        "with any N, but 1x3x64x64",
    ),
    "fixed sides": (
        lambda: program(shapes=(["n", 3, 64, 64], FREE)),
        "of 3x64x64, its network DRSformer",
    ),
    "gray": (
        lambda: program(shapes=(["n", 1, "h", "w"], FREE)),
        "of 1xanyxany, its network DRSformer",
    ),
    "wrong output": (
        lambda: program([helper.make_node("ReduceMean", ["rainy"], ["derained"])]),
        "of pictures (1, 3, 16, 16), not the same shape",
    ),
    "operator that fails": (
        lambda: program([helper.make_node("Mul", ["rainy", "w"], ["derained"])], weights=array([1, 2, 3, 4, 5])),
        "fails in ONNX Runtime",
    ),
    "no such operator": (
        lambda: program([helper.make_node("Nothing", ["rainy"], ["derained"])]),
        "ONNX Runtime cannot use",
    ),
    "NaN": (lambda: program(weights=array([1, np.nan])), "w holds values that are NaN"),
    "infinite": (lambda: program(weights=array([1, np.inf])), "w holds values that are NaN or infinite"),
    "claim": (
        lambda: program(weights=[TensorProto(name="w", data_type=1, dims=[2**40, 2**20], raw_data=b"\0" * 8)]),
        "w is damaged",
    ),
    "no JSON": (lambda: program(network="{"), "cannot be read: it is no JSON"),
    "deep JSON": (lambda: program(network="[" * 9000), "cannot be read: it is nested too deeply"),
    "no type": (lambda: program(network="{}"), "cannot be read: there is no type"),
    "large network": (lambda: program(network=json.dumps(NETWORK | {"dim": 10**9})), "network.dim must be at most"),
    "endless network": (lambda: program(network=json.dumps(NETWORK | {"num_blocks": [60_000] * 4})), "gets more than"),
    "empty": (onnx.ModelProto, "damaged or no ONNX file"),
}


def test_names_that_are_no_text(tmp_path, fault):
    path, sound = tmp_path / "net.onnx", program().SerializeToString()
    for name in (b"rainy", b"derained", b"network", b"Mul"):
        path.write_bytes(sound.replace(name, b"\xff" * len(name)))
        with fault("hostile ONNX"), pytest.raises(UserError, match=r"damaged|names no network|it has|cannot use"):
            OnnxProgram(path)


@pytest.mark.parametrize("kind", HOSTILE)
def test_graphs_that_no_export_holds(kind, tmp_path, fault):
    make, message = HOSTILE[kind]
    path = tmp_path / "net.onnx"
    path.write_bytes(make().SerializeToString())
    with fault("hostile ONNX"), pytest.raises(UserError) as error:
        OnnxProgram(path)
    assert message in str(error.value), error.value
    assert str(path) in str(error.value), error.value
    assert len(str(error.value)) < 500, error.value


def test_exports_are_sealed_and_earlier_ones_load(tmp_path, capsys, fault):
    path = tmp_path / "net.onnx"
    path.write_bytes(program().SerializeToString())
    rainy = torch.rand(2, 3, 20, 30)
    assert torch.equal(OnnxProgram(path)(rainy), rainy)
    seal(path)
    assert torch.equal(OnnxProgram(path)(rainy), rainy)
    sealed = path.read_bytes()
    Image.fromarray(data.astronaut()[:20, :20]).save(tmp_path / "rainy.png")
    for place in range(0, len(sealed), len(sealed) // 40):
        path.write_bytes(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
        with fault("bit flip in an ONNX file"):
            assert main(["derain", str(tmp_path / "rainy.png"), "-o", str(tmp_path / "out"), "-w", str(path)]) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1
            assert str(path) in said
            assert not list((tmp_path / "out").glob("*"))
