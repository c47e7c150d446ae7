"""A report's flame graph: zoom, search and keys, without anything from elsewhere, and for everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from mpqueue._report.job_report import Report
from mpqueue._report.profile.job_profile import Profile
from mpqueue._report.profile.places import Frame, Frames
from tests.browser.conftest import PHONE, Open
from tests.browser.test_accessibility import violations
from tests.unit.test_report_forms import report, told

READ, SORT, LOAD, C = (
    Frame("handler", "/code/scans.py", 10),
    Frame("handler", "/code/scans.py", 11),
    Frame("load</script>", "/code/files.py", 3),
    Frame("sorted", "", 0),
)
STACKS: dict[Frames, float] = {(READ, LOAD): 1.0, (READ, LOAD, C): 2.0, (SORT,): 0.5, (SORT, LOAD): 3.0}


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A saved report."""
    made = report(told())
    profile = Profile("job", STACKS, {0: STACKS, 1: {(SORT,): 0.5}}, {"scan <1>": {(READ, LOAD): 1.0}})
    return Report(made.figures, made.findings, profile).save(tmp_path / "report.html").as_uri()


def names(page: Page) -> list[str]:
    return page.get_by_role("treeitem").all_inner_texts()


def focused(page: Page) -> Any:
    return page.evaluate("document.activeElement.ariaLabel")


def test_it_is_used_by_keys_alone(address: str, open_page: Open) -> None:
    page = open_page(address)
    whole = ["handler (scans.py:11)", "load</script> (files.py:3)", "handler (scans.py:10)"]
    whole += ["load</script> (files.py:3)", "sorted"]
    assert names(page) == whole
    page.get_by_role("treeitem").first.focus()
    for key in ("ArrowDown", "ArrowUp", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert focused(page) == "load</script> (files.py:3), 46.2%, 3.00 s"
    expect(page.locator("#flame-detail")).to_contain_text("1.00 s of it in the line itself. /code/files.py:3")
    page.keyboard.press("Enter")
    assert names(page) == whole[2:]
    assert focused(page) == "load</script> (files.py:3), 46.2%, 3.00 s"
    page.keyboard.press("Escape")
    assert names(page) == whole
    page.keyboard.press("/")
    page.keyboard.type("FILES.py")
    expect(page.locator("#flame-found")).to_have_text("92.3% of the time")
    assert page.locator(".found").all_inner_texts() == [name for name in whole if "files" in name]


def test_each_worker_and_the_slowest_items_can_be_seen(address: str, open_page: Open) -> None:
    page = open_page(address)
    view = page.get_by_role("combobox")
    assert view.locator("option").all_text_contents() == ["all workers", "worker 0", "worker 1", "item 'scan <1>'"]
    view.select_option("worker 1")
    assert names(page) == ["handler (scans.py:11)"]
    view.select_option("item 'scan <1>'")
    page.get_by_role("treeitem").last.click()
    expect(page.get_by_role("button", name="Show all")).to_be_enabled()
    page.get_by_role("button", name="Show all").click()
    assert names(page) == ["handler (scans.py:10)", "load</script> (files.py:3)"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_to_complain_of_in_a_report(address: str, open_page: Open, screen: Any, scheme: Any) -> None:
    page = open_page(address, color_scheme=scheme, **screen)
    assert violations(page) == []
    page.get_by_role("searchbox").fill("load")
    page.get_by_role("treeitem").last.click()
    assert violations(page) == [], "while it searches, with a box alone"


def test_without_scripts_there_is_a_table(address: str, open_page: Open) -> None:
    page = open_page(address, java_script_enabled=False)
    expect(page.get_by_role("row", name="load</script> (files.py:3)")).to_contain_text("62%")
    expect(page.get_by_role("searchbox")).to_be_hidden()
