"""The page of `drsformer compare`: the results of every network, scored, beside rainy pictures and targets."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from drsformer_arch.compare.measurement import Measurement, Method
from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.images.pictures import decode, read_file
from drsformer_arch.page.exhibits import exhibit_of, scores_and_version
from drsformer_arch.page.page import Exhibit, write_page
from drsformer_arch.system.errors import line_of

Complain = Callable[[str], None]  # takes the line of a picture that cannot be shown


def write_comparison_page(
    methods: Sequence[Method],
    results: Sequence[Measurement],
    out: Path,
    path: Path,
    *,
    conditions: Sequence[str],
    overview: Sequence[tuple[str, bytes, str]],
    complain: Complain,
) -> None:
    """Write the page of `drsformer compare`.

    Args:
        methods: what was compared.
        results: what each method scored.
        out: the folder of its results.
        path: of the page.
        conditions: how many pictures, on what machine.
        overview: figures, see `write_page`.
        complain: takes the line of a picture that cannot be shown; the rest goes on.

    Raises:
        UserError: there is none that can be shown.
        OSError: the folder is not writable, the disk is full.
    """
    protocols = list(dict.fromkeys(compared.protocol for method in methods for compared in method.pictures))
    networks = ", ".join(result.label for result in results if result.network)
    facts = [*_means(results), ("Conditions", " ".join(conditions)), *scores_and_version(protocols)]
    title = f"Comparison of {networks}"
    write_page(
        path,
        _of_comparison(methods, results, out, complain),
        title=title,
        facts=facts,
        overview=overview,
        means=False,
        complain=complain,
    )


def _means(results: Sequence[Measurement]) -> list[tuple[str, str]]:
    return [
        (
            f"{result.label} on {name}" if result.network else f"{name}, {result.label}",
            f"PSNR {scores.mean('psnr'):.2f} dB, SSIM {scores.mean('ssim'):.4f}"
            + (f", {scores.mean('seconds'):.2f} s per picture" if result.network else ""),
        )
        for result in results
        for name, scores in result.scores.items()
    ]


def _of_comparison(
    methods: Sequence[Method], results: Sequence[Measurement], out: Path, complain: Complain
) -> Iterator[Exhibit]:
    """Yield the results of every network of a comparison on every data set, picture by picture."""
    every = {compared.name: compared for method in methods for compared in method.pictures}
    for name, of_input in results[0].scores.items():
        pictures = every[name]
        dataset = PairedRainDataset({**pictures.options, "phase": "val"})
        taking_part = [result for result in results if result.network and name in result.scores]
        for at, stem in zip(of_input.at, of_input.names, strict=True):
            for result in taking_part:
                path = out / "pictures" / result.label / name / f"{stem}.png"
                title = f"{stem} by {result.label}" + (f" ({name})" if len(every) > 1 else "")
                try:
                    exhibit = exhibit_of(title, decode(read_file(path), path), dataset[at], [pictures.protocol])
                except Exception as error:  # of the libraries that read pictures; the others go on
                    complain(line_of(error, path))
                    continue
                yield exhibit
