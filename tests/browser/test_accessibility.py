"""Who sees, hears or moves otherwise can use the live page: axe-core finds nothing, by day, at night and on a phone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from mpqueue import JobQueue
from tests.browser.conftest import PHONE, Open
from tests.support import handlers as do
from tests.support.page_results import return_picture
from tests.support.waiting import Gate

pytestmark = pytest.mark.usefixtures("forked_workers")

#: All of axe-core's rules, its best practices among them.
OPTIONS = {"resultTypes": ["violations"]}


def violations(page: Page) -> list[str]:
    """What axe-core finds, a line each."""
    found: list[dict[str, Any]] = Axe().run(page, options=OPTIONS).response["violations"]
    return [f"{rule['id']}: {rule['help']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=re.compile(name))


@pytest.mark.long(but=["desktop-dark"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_to_complain_of(
    queue: JobQueue, gate: Gate, open_page: Open, screen: Any, scheme: Any
) -> None:
    page = open_page(queue.serve().url, color_scheme=scheme, reduced_motion="reduce", **screen)
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    assert violations(page) == [], "before there is a job"

    queue.run(range(5), return_picture, id="pictures")
    queue.run(["good", "bad", "ugly"], do.only("bad", do.fail), id="with failures")
    run = queue.start(queue.create_job("running", list("abcdef"), do.block_until_told(gate), chunksize=1).id)
    gate.wait_for_count(2)
    expect(page.locator(".row").filter(has_text="Running")).to_have_count(2)
    assert violations(page) == [], "while a job runs"

    button(page, "Show each worker").click()
    assert violations(page) == [], "with a line for each worker"
    button(page, "Where are they").click()
    expect(page.get_by_role("region", name="Stack of Worker 1")).to_contain_text("in _block")
    assert violations(page) == [], "with the stacks of all workers"
    page.keyboard.press("Escape")

    button(page, "Cancel").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == [], "when asked back"
    page.keyboard.press("Escape")
    queue.pause("running")
    expect(page.locator("#job-status")).to_have_text("Paused")
    assert violations(page) == [], "while it is paused"

    for job, label, item in (
        ("with failures", "with failures · With errors", "bad"),
        ("pictures", "pictures · Completed", "0"),
    ):
        if screen == PHONE:
            page.get_by_label("Job", exact=True).select_option(label=label)
        else:
            page.locator("#jobs").get_by_role("button", name=job).click()
        page.locator(".row").filter(has_text=item).first.click()
        expect(page.get_by_role("dialog", name=f"Item {item}")).to_be_visible()
        assert violations(page) == [], f"with an item of {job!r} open"
        page.keyboard.press("Escape")
    page.get_by_role("searchbox", name="Search the items").fill("nothing of this kind")
    expect(page.get_by_text("Nothing found")).to_be_visible()
    assert violations(page) == [], "where nothing is found"
    queue.resume("running")
    gate.open()
    assert run.result().completed == 6


def test_axe_would_find_something(queue: JobQueue, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    page.evaluate("document.body.append(document.createElement('button'))")
    assert [line.partition(":")[0] for line in violations(page)] == ["button-name"]
