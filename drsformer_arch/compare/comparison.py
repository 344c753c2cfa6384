"""`drsformer compare`: from option files, checkpoints and data sets to a table and two figures."""

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from drsformer_arch.compare import differences, figures, tables
from drsformer_arch.compare.comparison_page import exhibits_of_comparison, facts_of_comparison
from drsformer_arch.compare.groups import groups_of
from drsformer_arch.compare.measurement import RAINY_INPUT, ComparedSet, Measurement, Method, Settings, measure
from drsformer_arch.data.pairing.layouts import role_of
from drsformer_arch.metrics import PROTOCOLS
from drsformer_arch.page.page import write_page
from drsformer_arch.restore.weights import find_weights
from drsformer_arch.system import processor
from drsformer_arch.system.devices import choose_device
from drsformer_arch.system.errors import UserError, did_you_mean, line_of, printable
from drsformer_arch.system.files import expanded, refuse_unwritable, write_atomically
from drsformer_arch.system.names import check_name, refuse_equal

OPTION_FILES = (".yml", ".yaml")
OVERVIEW = {  # of a page: title and description of each figure
    "quality_cost.png": (
        "Quality against cost; a disc's area is the number of parameters",
        "PSNR over seconds per picture, multiplications and memory",
    ),
    "differences.png": (
        f"Differences with {differences.INTERVALS}",
        "Mean difference in PSNR of every two networks, its interval, and on how many pictures either is better",
    ),
    "crops.png": ("The picture on which the networks differ most", "The same region from every network"),
}


def compare(
    sources: Sequence[str],
    data: Sequence[str],
    *,
    protocol: str | None = None,
    out: Path = Path("results/compare"),
    limit: int | None = None,
    device: str | None = None,
    page: Path | None = None,
    imports: Sequence[str] = (),
    ensemble: bool = False,
    published_inference: bool = False,
) -> tuple[str, list[str]]:
    """Compare networks and write tables, figures and result pictures.

    Networks, data sets and pictures that fail are named on stderr and in the table's notes; the rest goes on.

    Args:
        sources: test option files, and weight files, of our networks; NAME=FILE where they shall have a name. Files of
            one name are trainings of one network that differ in their seeds.
        data: NAME=FOLDER of pairs, for all sources; where empty, option files bring their own.
        protocol: of the scores on `data`.
        out: folder of the results.
        limit: number of pictures per data set; default: all.
        device: default: the GPU where there is one.
        page: HTML file that shows all results; default: none.
        imports: modules and files whose networks are used beside ours, see `bridge.outside.register_outside`.
        ensemble: take the mean over the eight symmetries of each picture (with shipped weights: the four upright ones),
            also where an option file does not say so.
        published_inference: run networks as their authors did for their scores, likewise.

    Returns:
        The table in Markdown, and the lines of what failed.

    Raises:
        UserError: something in the input is wrong so that nothing can be compared.
    """
    if protocol and not data:
        raise UserError(f"--protocol {protocol} is for --data; option files bring their own protocol in val.metrics")
    chosen = str(choose_device(device))
    pictures = tuple(_given_pictures(named, protocol) for named in data)
    refuse_equal((f"--data {text}", compared.name) for text, compared in zip(data, pictures, strict=True))
    problems: list[str] = []

    def complain(problem: str) -> None:
        problems.append(problem)
        print(f"error: {problem}", file=sys.stderr, flush=True)

    if imports:
        from drsformer_arch.bridge.outside import register_outside  # noqa: PLC0415 - needs BasicSR

        register_outside(imports)
    asked = {
        name: True for name, value in (("ensemble", ensemble), ("published_inference", published_inference)) if value
    }
    methods = [
        method._replace(val={**method.val, **asked}) for method in _methods(sources, pictures, imports, complain)
    ]
    every = _distinct_sets(methods)
    _refuse_among_pictures(out, every.values())
    for path in filter(None, (out / "comparison.md", page)):
        refuse_unwritable(path)
    rainy = Method(RAINY_INPUT, None, None, None, {}, tuple(every.values()))
    settings = Settings(out, limit, chosen)
    results = measure([rainy, *methods], settings, complain)
    if len(results) == 1:
        raise UserError("no network can be compared; the problems are named above")
    conditions = [
        *_conditions(settings, results),
        *_ways_of_inference(methods),
        *(f"Weights of {method.label}: {method.weights}." for method in methods),
        *(f"Failed: {problem}" for problem in problems),
    ]
    pairs = differences.pairs_of(groups_of(results), tables.data_sets(results))
    table = "\n".join(filter(None, (tables.markdown_table(results, conditions), differences.markdown(pairs))))
    # Tables first: what was measured took long, and is not lost where a figure cannot be drawn.
    contents: dict[str, Callable[[], bytes] | None] = {
        "comparison.md": table.encode,
        "comparison.csv": lambda: tables.csv_of_means(results),
        "pictures.csv": lambda: tables.csv_of_pictures(results),
        "comparison.tex": lambda: tables.latex_table(results).encode(),
        "differences.csv": (lambda: differences.csv(pairs)) if pairs else None,
        "differences.tex": (lambda: differences.latex(pairs).encode()) if pairs else None,
        "quality_cost.png": lambda: figures.quality_against_cost(results),
        "differences.png": (lambda: figures.intervals(pairs)) if pairs else None,
        "crops.png": lambda: figures.crops([rainy, *methods], results, out),
    }
    written: dict[str, bytes] = {}
    for name, make in contents.items():
        with _named_if_unwritten(out / name, complain):
            if make is None:  # nothing to say: an earlier comparison's would pass for this one's
                (out / name).unlink(missing_ok=True)
            else:
                written[name] = make()
                write_atomically(out / name, written[name])
    if page is not None:
        with _named_if_unwritten(page, complain):
            exhibits = exhibits_of_comparison([rainy, *methods], results, out, complain)
            title = f"Comparison of {', '.join(group.label for group in groups_of(results) if group.network)}"
            facts = facts_of_comparison([rainy, *methods], results, pairs, conditions)
            overview = [(heading, written[name], said) for name, (heading, said) in OVERVIEW.items() if name in written]
            write_page(page, exhibits, title=title, facts=facts, overview=overview, means=False, complain=complain)
    return table, problems


def _distinct_sets(methods: Sequence[Method]) -> dict[str, ComparedSet]:
    """Return the data sets of all methods by their names.

    Raises:
        UserError: two option files give one name to different pictures, or score them by different protocols.
    """
    every: dict[str, ComparedSet] = {}
    for method in methods:
        for compared in method.pictures:
            other = every.setdefault(compared.name, compared)
            if (other.protocol, _places(other)) != (compared.protocol, _places(compared)):
                raise UserError(
                    f"{method.label}: its data set {compared.name} has other pictures or another protocol than the "
                    "one of that name before; give it another name"
                )
    refuse_equal((f"data set {name}", name) for name in every)
    return every


def _places(compared: ComparedSet) -> set[tuple[str, str]]:
    """Return where the pictures of a data set are."""
    roots = {key: value for key, value in compared.options.items() if key.startswith("dataroot") and value}
    return {(key, os.path.realpath(expanded(place))) for key, place in roots.items()}


def _refuse_among_pictures(out: Path, sets: Iterable[ComparedSet]) -> None:
    """Refuse a folder of results inside a folder of pictures: results would be taken for some of them."""
    where = out.resolve()
    for compared in sets:
        for key, place in _places(compared):
            if not where.is_relative_to(place):
                continue
            below = where.relative_to(place).parts
            # Beside the folders of rainy and of clean pictures there may be others, such as results/ in ".".
            if key != "dataroot" or not below or role_of(below[:1], nearest=True):
                raise UserError(f"-o {out} lies in the data set {compared.name} ({place}); choose a folder outside it")


@contextmanager
def _named_if_unwritten(path: Path, complain: Callable[[str], None]) -> Iterator[None]:
    """Name a file that cannot be written; what was measured took long, and the table and the others are not lost."""
    try:
        yield
    except UserError as error:
        complain(str(error))
    except OSError as error:
        complain(printable(f"{path} cannot be written: {error.strerror or error}"))
    except Exception as error:  # of the libraries that draw
        complain(line_of(error, path))


def _methods(
    sources: Sequence[str], pictures: tuple[ComparedSet, ...], imports: Sequence[str], complain: Callable[[str], None]
) -> list[Method]:
    """Return the networks of the files that can be used, each with a name of its own; others go to `complain`."""
    methods: list[tuple[str, Method]] = []
    for source in sources:
        group, file = _named(source)
        try:
            methods.append((file, _method(file, pictures, imports)._replace(group=group)))
        except Exception as error:  # whatever reading a stranger's file raises; the others go on
            if len(sources) == 1:
                raise
            complain(line_of(error, source))
    if not methods:
        raise UserError("no network can be compared; the problems are named above")
    return _labelled(methods)


def _labelled(methods: Sequence[tuple[str, Method]]) -> list[Method]:
    """Give each file's network a label of its own: its name, with a number among several trainings, or by its file.

    Raises:
        UserError: two would have the same, or a file is given twice.
    """
    unnamed = [(file, method.label) for file, method in methods if not method.group]
    by_file = iter(distinct_labels([file for file, _ in unnamed], [label for _, label in unnamed]) if unnamed else ())
    sizes = Counter(method.group for _, method in methods if method.group)
    numbers, files, labelled = Counter[str](), set[str](), list[Method]()
    for file, method in methods:
        if os.path.realpath(file) in files:
            raise UserError(f"{file} is given twice")
        files.add(os.path.realpath(file))
        numbers[method.group] += 1
        named = f"{method.group} ({numbers[method.group]})" if sizes[method.group] > 1 else method.group
        labelled.append(method._replace(label=named or next(by_file)))
    several = [group for group, size in sizes.items() if size > 1]
    for name, count in Counter([RAINY_INPUT, *several, *(method.label for method in labelled)]).items():
        if count > 1:
            raise UserError(f"two networks would be called {name}; choose other names: NAME=FILE")
    return labelled


def _named(source: str) -> tuple[str, str]:
    """Split NAME=FILE; the name is empty where there is none."""
    name, equals, file = source.partition("=")
    if not equals or Path(source).exists():
        return "", source
    return check_name(name, f"NAME of {source}"), file


def distinct_labels(sources: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Give files of equal labels others: the shortest ends of their paths that differ.

    Args:
        sources: paths of the files.
        labels: of what is in them, as long as nothing else has the same.

    Raises:
        UserError: a file is given twice.
    """
    labels = list(labels)
    for folders in range(max(len(Path(source).absolute().parts) for source in sources)):
        used = Counter([RAINY_INPUT, *labels])
        labels = [
            _name_of(Path(source), folders) if used[label] > 1 else label
            for source, label in zip(sources, labels, strict=True)
        ]
    used = Counter([RAINY_INPUT, *labels])
    twice = [source for source, label in zip(sources, labels, strict=True) if used[label] > 1]
    if len({os.path.realpath(source) for source in twice}) < len(twice):
        raise UserError(f"{twice[0]} is given twice")
    if twice:
        raise UserError(f"{twice[0]}: two of the files have the same name, and so have their folders; rename one")
    return labels


def _name_of(file: Path, folders: int) -> str:
    """Name a file and some folders that it is in; weights in the `models` of an experiment are named after that."""
    above = list(file.absolute().parts[1:-1])
    if above[-1:] == ["models"]:
        above.pop()
    return "_".join([*above[max(0, len(above) - folders) :], file.stem])


def _given_pictures(text: str, protocol: str | None) -> ComparedSet:
    name, equals, folder = text.partition("=")
    if not equals:
        raise UserError(f"--data {text}: write NAME=FOLDER")
    check_name(name, f"NAME of --data {text}")
    if protocol not in PROTOCOLS:
        raise UserError(f"--data needs --protocol {' or '.join(PROTOCOLS)}: the one of the published scores")
    if not expanded(folder).is_dir():
        raise UserError(f"--data {text}: there is no folder {folder}")
    return ComparedSet(name, {"name": name, "type": "PairedRainDataset", "dataroot": folder}, protocol)


def _method(source: str, pictures: tuple[ComparedSet, ...], imports: Sequence[str]) -> Method:
    if not source.endswith(OPTION_FILES):
        find_weights(source)
        if not pictures:
            raise UserError(f"{source}: a weight file says nothing of data sets; name them with --data NAME=FOLDER")
        return Method(Path(source).stem, source, None, None, {}, pictures, tuple(imports))
    # They are BasicSR's; weight files are compared without it.
    from drsformer_arch.bridge import option_checks, outside  # noqa: PLC0415

    options = option_checks.prepare(source, [], imports=imports, is_train=False, distributed=False)
    weights = options["path"].get("pretrain_network_g")
    if not weights:
        raise UserError(f"{source}: path.pretrain_network_g is empty; a comparison needs trained weights")
    return Method(
        options["network_g"]["type"],
        weights,
        options["network_g"],
        options["path"].get("param_key_g"),
        options["val"],
        pictures or tuple(_own_pictures(source, options)),
        (*imports, *outside.imports_of(options, source)),
    )


def _own_pictures(source: str, options: dict[str, Any]) -> list[ComparedSet]:
    metrics = (options["val"].get("metrics") or {}).values()
    used = {name for name in PROTOCOLS for metric in metrics if metric["type"].endswith(f"_{name}")}
    if len(used) != 1:
        known = did_you_mean("", [f"calculate_psnr_{name}" for name in PROTOCOLS])
        raise UserError(f"{source}: val.metrics must be those of one protocol{known}")
    return [ComparedSet(section["name"], dict(section), *used) for section in options["datasets"].values()]


WAYS_OF_INFERENCE = {
    "ensemble": "Mean over the eight symmetries of each picture (of DRSformer-S: the four upright ones)",
    "tile": "Larger pictures in tiles, which change the results of networks that look at whole ones",
    "published_inference": "Run as by the network's authors, in windows or from corners where they do",
}


def _ways_of_inference(methods: Sequence[Method]) -> list[str]:
    """Say which networks ran in another way than once over whole pictures."""
    lines = []
    for key, said in WAYS_OF_INFERENCE.items():
        labels = [method.label for method in methods if method.val.get(key)]
        if labels:
            lines.append(f"{said}: {', '.join(labels)}.")
    return lines


def _conditions(settings: Settings, results: Sequence[Measurement]) -> list[str]:
    counted = ", ".join(f"{len(scores.names)} of {name}" for name, scores in results[0].scores.items())
    if settings.device == "cpu":
        hardware = f"{processor.model_name()}, {torch.get_num_threads()} threads"
    else:
        hardware = torch.cuda.get_device_name()
    first = "the first " if settings.limit else ""
    infinite = [
        f"PSNR of {result.label} on {name}: {count} of {len(scores.psnr)} pictures equal their targets, which makes it "
        "infinite; the mean is that of the others, if any."
        for result in results
        for name, scores in result.scores.items()
        if (count := sum(map(math.isinf, scores.psnr)))
    ]
    fewer = [
        f"{result.label} on {name}: {missing} of {len(whole.names)} pictures left out."
        for name, whole in results[0].scores.items()
        for result in results
        if (scores := result.scores.get(name)) and (missing := len(whole.names) - len(scores.names))
    ]
    return [
        f"Pictures: {first}{counted}. Times: mean of all pictures. Memory: at the peak, beyond weights and libraries.",
        f"Hardware: {hardware} ({os.cpu_count()} cores), torch {torch.__version__}.",
        *fewer,
        *infinite,
    ]
