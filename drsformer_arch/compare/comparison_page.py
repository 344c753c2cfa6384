"""The page of `drsformer compare`: the results of every network, scored, beside rainy pictures and targets."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from drsformer_arch.compare import differences, tables
from drsformer_arch.compare.groups import groups_of
from drsformer_arch.compare.measurement import Measurement, Method
from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.images.pictures import decode, read_file
from drsformer_arch.page.page import Exhibit, exhibit_of, scores_and_version
from drsformer_arch.system.errors import line_of


def facts_of_comparison(
    methods: Sequence[Method],
    results: Sequence[Measurement],
    pairs: Sequence[differences.Pair],
    conditions: Sequence[str],
) -> list[tuple[str, str]]:
    """Return the means and differences of all networks, the conditions and what the scores are, see `write_page`."""
    means = []
    for group in groups_of(results):
        for name in tables.data_sets(group.members):
            if group.mean(name, "psnr") is None:
                continue  # its trainings have no picture in common
            psnr, ssim = (
                f"{group.mean(name, what):.{digits}f}{tables.spread(group, name, what, digits)}"
                for what, digits in differences.DIGITS.items()
            )
            seconds = f", {group.mean(name, 'seconds'):.2f} s per picture" if group.network else ""
            label = f"{group.title} on {name}" if group.network else f"{name}, {group.label}"
            means.append((label, f"PSNR {psnr} dB, SSIM {ssim}{seconds}"))
    protocols = list(dict.fromkeys(compared.protocol for method in methods for compared in method.pictures))
    said = [("Differences", differences.METHOD)] if pairs else []
    return [
        *means,
        *differences.facts(pairs),
        *said,
        ("Conditions", " ".join(conditions)),
        *scores_and_version(protocols),
    ]


def exhibits_of_comparison(
    methods: Sequence[Method], results: Sequence[Measurement], out: Path, complain: Callable[[str], None]
) -> Iterator[Exhibit]:
    """Yield the results of every network of a comparison on every data set, picture by picture.

    Args:
        methods: what was compared.
        results: what each method scored.
        out: the folder of its results.
        complain: takes the line of a picture that cannot be shown; the rest goes on.
    """
    every = {compared.name: compared for method in methods for compared in method.pictures}
    for name, of_input in results[0].scores.items():
        pictures = every[name]
        dataset = PairedRainDataset({**pictures.options, "phase": "val"})
        taking_part = [result for result in results if result.network and name in result.scores]
        for at, stem in zip(of_input.at, of_input.names, strict=True):
            for result in taking_part:
                if stem not in result.scores[name].names:
                    continue  # it was named
                path = out / "pictures" / result.label / name / f"{stem}.png"
                title = f"{stem} by {result.label}" + (f" ({name})" if len(every) > 1 else "")
                try:
                    exhibit = exhibit_of(title, decode(read_file(path), path), dataset[at], [pictures.protocol])
                except Exception as error:  # of the libraries that read pictures; the others go on
                    complain(line_of(error, path))
                    continue
                yield exhibit
