"""The page of all options and the JSON schema that editors check option files with, made from the sections' classes."""

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from drsformer_arch.options import dataset_sections as data
from drsformer_arch.options import run_sections as run
from drsformer_arch.options.kinds import kind_of
from drsformer_arch.options.section_base import Section

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# Headings of the page, the class of each section, and a class whose options stand under another heading.
SECTIONS: tuple[tuple[str, type[Section], type[Section]], ...] = (
    ("The file", run.DerainRun, Section),
    ("`network_g`", run.Network, Section),
    ("`path`", run.Paths, Section),
    ("`datasets`: everybody's data sets", data.OtherDataset, Section),
    ("`datasets`: all data sets of ours", data.CommonOptions, data.OtherDataset),
    ("`datasets`: `PairedRainDataset`", data.PairedPictures, data.Source),
    ("`datasets`: `RainSynthesisDataset`", data.SyntheticRain, data.Source),
    ("`datasets.train`: `MixedRainDataset`", data.MixedRainDataset, data.CommonOptions),
    ("`datasets.train.sets`: each set of a `MixedRainDataset`", data.Part, Section),
    ("`train`", run.Train, Section),
    ("`train.optim_g`", run.Optimizer, Section),
    ("`train.scheduler`", run.Schedule, Section),
    ("`train.pixel_opt`, `train.perceptual_opt`", run.Loss, Section),
    ("`train.losses`: each term", run.LossTerm, Section),
    ("`train.mixing_augs`", run.Mixing, Section),
    ("`val`", run.Val, Section),
    ("`val.metrics`: each metric", run.Metric, Section),
    ("`logger`", run.Logger, Section),
    ("`logger.wandb`", run.Wandb, Section),
    ("`dist_params`", run.DistParams, Section),
)
INTRODUCTION = """\
<!-- Written by scripts/make_options.py from drsformer_arch/options/; change it there. -->
# Options

What an option file holds for `model_type: DerainModel` and our data sets. Before anything is created, each option is
checked: a key that is not known here is an error that names the nearest known one, and so is a value of another kind.
Sections of classes (`optim_g`, `scheduler`, losses, metrics, networks) take further keys, the arguments of their class.
Keys of other people's models, networks and data sets are never rejected.

`drsformer options` lists the recipes that come with the package, `drsformer options train/DRSformer/Rain200H > my.yml`
writes one as a file of your own, and `--set train:total_iter=1000 name=mine` sets options in it; its comments stay.

Editors that know the YAML language server complete and check a file whose first line names the schema, as in
`# yaml-language-server: $schema=schema.json` after `drsformer options --schema -o schema.json` in the file's folder
(`drsformer options RECIPE -o FILE` writes that line where a schema.json lies beside the file or above it). Numbers may
be written as `4e3` and `3e-3`; BasicSR's own pipelines read those as texts: for them write `4000` and `3.0e-3`.
`--force_yml train:total_iter=100` overrides a file.

An empty default is none; "of" says whose the option is where it is not ours.
"""


def page() -> str:
    """The text of docs/options.md."""
    return INTRODUCTION + "".join(_table(*section) for section in SECTIONS)


def _table(heading: str, kind: type[Section], elsewhere: type[Section]) -> str:
    lines = [f"\n## {heading}\n", (kind.__doc__ or "").strip(), "", "| option | kind | unit | default | meaning | of |"]
    lines.append("|---|---|---|---|---|---|")
    for name, field in kind.options().items():
        if name in elsewhere.options() and name != "type":
            continue
        default = "" if field.default is None or field.is_required() else f"`{json.dumps(field.default)}`"
        cells = [
            f"`{name}`",
            kind_of(field.rebuild_annotation()),
            field.json_schema_extra.get("unit", ""),
            "**needed**" if field.is_required() else default,
            field.description,
            field.json_schema_extra.get("source", ""),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def schema_text() -> str:
    """The text of options/schema.json, a JSON schema of draft 2020-12."""
    _, parts = models_json_schema([(run.DerainRun, "validation"), (run.AnyRun, "validation")])
    ours = {"required": ["model_type"], "properties": {"model_type": {"enum": run.MODEL_TYPES}}}
    schema = {
        "$schema": DRAFT,
        "if": ours,
        "then": {"$ref": "#/$defs/DerainRun"},
        "else": {"$ref": "#/$defs/AnyRun"},
        "$defs": parts["$defs"],
    }
    plain = json.loads(json.dumps(_chosen_by_type(schema, parts["$defs"])), object_pairs_hook=_without_titles)
    return json.dumps({"title": "Option file of drsformer and BasicSR", **plain}, indent=1) + "\n"


def _chosen_by_type(part: Any, definitions: dict[str, Any]) -> Any:
    """Let `type` choose between the sections of data sets: of a mere choice, editors say only that none of all fits."""
    if isinstance(part, list):
        return [_chosen_by_type(entry, definitions) for entry in part]
    if not isinstance(part, dict):
        return part
    if not all("$ref" in choice for choice in part.get("anyOf", [{}])):
        return {key: _chosen_by_type(entry, definitions) for key, entry in part.items()}
    *ours, section = part["anyOf"]  # the last one is for any other type
    for choice in reversed(ours):
        kind = definitions[choice["$ref"].rpartition("/")[2]]["properties"]["type"]
        section = {"if": {"properties": {"type": kind}}, "then": choice, "else": section}
    return section


def _without_titles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Leave out what pydantic adds and no editor needs: titles made from names, and defaults that are none."""
    return {key: part for key, part in pairs if (key, type(part)) not in {("title", str), ("default", type(None))}}
