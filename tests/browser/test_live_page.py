"""A job on the live page: watched, paused, cancelled, retried; by mouse, by keyboard, on a phone, in two tabs."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from mpqueue import JobQueue, JobStatus, RetryPolicy
from tests.browser.conftest import PHONE, Open
from tests.support import handlers as do
from tests.support.programs import start_program
from tests.support.relay import Relay
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")


def start_blocked(queue: JobQueue, gate: Gate, items: Any = "abcdef", job_id: str = "job") -> Any:
    """Two of its items run until the gate is open."""
    queue.create_job(job_id, list(items), do.block_until_told(gate), chunksize=1)
    run = queue.start(job_id)
    gate.wait_for_count(2)
    return run


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=re.compile(name))


def row(page: Page, text: str | re.Pattern[str]) -> Any:
    return page.get_by_role("listbox", name="Items").get_by_role("option").filter(has_text=text)


# --- watched ------------------------------------------------------------------------------------------------------


def test_a_whole_job_is_watched_from_its_start_to_its_end(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    assert "token" not in page.url
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()

    queue.create_job("thumbnails", list("abcdef"), do.block_until_told(gate), chunksize=1)
    expect(page.get_by_role("heading", name="thumbnails")).to_be_visible()
    expect(page.locator("#job-status")).to_have_text("Not started")
    expect(page.get_by_role("option")).to_have_count(6)
    page.get_by_role("searchbox").fill("e")  # which stands in none of the positions
    expect(page.get_by_role("option")).to_have_count(1)
    page.get_by_role("searchbox").fill("")
    expect(page.get_by_role("option")).to_have_count(6)

    queue.start("thumbnails")
    expect(page.locator("#job-status")).to_have_text("Running")
    expect(button(page, "^Running 2$")).to_be_visible()
    expect(row(page, "Running")).to_have_count(2)
    expect(page.locator("#workers-count")).to_have_text("2 of 2 busy")
    button(page, "^Show each worker$").click()
    expect(page.locator(".lane").first).to_contain_text(re.compile(r"[a-f] · .* m?s"))
    bar = page.get_by_role("progressbar", name="thumbnails")
    expect(bar).to_have_attribute("aria-valuenow", "0")

    gate.open()
    expect(page.locator("#job-status")).to_have_text("Completed")
    expect(bar).to_have_attribute("aria-valuetext", "100%: 6 completed, 0 failed, of 6")
    expect(row(page, "Completed")).to_have_count(6)
    expect(page).to_have_title("100% · thumbnails · mpqueue")
    expect(page.locator("#said")).to_have_text("Job thumbnails is complete: 6 completed, 0 failed.")

    queue.close()
    expect(page.get_by_role("alert")).to_have_text("The queue was closed. This is its last state.")
    expect(row(page, "Completed")).to_have_count(6)


def test_a_reload_and_a_lost_connection_in_the_middle_lose_nothing(
    queue: JobQueue, gate: Gate, open_page: Open
) -> None:
    with Relay(queue.serve().url) as relay:
        page = open_page(relay.url)
        run = start_blocked(queue, gate)
        expect(row(page, "Running")).to_have_count(2)
        page.reload()
        expect(row(page, "Running")).to_have_count(2)

        page.context.set_offline(True)
        relay.cut()
        expect(page.locator("#connection-text")).to_have_text("Connection lost")
        expect(button(page, "Pause")).to_be_disabled()
        gate.open()
        assert run.result().completed == 6
        expect(row(page, "Unknown")).to_have_count(2)  # of which the page knows no more
        expect(row(page, "Running")).to_have_count(0)
        relay.open()
        page.context.set_offline(False)
        expect(page.locator("#connection-text")).to_have_text("Live")
        expect(row(page, "Completed")).to_have_count(6)


def test_an_answer_that_never_came_is_asked_for_again(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    run = start_blocked(queue, gate)
    expect(row(page, "Running")).to_have_count(2)
    row(page, "Running").first.click()
    expect(page.locator("#item-status")).to_have_text("Running")
    page.route("**/items*/**", lambda route: route.abort())
    page.route("**/items?*", lambda route: route.abort())
    gate.open()
    assert run.result().completed == 6
    expect(page.locator("#said")).to_contain_text("Job job is complete")
    for asked in ("/items?", "/items/"):
        for _ in range(2):  # one at a time: the second was asked for once the first had failed
            page.wait_for_event("requestfailed", lambda request, asked=asked: asked in request.url)
    page.unroute_all()
    expect(row(page, "Completed")).to_have_count(6)
    expect(page.locator("#job-status")).to_have_text("Completed")
    expect(page.locator("#item-status")).to_have_text("Completed")


def test_a_picture_of_the_throughput_that_never_came_is_asked_for_again(queue: JobQueue, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    page.route("**/throughput", lambda route: route.abort())
    queue.run(range(3), do.double, id="job")
    for _ in range(2):  # nothing has changed in between
        page.wait_for_event("requestfailed", lambda request: "/throughput" in request.url)
    page.unroute_all()
    expect(page.get_by_role("img", name=re.compile("^Items per second"))).to_be_visible()


def test_two_tabs_show_the_same_and_what_one_does(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    first = open_page(queue.serve().url)
    start_blocked(queue, gate)
    second = open_page(first.url, beside=first)
    button(first, "Pause").click()
    for page in (first, second):
        expect(page.locator("#job-status")).to_have_text("Paused")
    button(second, "Resume").click()
    for page in (first, second):
        expect(page.locator("#job-status")).to_have_text("Running")
    gate.open()
    for page in (first, second):
        expect(row(page, "Completed")).to_have_count(6)


def test_a_program_that_dies_is_told(tmp_path: Path, open_page: Open) -> None:
    body = f"""
        import mpqueue
        from pathlib import Path
        from tests.support import handlers as do
        from tests.support.waiting import Gate
        if __name__ == "__main__":
            with mpqueue.JobQueue(2) as queue:
                queue.create_job("job", list("abcdef"), do.block_until_told(Gate(Path({str(tmp_path)!r}))), chunksize=1)
                queue.start("job")
                print(queue.serve().url, flush=True)
    """
    with start_program(tmp_path, body) as program:
        assert program.stdout is not None
        page = open_page(program.stdout.readline().strip())
        expect(row(page, "Running")).to_have_count(2)
        row(page, "Running").first.click()
        expect(page.get_by_role("region", name="While it runs")).to_be_visible()
        os.kill(program.pid, signal.SIGKILL)
        expect(page.locator("#connection-text")).to_have_text("Connection lost")
        expect(page.get_by_role("alert")).to_contain_text("The program has ended, or can't be reached")
        expect(row(page, "Unknown")).to_have_count(2)
        expect(page.locator("#job-status")).to_have_text("Unknown")
        expect(page.get_by_role("region", name="When it was last seen")).to_be_visible()
        assert not re.search(r"\b(running|runs|busy)\b", page.locator("body").inner_text(), re.IGNORECASE)
        page.keyboard.press("Escape")
        expect(button(page, "Cancel")).to_be_disabled()
        row(page, "Waiting").first.click()
        expect(page.locator("#item")).to_contain_text("can't be asked any more")


# --- done -------------------------------------------------------------------------------------------------------------


def test_the_focus_goes_to_the_button_s_successor_also_where_the_answer_is_late(
    queue: JobQueue, gate: Gate, open_page: Open
) -> None:
    page = open_page(queue.serve().url)
    run = start_blocked(queue, gate)
    page.evaluate(LATE_ANSWERS)
    button(page, "Pause").click()
    expect(button(page, "Resume")).to_be_focused()
    assert not page.evaluate("answered")
    page.evaluate("letThrough()")
    expect(button(page, "Resume")).to_be_focused()
    page.keyboard.press("Enter")
    expect(button(page, "Pause")).to_be_focused()
    gate.open()
    assert run.result().completed == 6


#: Answers to what the page asks to be done come when `letThrough` is called, while its stream goes on.
LATE_ANSWERS = """() => {
    const ask = window.fetch, gate = new Promise((open) => { window.letThrough = open; });
    window.answered = false;
    window.fetch = async (address, options) => {
        const answer = await ask(address, options);
        if (options?.method === "POST") { await gate; window.answered = true; }
        return answer;
    };
}"""


def test_a_job_is_cancelled_when_that_is_confirmed_and_not_before(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    bystander = queue.create_job("bystander", ["x", "y"], do.succeed)
    run = start_blocked(queue, gate)
    dialog = page.get_by_role("dialog")
    button(page, "^Cancel…").click()
    expect(dialog).to_contain_text("Cancel “job”?")
    expect(button(page, "Keep it running")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    button(page, "^Cancel…").click()
    button(page, "Keep it running").click()
    expect(dialog).to_be_hidden()
    assert not run.job.cancelled

    button(page, "^Cancel…").click()
    page.get_by_label("Also end the items").check()
    button(page, "Cancel the job").click()
    expect(page.locator("#job-status")).to_have_text("Cancelled")  # at once, for its items were ended
    assert run.result().status is JobStatus.CANCELLED
    expect(page.get_by_role("heading", name="job", exact=True)).to_be_focused()
    assert bystander.status is JobStatus.PENDING

    queue.cancel("bystander")
    entry = page.locator("#jobs li", has_text="bystander")
    expect(entry).to_contain_text("Cancelled")
    expect(entry).not_to_contain_text("NaN")  # it has an end, and never began


def test_workers_come_and_go_by_button_and_key(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    run = start_blocked(queue, gate)
    second = open_page(page.url, beside=page)
    expect(page.locator("#size-count")).to_have_text("2 workers")
    page.evaluate(LATE_ANSWERS)
    for _ in range(2):
        button(page, "One worker more").click()
    expect(page.locator("#size-count")).to_have_text("4 workers")
    expect(second.locator("#size-count")).to_have_text("3 workers")  # the second is asked for after the first's answer
    page.evaluate("letThrough()")
    for shown in (page, second):
        expect(shown.locator("#workers-dots i")).to_have_count(4)
        expect(shown.locator("#size-count")).to_have_text("4 workers")
    expect(page.locator("#said")).to_have_text("4 workers.")
    assert queue.concurrency == 4
    page.keyboard.press("/")
    page.keyboard.type("-")
    page.keyboard.press("Escape")
    second.keyboard.press("Control++")
    for wanted in ("3 workers", "2 workers", "1 worker"):
        second.keyboard.press("-")
        button(second, f"^Have {wanted}$").click()
        expect(second.locator("#size-count")).to_have_text(wanted)
    expect(button(second, "One worker fewer")).to_be_disabled()
    second.keyboard.press("-")
    expect(second.get_by_role("dialog")).to_be_hidden()
    gate.open()
    for shown in (page, second):
        expect(shown.locator("#workers-dots i")).to_have_count(1)
        expect(shown.locator("#size-count")).to_have_text("1 worker")
    second.keyboard.press("+")
    expect(button(second, "Leave it")).to_be_focused()  # a key alone changes nothing
    second.keyboard.press("Escape")
    second.keyboard.press("+")
    button(second, "^Have 2 workers$").click()
    expect(page.locator("#workers-dots i")).to_have_count(2)
    assert run.result().completed == 6
    wait_until(lambda: queue.concurrency == 2, what="the queue to have said so itself")  # after the scheduler


def test_failed_items_are_found_looked_into_and_run_again(queue: JobQueue, open_page: Open, tmp_path: Path) -> None:
    def need_file(item: str) -> str:
        if item == "b" and not (tmp_path / "here").exists():
            raise FileNotFoundError("the file <b>is not</b> there")
        return item * 2

    queue.run(list("abc"), need_file, id="job", retry=RetryPolicy(1, base_delay=0.01))
    page = open_page(queue.serve().url)
    button(page, "^Failed 1$").click()
    expect(page.get_by_role("option")).to_have_count(1)
    row(page, "is not").click()
    item = page.get_by_role("dialog", name="Item b")
    expect(item.get_by_role("region", name="Error")).to_have_text("FileNotFoundError: the file <b>is not</b> there")
    expect(item.get_by_role("region", name="Traceback")).to_contain_text("need_file")
    expect(item.get_by_role("listitem")).to_have_count(2)  # tries
    expect(item).to_contain_text("FileNotFoundError")

    (tmp_path / "here").touch()
    button(page, "Retry 1 failed item").click()
    expect(page.locator("#job-status")).to_have_text("Completed")
    expect(item.locator(".chip")).to_have_text("Completed")
    expect(item.get_by_role("region", name="Result")).to_have_text("bb")
    expect(page.get_by_text("No failed items.")).to_be_visible()  # none has failed


def test_what_cannot_be_done_is_said(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    start_blocked(queue, gate)
    expect(button(page, "Pause")).to_be_enabled()
    page.route("**/pause", lambda route: route.fulfill(status=409, body='{"error": "it is over"}'))
    button(page, "Pause").click()
    expect(page.get_by_role("alert")).to_have_text("job: it is over")
    gate.open()


# --- by keyboard, on a phone, at night, and by thousands --------------------------------------------------------------


def test_everything_can_be_done_by_keyboard(queue: JobQueue, open_page: Open) -> None:
    queue.run([{"id": f"item-{n:03}"} for n in range(500)], do.return_pid, id="job")
    page = open_page(queue.serve().url)
    expect(row(page, "item-000")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("item-4")
    expect(page.get_by_text("100 items listed")).to_be_visible()
    page.keyboard.press("ArrowDown")
    chosen = page.locator("[role=option][aria-selected=true]")
    expect(chosen).to_contain_text("item-400")
    page.keyboard.press("End")
    expect(chosen).to_contain_text("item-499")
    expect(chosen).to_be_in_viewport()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Item item-498")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#item")).to_be_hidden()
    expect(page.get_by_role("listbox")).to_be_focused()
    expect(page.get_by_role("listbox")).to_have_attribute("aria-activedescendant", "row-498")

    page.locator("#workers-open").press("Enter")
    reached = set()
    page.locator("body").focus()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"search", "list", "workers-open", "5 min"} <= reached
    assert any(name.startswith("job") for name in reached)


def test_the_keyboard_stays_where_it_went_while_an_older_answer_was_under_way(
    queue: JobQueue, gate: Gate, open_page: Open
) -> None:
    page = open_page(queue.serve().url)
    start_blocked(queue, gate, range(20))
    chosen = page.locator("[role=option][aria-selected=true]")
    expect(page.locator("#row-0")).to_be_visible()
    page.get_by_role("listbox").press("Home")
    expect(chosen).to_have_attribute("data-index", "0")
    page.get_by_role("listbox").press("ArrowDown")
    expect(chosen).to_have_attribute("data-index", "1")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/items?*find=1", hold)
    with page.expect_request("**/items?*find=1"):
        queue.cancel_items("job", [15])
    page.keyboard.press("ArrowDown")
    expect(chosen).to_have_attribute("data-index", "2")
    with page.expect_response("**/items?*find=2", timeout=30_000):  # after a minute the page asks anyhow
        held.pop().continue_()
    expect(chosen).to_have_attribute("data-index", "2")
    gate.open()


def test_a_click_opens_the_item_that_was_clicked_also_far_down(queue: JobQueue, open_page: Open) -> None:
    queue.run(range(5000), do.double, id="job")
    page = open_page(queue.serve().url)
    # All have come: a shorter list can't be scrolled so far.
    expect(page.get_by_role("option").first).to_have_attribute("aria-setsize", "5000")
    page.get_by_role("listbox").evaluate("list => list.scrollTo(0, 40_000)")
    row(page, "2100").first.click()
    expect(page.get_by_role("heading", name="Item 1050")).to_be_visible()
    button(page, "Next item").click()
    expect(page.get_by_role("heading", name="Item 1051")).to_be_visible()
    button(page, "Close").click()
    expect(page.locator("[role=option][aria-selected=true]")).to_contain_text("1051")


def test_a_new_viewer_of_a_hundred_thousand_items_gets_at_most_two_megabytes(queue: JobQueue, open_page: Open) -> None:
    """Counted on the way to the browser, with long results, while it scrolls, sorts and searches."""
    queue.run(range(100_000), lambda n: f"{n} " + "of a long text " * 20 if n != 7 else 1 / 0, id="job")
    with Relay(queue.serve().url) as relay:
        page = open_page(relay.url)
        expect(button(page, "^Completed 99,999$")).to_be_visible()
        expect(page.get_by_role("option").first).to_contain_text("Completed")
        page.get_by_role("listbox").focus()
        page.keyboard.press("End")
        expect(row(page, "99999")).to_be_in_viewport()
        button(page, "^Sort by duration$").click()
        expect(page.get_by_role("option").first).to_contain_text("s")
        page.get_by_role("searchbox").fill("12345")
        expect(page.locator("#list-count")).to_have_text("1 item listed")
        assert 20_000 < relay.sent < 2_000_000


def test_a_list_longer_than_a_browser_can_scroll_is_listed_whole(queue: JobQueue, open_page: Open) -> None:
    queue.run(range(300_000), do.double, id="job")
    page = open_page(queue.serve().url)
    expect(page.get_by_role("option").first).to_be_visible()
    chosen = page.locator("[role=option][aria-selected=true]")
    page.get_by_role("listbox").press("End")
    expect(chosen).to_contain_text("299999")
    expect(chosen).to_be_in_viewport()
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    expect(chosen).to_contain_text("299996")
    expect(chosen).to_be_in_viewport()
    page.get_by_role("listbox").evaluate("list => list.scrollTo(0, list.scrollHeight / 2)")
    expect(row(page, re.compile("150005"))).to_be_in_viewport()


def test_the_job_and_the_workers_are_a_line_each_above_the_items(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    queue.run(range(5), do.only(3, do.fail), id="other")
    start_blocked(queue, gate, range(2000), "a-job-with-a-name-that-is-long")
    page = open_page(queue.serve().url)
    expect(row(page, "Running")).to_have_count(2)
    for width, opened in ((1280, False), (980, False), (1280, True), (1440, True)):
        page.set_viewport_size({"width": width, "height": 800})
        if opened:
            row(page, "Running").first.click()
            expect(page.get_by_role("combobox", name="Job")).to_be_visible()
        boxes = {name: page.locator(name).bounding_box() for name in ("#job", "#workers", "#items")}
        job, workers, items = (box for box in boxes.values() if box is not None)
        assert (job["height"] < 70, workers["height"] <= 40, items["y"] < 210) == (True, True, True), boxes
        cancel = button(page, "^Cancel…$").first.bounding_box()
        assert cancel["x"] + cancel["width"] < job["x"] + job["width"]
    gate.open()


def test_it_fits_a_phone(queue: JobQueue, gate: Gate, open_page: Open) -> None:
    queue.run(["a", "b"], do.only("b", do.fail), id="other")
    start_blocked(queue, gate, [{"id": "x" * 200}, {"id": "y"}, {"id": "z"}], "a-name-" * 12)
    page = open_page(queue.serve().url, **PHONE)
    rows = page.locator(".row")
    expect(rows.filter(has_text="Running")).to_have_count(2)
    expect(rows.first).to_be_in_viewport()
    for show in (None, button(page, "^Show each worker$"), button(page, "^Failed 1$")):
        if show is not None:
            show.tap()
        beyond = page.evaluate(BEYOND)
        assert beyond == []
        page.get_by_label("Job", exact=True).select_option(label="other · With errors")
        expect(page.locator("#job-heading")).to_have_text("other")
    expect(page.locator("#failure-groups")).to_contain_text("ValueError")
    page.get_by_label("Job", exact=True).select_option(index=0)
    expect(rows).to_have_count(3)
    rows.filter(has_text="y").tap()
    item = page.get_by_role("dialog", name="Item y")
    expect(item).to_be_visible()
    box = item.bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 390)
    assert page.evaluate("document.querySelector('#item').matches(':modal')")  # nothing behind it can be reached
    button(page, "Close").tap()
    expect(item).to_be_hidden()
    gate.open()


#: The controls that can be seen and are not wholly within the width of the screen; the page, if it can be scrolled so.
BEYOND = """
[...document.querySelectorAll("button, a, input, select, html")].filter((one) => {
    const { left, right } = one.getBoundingClientRect();
    const wide = one.scrollWidth > innerWidth;
    return one.checkVisibility() && !one.matches(".skip") && (wide || left < 0 || right > innerWidth);
}).map((one) => one.id || one.outerHTML)
"""


def test_it_follows_the_system_at_night(queue: JobQueue, open_page: Open) -> None:
    page = open_page(queue.serve().url)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red, green, blue = map(int, re.findall(r"\d+", color))
        assert (red + green + blue < 200) == (scheme == "dark")


# --- strangers --------------------------------------------------------------------------------------------------------


def test_a_link_on_another_site_leads_to_the_page(queue: JobQueue, browser: Any) -> None:
    """The browser leaves a strict cookie out of what another site began; the page asks once more by itself."""
    queue.create_job("my-job", ["a", "b"], do.succeed)
    url = queue.serve().url
    context = browser.new_context()
    page = context.new_page()
    page.route(
        "http://other.example/", lambda route: route.fulfill(body=f'<a href="{url}">look</a>', content_type="text/html")
    )
    page.goto("http://other.example/")
    page.get_by_role("link").click()
    expect(page.get_by_role("heading", name="my-job")).to_be_visible()
    assert "token" not in page.url
    context.close()


def test_another_site_gets_nothing_and_does_nothing(queue: JobQueue, browser: Any, open_page: Open) -> None:
    job = queue.create_job("my-job", ["a", "b"], do.succeed)
    mine = open_page(queue.serve().url)
    expect(mine.get_by_role("heading", name="my-job")).to_be_visible()
    evil = mine.context.new_page()
    evil.route("http://other.example/", lambda route: route.fulfill(body="<p>evil", content_type="text/html"))
    evil.goto("http://other.example/")
    got = evil.evaluate(
        """async url => {
            const tries = [
                fetch(url + "jobs", { credentials: "include" }).then((answer) => answer.text()),
                fetch(url + "jobs/1/cancel", { method: "POST", mode: "no-cors", credentials: "include" }),
                new Promise((resolve, reject) => {
                    const frame = document.createElement("iframe");
                    frame.src = url;
                    frame.onload = () => resolve(frame.contentDocument?.body?.textContent ?? "closed to us");
                    document.body.append(frame);
                }),
            ];
            return (await Promise.allSettled(tries)).map((one) => String(one.value ?? one.reason));
        }""",
        mine.url,
    )
    assert not [text for text in got if "my-job" in text]
    assert job.status is JobStatus.PENDING


def test_names_that_are_markup_stay_text(queue: JobQueue, open_page: Open) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">"
    queue.run([{"id": evil}], lambda item: {"altText": evil}, id=evil)
    page = open_page(queue.serve().url)
    expect(page.get_by_role("heading", name="<img")).to_have_text(evil)
    row(page, "<img").click()
    expect(page.get_by_role("region", name="Result")).to_contain_text("<img")
    expect(page.locator("main img")).to_have_count(0)
