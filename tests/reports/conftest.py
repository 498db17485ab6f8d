"""A real browser for the tests of pages: headless Chromium, Chrome or Edge, started once a module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

VARIABLE = "AGENTBUDGET_TEST_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "msedge", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

Show = Callable[..., "Shown"]


class Shown:
    """A page in the browser, and what it said and asked for while it was there."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        """Console messages and uncaught errors."""
        self.asked: list[str] = []
        """Addresses it requested."""
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def value(self, script: str) -> object:
        """What *script* evaluates to in the page."""
        found: object = self.page.evaluate(script)
        return found


def executable() -> str | None:
    """The browser that is there: the one the environment names, or one that is installed."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    found = (shutil.which(name) for name in NAMES)
    return next(filter(None, found), None) or next((place for place in PLACES if Path(place).exists()), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser. Where none is installed the test is skipped, but fails in CI.

    While it is open an event loop counts as running in this thread, so it must not outlive the tests that use it: a
    coroutine test of another module could not run.
    """
    path = executable()
    if path is None:
        missing = f"no Chromium, Chrome or Edge found; install one, or name it in {VARIABLE}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Shows HTML from a file: `show(html, width=400, dark=True, scripts=False)`."""
    contexts: list[BrowserContext] = []

    def in_browser(html: str, *, width: int = 1100, dark: bool = False, scripts: bool = True) -> Shown:
        file = tmp_path / f"page-{len(contexts)}.html"
        file.write_text(html, encoding="utf-8", newline="\n")
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        contexts.append(context)
        shown = Shown(context.new_page())
        shown.page.goto(file.as_uri())
        return shown

    yield in_browser
    for context in contexts:
        context.close()
