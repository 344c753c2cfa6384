"""The page that derains beside `Restorer`: equality, seconds, memory, in headless Chromium (Linux).

    drsformer export DRSformer-S -o derain.html                   # needs scripts/fetch_onnxruntime_web.sh
    python benchmarks/browser.py derain.html                      # a quarter of an hour; let nothing else compute
    python benchmarks/browser.py derain.html --parts start times  # some of it

Parts:

    start     size of the page; seconds until it has derained a picture of 8x8 that is chosen at once
    times     seconds and memory for square pictures of 256, 512, 1024, beside Restorer's seconds with the same tiles
    equality  eight pictures of all kinds: the largest difference of the saved PNG to Restorer's, in levels of 8 bits
    psnr      of the pairs of `drsformer samples`, by the rain200 protocol, of the page's results and of Restorer's

Seconds of the page are those that it shows: from the first tile to the file that is saved. Memory is the most that the
page's process had at once (VmHWM of the renderer), the page itself in it. OMP_NUM_THREADS says with how many threads
Restorer computes.
Chromium allows no threads to a page opened by double-click; several networks share the tiles of a large picture where
there are four cores or more. Weights other than DRSformer-S are named by -w.
"""

import argparse
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import photographs, processes
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from drsformer_arch import Restorer
from drsformer_arch.images.photographs import Photograph, read_photograph, write_photograph
from drsformer_arch.images.pictures import Picture, sixteen_bits
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.restore.weights import habits_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
TILE = 512
PATIENCE = 3_600_000  # ms
SIZES = (256, 512, 1024)


class Bench(NamedTuple):
    """What is compared, and where files go."""

    page: Path
    restorer: Callable[[int], Restorer]  # with tiles of a side, 0: none; shipped weights have their own
    folder: Path
    own: int  # side of these


@contextmanager
def opened(page_file: Path) -> Iterator[Any]:
    """Open the page in a browser of its own."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=SWITCHES)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page.goto(page_file.resolve().as_uri())
        page.version = browser.version
        yield page
        browser.close()


def run(page: Any, path: Path, folder: Path) -> tuple[Path, float]:
    """Derain a picture in the page; returns the saved PNG and the seconds that the page shows."""
    page.locator("input[name=pictures]").set_input_files(path)
    card = page.locator(".card.finished, .card.failed", has=page.get_by_text(path.name, exact=True))
    expect(card).to_have_count(1)
    note = card.locator(".notes").inner_text()
    seconds = re.search(r"([\d.]+) s", note)
    assert seconds, f"{path.name}: {note}"
    if path.suffix != ".png":
        card.locator("select").select_option("image/png")
    with page.expect_download() as download:
        card.get_by_role("button", name=re.compile("^Save")).click()
    saved = folder / f"{path.stem}-derained.png"
    download.value.save_as(saved)
    card.get_by_role("button", name=re.compile("^Remove")).click()
    expect(page.locator(".card")).to_have_count(0)
    return saved, float(seconds[1])


def peak_of_renderers() -> float:
    """MiB that the largest renderer of this process's browser had at most."""
    peaks = [0.0]
    for process in processes(int(Path("/proc/self").resolve().name)):
        try:
            if b"--type=renderer" in Path(f"/proc/{process}/cmdline").read_bytes():
                status = Path(f"/proc/{process}/status").read_text()
                peaks.append(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)
        except (OSError, TypeError):  # it has just ended
            continue
    return max(peaks)


def start(bench: Bench) -> None:
    """Print size and start."""
    tiny = bench.folder / "tiny.png"
    write_photograph(tiny, Photograph(next(photographs(8, 8))))
    with opened(bench.page) as page:
        begin = time.perf_counter()
        page.reload()
        run(page, tiny, bench.folder)
        print(f"{bench.page}: {bench.page.stat().st_size / 1e6:.1f} MB, Chromium {page.version}")
        print(f"started and derained 8x8 in {time.perf_counter() - begin:.1f} s")


def times(bench: Bench) -> None:
    """Print a table of seconds and memory."""
    rows = []
    for side in SIZES:
        path = bench.folder / f"{side}.png"
        write_photograph(path, Photograph(next(photographs(side, side))))
        with opened(bench.page) as page:
            first, again = (run(page, path, bench.folder)[1] for _ in range(2))
            memory = peak_of_renderers()
        rows.append((side, first, again, memory))
    print("| | page, first | page, again | memory of the page | Restorer |\n|---|---|---|---|---|")
    for side, first, again, memory in rows:
        net = bench.restorer(0 if side <= TILE else TILE)
        picture = read_photograph(bench.folder / f"{side}.png").pixels
        net(picture)
        begin = time.perf_counter()
        net(picture)
        seconds = time.perf_counter() - begin
        print(f"| {side}x{side} | {first:.1f} s | {again:.1f} s | {memory / 1024:.2f} GiB | {seconds:.2f} s |")


def kinds(folder: Path) -> Iterator[tuple[Path, int]]:
    """Write eight pictures of all kinds; yields each with the side of its tiles, 0: whole."""

    def written(name: str, pixels: Picture, alpha: Picture | None = None) -> Path:
        write_photograph(folder / name, Photograph(pixels, alpha))
        return folder / name

    source = photographs
    yield written("1x1.png", next(source(40, 40))[:1, :1]), 0
    yield written("gray_321x481.png", next(source(321, 481))[..., :1]), 0
    alpha = np.random.default_rng(0).integers(0, 256, (200, 333), dtype=np.uint8)
    yield written("alpha_200x333.png", next(source(200, 333)), alpha), 0
    deep = sixteen_bits(next(source(256, 300)))
    deep = np.clip(deep + np.random.default_rng(1).integers(-128, 128, deep.shape), 0, 65535).astype(np.uint16)
    yield written("16_bits_256x300.png", deep), 0
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(next(source(240, 360))).save(folder / "rotated.jpg", quality=95, exif=exif)
    yield folder / "rotated.jpg", 0
    yield written("narrow_9x700.png", next(source(9, 700))), 0
    yield written("tiles_700x900.png", next(source(700, 900))), TILE
    yield written("tiles_2000x3000.png", next(source(2000, 3000))), TILE


def equality(bench: Bench) -> None:
    """Print a table of differences."""
    print("| | computed | largest difference | share of samples that differ | seconds |\n|---|---|---|---|---|")
    for path, tile in kinds(bench.folder):
        with opened(bench.page) as page:
            saved, seconds = run(page, path, bench.folder)
        source, result = read_photograph(path), read_photograph(saved)
        expected = bench.restorer(tile)(source.pixels)
        assert (result.pixels.shape, result.pixels.dtype) == (expected.shape, expected.dtype)
        assert source.alpha is None or (result.alpha == source.alpha).all()
        level = np.iinfo(expected.dtype).max // 255
        differences = np.abs(result.pixels.astype(int) - expected)
        side = bench.own or tile
        kind = f"tiles of {side}" if side and max(expected.shape[:2]) > side else "whole"
        share = f"{(differences > 0).mean():.1e}"
        print(f"| {path.name} | {kind} | {differences.max() / level:.3g} | {share} | {seconds:.1f} |", flush=True)


def psnr(bench: Bench) -> None:
    """Print the PSNR of results to clean pictures."""
    from drsformer_arch.data.prepare.sample_data import write_samples  # noqa: PLC0415 - for this part alone

    write_samples(bench.folder / "samples", 0)
    both = []
    with opened(bench.page) as page:
        for path in sorted((bench.folder / "samples/test/input").iterdir()):
            saved, _ = run(page, path, bench.folder)
            clean, ours = (
                read_photograph(one).pixels for one in (bench.folder / "samples/test/target" / path.name, saved)
            )
            results = (ours, bench.restorer(0)(read_photograph(path).pixels))
            both.append([calculate_psnr_rain200(one[..., ::-1], clean[..., ::-1]) for one in results])
    means, largest = np.mean(both, axis=0), np.abs(np.diff(both)).max()
    print(f"PSNR of {len(both)} pairs: page {means[0]:.4f} dB, Restorer {means[1]:.4f} dB; at most {largest:.4f} apart")


PARTS = {part.__name__: part for part in (start, times, equality, psnr)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="of drsformer export")
    parser.add_argument("-w", "--weights", default="DRSformer-S", help="that the page was made of (%(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    own = habits_of(args.weights).tile
    print(platform.processor() or platform.machine(), Restorer(args.weights).describe())
    with tempfile.TemporaryDirectory() as folder:
        for name in args.parts:
            PARTS[name](
                Bench(args.page, lambda tile: Restorer(args.weights, tile="auto" if own else tile), Path(folder), own)
            )


if __name__ == "__main__":
    main()
