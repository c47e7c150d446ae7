"""A report's flame graph: zoom, search and keys, without anything from elsewhere, and for everybody."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from mpqueue import JobQueue
from tests.browser.conftest import PHONE, Open
from tests.browser.test_accessibility import violations
from tests.support.spinning import spin

pytestmark = pytest.mark.usefixtures("forked_workers")


def view(name: str, *stacks: tuple[list[int], float]) -> dict[str, Any]:
    samples, weights = zip(*stacks, strict=True)
    return {"name": name, "endValue": sum(weights), "samples": samples, "weights": weights}


def frame(name: str, line: int | None, source: str) -> dict[str, Any]:
    where = {} if line is None else {"file": f"/code/{name.partition('(')[2].partition(':')[0]}", "line": line}
    return {"name": name, "source": source, **where}


#: Two lines of a function, and what they call: a function that calls itself from two lines, and its caller.
STACKS = (([2, 1], 1.0), ([2, 4, 2, 1, 4, 1, 3], 2.0), ([0], 0.5), ([0, 1], 3.0))
PROFILE = {
    "shared": {
        "frames": [
            frame("handler (scans.py:11)", 11, "load(path)"),
            frame("load</script> (files.py:3)", 3, "return sorted(<found>)"),
            frame("handler (scans.py:10)", 10, "load(other)"),
            frame("sorted", None, ""),
            frame("load</script> (files.py:4)", 4, "load(<deeper>)"),
        ]
    },
    "profiles": [
        view("all workers", *STACKS),
        view("worker 0", *STACKS),
        view("worker 1", ([0], 0.5)),
        view("item 'scan <1>'", ([2, 1], 1.0)),
    ],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, forked_workers: None) -> Path:
    """A saved report of a job that was profiled."""
    with JobQueue(1) as queue:
        job = queue.run([0.3], spin, profile=True)
    return job.report().save(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def address(saved: Path, tmp_path: Path) -> str:
    """The same, with a profile that is always the same."""
    data = json.dumps(PROFILE).replace("<", "\\u003c")
    text, count = re.subn(
        r"(id='flame-data'>).*?(</script>)", lambda found: found[1] + data + found[2], saved.read_text()
    )
    assert count == 1
    (tmp_path / "report.html").write_text(text)
    return (tmp_path / "report.html").as_uri()


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
    expect(page.locator("#flame-detail")).to_contain_text("1.00 s of it in the line itself. /code/files.py:3: return")
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


def test_it_is_saved_for_speedscope(address: str, open_page: Open) -> None:
    page = open_page(address)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save for speedscope").click()
    assert json.loads(download.value.path().read_text()) == json.loads(json.dumps(PROFILE))


@pytest.mark.long(but=["desktop-light"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_to_complain_of_in_a_report(address: str, open_page: Open, screen: Any, scheme: Any) -> None:
    page = open_page(address, color_scheme=scheme, **screen)
    assert violations(page) == []
    page.get_by_role("searchbox").fill("load")
    page.get_by_role("treeitem").last.click()
    assert violations(page) == [], "while it searches, with a box alone"


def test_without_scripts_there_is_a_table(saved: Path, open_page: Open) -> None:
    page = open_page(saved.as_uri(), java_script_enabled=False)
    expect(page.get_by_role("row", name="spin (spinning.py:").first).to_contain_text("%")
    expect(page.get_by_role("searchbox")).to_be_hidden()
