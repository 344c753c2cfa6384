"""Training pairs per second of one core: BasicSR's data set on a folder and on its LMDB, ours on its stores.

python benchmarks/loader.py                   the whole table (about ten minutes; let nothing else compute)
python benchmarks/loader.py --rounds 1 --seconds 1

Every case runs in a process of its own, one after the other, in several rounds; the table shows the medians. All
cases read batches of 16 pairs of 128 px patches through torch's DataLoader and end with the same float32 RGB tensors:
with the same seeds their batches are equal bit for bit, which is checked. CPU time is that of all threads and worker
processes; memory is what the processes hold themselves, without the page cache. The pictures are photographs of
scikit-image with synthetic rain, saved as PNG by Pillow (zlib level 6).
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arguments import positive
from common import cpu_seconds, memory_of, photographs
from PIL import Image

from drsformer_arch.data.prepare.preparation import prepare_dataset
from drsformer_arch.data.store.lmdb_builder import build_lmdb
from drsformer_arch.images.pictures import pictures_in_folder
from drsformer_arch.rain.rain_synthesis import add_rain

SIZES = {"512x512": (512, 512), "481x321": (321, 481)}
CASES = {
    "BasicSR, folder": "basicsr_folder",
    "BasicSR, LMDB": "basicsr_lmdb",
    "ours, folder": "folder",
    "ours, compressed store": "compressed",
    "ours, raw store": "raw",
}
PATCH, BATCH = 128, 16


def make_data(root: Path, shape: tuple[int, int], pictures: int) -> None:
    """Write the same pairs in all forms below `root`."""
    for index, clean in zip(range(pictures), photographs(*shape), strict=False):
        for part, picture in (("target", clean), ("input", add_rain(clean, np.random.default_rng(index)))):
            path = root / "train" / part / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    for part in ("input", "target"):
        build_lmdb(pictures_in_folder(root / "train" / part), root / f"{part}.lmdb")
    for form in ("raw", "compressed"):
        prepare_dataset("pairs", [root / "train/input", root / "train/target"], root / form, output=form, split="train")


def data_set(case: str, root: Path) -> Any:
    """A training data set of one case."""
    from drsformer_arch import plugin  # noqa: F401, PLC0415 - makes BasicSR importable

    # isort: split
    from basicsr.data import build_dataset  # noqa: PLC0415

    options: dict[str, Any] = {"name": case, "phase": "train", "scale": 1, "gt_size": PATCH}
    options |= {"use_hflip": True, "use_rot": True}
    if case == "basicsr_folder":
        folders = {"dataroot_lq": str(root / "train/input"), "dataroot_gt": str(root / "train/target")}
        return build_dataset({**options, "type": "PairedImageDataset", "io_backend": {"type": "disk"}, **folders})
    if case == "basicsr_lmdb":
        folders = {"dataroot_lq": str(root / "input.lmdb"), "dataroot_gt": str(root / "target.lmdb")}
        return build_dataset({**options, "type": "PairedImageDataset", "io_backend": {"type": "lmdb"}, **folders})
    where = root / "train" if case == "folder" else root / case / "train.lmdb"
    return build_dataset({**options, "type": "PairedRainDataset", "dataroot": str(where)})


def measure(case: str, root: Path, workers: int, seconds: float) -> dict[str, float]:
    """Measure one case in this process."""
    from torch.utils.data import DataLoader, default_collate  # noqa: PLC0415

    from drsformer_arch.training.loaders import collate  # noqa: PLC0415

    pairs = data_set(case, root)
    theirs = case.startswith("basicsr")
    loader = DataLoader(
        pairs,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=default_collate if theirs else collate,  # as the loaders of either training
    )

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    stream = batches()
    for _ in range(2 * max(workers, 1) + 2):  # workers start, files are mapped
        next(stream)
    start_cpu, start, count = cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - start < seconds or count < 4:
        next(stream)
        count += 1
    cpu, wall = cpu_seconds() - start_cpu, time.perf_counter() - start
    return {"per_core": count * BATCH / cpu, "per_second": count * BATCH / wall, "memory": memory_of(os.getpid())}


def batch_digest(case: str, root: Path) -> str:
    """Digest a batch whose indices and draws follow from a seed, to see that all cases give the same."""
    pairs, digest = data_set(case, root), hashlib.sha256()
    names = sorted(range(len(pairs)), key=lambda index: os.path.basename(pairs.paths[index]["gt_path"]))
    random.seed(1)
    for index in names[:BATCH]:
        sample = pairs[index]
        digest.update(sample["lq"].numpy().tobytes() + sample["gt"].numpy().tobytes())
    return digest.hexdigest()


def bytes_per_pair(case: str, root: Path, pairs: int) -> float:
    places = {"basicsr_folder": ["train"], "folder": ["train"], "basicsr_lmdb": ["input.lmdb", "target.lmdb"]}
    files = [file for place in places.get(case, [case]) for file in (root / place).rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / pairs


def run_case(case: str, root: Path, workers: int, seconds: float) -> dict[str, float]:
    """Measure one case in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--root", str(root), "--workers", str(workers)]
    result = subprocess.run([*command, "--seconds", str(seconds)], check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=positive, default=48, help="pairs of each size (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, help="of all cases (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="of measuring per case and round (%(default)s)")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.root, arguments.workers, arguments.seconds)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in SIZES.items():
            root = Path(folder, name)
            make_data(root, shape, arguments.pictures)
            digests = {batch_digest(case, root) for case in CASES.values()}
            if len(digests) != 1:
                print("error: the cases do not give the same batch", file=sys.stderr)
                return 1
            for workers in (0, 2):
                results: dict[str, list[dict[str, float]]] = {case: [] for case in CASES.values()}
                for _ in range(arguments.rounds):
                    for case in CASES.values():
                        results[case].append(run_case(case, root, workers, arguments.seconds))
                print(f"\n{name}, {workers} workers, batches of {BATCH} pairs of {PATCH} px patches\n")
                print(
                    "| case | pairs per core-second | ratio | pairs per second | KB per pair | of PNG | memory, MiB |"
                )
                print("|---|---|---|---|---|---|---|")
                medians = {
                    case: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                    for case, runs in results.items()
                }
                png = bytes_per_pair("folder", root, arguments.pictures)
                for title, case in CASES.items():
                    row, size = medians[case], bytes_per_pair(case, root, arguments.pictures)
                    ratio = row["per_core"] / medians["basicsr_lmdb"]["per_core"]
                    print(
                        f"| {title} | {row['per_core']:.0f} | {ratio:.1f} "
                        f"| {row['per_second']:.0f} | {size / 1000:.0f} | {size / png:.2f} | {row['memory']:.0f} |",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
