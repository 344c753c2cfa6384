"""Weights of strangers: what cannot be used is one short line, before anything is allocated; what can be is used."""

import io
import pickle
import re
import resource
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from skimage import data

from drsformer_arch.archs import IDT, DRSformer
from drsformer_arch.cli import main
from drsformer_arch.restore.networks import load_network
from drsformer_arch.restore.weights import load_file, read_weights, save_safetensors
from drsformer_arch.system.errors import UserError

ARGUMENTS = {"dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 1, 1], "with_mefc": False}
LONGEST_MESSAGE = 500  # characters, of which the file's path takes many
SPARE_MEMORY = 2**30  # bytes that refusing a file may take


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return DRSformer(**ARGUMENTS).state_dict()


@pytest.fixture
def little_memory() -> Iterator[None]:
    """What a claim would allocate is not there."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_network(path)
    line = str(error.value)
    assert str(path) in line
    assert len(line) < LONGEST_MESSAGE
    assert "\n" not in line
    return line.replace(str(path), "FILE")


ODD_ARGUMENTS = [
    ({"dim": 10**9}, "FILE: network.dim must be at most 65,536"),
    ({"dim": 65536}, "does not fit DRSformer|takes .* GiB for its weights alone|do not work"),
    ({"dim": -8}, "network.dim must be a whole number of at least 1, not -8"),
    ({"dim": 0}, "network.dim must be a whole number of at least 1, not 0"),
    ({"dim": 8.5}, "network.dim must be a whole number"),
    ({"dim": float("nan")}, "network.dim must be at most"),
    ({"dim": float("inf")}, "network.dim must be at most"),
    ({"dim": 10**400}, "network.dim must be at most"),
    ({"dim": "8"}, "network.dim must be a whole number of at least 1, not '8'"),
    ({"dim": None}, "network.dim must be a whole number"),
    ({"dim": [8]}, "network.dim must be a whole number"),
    ({"dim": {"a": 1}}, "network.dim must be a plain value"),
    ({"heads": [0, 1, 1, 1]}, "network.heads must be a list, each entry a whole number of at least 1"),
    ({"heads": [-1, 1, 1, 1]}, "network.heads must be a list, each entry a whole number of at least 1"),
    ({"heads": 1}, "network.heads must be a list"),
    ({"num_blocks": 10**9}, "network.num_blocks must be at most"),
    ({"num_blocks": [10**9, 1, 1, 1]}, "network.num_blocks must be at most"),
    ({"num_blocks": [65536] * 4}, "gets more than .* tensors"),
    ({"num_blocks": [1] * 100_000}, "network.num_blocks must be a plain value or a short list|too long"),
    ({"num_blocks": []}, "need four entries"),
    ({"num_blocks": [1, 1, 1, [1]]}, "network.num_blocks must be a plain value"),
    ({"ffn_expansion_factor": 1e308}, "must be at most"),
    ({"ffn_expansion_factor": -5}, "do not work"),
    ({"with_mefc": True}, "set network_g.with_mefc: false"),
    ({"LayerNorm_type": "x" * 10**5}, "must be one of WithBias, BiasFree|too long"),
    ({"depth": 3}, "DRSformer has no argument depth"),
    ({"x" * 10**5: 3}, "DRSformer has no argument xxx|too long"),
    ({"": 3}, "DRSformer has no argument"),
    ({"type": []}, "cannot be read: there is no type|none of the networks"),
    ({"type": "Restormer"}, "Restormer has no argument with_mefc"),
    ({"type": "y" * 10**5}, "its network 'y+' is not ours|too long"),
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("odd", "message"), ODD_ARGUMENTS)
def test_arguments_in_metadata(odd, message, state, tmp_path, fault):
    """They are tried out without memory and compared with the shapes in the file, whatever they say."""
    section = {"type": "DRSformer", **ARGUMENTS, **odd}
    save_safetensors(tmp_path / "net.safetensors", state, section)
    torch.save({"params": state, "network": section}, tmp_path / "net.pth")
    for path in tmp_path.iterdir():
        if path.suffix == ".pth" and section["type"] == []:
            continue  # it may mean anything, and is not looked at
        with fault("network arguments in metadata"):
            line = refusal(path)
            assert re.search(message, line), line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[" * 5_000, "nested too deeply"),
        ("[" * 100_000, "too long"),
        ('"DRSformer"', "there is no type"),
        ("{}", "there is no type"),
        ('{"type": "DRSformer", "dim": ' + "9" * 5000 + "}", "thousands of digits"),
    ],
)
def test_metadata_that_say_nothing(text, message, state, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(safetensors.torch.save(state, {"network": text}))
    assert re.search(f"FILE: what its metadata say about the network cannot be read: .*{message}", refusal(path))


def test_pictures_of_a_network_that_no_memory_holds(tmp_path):
    """The size of its pictures leaves no trace in IDT's weights."""
    arguments = {"img_size": 128, "embed_dim": 8}
    section = {"type": "IDT", **arguments, "img_size": 65536}
    torch.save({"params": IDT(**arguments).state_dict(), "network": section}, tmp_path / "net.pth")
    assert "pictures of 65536x65536 for this IDT do not fit" in refusal(tmp_path / "net.pth")


ODD_TENSORS = {
    "sparse": (lambda value: value.to_sparse(), "is sparse"),
    "sparse rows": (lambda value: value.reshape(value.shape[0], -1).to_sparse_csr(), "is sparse"),
    "quantized": (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "is quantized"),
    "meta": (lambda value: value.to("meta"), "without values"),
    "complex": (lambda value: value.to(torch.complex64), "is complex"),
    "one number for all": (lambda _: torch.zeros(1).expand(10**9), "more than its size"),
    "NaN": (lambda value: value * torch.nan, "NaN or infinite"),
    "infinite": (lambda value: value / 0, "NaN or infinite"),
    "NaN of 8 bits": (lambda value: (value * torch.nan).to(torch.float8_e4m3fn), "NaN or infinite"),
    "another shape": (lambda value: value[None], "have another shape|none of the networks"),
    "no dimension": (lambda value: value.sum(), "have another shape|none of the networks"),
}


@pytest.mark.filterwarnings("ignore")  # torch's: sparse and quantized tensors are about to change
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_tensors_that_are_no_weights(kind, state, tmp_path, fault):
    change, message = ODD_TENSORS[kind]
    path, section = tmp_path / "net.pth", {"type": "DRSformer", **ARGUMENTS}
    changed = {**state, "output.weight": change(state["output.weight"])}
    for content in (changed, {"params": changed, "network": section}):
        torch.save(content, path)
        with fault("odd tensors"):
            assert re.search(message, refusal(path))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "entry", ["model", "net", "model_state_dict", "generator", "state_dict_ema", "ema", "of a kind of its own"]
)
def test_other_trainers_entries(entry, old, state, tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    wrapped = {f"module._orig_mod.{key}": value for key, value in state.items()}
    content = {"epoch": 3, entry: wrapped, "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{}]}, "args": None}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    assert torch.equal(load_network(path).state_dict()["output.weight"], state["output.weight"])
    assert read_weights(path).entry == entry
    assert load_file(path, mmap=True)["epoch"] == 3
    torch.save({"state_dict": {f"net_g.{key}": value for key, value in state.items()}}, path)
    assert torch.equal(load_network(path).state_dict()["output.weight"], state["output.weight"])


class Custom:
    """A class of somebody's own code."""


def packed(path: Path, *, compression: int) -> None:
    torch.save({"params": {"a": torch.zeros(10**6)}}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in content.items():
            archive.writestr(name, value)


def saved(content: object) -> bytes:
    torch.save(content, buffer := io.BytesIO())
    return buffer.getvalue()


WEIGHTS = {"layer.weight": torch.ones(3)}
NO_WEIGHTS = {
    "nothing": (b"", "is empty"),
    "zeros": (b"\0" * 1000, "is no file of weights"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "pointer of Git LFS"),
    "page": (b"\n<!DOCTYPE html><html><head><title>Sign in</title>" + b" " * 5000, "is a web page"),
    "answer": (b'{"error": {"code": 403, "message": "quota"}}', "is a text that begins with '{"),
    "picture": (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "is a picture"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 50, "packed with gzip"),
    "pickle": (pickle.dumps({"a": 1}, protocol=4), "a pickle that torch.save did not write"),
    "cut": (saved({"params": WEIGHTS})[:-40], "is damaged: it ends too early"),
    "object": (saved({"params": WEIGHTS, "net": Custom()}), r"holds Python objects \(\S*Custom\)"),
    "empty dict": (saved({}), "holds nothing"),
    "list": (saved([1, 2]), "holds a list"),
    "number": (saved(3.5), "holds a float"),
    "tensor": (saved(torch.ones(3)), "holds a Tensor"),
    "integer keys": (saved({0: torch.ones(3)}), r"holds no network weights; its entries: 0 \(Tensor\)"),
    "optimizer": (saved({"state": {}, "param_groups": []}), "state of an optimizer"),
    "state": (saved({"iter": 1, "epoch": 0, "optimizers": [], "schedulers": []}), "state of an optimizer"),
    "entries": (saved({"epoch": 1, "args": {"a": 1}}), r"its entries: epoch \(int\), args \(dict of 1\)"),
    "nested": (saved({"params": {"params": {"params": WEIGHTS}}}), r"its entries: params \(dict of 1\)"),
    "several": (saved({"a": WEIGHTS, "b": WEIGHTS}), "several weights: a, b; choose with --param-key"),
    "other network": (saved(WEIGHTS), "of none of the networks"),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_files_that_are_no_weights_say_what_they_are(kind, tmp_path, fault):
    content, message = NO_WEIGHTS[kind]
    for name in ("net.pth", "net.safetensors"):
        (tmp_path / name).write_bytes(content)
        with fault("file that is no weights"):
            line = refusal(tmp_path / name)
            assert re.search(message, line), line
            assert ("damaged" in line) == (kind in ("cut", "zeros")), line


def test_archives_given_as_weights(tmp_path):
    path = tmp_path / "net.pth"
    packed(path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    assert "never packs into so few" in refusal(path)
    packed(path, compression=zipfile.ZIP_STORED)
    assert "none of the networks" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/net.pth", b"")
    assert "is a zip archive; unpack it first" in refusal(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert "is a TorchScript program" in refusal(path)
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "net.pt2")
    assert "is a program of torch.export" in refusal(tmp_path / "net.pt2")


def test_the_name_does_not_matter(state, tmp_path):
    """Downloads are renamed."""
    save_safetensors(tmp_path / "net.safetensors", state, {"type": "DRSformer", **ARGUMENTS})
    (tmp_path / "net.safetensors").rename(tmp_path / "net.pth")
    torch.save({"params": state}, tmp_path / "net.safetensors")
    for path in tmp_path.iterdir():
        assert type(load_network(path)) is DRSformer


def test_weights_that_are_nan_are_refused_by_the_commands(state, tmp_path, capsys, fault):
    Image.fromarray(data.astronaut()[:20, :20]).save(tmp_path / "rainy.png")
    weights, out = str(tmp_path / "net.pth"), tmp_path / "out"
    broken = {**state, "output.weight": state["output.weight"] * torch.nan}
    torch.save({"params": state, "params_ema": broken}, weights)
    for command in (["derain", str(tmp_path / "rainy.png"), "-o", str(out), "-w", weights], ["export", weights, "-o"]):
        with fault("weights that are NaN"):
            assert main([*command, str(out / "net.onnx")] if command[-1] == "-o" else command) == 2
            said = capsys.readouterr().err
            assert "output.weight holds values that are NaN" in said
            assert said.count("\n") == 1
            assert not list(out.glob("*"))
    assert main(["export", weights, "-o", str(out / "net.safetensors"), "--param-key", "params"]) == 0
