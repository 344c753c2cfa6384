"""What documents name exists, and all of them tell one version; examples in docstrings run."""

import doctest
import importlib
import itertools
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

import drsformer_arch
from drsformer_arch.restore.outside import GROUP

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md"), *ROOT.glob(".github/*.md")}
    | {ROOT / "datasets/README.md", ROOT / "drsformer_arch/weights/README.md"}
)
# Folders of the repository whose files are part of it; datasets/, experiments/ and results/ are the reader's.
PARTS = ("drsformer_arch", "options", "scripts", "tests", "benchmarks", "examples", "docs", r"\.ci", r"\.github")
FILE = re.compile(rf"(?<![\w/.*-])(?:{'|'.join(PARTS)})/[\w/.*{{}},-]*[\w}}*]")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
ROOMS = "|".join(module.name for module in pkgutil.iter_modules(drsformer_arch.__path__))
NAME = re.compile(rf"\bdrsformer_arch(?:\.[A-Za-z_]\w*)+|(?<=`)(?:{ROOMS})(?:\.[A-Za-z_]\w*)+(?=[`(])")
PLACEHOLDER = re.compile(r"(?:^|[/_.])[A-Z]{4,}(?:[/_.]|$)")  # options/test/NETWORK/DATASET.yml


def text_of(document: Path) -> str:
    """The text, of a table of moved names the last column alone."""
    lines = document.read_text(encoding="utf-8").splitlines()
    if document.name == "CHANGELOG.md":
        lines = [line.split("|")[-2] if line.startswith("|") else line for line in lines]
    return "\n".join(lines)


def expanded(pattern: str) -> list[str]:
    """`a/{b,c}` as `a/b` and `a/c`."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(document.relative_to(ROOT)) for document in DOCUMENTS])
def test_what_a_document_names_exists(document):
    text = text_of(document)
    files = {path for match in FILE.findall(text) for path in expanded(match) if not PLACEHOLDER.search(path)}
    missing = sorted(path for path in files if not any(ROOT.glob(path)))
    missing += [link for link in LINK.findall(text) if not (document.parent / link).exists()]
    for name in sorted(set(NAME.findall(text)) - {GROUP}):
        if name.endswith((".py", ".jsonl")):  # files that are called as a module or a room
            continue
        try:
            pkgutil.resolve_name(name if name.startswith("drsformer_arch.") else f"drsformer_arch.{name}")
        except (ImportError, AttributeError) as error:
            missing.append(f"{name} ({error})")
    assert not missing


def test_extras_that_documents_and_messages_name_exist():
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    optional = metadata.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", optional, re.MULTILINE))
    for path in (*DOCUMENTS, *ROOT.glob("scripts/*.sh"), *ROOT.glob("drsformer_arch/**/*.py")):
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"(?:drsformer-basicsr|\.whl|install [^\n`]*[\s\"']\.|\$root)\[([a-z,]+)\]", text)
        assert {name for names in named for name in names.split(",")} <= extras, path


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


def test_all_documents_tell_the_version():
    version = drsformer_arch.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == version


@pytest.mark.parametrize(
    "module",
    [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(ROOT.glob("drsformer_arch/**/*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ],
)
def test_examples_in_docstrings_run(module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted
    assert not results.failed
