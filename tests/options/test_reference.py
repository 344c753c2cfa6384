"""docs/options.md and options/schema.json: of all option files, and of wrong ones that the command refuses as well."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from basicsr.utils.registry import DATASET_REGISTRY

from drsformer_arch import plugin
from drsformer_arch.cli import main
from drsformer_arch.options.dataset_sections import NAMES, OURS
from drsformer_arch.options.reference import page, schema_text
from drsformer_arch.options.run_sections import DerainRun
from drsformer_arch.options.safe_yaml import load_yaml
from tests.options.test_options import edit

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "options").rglob("*.yml"), *(ROOT / "examples").rglob("*.yml")])
SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_text()))


def test_page_and_schema_are_those_of_the_classes():
    assert (ROOT / "docs/options.md").read_text() == page()
    assert (ROOT / "options/schema.json").read_text() == schema_text()
    jsonschema.Draft202012Validator.check_schema(SCHEMA.schema)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_file_names_the_schema_and_keeps_to_it(path):
    first, _, _ = path.read_text().partition("\n")
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named
    assert (path.parent / named[1]).resolve() == ROOT / "options/schema.json"
    SCHEMA.validate(load_yaml(path))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("trian", {}, "unknown option trian; did you mean 'train'"),
        ("train:grad_clp", 0.1, "unknown option train.grad_clp; did you mean 'grad_clip'"),
        ("train:total_iter", "3e5x", "option train.total_iter must be a whole number of at least 1"),
        ("train:optim_g", {"type": "AdamW"}, "option train.optim_g.lr is missing"),
        ("train:amp", "bf61", "option train.amp must be one of false, bf16, fp16 or empty, not 'bf61'"),
        ("val:save_img", "yes please", "option val.save_img must be true or false, not 'yes please'"),
        ("logger:print_freq", 0, "option logger.print_freq must be a whole number of at least 1, not 0"),
        ("datasets:train:gt_sise", 32, "unknown option datasets.train.gt_sise; did you mean 'gt_size'"),
        ("datasets:val:dataroot_lq", ..., "option datasets.val.dataroot is missing (or dataroot_lq and dataroot_gt)"),
        ("datasets:train:filename_tmpl", "{x}", "option datasets.train.filename_tmpl must be a text with one {} in"),
        ("network_g:type", 3, "option network_g.type must be a text, not 3"),
        ("val:metrics:psnr:better", "highest", "option val.metrics.psnr.better must be one of higher, lower"),
        ("scale", 2, "option scale must be 1, not 2: a derained picture keeps its size"),
    ],
)
def test_schema_and_command_refuse_the_same(  # noqa: PLR0917 - fixtures
    options, tmp_path, monkeypatch, capsys, keys, value, message
):
    monkeypatch.chdir(tmp_path)
    SCHEMA.validate(options)
    wrong = edit(options, keys, value)
    assert not SCHEMA.is_valid(wrong)
    Path("wrong.yml").write_text(yaml.safe_dump(wrong))
    assert main(["train", "-opt", "wrong.yml"]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "wrong.yml" in said
    assert "\n" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.yml"]


def test_a_wrong_key_of_a_data_set_is_said_where_it_stands(options):
    options["datasets"]["train"]["gt_sise"] = 64
    (error,) = SCHEMA.iter_errors(options)
    assert list(error.absolute_path) == ["datasets", "train"]
    assert "gt_sise" in error.message


def test_files_for_other_peoples_models_keep_to_the_schema(options):
    theirs = options | {"model_type": "TheirModel", "their_key": {"a": 1}, "network_g": {"type": "EDSR"}}
    theirs["train"] |= {"their_loss": {"type": "x"}, "optim_g": {"type": "Adam"}}
    theirs["datasets"]["train"] |= {"type": "TheirSet", "their_augmentation": True}
    SCHEMA.validate(theirs)
    assert not SCHEMA.is_valid(edit(theirs, "train:total_iter", 0))


def test_every_data_set_that_is_registered_is_checked_and_on_the_page():
    registered = {kind.__name__ for registry, kinds in plugin.OURS if registry is DATASET_REGISTRY for kind in kinds}
    choice, checked = SCHEMA.schema["$defs"]["DerainRun"]["properties"]["datasets"]["additionalProperties"], set()
    while "if" in choice:
        kind, choice = choice["if"]["properties"]["type"], choice["else"]
        checked |= set(kind.get("enum") or [kind["const"]])
    assert registered == set(NAMES) == set(OURS) == checked
    assert all(name in page().partition("## `train`")[0] for name in registered)


def test_every_option_is_described():
    definitions = SCHEMA.schema["$defs"]
    for name, section in definitions.items():
        for key, option in section.get("properties", {}).items():
            assert option.get("description"), f"{name}.{key}"
    assert set(DerainRun.options()) == set(definitions["DerainRun"]["properties"])
