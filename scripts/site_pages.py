"""A hook of mkdocs (mkdocs.yml): pages of the site whose text lies outside docs/, and links to files of the repository.

README.md is the site's home, and some other documents are pages too (PAGES). A link from a page to any other file of
the repository, a network or an option file for example, leads to a page that shows that file. So links are written as
they work where the repository itself is read, and the site still needs nothing but itself. docs/try.md gets the page
that derains, where it was made.
"""

import os
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "datasets/README.md": "data.md",
    "drsformer_arch/weights/README.md": "model_card.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
# The page that derains, where somebody has written it: making it takes a minute, and files from npm.
DERAIN_PAGE = "assets/derain_page.html"
HERE = "<!-- the page -->"  # in docs/try.md
FRAME = (
    f'<iframe src="{DERAIN_PAGE}" title="The page that derains" loading="lazy" '
    'style="width: 100%; height: 46rem; border: 1px solid #8886; border-radius: 8px"></iframe>\n\n'
    f"[The page by itself]({DERAIN_PAGE}), to save and to use without a network connection."
)
NOT_MADE = (
    '!!! note "The page is not in this copy of the site"\n'
    f"    `drsformer export DRSformer-S -o docs/{DERAIN_PAGE}` before `mkdocs build` puts it here. The commands below "
    "make it for yourself."
)
LINK = re.compile(r'(?P<before>\]\(|\b(?:href|src|data)=")(?P<path>[^)#:"\s]+)(?P<anchor>#[^)"\s]*)?(?=[)"])')
LANGUAGES = {".py": "python", ".yml": "yaml", ".sh": "bash", ".json": "json", ".toml": "toml", ".md": "markdown"}


def origin(page: str) -> str:
    """Path in the repository of a page's text."""
    return next((path for path, name in PAGES.items() if name == page), f"docs/{page}")


def target_page(path: str) -> str:
    """The page or file of the site for a path of the repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md"


def links(text: str, page: str) -> list[str]:
    """Paths in the repository of what a page links, of what exists there."""
    folder = posixpath.dirname(origin(page))
    paths = [posixpath.normpath(posixpath.join(folder, match["path"])) for match in LINK.finditer(text)]
    return [path for path in paths if (ROOT / path).exists()]


def source_page(path: str) -> str:
    """Markdown that shows a file, or the names in a folder."""
    head = f"---\nsearch: {{exclude: true}}\nhide: [navigation, toc]\n---\n\n# `{path}`\n\n"
    if (ROOT / path).is_dir():
        names = sorted(name for name in os.listdir(ROOT / path) if not name.startswith(("_", ".")))
        return head + "".join(f"- `{name}`\n" for name in names)
    text = (ROOT / path).read_text(encoding="utf-8")
    return f'{head}````{LANGUAGES.get(PurePosixPath(path).suffix, "text")} linenums="1"\n{text}````\n'


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of PAGES, and one for each file outside docs/ that a page links."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    for file in list(files.documentation_pages()):
        for path in links(file.content_string, file.src_uri):
            page = target_page(path)
            if page.startswith("source/") and files.get_file_from_path(page) is None:
                files.append(File.generated(config, page, content=source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files of the repository lead to their pages; `#L40`, a line, to that line there."""
    name = page.file.src_uri
    if name.startswith("source/"):
        return markdown
    markdown = markdown.replace(HERE, FRAME if (ROOT / "docs" / DERAIN_PAGE).is_file() else NOT_MADE)

    def rewritten(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin(name)), link["path"]))
        if not (ROOT / path).exists():
            return link[0]
        anchor = re.sub(r"^#L(\d+)$", r"#__codelineno-0-\1", link["anchor"] or "")
        return link["before"] + posixpath.relpath(target_page(path), posixpath.dirname(name) or ".") + anchor

    return LINK.sub(rewritten, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> None:
    """Let links to lines of a source file be checked: mkdocs knows the anchors of headings only."""
    if page.file.src_uri.startswith("source/"):
        page.present_anchor_ids |= set(re.findall(r'id="(__codelineno-[^"]+)"', html))


class MetricSignatures(griffe.Extension):
    """Shows metrics with the arguments that callers give: their decorator makes them of functions of two `Planes`."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Give all metrics the arguments of `Metric.__call__`."""
        module = pkg["metrics.deraining_metrics"]
        _, *parameters = module["Metric.__call__"].parameters  # without self
        for function in module.functions.values():
            if any(str(decorator.value).startswith("_metric(") for decorator in function.decorators):
                function.parameters = griffe.Parameters(*parameters)
