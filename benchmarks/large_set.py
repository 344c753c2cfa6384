"""How large data sets behave: building, opening, verifying, the first iteration, the memory of every process.

python benchmarks/large_set.py --pairs 638492                SPA-Data's number, all forms; needs 20 GB
python benchmarks/large_set.py --pairs 20000 --forms raw --plot memory.png
python benchmarks/large_set.py --pairs 638492 --folder /scratch/large --keep    a later call uses what is there

Pairs of small pictures, each different from all others (32x32, about 4 KB as a file), are prepared in each form; then a
training of a tiny network is started and its loader is read from. The same is done with a tenth of the pairs: what
grows with a set shows as bytes per pair. Memory is PSS of /proc/PID/smaps: what processes share counts in parts. Pages
of the pictures' own files are page cache, which the system takes back when it needs them; they count apart.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from arguments import positive
from common import cpu_seconds, processes

from drsformer_arch.data.store import records
from drsformer_arch.data.store.environments import Writer
from drsformer_arch.data.store.lmdb_builder import write_basicsr
from drsformer_arch.data.store.store import Shard, pair_key, write_description
from drsformer_arch.images.pictures import encode_png
from drsformer_arch.system.files import crc32_of_file
from drsformer_arch.system.processor import usable_cores

SIZE, PATCH, BATCH = 32, 16, 16
IN_FOLDER = 1000  # pictures
FORMS = ("folder", "compressed", "raw", "basicsr")
WORKERS = (0, 1, 4, 8)
SEED = 1
COMMAND = [sys.executable, "-m", "drsformer_arch.cli"]


def make_folder(task: tuple[Path, int, int]) -> None:
    """Write some pairs as pictures of one folder below input and one below target."""
    root, first, last = task
    rng = np.random.default_rng(first)
    places = [root / part / f"{first // IN_FOLDER:04d}" for part in ("input", "target")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    for index in range(first, last):
        coarse = rng.integers(0, 200, (6, 6, 3), np.uint8)
        clean = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        rainy = cv2.add(clean, cv2.resize(coarse[:1], (SIZE, SIZE)) // 4)
        for place, picture in zip(places, (rainy, clean), strict=True):
            content = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            (place / f"{index:06d}.png").write_bytes(content.tobytes())


def make_pairs(root: Path, count: int) -> None:
    """Write folders input and target; they are whole once `root` is there."""
    if root.exists():
        return
    unfinished = root.with_suffix(".unfinished")
    tasks = [(unfinished, first, min(first + IN_FOLDER, count)) for first in range(0, count, IN_FOLDER)]
    with multiprocessing.get_context("spawn").Pool(usable_cores() + 1) as pool:
        for _ in pool.imap_unordered(make_folder, tasks):
            pass
    unfinished.rename(root)


class Memory(NamedTuple):
    """MiB of a process: all but pages of the pictures' files, and those."""

    own: float
    pictures: float


def memory(process: int, data: Path) -> Memory:
    """Measure the PSS of one process; a file counts as one of pictures where it lies in `data`."""
    own = pictures = 0
    of_pictures = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        key, *rest = line.split()
        if not key.endswith(":"):
            of_pictures = line.endswith(".mdb") and str(data) in line
        elif key == "Pss:":
            own, pictures = own + int(rest[0]) * (not of_pictures), pictures + int(rest[0]) * of_pictures
    return Memory(own / 1024, pictures / 1024)


def workers_of(process: int) -> list[int]:
    """List the processes below one, without those that only keep order among them."""
    found = []
    for one in processes(process)[1:]:
        with suppress(OSError):
            if b"resource_tracker" not in Path(f"/proc/{one}/cmdline").read_bytes():
                found.append(one)
    return found


def timed(*arguments: object) -> float:
    """Run a command of the package; return its seconds."""
    start = time.perf_counter()
    result = subprocess.run([*COMMAND, *map(str, arguments)], check=False, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{arguments[0]}: {result.stderr[-2000:]}")
    return time.perf_counter() - start


def drop_from_cache(folder: Path) -> None:
    """Let the system forget the content of files, so that they are read from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def options(data: Path, workers: int) -> dict[str, Any]:
    """Make options of a training of a tiny network."""
    train = {"type": "PairedRainDataset", "dataroot": str(data), "gt_size": PATCH, "batch_size_per_gpu": BATCH}
    return {
        "name": "large",
        "model_type": "DerainModel",
        "num_gpu": 0,
        "manual_seed": SEED,
        "datasets": {"train": {**train, "num_worker_per_gpu": workers}},
        "network_g": {"type": "Restormer", "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
        "train": {
            "total_iter": 100_000,
            "optim_g": {"type": "AdamW", "lr": 1e-4},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [100_000], "restart_weights": [1]},
            "pixel_opt": {"type": "L1Loss"},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 100_000},
    }


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a process and its workers when the block ends."""
    try:
        yield
    finally:
        with suppress(OSError):
            family = processes(process.pid)
            process.kill()
            for one in family[1:]:
                with suppress(OSError):
                    os.kill(one, 9)
        process.wait()


def first_iteration(data: Path, workers: int) -> dict[str, float]:
    """Start a training, from LMDB files on the disk only; measure until its first iteration is logged."""
    if not (data / "input").is_dir():  # millions of files take long to forget
        drop_from_cache(data)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "large.yml").write_text(yaml.safe_dump(options(data, workers)))
        start = time.perf_counter()
        command = [*COMMAND, "train", "-opt", "large.yml"]
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        said = []
        with stopped(process):
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if "[epoch:" in line:
                    seconds, cpu = time.perf_counter() - start, cpu_seconds(process.pid)
                    main = memory(process.pid, data)
                    each = [memory(worker, data).own for worker in workers_of(process.pid)]
                    return {
                        "seconds": seconds,
                        "cpu": cpu,
                        "main": main.own,
                        "worker": max(each, default=0),
                        "workers": len(each),
                    }
    sys.exit("".join(said)[-3000:])


def probe(data: Path, workers: int, part: float) -> None:
    """Read from the loader of a training from a part of the epoch on; prints JSON lines, and waits for each answer."""
    from drsformer_arch import plugin  # noqa: F401, PLC0415 - makes BasicSR importable
    from drsformer_arch.training.loaders import ResumableSampler, create_train_val_dataloader  # noqa: PLC0415

    def say(**facts: object) -> None:
        print(json.dumps(facts), flush=True)
        sys.stdin.readline()

    import logging  # noqa: PLC0415

    opt: dict[str, Any] = options(data, workers) | {"dist": False, "rank": 0, "world_size": 1, "is_train": True}
    opt["datasets"]["train"] |= {"phase": "train", "scale": 1, "name": "large"}
    say(at="imported")
    start = time.perf_counter()
    loader, sampler, *_ = create_train_val_dataloader(opt, logging.getLogger())
    opened = time.perf_counter() - start
    say(at="opened", seconds=opened)
    whole = sampler.iterations_per_epoch
    sampler.start_iteration = min(int(whole * part), max(whole - 400, 0))
    start = time.perf_counter()
    for _ in ResumableSampler(
        sampler.size, BATCH, seed=SEED, start_iteration=sampler.start_iteration
    ):  # the order of an epoch, without pictures
        break
    shuffled = time.perf_counter() - start
    start, times = time.perf_counter(), []
    for _ in loader:
        times.append(time.perf_counter() - start)
        if len(times) % 50 == 1:
            first = times[0]
            steps = [after - before for before, after in itertools.pairwise(times[1:])]
            say(
                at="reading",
                batches=len(times),
                shuffled=shuffled,
                first=first,
                batch=statistics.median(steps) if steps else 0,
            )
            start += time.perf_counter() - start - times[-1]  # the measuring of memory takes a while
        if len(times) >= 400:
            break
    say(at="end")


def loader_run(data: Path, workers: int, part: float = 0) -> dict[str, Any]:
    """Run `probe` in a process of its own and measure its memory at every line it says."""
    command = [sys.executable, __file__, "--probe", str(data), "--workers", str(workers), "--part", str(part)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    run: dict[str, Any] = {"curve": []}
    with stopped(process):
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            facts = json.loads(line)
            main = memory(process.pid, data)
            each = [memory(worker, data) for worker in workers_of(process.pid)]
            run[facts.pop("at")] = {
                **facts,
                "main": main.own,
                "worker": max((one.own for one in each), default=0),
                "pictures": max((one.pictures for one in each), default=main.pictures),
            }
            if "batches" in facts:
                run["curve"].append([facts["batches"], main, *each])
            if "end" in run:
                return run
            process.stdin.write("\n")
    sys.exit(f"the loader ended early: {data}, {workers} workers")


def truncated(data: Path, form: str) -> str:
    """Cut a file of a copy short and return what opening it says."""
    file = max(data.rglob("*.mdb"), key=lambda path: (path.stat().st_size, path.name))
    size = file.stat().st_size
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        copy = Path(folder, data.name)
        shutil.copytree(data, copy, ignore=lambda _, names: [name for name in names if name == file.name])
        if form == "basicsr":
            for place in ("input.lmdb", "target.lmdb"):
                (copy / place / file.name).parent.mkdir(exist_ok=True)
                os.link(data / place / file.name, copy / place / file.name)
        cut = copy / file.relative_to(data)
        cut.unlink(missing_ok=True)
        with file.open("rb") as whole, cut.open("wb") as part:
            part.write(whole.read(min(2**20, size // 2)))
        Path(folder, "large.yml").write_text(yaml.safe_dump(options(copy, 0)))
        result = subprocess.run(
            [*COMMAND, "train", "-opt", "large.yml"], cwd=folder, check=False, capture_output=True, text=True
        )
        lines = result.stderr.strip().splitlines() or result.stdout.strip().splitlines()
        assert "Traceback" not in result.stderr, result.stderr
        return f"{result.returncode}: {lines[-1].replace(str(copy), data.name)}"


def write_directly(data: Path, form: str, count: int) -> None:
    """Write a store or BasicSR's LMDBs of noise, with the package's own writers but without `drsformer prepare`."""
    rng = np.random.default_rng(SEED)

    def noise() -> Iterator[np.ndarray]:
        while True:
            yield from rng.integers(0, 256, (500, SIZE, SIZE, 3), np.uint8)

    keys = (f"{index // IN_FOLDER:04d}/{index:06d}" for index in range(count))
    if form == "basicsr":
        names = list(keys)
        for part in ("input", "target"):
            (data / f"{part}.lmdb").mkdir(parents=True)
            pngs = map(encode_png, noise())
            write_basicsr(data / f"{part}.lmdb", ((name, next(pngs), (SIZE, SIZE, 3)) for name in names), count)
        return
    data.mkdir(parents=True)
    shards, pictures = [], noise()
    for first in range(0, count, 10 * IN_FOLDER):
        file, pairs = data / f"shard-{len(shards):05d}.mdb", min(10 * IN_FOLDER, count - first)
        with Writer(file, subdir=False) as writer:
            for number, key in zip(range(pairs), keys, strict=False):
                both = [f"{part}/{key}".encode() for part in ("input", "target")]
                for name in both:
                    writer.put(name, records.pack(next(pictures), form))
                writer.put(pair_key(number), b"\0".join(both))
        shards.append(Shard(file.name, pairs, file.stat().st_size, crc32_of_file(file)))
    write_description(data, encoding=form, manifest_sha256="0" * 64, source="", shards=shards)


def build(work: Path, form: str, count: int, *, directly: bool) -> tuple[Path, dict[str, Any]]:
    """Build one form of the pictures in `source`; return where it is and what that took, which a kept one remembers."""
    source, target, note = work / "source", work / form, work / f"{form}.json"
    data = source if form == "folder" else target / ("train" if form == "basicsr" else "train.lmdb")
    if note.exists():
        return data, json.loads(note.read_text())
    row: dict[str, Any] = {}
    if directly:
        write_directly(data, form, count)
        row["bytes"] = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    elif form != "folder":
        row["build"] = timed("prepare", "pairs", source / "input", source / "target", "-o", target, "--lmdb", form)
        row["bytes"] = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    if form in ("raw", "compressed") and not directly:
        drop_from_cache(data)
        row["verify"] = timed("prepare", "--verify", data)
    note.write_text(json.dumps(row))
    return data, row


def measure(work: Path, form: str, count: int, workers: Sequence[int], *, keep: bool, directly: bool) -> dict[str, Any]:
    """Build one form and measure everything; removes it unless it is kept."""
    data, row = build(work, form, count, directly=directly)
    row["first"] = {count: first_iteration(data, count) for count in workers}
    row["loader"] = {count: loader_run(data, count) for count in workers}
    row["middle"], row["end"] = (loader_run(data, 1, part) for part in (0.5, 1))
    if form != "folder":
        row["truncated"] = truncated(data, form)
        if not keep:
            shutil.rmtree(work / form)
    return row


def table(results: dict[str, dict[int, dict[str, Any]]], workers: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the tables."""
    yield (
        "| form | pairs | build, s | GB | verify, s | open, s | first iteration, s | its CPU time, s "
        "| first batch, start / middle, s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for form, rows in results.items():
        for pairs, row in rows.items():
            cpu = [row["first"][count]["cpu"] for count in workers]
            seconds = [row["first"][count]["seconds"] for count in workers]
            loader = row["loader"][workers[-1]]
            starts = row["loader"][1 if 1 in workers else workers[-1]]["reading"]["first"]
            yield (
                f"| {form} | {pairs:,} | {row.get('build', 0):.0f} | {row.get('bytes', 0) / 1e9:.2f} "
                f"| {row.get('verify', 0):.0f} "
                f"| {loader['opened']['seconds']:.2f} | {min(seconds):.1f} to {max(seconds):.1f} "
                f"| {min(cpu):.1f} to {max(cpu):.1f} "
                f"| {starts:.2f} / {row['middle']['reading']['first']:.2f} |"
            )
    yield (
        "\n| form | pairs | workers | main, MiB | worker, MiB | bytes per pair, main | worker | pictures' pages, MiB |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for form, rows in results.items():
        (few, small), (many, large) = next(iter(rows.items())), list(rows.items())[-1]
        for count in workers:
            before, after = (row["loader"][count]["reading"] for row in (small, large))
            grown = [
                (after[who] - before[who]) * 2**20 / (many - few) if many > few else 0 for who in ("main", "worker")
            ]
            yield (
                f"| {form} | {many:,} | {count} | {after['main']:.0f} | {after['worker']:.0f} "
                f"| {grown[0]:.0f} | {grown[1]:.0f} | {after['pictures']:.0f} |"
            )
    yield "\n| form | pairs | order of an epoch, s | batch at the start, ms | at the end, ms |"
    yield "|---|---|---|---|---|"
    for form, rows in results.items():
        for pairs, row in rows.items():
            start = row["loader"][1 if 1 in workers else workers[-1]]["reading"]
            yield (
                f"| {form} | {pairs:,} | {start['shuffled']:.2f} | {1000 * start['batch']:.2f} "
                f"| {1000 * row['end']['reading']['batch']:.2f} |"
            )
    yield ""
    for form, rows in results.items():
        if form != "folder":
            yield f"{form}, cut short: {list(rows.values())[-1]['truncated']}"


def plot(results: dict[str, dict[int, dict[str, Any]]], path: Path, workers: Sequence[int]) -> None:
    """Draw the memory of the processes over the start of an epoch."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(
        1, len(results), figsize=(6 * len(results), 4.5), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, (form, rows) in zip(panels[0], results.items(), strict=True):
        for color, (pairs, row) in zip(("tab:blue", "tab:red"), rows.items(), strict=False):
            curve = row["loader"][workers[-1]]["curve"]
            batches = [point[0] for point in curve]
            panel.plot(batches, [point[1][0] for point in curve], color=color, label=f"{pairs:,} pairs: main process")
            lines = {"a worker": (0, "--"), "a worker's cached pictures": (1, ":")}
            for name, (which, style) in lines.items():
                points = [(point[0], max(one[which] for one in point[2:])) for point in curve if len(point) > 2]
                panel.plot(*zip(*points, strict=True), style, color=color, label=f"{pairs:,} pairs: {name}")
        panel.set(title=f"{form}, {workers[-1]} workers", xlabel=f"batches of {BATCH}", ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("PSS, MiB")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=positive, default=20_000, help="(%(default)s)")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="(all)")
    parser.add_argument("--folder", type=Path, help="for the data (a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="the data, below --folder, and use what is there")
    parser.add_argument(
        "--directly", action="store_true", help="write stores without preparing pictures: only reading is measured"
    )
    parser.add_argument("--small", type=positive, help="pairs of the smaller set (a tenth)")
    parser.add_argument("--json", type=Path, help="file for the results, written form by form")
    parser.add_argument("--plot", type=Path, help="file for the memory curves, such as memory.png")
    parser.add_argument("--probe", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS), help="(0 1 4 8)")
    parser.add_argument("--part", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.probe:
        probe(arguments.probe, arguments.workers[0], arguments.part)
        return 0
    results: dict[str, dict[int, dict[str, Any]]] = {form: {} for form in arguments.forms}
    if arguments.directly:
        arguments.forms = [form for form in arguments.forms if form != "folder"]
    if arguments.keep and arguments.folder is None:
        parser.error("--keep needs --folder")
    for count in (arguments.small or arguments.pairs // 10, arguments.pairs):
        with ExitStack() as stack:
            if arguments.keep:
                work = arguments.folder.absolute() / str(count)
                work.mkdir(parents=True, exist_ok=True)
            else:
                work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
            start = time.perf_counter()
            if not arguments.directly:
                make_pairs(work / "source", count)
                print(f"{count:,} pairs made in {time.perf_counter() - start:.0f} s", flush=True)
            for form in arguments.forms:
                results[form][count] = measure(
                    work, form, count, arguments.workers, keep=arguments.keep, directly=arguments.directly
                )
                print(f"{count:,} pairs measured as {form}", flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(results))
    print("\n".join(table(results, arguments.workers)))
    if arguments.plot:
        plot(results, arguments.plot, arguments.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
