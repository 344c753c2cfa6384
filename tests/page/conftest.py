"""A browser for the tests of pages."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.browsers import BROWSERS, PATIENCE, SWITCHES, found_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = found_browser()
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} on PATH")
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=SWITCHES)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; whatever it complains of or asks for beside itself fails the test."""
    complaints, asked, contexts = [], set(), []

    def opened(path: Path, **options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        page.goto(path.as_uri())
        asked.discard(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("blob:", "data:"))] == []
