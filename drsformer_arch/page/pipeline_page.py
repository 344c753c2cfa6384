"""The page of `drsformer test`: its results, scored, beside rainy pictures and targets."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.data.datasets.result_names import ResultNames, result_path
from drsformer_arch.images.pictures import decode, read_file
from drsformer_arch.metrics import PROTOCOLS
from drsformer_arch.page.page import Exhibit, exhibit_of, scores_and_version, write_page
from drsformer_arch.system.errors import line_of
from drsformer_arch.training import loaders

Complain = Callable[[str], None]  # takes the line of a picture that cannot be shown


def write_test_page(options: dict[str, Any], path: Path, complain: Complain) -> None:
    """Write the page of `drsformer test`, scored by the protocols of its option file, or both where it names none.

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
        *scores_and_version(which),
    ]
    write_page(path, _of_test(options, which, complain), title=options["name"], facts=facts, complain=complain)


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
                path = result_path(options, name, stem, None)
                exhibit = exhibit_of(stem, decode(read_file(path), path), sample, which)
            except Exception as error:  # of the libraries that read pictures; the others go on
                complain(line_of(error, f"picture {index} of {name}"))
                continue
            yield exhibit._replace(name=f"{stem} ({name})", data_set=name) if several else exhibit
