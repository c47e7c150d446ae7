"""A journal on the live page, in a browser: everything to look at, nothing to press."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from mpqueue import JobQueue
from tests.browser.conftest import Open
from tests.support import handlers as do
from tests.support.pages import dashboard
from tests.support.waiting import Gate

pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "run.db"
    with JobQueue(1, journal=path, max_retries=0) as queue:
        queue.run(["a", "b"], do.only("a", do.fail), id="first")
        queue.run(["a", "b"], do.only("b", do.fail), id="second")
    return path


@pytest.fixture
def url(journal: Path) -> Iterator[str]:
    with dashboard(journal, folder=journal.parent) as (address, _):
        yield address


def test_a_journal_is_looked_at_and_nothing_can_be_pressed(url: str, open_page: Open) -> None:
    page = open_page(url)
    expect(page.locator("#job-heading")).to_have_text("second")
    expect(page.locator("#items")).to_contain_text("ValueError: cannot do 'b'")
    page.locator("#filters").get_by_role("button", name="Failed 1").click()
    expect(page.locator("#failure-groups")).to_contain_text("ValueError")
    for name in ("Pause", "Resume", "Cancel…", "Retry 1 failed item"):
        expect(page.get_by_role("button", name=name)).to_be_hidden()
    expect(page.locator("#workers")).to_be_hidden()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report").click()
    expect(opened.value.locator("body")).to_contain_text("How long items took")


def test_what_another_queue_writes_appears(journal: Path, url: str, open_page: Open, tmp_path: Path) -> None:
    gate, page = Gate(tmp_path / "gate"), open_page(url)
    expect(page.locator("#job-heading")).to_have_text("second")
    with JobQueue(1, journal=journal) as queue:
        run = queue.start(queue.create_job("third", range(4), do.only(2, do.block_until_told(gate)), chunksize=1))
        expect(page.locator("#job-heading")).to_have_text("third")
        expect(page.locator("#job-status")).to_have_text("Running")
        expect(page.locator("#f-done")).to_contain_text("2 of 4")
        gate.open()
        run.result()
    expect(page.locator("#f-done")).to_contain_text("4 of 4")
    expect(page.locator("#job-status")).to_have_text("Completed")
