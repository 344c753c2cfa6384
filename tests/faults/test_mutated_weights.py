"""Sound weight files with random damage, seeded: each loads, or is refused in one short line; nothing else happens."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from drsformer_arch.archs import DRSformer
from drsformer_arch.restore.networks import load_network
from drsformer_arch.restore.onnx_program import OnnxProgram
from drsformer_arch.restore.weights import save_safetensors
from drsformer_arch.system.errors import UserError
from tests.faults.mutation import spoiled
from tests.faults.test_hostile_programs import program
from tests.faults.test_hostile_weights import ARGUMENTS, LONGEST_MESSAGE

TIMES, MANY_TIMES = 10, 2000  # in the short and the long form


def damaged(content: bytes, rng: random.Random) -> bytes:
    return spoiled(content, [content], rng)


def with_damaged_pickle(content: bytes, rng: random.Random) -> bytes:
    """Damage the pickle, and put a sound archive around it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name, value in entries.items():
            archive.writestr(name, damaged(value, rng) if name.endswith("data.pkl") else value)
    return buffer.getvalue()


def write_sound(path: Path, kind: str) -> None:
    net, section = DRSformer(**ARGUMENTS), {"type": "DRSformer", **ARGUMENTS}
    if path.suffix == ".onnx":
        path.write_bytes(program().SerializeToString())
    elif path.suffix == ".safetensors":
        save_safetensors(path, net.state_dict(), section)
    else:
        content = {"params": net.state_dict(), "network": section}
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old format")


KINDS: dict[str, tuple[str, Callable[[bytes, random.Random], bytes], Callable[[Path], object]]] = {
    "archive": ("net.pth", damaged, load_network),
    "pickle in an archive": ("net.pth", with_damaged_pickle, load_network),
    "old format": ("net.pth", damaged, load_network),
    "safetensors": ("net.safetensors", damaged, load_network),
    "ONNX": ("net.onnx", damaged, OnnxProgram),
}


@pytest.mark.filterwarnings("ignore")  # torch's, about tensors of kinds that are about to change
@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_one_line(kind, tmp_path, fault, long):
    name, damage, load = KINDS[kind]
    path, rng = tmp_path / name, random.Random(kind)
    write_sound(path, kind)
    load(path)
    sound = path.read_bytes()
    for _ in range(MANY_TIMES if long else TIMES):
        path.write_bytes(damage(sound, rng))
        with fault(f"random damage to weights: {kind}"):
            try:
                load(path)
            except UserError as error:
                assert str(path) in str(error)  # noqa: PT017 - an error may come, it need not
                assert len(str(error)) < LONGEST_MESSAGE  # noqa: PT017
