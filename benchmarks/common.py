"""Parts that the benchmark scripts share: photographs to work on, CPU time and memory of processes (Linux)."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

GRAIN = 2.0  # standard deviation of 255


def photographs(height: int, width: int) -> Iterator[np.ndarray]:
    """Endless random cuts of real photographs, mirrored at random, (H, W, 3) RGB uint8.

    They are enlarged where they are too small, which smooths away the grain; a little noise brings it back, so that PNG
    and other codecs find about as much to do as in the benchmark sets (0.6 of the raw bytes as PNG).
    """
    sources = [np.asarray(picture) for picture in (data.astronaut(), data.coffee(), data.rocket(), data.cat())]
    rng = np.random.default_rng(0)
    while True:
        source = Image.fromarray(sources[rng.integers(len(sources))])
        scale = rng.uniform(1, 1.3) * max(height / source.height, width / source.width, 0.7)
        source = source.resize(
            (int(source.width * scale) + 1, int(source.height * scale) + 1), Image.Resampling.BICUBIC
        )
        top, left = rng.integers(source.height - height + 1), rng.integers(source.width - width + 1)
        picture = np.asarray(source)[top : top + height, left : left + width]
        picture = picture[:, ::-1] if rng.random() < 0.5 else picture
        yield np.clip(np.rint(picture + rng.normal(0, GRAIN, picture.shape)), 0, 255).astype(np.uint8)


def cpu_seconds(first: int | None = None) -> float:
    """User and system time of a process (this one) and its workers."""
    ticks = 0
    for process in processes(os.getpid() if first is None else first):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def processes(first: int) -> list[int]:
    """List a process and all below it."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *(below for child in children for below in processes(int(child)))]


def memory_of(process: int) -> float:
    """MiB of a process and all below it that are not page cache; what they share after a fork counts in parts."""
    total = 0
    with contextlib.suppress(OSError):  # processes may end meanwhile
        for one in processes(process):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss_Anon:"):
                    total += int(line.split()[1])
    return total / 1024
