"""A browser to open pages in."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path(os.environ.get("KAPPAFLOW_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
MOST_MS = 300_000  # longest wait, on a busy machine


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Yields a Chromium without a window; it is never downloaded."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, tmp_path):
    """Yields a function that opens a page and checks what must hold for every page."""
    contexts = []

    def open_(html: str, *, width: int = 1280, scheme: str = "light") -> Any:
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        context.set_default_timeout(MOST_MS)
        contexts.append(context)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:")) or complaints.append(r.url),
        )
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        plots = page.locator("[data-figure]").count()
        drawn = page.locator("[data-figure] .plot-container .main-svg:first-child").count()
        assert complaints == []
        assert drawn == plots > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        return page

    yield open_
    for context in contexts:
        context.close()
