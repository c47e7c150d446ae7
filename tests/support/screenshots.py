"""Pictures of every state of the live page, to be looked at: on a desktop and a phone, by day and at night.

``python -m tests.support.screenshots`` (`make screenshots`) brings a queue into each state of `STATES`, or only into
those that are named after it, opens the page in a Chromium, and writes pictures such as
``out/screenshots/running-phone-dark.png``.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from mpqueue import JobQueue, RetryPolicy
from mpqueue.testing import InlinePool
from tests.support import handlers as do
from tests.support.moving_picture import chromium
from tests.support.waiting import Gate, spend

OUT = Path(__file__).parent.parent.parent / "out" / "screenshots"
SCREENS: dict[str, Any] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True},
}
SCHEMES: tuple[Any, ...] = ("light", "dark")
#: Milliseconds that something may take to appear; and seconds until a page has drawn what it has got.
PATIENCE, SETTLES = 60_000, 0.4
NAMES = [f"{place}-{number:02}" for number in range(12) for place in ("harbour", "dunes", "fjord", "ridge", "valley")]

Show = Callable[[Page, JobQueue], None]


def resize_picture(gate: Gate, name: str) -> dict[str, Any]:
    """Some of `NAMES` fail, most take no time, and the last ones wait for the gate."""
    if name in ("fjord-03", "dunes-05"):
        raise OSError("image file is truncated (12 bytes not processed)")
    if name == "ridge-04":
        raise KeyError("exif")
    if name >= "harbour-07" and "-0" not in name[-3:-1]:
        gate.pass_through(name)
    if name[-2:] in ("07", "08"):
        gate.pass_through(name)
    spend(0.01)
    return {"width": 360, "height": 240, "alt": f"A picture of {name}"}


def load(number: int) -> int:
    """Fast."""
    return number


def compute(gate: Gate, number: int) -> int:
    """Waits from the sixth on."""
    if number > 5:
        gate.pass_through(number)
    return number


@contextmanager
def pictures(gate: Gate, *, ends: bool = False, fails: bool = True) -> Iterator[JobQueue]:
    """A job of pictures that is half done, with an earlier one beside it."""
    with JobQueue(4, retry=RetryPolicy(0)) as queue:
        names = NAMES if fails else [name for name in NAMES if name not in ("fjord-03", "dunes-05", "ridge-04")]
        queue.run(names[:20], partial(resize_picture, gate), id="yesterday")
        if ends:
            gate.open()
        run = queue.start(queue.create_job("thumbnails", names, partial(resize_picture, gate), chunksize=1).id)
        if ends:
            run.result()
        else:
            gate.wait_for_count(4)
        yield queue
        gate.open()


@contextmanager
def nothing(_: Gate) -> Iterator[JobQueue]:
    """A queue without a job."""
    with JobQueue(4) as queue:
        yield queue


@contextmanager
def stages(gate: Gate) -> Iterator[JobQueue]:
    """Three stages, of which the one in the middle is slow."""
    with JobQueue(3) as queue:
        queue.start_stages(range(40), [load, partial(compute, gate), do.double], id="measurements")
        gate.wait_for_count(1)
        yield queue
        gate.open()


@contextmanager
def crowd(gate: Gate) -> Iterator[JobQueue]:
    """300 workers, without their processes."""
    with JobQueue(300, backend=InlinePool()) as queue:
        queue.start(queue.create_job("crowd", range(1000), do.block_until_told(gate), chunksize=1).id)
        yield queue
        gate.open()


def look(_: Page, __: JobQueue) -> None:
    """As it opens."""


def look_at_failures(page: Page, _: JobQueue) -> None:
    """Only failed items, by their groups."""
    page.get_by_role("button", name=re.compile("^Failed")).click()
    page.locator("#failure-groups li").first.wait_for()


def open_workers(page: Page, _: JobQueue) -> None:
    """A line for each worker."""
    page.locator("#workers-open").click()
    page.locator(".lane canvas").first.wait_for()


def open_item(page: Page, queue: JobQueue) -> None:
    """A failed one."""
    look_at_failures(page, queue)
    page.locator(".row").filter(has_text="Failed").first.click()
    page.get_by_role("region", name="Traceback").wait_for()


def pause(page: Page, _: JobQueue) -> None:
    """The question that a key asks."""
    page.keyboard.press("p")
    page.locator("#confirm").wait_for()


def compare(page: Page, _: JobQueue) -> None:
    """With the other job."""
    page.get_by_role("button", name="Compare").click()
    page.locator("#compare-body td").first.or_(page.get_by_text("No other job")).wait_for()


def lead_nowhere(page: Page, _: JobQueue) -> None:
    """An address of a job that is not there."""
    page.evaluate("location.hash = '#/no-such-job/7'")
    page.locator("#nowhere").wait_for()


def close(page: Page, queue: JobQueue) -> None:
    """What is left once the queue is closed."""
    queue.close()
    page.get_by_text("The queue was closed").wait_for()


STATES: dict[str, tuple[Any, Show]] = {
    "empty": (nothing, look),
    "running": (pictures, look),
    "failures": (pictures, look_at_failures),
    "workers": (pictures, open_workers),
    "item": (pictures, open_item),
    "asked": (pictures, pause),
    "compare": (pictures, compare),
    "nowhere": (pictures, lead_nowhere),
    "stages": (stages, look),
    "crowd": (crowd, open_workers),
    "with-errors": (partial(pictures, ends=True), look),
    "finished": (partial(pictures, ends=True, fails=False), look),
    "closed": (partial(pictures, ends=True), close),
}


def main(wanted: list[str]) -> None:
    """Write the pictures of the states ``wanted``; of all, if none is named."""
    unknown = [name for name in wanted if name not in STATES]
    if unknown:
        sys.exit(f"expected states among {', '.join(STATES)}, got {unknown[0]!r}")
    OUT.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name in wanted or STATES:
            begun = time.monotonic()
            _take(browser, name)
            print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)
    print(f"pictures in {OUT}")


def _take(browser: Browser, name: str) -> None:
    make, show = STATES[name]
    with tempfile.TemporaryDirectory() as folder, make(Gate(Path(folder))) as queue:
        url = queue.serve().url
        pages = {
            f"{name}-{screen}-{scheme}": _open(browser, url, color_scheme=scheme, **options)
            for screen, options in SCREENS.items()
            for scheme in SCHEMES
        }
        for called, page in pages.items():
            page.bring_to_front()
            show(page, queue)
            spend(SETTLES)
            page.screenshot(path=OUT / f"{called}.png")
            page.context.close()


def _open(browser: Browser, url: str, **options: Any) -> Page:
    """Without motion of its own, which would be half done in a picture."""
    context = browser.new_context(**options, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("pageerror", lambda error: print(f"{page.url}: {error}"))
    page.goto(url)
    page.get_by_text("Live", exact=True).wait_for()
    page.locator("#job, #no-jobs").locator("visible=true").first.wait_for()
    return page


if __name__ == "__main__":
    main(sys.argv[1:])
