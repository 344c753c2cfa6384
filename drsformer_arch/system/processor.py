"""A command's use of the processor: its share of the cores, and memory that is kept between pictures.

Only commands do this, when they compute on the CPU. Importing the package changes nothing of the process it is part of.
"""

import contextlib
import ctypes
import math
import os
import platform
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # "QUOTA PERIOD" in microseconds; QUOTA is "max" without a limit
MEMORY_LIMIT, MEMORY_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")  # bytes
UNLIMITED = 2**31 - 1  # the largest that mallopt takes
LARGEST_KEPT = 128 * 2**20
X86 = ("x86_64", "AMD64")  # as Linux and Windows call it


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, and the share of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = CGROUP_LIMIT.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def keep_freed_memory(largest: int = LARGEST_KEPT) -> bool:
    """Let the process keep what it frees, for the next tensor.

    By default glibc gives large blocks back to the system at once, and each of their pages costs a fault when the next
    layer asks for memory: up to a third of the time of an inference. The process then keeps its peak memory until it
    ends.

    Args:
        largest: bytes of the largest block that is kept. Larger ones, of pictures of a megapixel and more, go back to
            the system, as the gaps between them would nearly triple the memory that such a picture takes.

    Returns:
        Whether anything was set: not without glibc, and not where the environment already says how to allocate.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([mallopt(M_MMAP_THRESHOLD, largest), mallopt(M_TRIM_THRESHOLD, UNLIMITED)])


def tune() -> None:
    """Keep memory, and use no more threads than usable cores (OMP_NUM_THREADS decides first), in this process."""
    import torch  # noqa: PLC0415 - who only counts cores needs no torch

    keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))


def model_name() -> str:
    """Return the name of the processor, as it calls itself (Linux), or its architecture."""
    return _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def flags() -> list[str]:
    """Return what the processor can do (Linux), for example avx512_bf16."""
    return _field("/proc/cpuinfo", "flags").split()


def note_on_bf16(device: str) -> str:
    """Return what to say where bfloat16 is asked for.

    Without AVX-512 torch has no bfloat16 convolutions, and computes them value by value.

    Args:
        device: a type of torch's, such as cpu.

    Returns:
        A phrase that begins with "bf16", or nothing: where it is fast, or, as on ARM, nobody has measured it.
    """
    import torch  # noqa: PLC0415

    if device != "cpu" or platform.machine() not in X86 or torch.backends.cpu.get_cpu_capability() == "AVX512":
        return ""
    return "bf16 takes more than 10 times as long as float32 on this processor, which has no AVX-512"


def memory_held(device: Any) -> int:
    """Return the bytes that the process holds now: of a torch device, or resident (Linux; 0 elsewhere)."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415

        return torch.cuda.memory_allocated(device)
    return _kibibytes("/proc/self/status", "VmRSS")


def peak_memory(device: Any) -> int:
    """Return the most that `memory_held` was since the process began or the peak was reset."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415

        return torch.cuda.max_memory_allocated(device)
    return _kibibytes("/proc/self/status", "VmHWM")


def reset_peak_memory(device: Any) -> None:
    """Let `peak_memory` begin anew."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415

        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def free_memory(device: Any) -> int:
    """Return the bytes that the process may still take: of a torch device, or of the machine or its container."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415

        return torch.cuda.mem_get_info(device)[0]
    free = _kibibytes("/proc/meminfo", "MemAvailable") or 2**62
    with contextlib.suppress(OSError, ValueError):  # ValueError: the limit is "max"
        free = min(free, int(MEMORY_LIMIT.read_text()) - int(MEMORY_USED.read_text()))
    return max(free, 0)


def whole_memory() -> int:
    """Return the bytes of the machine or its container, used ones too; a huge number where the system does not say."""
    whole = _kibibytes("/proc/meminfo", "MemTotal") or 2**62
    with contextlib.suppress(OSError, ValueError):  # ValueError: the limit is "max"
        whole = min(whole, int(MEMORY_LIMIT.read_text()))
    return whole


def _kibibytes(path: str, field: str) -> int:
    """Return a field in bytes; 0 where the system does not say."""
    return int(_field(path, field).removesuffix("kB") or 0) * 1024


def _field(path: str, name: str) -> str:
    """Return what stands behind the first `name:` of a file of the system; empty where there is none."""
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""
