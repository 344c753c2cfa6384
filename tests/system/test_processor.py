"""What commands set for computing on the CPU, and that nothing is set by importing."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from drsformer_arch.cli import main
from drsformer_arch.system import processor

PAGE_FAULTS = """
import resource, sys
import numpy as np
import drsformer_arch.plugin
from drsformer_arch.system.processor import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(64 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
as_it_is = faults()
done = keep_freed_memory()
faults()
print(as_it_is, done, faults())
"""


def page_faults(**environment: str) -> tuple[int, bool, int]:
    """Faults of writing 64 MiB a second time before and after the setting, and whether it was made."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PAGE_FAULTS]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    before, changed, after = done.stdout.split()[-3:]
    return int(before), changed == "True", int(after)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_only_when_asked_for():
    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    before, changed, after = page_faults()
    if not changed:
        pytest.skip("this system's allocator has no mallopt")
    assert before >= pages / 512  # huge pages, where there are any, are 512 times as large
    assert after < before / 10
    assert page_faults(MALLOC_ARENA_MAX="2")[1] is False  # the user has decided


def test_cores_follow_affinity_and_container(tmp_path, monkeypatch):
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(processor, "CGROUP_LIMIT", limit)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(6)), raising=False)
    assert processor.usable_cores() == 6
    for content, cores in (
        ("max 100000", 6),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("900000 100000", 6),
        ("?", 6),
    ):
        limit.write_text(content)
        assert processor.usable_cores() == cores


@pytest.mark.parametrize(
    ("machine", "capability", "slow"),
    [("x86_64", "AVX2", True), ("x86_64", "AVX512", False), ("aarch64", "DEFAULT", False)],
)
def test_where_bfloat16_is_slow_commands_say_so(machine, capability, slow, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    note = "bf16 takes more than 10 times as long as float32 on this processor, which has no AVX-512"
    assert processor.note_on_bf16("cpu") == note * slow
    assert processor.note_on_bf16("cuda") == ""
    cv2.imwrite(str(tmp_path / "rainy.png"), np.full((16, 16, 3), 128, np.uint8))
    for precision in ("bf16", "float32"):
        files = [str(tmp_path / "rainy.png"), "-o", str(tmp_path / f"{precision}.png")]
        assert main(["derain", *files, "--device", "cpu", "--precision", precision]) == 0
        assert (f"note: --precision {note}" in capsys.readouterr().err) == (slow and precision == "bf16")
