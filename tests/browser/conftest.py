"""A Chromium for all tests of this folder, and for each a visitor whose browser must have nothing to complain of."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from mpqueue import JobQueue
from tests.support import leaks
from tests.support.waiting import Gate

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A process that is kept for the next page would look like one that a test has left.
    "--disable-features=SpareRendererForSitePerProcess",
]
#: Milliseconds that something may take to appear: far more than it needs.
PATIENCE = 120_000
PHONE: Any = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}

Open = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser takes its time."""
    for item in items:
        if "tests/browser" in item.nodeid:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The browser of these tests. Not of the session: as long as it is there, an event loop runs in the main thread."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        why = f"no browser here: expected one of {', '.join(NAMES)} on PATH (on Debian: apt install chromium)"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        browser.new_page().close()  # starts most of its helpers
        # Others it starts when it likes, minutes later on a busy machine.
        own = {pid for pid in leaks.descendants(os.getpid()) if b"--headless" in _command_of(pid)}
        leaks.not_ours.update(own)
        yield browser
        browser.close()
        leaks.not_ours.difference_update(own)


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a page in a browser of its own (``beside=`` a page: in another tab of the same).

    At the end: nothing was asked of other hosts, no error was thrown, and nothing was logged but refused connections.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(url: str, beside: Page | None = None, **options: Any) -> Page:
        if beside is None:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            context.set_default_timeout(PATIENCE)
            contexts.append(context)
        else:
            context = beside.context
        page = context.new_page()
        host = urlsplit(url).netloc
        page.on("pageerror", lambda error: complaints.append(f"{error}"))
        page.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
        page.on(
            "request",
            lambda request: complaints.append(request.url) if urlsplit(request.url).netloc != host else None,
        )
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:  # for a test that has failed
            with contextlib.suppress(Error):
                print(page.url, page.locator("body").inner_text(timeout=1000.0), sep="\n")
        context.close()
    assert not complaints


def is_complaint(message: Any) -> bool:
    """Whether the browser warns or errs; a connection that broke is what some tests are about."""
    return (
        message.type in ("error", "warning") and "net::ERR_" not in message.text and "status of 4" not in message.text
    )


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    with JobQueue(2, max_retries=0) as queue:
        yield queue


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()
