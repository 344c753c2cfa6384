"""Pages of what a test or a comparison left: the results, scored, beside rainy pictures and targets."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from drsformer_arch import __version__
from drsformer_arch.bridge import basicsr_fixes  # noqa: F401 - makes BasicSR importable
from drsformer_arch.compare.measurement import Measured, Method
from drsformer_arch.data.datasets.paired_dataset import PairedRainDataset
from drsformer_arch.data.datasets.result_names import ResultNames, result_path
from drsformer_arch.data.datasets.samples import to_picture
from drsformer_arch.evaluate.evaluation import columns, score_pictures
from drsformer_arch.evaluate.summary import DESCRIPTIONS, INPUT
from drsformer_arch.images.pictures import Picture, decode, read_file
from drsformer_arch.metrics import PROTOCOLS
from drsformer_arch.page.page import Exhibit, write_page
from drsformer_arch.system.errors import line_of
from drsformer_arch.training import loaders

Complain = Callable[[str], None]  # takes the line of a picture that cannot be shown


def write_test_page(options: dict[str, Any], path: Path, complain: Complain) -> None:
    """The page of `drsformer test`, scored by the protocols of its option file, or both where it names none.

    Args:
        options: as the finished pipeline left them; `val.save_img` was true.
        path: of the page.
        complain: takes the line of a picture that cannot be shown; the rest goes on.

    Raises:
        UserError: there is none that can be shown.
        OSError: the folder is not writable, the disk is full.
    """
    used = [str(metric["type"]).rpartition("_")[2] for metric in (options["val"].get("metrics") or {}).values()]
    which = [name for name in PROTOCOLS if name in used] or list(PROTOCOLS)
    network = ", ".join(f"{key}: {value}" for key, value in options["network_g"].items() if key != "type")
    facts = [
        ("Network", f"{options['network_g']['type']} {network and f'({network})'}"),
        ("Weights", str(options["path"]["pretrain_network_g"])),
        ("Data sets", ", ".join(section["name"] for section in options["datasets"].values())),
        *_scores_and_version(which),
    ]
    write_page(path, _of_test(options, which, complain), title=options["name"], facts=facts, complain=complain)


def write_comparison_page(
    methods: Sequence[Method],
    results: Sequence[Measured],
    out: Path,
    path: Path,
    *,
    conditions: Sequence[str],
    overview: Sequence[tuple[str, bytes, str]],
    complain: Complain,
) -> None:
    """The page of `drsformer compare`.

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
    protocols = list(dict.fromkeys(one.protocol for method in methods for one in method.pictures))
    networks = ", ".join(result.label for result in results if result.network)
    facts = [
        *_means(results),
        ("Conditions", " ".join(conditions)),
        *_scores_and_version(protocols),
    ]
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


def _means(results: Sequence[Measured]) -> list[tuple[str, str]]:
    return [
        (
            f"{result.label} on {name}" if result.network else f"{name}, {result.label}",
            f"PSNR {scores.mean('psnr'):.2f} dB, SSIM {scores.mean('ssim'):.4f}"
            + (f", {scores.mean('seconds'):.2f} s per picture" if result.network else ""),
        )
        for result in results
        for name, scores in result.scores.items()
    ]


def _scores_and_version(which: Sequence[str]) -> list[tuple[str, str]]:
    scores = [(f"Scores: {group}", DESCRIPTIONS[group]) for group in which]
    return [*scores, ("Version", f"drsformer-basicsr {__version__}")]


def _of_test(options: dict[str, Any], which: Sequence[str], complain: Complain) -> Iterator[Exhibit]:
    several = len(options["datasets"]) > 1
    for section in options["datasets"].values():
        name = section["name"]
        dataset = loaders.build_checked_dataset(section)
        names = ResultNames(dataset, keeps_folders=loaders.plans_batches(options))
        for index in range(len(dataset)):
            try:
                sample = dataset[index]
                stem = names[sample["lq_path"]]
                exhibit = _exhibit(stem, _picture(result_path(options, name, stem, None)), sample, which)
            except Exception as error:  # of the libraries that read pictures; the others go on
                complain(line_of(error, f"picture {index} of {name}"))
                continue
            yield exhibit._replace(name=f"{stem} ({name})", data_set=name) if several else exhibit


def _of_comparison(
    methods: Sequence[Method], results: Sequence[Measured], out: Path, complain: Complain
) -> Iterator[Exhibit]:
    """The results of every network of a comparison on every data set, picture by picture."""
    every = {one.name: one for method in methods for one in method.pictures}
    for name, of_input in results[0].scores.items():
        pictures = every[name]
        dataset = PairedRainDataset({**pictures.options, "phase": "val"})
        taking_part = [result for result in results if result.network and name in result.scores]
        for at, stem in zip(of_input.at, of_input.names, strict=True):
            for result in taking_part:
                path = out / "pictures" / result.label / name / f"{stem}.png"
                title = f"{stem} by {result.label}" + (f" ({name})" if len(every) > 1 else "")
                try:
                    exhibit = _exhibit(title, _picture(path), dataset[at], [pictures.protocol])
                except Exception as error:  # of the libraries that read pictures; the others go on
                    complain(line_of(error, path))
                    continue
                yield exhibit


def _picture(path: Path) -> Picture:
    return decode(read_file(path), path)


def _exhibit(name: str, result: Picture, sample: dict[str, Any], which: Sequence[str]) -> Exhibit:
    rainy, target = to_picture(sample["lq"]), to_picture(sample["gt"]) if "gt" in sample else None
    scores = score_pictures(result, target, which)
    if target is not None:
        before = score_pictures(rainy, target, which)
        scores |= {f"{INPUT}{column}": before[column] for column in columns(which)}
    return Exhibit(name, lambda: result, None if target is None else lambda: target, lambda: rainy, scores)
