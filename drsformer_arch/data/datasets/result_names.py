"""Places of results in validations and tests: folders of the data set are kept, and no two pictures share a place."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from drsformer_arch.system.errors import UserError


class ResultNames(dict[str, str]):
    """A name for each rainy picture of a data set: its path without extension below the folder that all of them share.

    Args:
        dataset: of BasicSR or ours; of one that does not tell its paths the names are those of the files alone.
        keeps_folders: as our model does; BasicSR's save all results of a set in one folder.

    Raises:
        UserError: a path that leads out of its folder.
    """

    def __init__(self, dataset: Any, *, keeps_folders: bool = True) -> None:
        known = getattr(dataset, "paths", None) or []
        paths = [path["lq_path"] if isinstance(path, dict) else path for path in known]
        common = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
        for path in paths:
            name = self[path] = os.path.splitext(os.path.relpath(path, common) if common else path)[0]
            if os.path.isabs(name) or ".." in Path(name).parts:
                raise UserError(f"a picture named {path} would get a result outside of its folder")
            if not keeps_folders:
                self[path] = os.path.basename(name)

    def __missing__(self, path: str) -> str:
        return os.path.splitext(os.path.basename(path))[0]


def refuse_equal_results(dataset: Any, name: str, *, keeps_folders: bool) -> None:
    """Refuse pictures whose results would overwrite each other.

    Args:
        dataset: see `ResultNames`.
        name: of the data set, for messages.
        keeps_folders: see `ResultNames`.

    Raises:
        UserError: two pictures have one name but for the extension.
    """
    counts = Counter(ResultNames(dataset, keeps_folders=keeps_folders).values())
    twice = [picture for picture, count in counts.items() if count > 1]
    if twice:
        raise UserError(
            f"data set {name}: several pictures are named {twice[0]}; their results would overwrite each other "
            f"(val.save_img)"
        )


def result_path(options: dict[str, Any], data_set: str, name: str, iteration: Any) -> Path:
    """The file of a picture's result.

    Args:
        options: of the run, with the folder in `path.visualization`.
        data_set: the name of its data set; several validation sets get a folder each, as all test sets do.
        name: see `ResultNames`.
        iteration: of a training.
    """
    folder = Path(options["path"]["visualization"])
    if not options["is_train"]:
        return folder / data_set / f"{name}_{options['val'].get('suffix') or options['name']}.png"
    if sum(phase != "train" for phase in options["datasets"]) > 1:
        folder /= data_set
    return folder / name / f"{Path(name).name}_{iteration}.png"
