"""What the live page shows beside a job's progress: an item while it runs, failures in groups, jobs, workers, keys."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from mpqueue import JobQueue, RetryPolicy, Stage, current_item
from mpqueue.testing import InlinePool
from tests.browser.conftest import Open
from tests.browser.test_accessibility import violations
from tests.browser.test_live_page import button, row, start_blocked
from tests.support import handlers as do
from tests.support.page_results import encoded, return_picture
from tests.support.waiting import Gate

pytestmark = pytest.mark.usefixtures("forked_workers")


def talk_until_told(gate: Gate) -> Callable[[str], str]:
    """A handler that says how far it is, writes, waits for the gate, and then fails at its first try."""

    def talk(item: str) -> str:
        me = current_item()
        me.report(0.25)
        print(f"try {me.attempt} of {item}: here I am")
        gate.pass_through(item)
        if me.attempt == 1:
            raise ValueError("not yet")
        return item

    return talk


# --- one item ---------------------------------------------------------------------------------------------------------


def test_an_item_is_watched_while_it_runs(queue: JobQueue, gate: Gate, tmp_path: Path, open_page: Open) -> None:
    second = Gate(tmp_path / "second")

    def talk(item: str) -> str:
        gate.announce(os.getpid())
        return talk_until_told(gate if current_item().attempt == 1 else second)(item)

    page = open_page(queue.serve().url)
    run = queue.start(
        queue.create_job("job", ["a"], talk, capture_output=True, retry=RetryPolicy(1, base_delay=0.0)).id
    )
    row(page, "Running").click()
    panel = page.get_by_role("region", name="While it runs")
    expect(panel.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
    expect(panel).to_contain_text("25% done")
    expect(panel).to_contain_text("1 of at most 2")
    (pid,) = (name for name in gate.arrived() if name.isdigit())
    expect(panel).to_contain_text(re.compile(f"Worker ?[01] \\(pid {pid}\\)"))
    expect(panel).to_contain_text(re.compile(r"Started ?\d\d:\d\d:\d\d"))
    expect(panel).to_contain_text(re.compile(r"CPU ?\d+%"))
    expect(panel).to_contain_text(re.compile(r"Memory ?\d+(\.\d+)? MB"))
    expect(panel.get_by_role("region", name="The end of its output")).to_have_text("try 1 of a: here I am\n")
    gate.open()
    expect(panel).to_contain_text("2 of at most 2")
    expect(panel.get_by_role("region", name="The end of its output")).to_have_text("try 2 of a: here I am\n")
    expect(page.locator("#item")).to_contain_text("ValueError: not yet")
    second.open()
    expect(page.locator("#item-status")).to_have_text("Completed")
    expect(panel).to_have_count(0)
    expect(page.get_by_role("region", name="stdout")).to_have_text("try 2 of a: here I am\n")
    assert run.result().completed == 1


def test_an_item_s_time_is_there_from_the_first_moment(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    start_blocked(queue, gate)
    expect(row(page, "Running")).to_have_count(2)
    page.evaluate("""() => {
        const body = document.getElementById("item-body");
        window.seen = [];
        new MutationObserver(() => seen.push(body.innerText)).observe(body, { childList: true, subtree: true });
    }""")
    row(page, "Running").first.click()
    expect(page.get_by_role("region", name="While it runs")).to_contain_text(re.compile(r"For ?\d+:\d\d"))
    seen = page.evaluate("seen")
    assert any("For" in text for text in seen)
    assert not [text for text in seen if "NaN" in text]
    gate.open()


def test_a_moment_of_another_day_has_the_date_of_the_viewer_s_clock(queue: JobQueue, open_page: Open) -> None:
    page = open_page(queue.serve().url, timezone_id="Asia/Tokyo")
    told = page.evaluate("""async () => {
        const { moment } = await import(new URL("format.js", location.href));
        return moment(Date.UTC(2020, 0, 1, 23, 30));
    }""")
    assert told == "2020-01-02 08:30:00"


def test_without_capture_output_the_page_says_how_to_keep_it(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    start_blocked(queue, gate)
    row(page, "Running").first.click()
    panel = page.get_by_role("region", name="While it runs")
    expect(panel).to_contain_text("capture_output=True")
    expect(panel).to_contain_text("It has not reported how far it is.")
    gate.open()


def test_items_are_sorted_by_duration_and_by_tries(queue: JobQueue, open_page: Open) -> None:
    def handle(item: int) -> int:
        if item == 3 and current_item().attempt < 3:
            raise ValueError
        return item

    job = queue.run(range(6), handle, id="job", retry=RetryPolicy(2, base_delay=0.0), chunksize=1)
    page = open_page(queue.serve().url)
    options = page.get_by_role("option")
    expect(options.first.locator(".tries")).to_have_text("1")
    button(page, "^Sort by tries$").click()
    expect(options.first).to_contain_text("3")
    expect(options.first.locator(".tries")).to_have_text("3")
    expect(page.locator("#said")).to_have_text("Sorted by tries, descending.")
    button(page, "^Sort by duration$").click()
    slowest = sorted(range(6), key=lambda index: -job.items[index].elapsed)
    for place, index in enumerate(slowest):
        expect(page.locator(f"[aria-posinset='{place + 1}'] .id")).to_have_text(str(index))
    button(page, "^Sorted by duration, descending$").click()
    expect(page.locator("[aria-posinset='1'] .id")).to_have_text(str(slowest[-1]))
    button(page, "^Sort by item$").click()
    expect(page.locator("[aria-posinset='1'] .id")).to_have_text("0")


def test_pictures_have_thumbnails_in_their_rows(queue: JobQueue, open_page: Open) -> None:
    queue.run(range(6), return_picture, id="job")
    page = open_page(queue.serve().url)
    pictures = page.get_by_role("option").locator("img")
    expect(pictures).to_have_count(5)
    for number in range(5):
        page.wait_for_function("image => image.naturalWidth > 0", arg=pictures.nth(number).element_handle())


def test_a_row_that_another_item_takes_keeps_no_picture_of_the_one_before(queue: JobQueue, open_page: Open) -> None:
    def describe(item: str) -> dict[str, Any]:
        described: dict[str, Any] = {"alt_text": "a red square"}
        return {**described, "thumbnail": encoded("PNG")} if item == "drawn" else described

    queue.run(["drawn", "told"], describe, id="job")
    page = open_page(queue.serve().url)
    rows = page.get_by_role("option")
    expect(rows.nth(0).locator("img")).to_have_count(1)
    button(page, "^Sorted by item, ascending$").click()
    expect(rows.nth(0)).to_contain_text("told")
    expect(rows.nth(1).locator("img")).to_have_count(1)
    expect(rows.nth(0).locator("img")).to_have_count(0)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 390])
def test_the_end_of_a_long_name_is_seen(queue: JobQueue, width: int, open_page: Open) -> None:
    names = [f"/data/a/long/path/to/pictures/of/july/picture-{n:03}.jpg" for n in range(3)]
    queue.run(names, do.succeed)
    page = open_page(queue.serve().url, viewport={"width": width, "height": 800})
    expect(page.locator(".row .took").first).to_have_text(re.compile("^[0-9.]+ (us|ms|s)$"))  # as a report has them
    for at, name in enumerate(names):
        cell = page.locator(".row .id").nth(at)
        expect(cell).to_have_text(name)
        end = cell.locator("span").last
        expect(end).to_have_text(name[-16:])
        room, part = cell.bounding_box(), end.bounding_box()
        assert room is not None
        assert part is not None
        assert part["x"] + part["width"] <= room["x"] + room["width"] + 1


def test_failures_are_grouped_and_a_group_is_listed(queue: JobQueue, open_page: Open) -> None:
    def handle(item: int) -> int:
        if item % 10 == 1:
            raise ValueError(f"no {item}")
        return {"key": 1 // (item % 10 - 2)}["key"]

    def handle_or_fail_in_another_way(item: int) -> int:
        if item >= 30:
            raise type(f"Error{item}", (Exception,), {})
        return handle(item)

    queue.run(range(90), handle_or_fail_in_another_way, id="job")
    page = open_page(queue.serve().url)
    groups = page.locator("#failure-groups li")
    expect(button(page, "^Failed")).to_be_visible()
    expect(groups.first).to_be_hidden()
    button(page, "^Failed 66$").click()
    expect(groups).to_have_count(51)
    expect(groups.last).to_have_text("and 12 more groups")
    assert violations(page) == []
    expect(groups.filter(has_text="ValueError")).to_contain_text(
        re.compile(r"3 ×.*at test_live_page_details.py:\d+, first: 1.*no 1")
    )
    these = button(page, "List the items that failed with ZeroDivisionError at test_live_page_details.py")
    these.click()
    expect(page.locator(".row")).to_have_count(3)
    expect(these).to_have_attribute("aria-pressed", "true")
    assert [text.split()[0] for text in page.locator(".row .id").all_inner_texts()] == ["2", "12", "22"]
    these.click()
    expect(page.get_by_role("option").first).to_have_attribute("aria-setsize", "66")
    button(page, "^All 90$").click()
    expect(page.get_by_role("option").first).to_have_attribute("aria-setsize", "90")


def test_a_group_of_failures_or_one_item_runs_again(queue: JobQueue, tmp_path: Path, open_page: Open) -> None:
    def handle(item: int) -> int:
        if (tmp_path / "repaired").exists() or item % 10 not in (1, 2):
            return item
        if item % 10 == 1:
            raise ValueError("one")
        raise KeyError("two")

    job = queue.run(range(30), handle, id="job")
    page = open_page(queue.serve().url)
    (tmp_path / "repaired").touch()
    button(page, "^Failed 6$").click()
    button(page, "Retry the items that failed with KeyError").click()
    expect(button(page, "^Failed 3$")).to_be_visible()
    expect(page.locator("#failure-groups li")).to_have_count(1)
    assert [item.id for item in job.items if item.error] == [1, 11, 21]

    expect(page.locator(".row")).to_have_count(3)
    page.locator("#row-11").click()
    item = page.get_by_role("dialog", name="Item 11")
    item.get_by_role("button", name="Retry").click()
    expect(page.locator("#item-status")).to_have_text("Completed")
    expect(item.get_by_role("button", name="Retry")).to_be_hidden()
    expect(button(page, "^Failed 2$")).to_be_visible()
    assert [item.id for item in job.items if item.error] == [1, 21]


def test_one_item_is_cancelled_and_the_others_go_on(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    run = start_blocked(queue, gate)
    expect(row(page, "Running")).to_have_count(2)  # or one that is shown as waiting may run by now
    row(page, "Waiting").first.click()
    item = page.locator("#item")
    item.get_by_role("button", name="Cancel").click()
    expect(page.locator("#item-status")).to_have_text("Failed")
    expect(item.get_by_role("region", name="Error")).to_contain_text("ItemCancelledError")
    page.keyboard.press("Escape")

    row(page, "Running").first.click()
    item.get_by_role("button", name="Cancel…").click()
    asked = page.get_by_role("dialog").filter(has_text="It runs now")
    asked.get_by_role("button", name="Let it run").click()
    item.get_by_role("button", name="Cancel…").click()
    page.get_by_label("End it now").check()
    asked.get_by_role("button", name="Cancel the item").click()
    expect(page.locator("#item-status")).to_have_text("Failed")
    gate.open()
    job = run.result()
    assert (job.completed, job.failed) == (4, 2)


# --- addresses, keys, copies ------------------------------------------------------------------------------------------


@pytest.mark.long
def test_jobs_and_items_have_addresses_and_the_back_button_works(queue: JobQueue, open_page: Open) -> None:
    for name in ("first", "one/two & <three>"):
        queue.run([{"id": "a"}, {"id": "b"}], do.return_pid, id=name)
    page = open_page(queue.serve().url)
    page.get_by_role("button", name="first").click()
    row(page, "b").click()
    expect(page.get_by_role("heading", name="Item b")).to_be_visible()
    item = page.url
    assert item.endswith("#/first/b")
    page.get_by_role("button", name="Close").click()
    page.locator("#jobs").get_by_role("button", name="one/two").click()
    expect(page.get_by_role("heading", name="one/two")).to_be_visible()
    job = page.url
    page.go_back()
    expect(page.locator("#job-heading")).to_have_text("first")
    expect(page.locator("#item")).to_be_hidden()
    page.go_back()
    expect(page.get_by_role("heading", name="Item b")).to_be_visible()
    page.go_forward()
    expect(page.locator("#item")).to_be_hidden()

    other = open_page(item, beside=page)
    expect(other.get_by_role("heading", name="Item b")).to_be_visible()
    expect(other.locator("#job-heading")).to_have_text("first")
    other.reload()
    expect(other.get_by_role("heading", name="Item b")).to_be_visible()
    third = open_page(job, beside=page)
    expect(third.locator("#job-heading")).to_have_text("one/two & <three>")
    nowhere = open_page(job.partition("#")[0] + "#/no such job/%zz", beside=page)
    expect(nowhere.locator("#job-heading")).to_be_visible()  # it can't have been an address of the page's


def test_an_item_of_another_job_stays_open_however_soon_it_is_found(queue: JobQueue, open_page: Open) -> None:
    queue.run([{"id": "a"}], do.return_pid, id="first")
    queue.run([{"id": "b"}, {"id": "c"}], do.return_pid, id="second")
    page = open_page(queue.serve().url + "#/first/a")
    expect(page.get_by_role("heading", name="Item a")).to_be_visible()
    page.evaluate(  # the program's own answer, before the browser has told that the item before is closed
        """async () => {
          const jobs = [...document.querySelectorAll("#job-choice option")];
          const address = `jobs/${jobs.find((one) => one.text.startsWith("second")).value}/find?id=c`;
          const answer = await (await fetch(address)).text();
          const ask = window.fetch;
          const known = () => Promise.resolve(new Response(answer));
          window.fetch = (asked, options) => asked === address ? known() : ask(asked, options);
          location.hash = "#/second/c";
        }"""
    )
    expect(page.locator("#item")).to_contain_text("Result")
    expect(page.get_by_role("heading", name="Item c")).to_be_visible()
    assert page.evaluate("location.hash") == "#/second/c"


def test_an_address_that_leads_nowhere_says_so(queue: JobQueue, open_page: Open) -> None:
    queue.run([{"id": "a"}, {"id": 7}, {"id": "x/y"}], do.return_pid, id="first")
    page = open_page(queue.serve().url + "#/later/7")
    expect(page.get_by_role("alert")).to_contain_text("There is no job “later” here.")
    expect(page.locator("#job")).to_be_hidden()
    assert violations(page) == []
    queue.run([{"id": "a"}, {"id": 7}], do.return_pid, id="later")  # it leads somewhere now
    expect(page.get_by_role("heading", name="Item 7")).to_be_visible()
    expect(page.locator("#job-heading")).to_have_text("later")
    for address, heading in (("#/first/x%2Fy", "Item x/y"), ("#/first/7", "Item 7")):
        page.evaluate("address => { location.hash = address }", address)
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        expect(page.locator("#job-heading")).to_have_text("first")
    page.route("**/find?*", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        page.evaluate("location.hash = '#/first/a'")
    expect(page.locator("#nowhere")).to_be_hidden()
    page.unroute("**/find?*")
    expect(page.get_by_role("heading", name="Item a")).to_be_visible()
    for garbage in ("#garbage", "#/%E0%A4%A", "#/first/a/b"):
        page.evaluate("address => { location.hash = address }", garbage)
        expect(page.get_by_role("alert")).to_have_text("This address leads to no job and no item.")
        expect(page.locator("#job")).to_be_hidden()
    page.evaluate("location.hash = '#/first/b'")
    expect(page.get_by_role("alert")).to_have_text("The job “first” has no item “b”.")
    expect(page.locator("#item")).to_be_hidden()
    page.get_by_role("link", name="Show the job that is at work").click()
    expect(page.locator("#job-heading")).to_have_text("later")
    expect(page.locator("#nowhere")).to_be_hidden()


def test_the_page_opens_on_the_job_at_work_and_a_filter_ends_with_the_job(
    queue: JobQueue, gate: Gate, open_page: Open
) -> None:
    queue.run(list("abc"), do.only("b", do.fail), id="failed")
    run = start_blocked(queue, gate)
    waits = queue.start(queue.create_job("waits", ["x"], do.succeed).id)  # started later, and has no worker
    page = open_page(queue.serve().url)
    expect(page.locator("#job-heading")).to_have_text("job")
    button(page, "^Waiting 4$").click()
    page.get_by_role("searchbox", name="Search the items").fill("e")
    expect(page.locator(".row")).to_have_count(1)
    page.locator("#jobs").get_by_role("button", name="failed").first.click()
    expect(page.locator("#job-heading")).to_have_text("failed")
    expect(page.get_by_role("searchbox", name="Search the items")).to_have_value("")
    expect(button(page, "^All 3$")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".row")).to_have_count(3)
    gate.open()
    assert (run.result().completed, waits.result().completed) == (6, 1)


def test_errors_and_links_are_copied(queue: JobQueue, open_page: Open) -> None:
    queue.run([{"id": "a"}, {"id": "b"}], do.only({"id": "b"}, do.fail), id="job")
    page = open_page(queue.serve().url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row(page, "b").click()
    for name, expected in (("Copy error", "ValueError: "), ("Copy traceback", "Traceback"), ("Copy link", "/#/job/b")):
        page.get_by_role("button", name=name).click()
        expect(page.locator("#said")).to_have_text("Copied.")
        assert expected in page.evaluate("navigator.clipboard.readText()")
        page.evaluate("document.getElementById('said').textContent = ''")
    # By http from another machine, browsers have no clipboard for scripts.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy error").click()
    expect(page.locator("#said")).to_have_text("Copied.")


def test_a_question_mark_shows_the_keys_and_they_do_what_they_say(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    run = start_blocked(queue, gate)
    expect(button(page, "Pause")).to_be_enabled()
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    expect(keys).to_contain_text("search the items")
    page.keyboard.press("p")  # no key does anything under the list
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    assert not run.job.paused
    page.keyboard.press("p")
    expect(button(page, "Leave it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert not run.job.paused
    page.keyboard.press("p")
    button(page, "Pause the job").click()
    expect(page.locator("#job-status")).to_have_text("Paused")
    page.keyboard.press("p")
    button(page, "Resume the job").click()
    expect(page.locator("#job-status")).to_have_text("Running")
    page.keyboard.press("/")
    page.keyboard.type("p?")
    expect(page.get_by_role("searchbox", name="Search the items")).to_have_value("p?")
    expect(keys).to_be_hidden()
    assert not run.job.paused
    queue.create_job("other", [1], do.succeed)
    page.set_viewport_size({"width": 980, "height": 800})  # where jobs are a choice
    expect(page.get_by_role("combobox", name="Job")).to_be_visible()
    button(page, "Cancel…").first.focus()
    page.keyboard.press("j")
    expect(page.get_by_role("combobox", name="Job")).to_be_focused()
    gate.open()
    run.result()


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_stages_are_one_row_which_opens_as_boxes_with_queues(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    run = queue.start_stages(
        range(10), [do.double, do.block_until_told(gate), Stage(do.double, name="last/one")], id="stages"
    )
    gate.wait_for_count(2)
    page = open_page(queue.serve().url)
    expect(page.locator("#jobs .name b")).to_have_text(["stages"])
    boxes = page.get_by_role("list", name="Stages").get_by_role("listitem")
    expect(boxes).to_have_count(4)
    expect(boxes.nth(0)).to_contain_text("0 of 10 inputs")
    expect(boxes.nth(2)).to_contain_text("2 running")
    assert sum(int(boxes.nth(at).locator(".queue").inner_text().split()[0]) for at in (1, 2)) == 8
    boxes.nth(3).get_by_role("button", name="last/one").click()
    expect(page.locator("#job-heading")).to_have_text("stages/last/one")
    expect(page.get_by_text("No item has reached this stage yet.")).to_be_visible()
    expect(page.locator("#jobs [aria-current=true]")).to_contain_text("stages")
    assert violations(page) == []
    gate.open()
    assert run.result().completed == 10
    expect(page.locator(".row")).to_have_count(10)
    boxes.nth(0).get_by_role("button", name="All stages").click()
    expect(page.locator("#job-heading")).to_have_text("stages")
    expect(page.locator("#totals")).to_be_hidden()  # there is one job


def test_a_stage_is_shown_as_part_of_all_that_it_will_get(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    slow = do.only_from(3, do.block_until_told(gate), do.double)
    run = queue.start_stages(range(10), [do.double, slow, Stage(do.double, name="last")], id="stages")
    gate.wait_for_count(2)
    page = open_page(queue.serve().url)
    last = page.get_by_role("list", name="Stages").get_by_role("listitem").nth(3)
    expect(last.locator(".completed")).to_have_attribute("style", re.compile("^width: [0-2]?0%;$"))
    heights = page.locator("#stages button").evaluate_all("all => all.map((one) => one.offsetHeight)")
    assert max(heights) - min(heights) <= 1, heights
    last.get_by_role("button").click()
    expect(page.locator("#f-done")).to_have_text(re.compile("^[0-2] of 10 · [0-2]?0%$"))
    expect(page).to_have_title(re.compile("^[0-2]?0% · stages/last · mpqueue$"))
    expect(page.get_by_role("button", name=re.compile("^All [0-2]$"))).to_be_visible()  # those that have come
    gate.open()
    assert run.result().completed == 10
    expect(page.locator("#f-done")).to_have_text("10 of 10")


def test_the_stages_that_a_job_waits_for_are_one_job(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    run = queue.start_stages(range(100), [do.double, do.block_until_told(gate)], id="stages", priority=1)
    gate.wait_for_count(2)
    waits = queue.start(queue.create_job("waits", ["x", "y"], do.succeed).id)
    page = open_page(queue.serve().url)
    expect(page.locator("#jobs li").filter(has_text="waits")).to_contain_text("Waiting for workers: 1 job before it")
    gate.open()
    assert (run.result().completed, waits.result().completed) == (100, 2)


def test_a_total_that_is_not_known_gives_no_percentage(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    def twice(number: int) -> Iterator[int]:
        yield 2 * number
        yield 2 * number + 1  # two equal ones could be both at the gate, and count as one

    slow = do.only_from(6, do.block_until_told(gate), do.double)
    run = queue.start_stages(range(6), [twice, slow, Stage(do.double, name="last")], id="stages")
    gate.wait_for_count(2)
    page = open_page(queue.serve().url)
    last = page.get_by_role("list", name="Stages").get_by_role("listitem").nth(3)
    expect(last.locator(".completed")).to_have_attribute("style", "width: 0%;")
    last.get_by_role("button").click()
    expect(page.locator("#f-done")).to_have_text(re.compile(r"^\d of \d+ so far$"))
    expect(page).to_have_title("stages/last · mpqueue")
    assert violations(page) == []
    gate.open()
    assert run.result().completed == 6
    expect(page.locator("#f-done")).to_have_text("12 of 12")


def test_jobs_are_ordered_by_activity_filtered_and_counted(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    queue.create_job("never", ["x", "y"], do.succeed)
    for name in ("old", "older"):
        queue.run(["x", "y"], do.only("y", do.fail), id=name)
    run = start_blocked(queue, gate)
    last = queue.start(queue.create_job("waits", ["x", "y"], do.succeed).id)
    page = open_page(queue.serve().url)
    names = page.locator("#jobs .name b")
    expect(names).to_have_text(["job", "waits", "never", "older", "old"])
    expect(page.locator("#jobs li").filter(has_text="waits")).to_contain_text("Waiting for workers: 1 job before it")
    expect(page.locator("#totals")).to_have_text("2 active, 1 not started, 2 ended. 4 of 14 items done, 2 failed.")
    page.keyboard.press("j")
    page.keyboard.type("old")
    expect(names).to_have_text(["older", "old"])
    page.get_by_label("Search the jobs").fill("")
    page.get_by_label("Which jobs are listed").select_option("active")
    expect(names).to_have_text(["job", "waits"])
    page.get_by_label("Which jobs are listed").select_option("failed")
    expect(names).to_have_text(["older", "old"])
    page.get_by_label("Search the jobs").fill("no such")
    expect(page.get_by_text("No such jobs.")).to_be_visible()
    page.get_by_label("Search the jobs").fill("")
    page.get_by_label("Which jobs are listed").select_option("all")
    gate.open()
    assert (run.result().completed, last.result().completed) == (6, 2)
    expect(page.locator("#totals")).to_have_text("1 not started, 4 ended. 12 of 14 items done, 2 failed.")


def test_two_runs_are_seen_side_by_side(queue: JobQueue, tmp_path: Path, open_page: Open) -> None:
    def handle(item: dict[str, str]) -> str:
        if item["id"] == "b" and not (tmp_path / "repaired").exists():
            raise ValueError("not yet")
        return item["id"]

    queue.run([{"id": "b"}], do.succeed, id="of one of them")
    queue.run(range(3), do.double, id="of other ones")
    queue.run([{"id": name} for name in "abc"], handle, id="yesterday")
    (tmp_path / "repaired").touch()
    queue.run([{"id": name} for name in "abc"], handle, id="today")
    page = open_page(queue.serve().url)
    expect(page.locator("#job-heading")).to_have_text("today")
    button(page, "Compare…").click()
    compared = page.get_by_role("dialog", name="today, compared")
    expect(compared.get_by_role("status")).to_contain_text("3 items in both: 1 with another status.")
    expect(compared.get_by_label("with").get_by_role("option")).to_have_count(2)  # those that are like it
    row_of = compared.get_by_role("row")
    expect(row_of.filter(has=page.get_by_role("rowheader", name="Failed"))).to_contain_text(re.compile("1.*0"))
    expect(compared.get_by_role("img")).to_have_count(2)
    assert violations(page) == []
    compared.get_by_role("button", name="b in yesterday: Failed").click()
    expect(page.get_by_role("heading", name="Item b")).to_be_visible()
    expect(page.locator("#job-heading")).to_have_text("yesterday")
    expect(page.get_by_role("region", name="Error")).to_have_text("ValueError: not yet")


def test_a_comparison_is_offered_where_there_is_a_job_to_compare_with(queue: JobQueue, open_page: Open) -> None:
    queue.run(range(3), do.double, id="yesterday")
    queue.run(["x"], do.succeed, id="other")
    page = open_page(queue.serve().url)
    expect(page.locator("#job-heading")).to_have_text("other")
    with page.expect_response("**/jobs/*/like"):
        page.reload()
    expect(page.locator("#report")).to_be_visible()
    expect(button(page, "Compare…")).to_be_hidden()
    queue.run(range(3), do.double, id="today")
    page.locator("#jobs").get_by_role("button", name=re.compile("^today")).click()
    button(page, "Compare…").click()
    expect(page.locator("#compare-note")).to_have_text("3 items in both: no differences.")


def test_a_comparison_without_an_answer_does_not_say_that_there_is_nothing_to_compare(
    queue: JobQueue, open_page: Open
) -> None:
    queue.run(range(3), do.double, id="yesterday")
    queue.run(range(3), do.double, id="today")
    page = open_page(queue.serve().url)
    page.route("**/like", lambda route: route.abort())
    button(page, "Compare…").click()
    compared = page.get_by_role("dialog", name="today, compared")
    expect(compared.get_by_role("status")).to_contain_text("the program can't be reached")


def test_a_report_is_one_click_away_and_can_do_nothing(queue: JobQueue, open_page: Open) -> None:
    queue.run(range(20), do.double, id="job", profile=True)
    page = open_page(queue.serve().url)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report").click()
    report = opened.value
    expect(report.get_by_role("heading", name="job", exact=True)).to_be_visible()
    expect(report.get_by_text("Where the workers' time went")).to_be_visible()
    assert report.evaluate("self.origin") == "null"


def test_the_throughput_is_drawn_and_told(queue: JobQueue, open_page: Open) -> None:
    queue.run(range(50), do.only(7, do.fail), id="job", chunksize=1)
    page = open_page(queue.serve().url)
    chart = page.get_by_role("img", name=re.compile("^Items per second over the whole run: at most"))
    expect(chart).to_be_visible()
    said = chart.locator("title").all_text_contents()
    assert any(re.fullmatch(r"from .+ on: [\d.,]+/s, and [\d.,]+/s failed", text) for text in said), said


# --- workers ----------------------------------------------------------------------------------------------------------


def test_crashes_and_kills_are_marked_and_explained(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    def handle(item: str) -> str:
        if item == "crash":
            os._exit(3)
        if item == "hang":
            gate.pass_through(item)
        return item

    page = open_page(queue.serve().url)
    queue.run(
        [{"id": name} for name in ("crash", "hang", "fine")],
        lambda item: handle(item["id"]),
        id="job",
        timeout=0.5,
        chunksize=1,
    )
    show_each_worker(page)
    page.wait_for_function(
        """() => {
            const strips = [...document.querySelectorAll("#lanes canvas")];
            const all = strips.map((one) => one.getAttribute("aria-label")).join();
            return all.includes("ended by exit code 3") && all.includes("ended by killed: timeout");
        }"""
    )
    expect(page.locator("#legend")).to_contain_text("Crashed or killed")
    expected = ("exit code 3, while it ran crash", "killed: timeout, while it ran hang")
    while not any(tip_at_mark(page, lane).endswith(expected) for lane in range(2)):
        pass  # the label is asked for when it is first needed


def show_each_worker(page: Page) -> None:
    expect(page.locator("#lanes")).to_be_hidden()
    button(page, "^Show each worker$").click()
    expect(button(page, "^Hide workers$")).to_have_attribute("aria-expanded", "true")


def tip_at_mark(page: Page, lane: int) -> str:
    """What the tooltip says along a lane's strip, up to the first end of a worker."""
    canvas = page.locator("#lanes canvas").nth(lane)
    box = canvas.bounding_box()
    assert box is not None
    for x in range(int(box["width"]) - 1, 0, -3):
        page.mouse.move(box["x"] + x, box["y"] + box["height"] / 2)
        text = page.locator("#tip").inner_text()
        if "The worker ended" in text:
            return text
    return ""


def test_memory_and_cpu_of_each_worker_are_shown(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    start_blocked(queue, gate)
    show_each_worker(page)
    for lane in range(2):
        expect(page.locator(".lane .use").nth(lane)).to_have_text(re.compile(r"\d+% · \d+(\.\d+)? MB"))
    button(page, "^CPU$").click()
    expect(page.locator("#strip-scale")).to_have_text("The full height is one CPU.")
    button(page, "^Memory$").click()
    expect(page.locator("#strip-scale")).to_have_text(re.compile(r"The full height is \d+(\.\d+)? MB\."))
    expect(page.locator("#legend")).to_be_hidden()
    button(page, "^Work$").click()
    expect(page.locator("#legend")).to_be_visible()
    gate.open()


@pytest.mark.long(but=["64-dense"])
@pytest.mark.parametrize(("workers", "size"), [(16, "compact"), (64, "dense")])
def test_many_workers_are_seen_at_once(workers: int, size: str, gate: Gate, open_page: Open, many: Any) -> None:
    page = open_page(many(workers).serve().url)
    expect(page.locator("#workers-dots i")).to_have_count(workers)
    show_each_worker(page)
    expect(page.locator(".lane")).to_have_count(workers)
    expect(page.locator("#lanes")).to_have_attribute("data-size", size)
    scrolled = "list => list.scrollHeight - list.clientHeight"
    assert page.locator("#lanes").evaluate(scrolled) <= 1
    box = page.locator("#lanes").bounding_box()
    assert box is not None
    assert box["height"] <= 400


@pytest.fixture
def many(gate: Gate) -> Any:
    """A queue with that many workers, without their processes: a thread runs the items."""
    queues = []

    def make(workers: int) -> JobQueue:
        queue = JobQueue(workers, backend=InlinePool())
        queues.append(queue)
        queue.start(queue.create_job("job", range(workers), do.block_until_told(gate), chunksize=1).id)
        return queue

    yield make
    gate.open()
    for queue in queues:
        queue.close()
