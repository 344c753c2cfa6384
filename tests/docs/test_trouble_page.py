"""docs/trouble.md: every message that it quotes is one that the program has."""

import ast
import importlib.util
import re
from pathlib import Path

import drsformer_arch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/trouble.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^### (?:(?P<of>[^:`]+): )?(?P<messages>`.*`)$", re.MULTILINE)
GAP = "\N{HORIZONTAL ELLIPSIS}"  # on the page and below, what a message is filled with
FEWEST = 60  # messages on the page


def texts_of(source: Path) -> list[str]:
    """All texts of a module but docstrings, with a gap for what f-strings are filled with."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            texts.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            texts.append("".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values))
    return texts


def is_quoted_from(quote: str, texts: list[str]) -> bool:
    """Whether one text has all words of the quotation in their order; gaps stand for anything, as does its end."""
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in quote.split(GAP)))
    return any(pattern.search(text) for text in texts)


def test_every_quoted_message_is_in_the_source():
    ours = [text for path in Path(drsformer_arch.__file__).parent.rglob("*.py") for text in texts_of(path)]
    registry = Path(importlib.util.find_spec("basicsr").origin).parent / "utils/registry.py"
    sources = {None: ours, "BasicSR": texts_of(registry)}  # what Python, pip and LMDB say, nobody checks here
    quotes = [
        (heading["of"], quote) for heading in HEADING.finditer(PAGE) for quote in heading["messages"].split("`")[1::2]
    ]
    stale = [quote for of, quote in quotes if of in sources and not is_quoted_from(quote, sources[of])]
    assert not stale
    assert len(quotes) >= FEWEST
    assert not [quote for _, quote in quotes if len(re.findall(r"\w", quote)) < 8]  # which nobody would find


def test_a_quotation_that_is_wrong_would_be_found():
    texts = texts_of(ROOT / "drsformer_arch/training/batch_plan.py")
    assert is_quoted_from(f"train.effective_batch_size {GAP} is no multiple of {GAP} process(es)", texts)
    assert not is_quoted_from(f"train.effective_batch_size {GAP} is not a multiple of {GAP} process(es)", texts)
    assert not is_quoted_from("Plan how the pictures of each iteration are cut", texts)
