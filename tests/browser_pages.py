"""A page in a real browser, where one is installed: it may say nothing on the console and fetch nothing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))), None
)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine (apt-get install chromium)")


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened_page(browser: Browser, path: Path, **options: Any) -> Iterator[Page]:
    """A file's page; `options` of the browser's context. Checked on leaving: no word on the console, nothing fetched."""
    context = browser.new_context(**options)
    context.set_default_timeout(10_000)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
