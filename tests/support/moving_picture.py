"""The moving picture of README.md and of the site: a real run, at a terminal and on the live page.

``python -m tests.support.moving_picture`` (`make moving-picture`) runs `PROGRAM` at a terminal, opens the live page in
a Chromium, and takes a picture of both several times a second. It writes the moving picture, and a still one for those
who don't want motion.
"""

from __future__ import annotations

import html
import io
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tests.support.programs import write_program
from tests.support.terminals import screen, terminal_with
from tests.support.waiting import spend, wait_until

IMG = Path(__file__).parent.parent.parent / "docs" / "img"
MOVING, STILL = IMG / "live-page.webp", IMG / "live-page.png"

#: CSS pixels: what both pictures are wide, the terminal and the page high; and pixels in each of them.
WIDTH, TERMINAL_HEIGHT, PAGE_HEIGHT, SCALE = 980, 120, 540, 1.5
#: Of the corners, in pixels of the picture.
RADIUS = 16
#: Seconds between two pictures, at least; and how long the last one stays.
PAUSE, LAST = 0.2, 2.5
STILL_SIZE = ViewportSize(width=1240, height=1060)
#: Seconds that the run may last in the picture: a slow machine's is shown faster.
RUN = 9.0

PROGRAM = """
import os
import signal
import time
from zlib import crc32

import numpy as np
from PIL import Image

from mpqueue import JobQueue, RetryPolicy, current_item

PLACES = ["misty-ridge", "tea-gardens", "harbour-dawn", "dune-line", "pine-valley", "salt-flats", "blue-fjord"]
WIDTH, HEIGHT = 720, 480


def landscape(name):
    # Ridges before a sky, in colours that the name decides.
    rng = np.random.default_rng(crc32(name.encode()))
    across, down = np.arange(WIDTH), np.arange(HEIGHT)[:, None, None]
    top, low, near = rng.uniform(90, 240, 3), rng.uniform(140, 250, 3), rng.uniform(10, 110, 3)
    picture = np.broadcast_to(top + (low - top) * down / HEIGHT, (HEIGHT, WIDTH, 3))
    for ridge in range(5):
        waves = rng.uniform(1, 5, 3)[:, None] * across / WIDTH + rng.uniform(0, 9, 3)[:, None]
        line = HEIGHT * (0.5 + 0.11 * ridge) - 55 * np.abs(np.sin(waves)).sum(0) / (1 + ridge / 3)
        picture = np.where(down > line[None, :, None], low + (near - low) * (ridge + 1) / 5, picture)
    return Image.fromarray(picture.astype(np.uint8))


def thumbnail(name):
    time.sleep(0.12)  # a disk
    if name == "pine-valley-9" and current_item().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # the system is out of memory
    if name in ("salt-flats-3", "dune-line-12", "blue-fjord-16"):
        raise OSError("image file is truncated")
    small = landscape(name)
    small.thumbnail((360, 240))
    light = np.asarray(small.convert("L")).mean() / 2.55
    return {"alt_text": f"{light:.0f}% light, {WIDTH} x {HEIGHT}", "thumbnail": small}


def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.05)


names = [f"{PLACES[at % len(PLACES)]}-{at // len(PLACES)}" for at in range(180)]
retry = RetryPolicy(max_retries=1, base_delay=0.5)
with JobQueue(4, retry=retry, preload=["numpy", "PIL.Image"]) as queue:
    print(queue.serve().url)
    wait_for("watched")
    queue.run(names, thumbnail, id="thumbnails", progress=True)
    wait_for("seen")
"""

#: The terminal, as a page: a dark window whose lines are those of a terminal.
SHOWN = """
<style>
  body { margin: 0; background: #171a2b; color: #dfe3f5; font: 14px/1.5 "DejaVu Sans Mono", monospace; }
  header { height: 26px; padding: 9px 14px 0; box-sizing: border-box; }
  i { float: left; width: 9px; height: 9px; margin-right: 6px; border-radius: 50%; background: #4a5072; }
  pre { margin: 3px 16px; font: inherit; }
  b { color: #a5a0ff; }
</style>
<header><i></i><i></i><i></i></header><pre><b>$</b> python thumbnails.py\n</pre>
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """What was there at a time, in seconds from the first one."""

    at: float
    lines: list[str]
    page: bytes


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; where there is none, the program ends and says so."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("no browser here: expected chromium or google-chrome on PATH (on Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox"])
        yield browser
        browser.close()


def main() -> None:
    """Write both pictures."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        moments = list(_record(browser, Path(folder)))
        pictures = [
            _together(above, moment) for above, moment in zip(_terminals(browser, moments), moments, strict=True)
        ]
    faster = max(1.0, moments[-1].at / RUN)
    times = [moment.at / faster for moment in moments]
    lasts = [
        round(1000 * (after - before)) for before, after in zip(times, [*times[1:], times[-1] + LAST], strict=True)
    ]
    pictures[0].save(
        MOVING, save_all=True, append_images=pictures[1:], duration=lasts, loop=0, lossless=True, quality=100, method=4
    )
    print(f"{MOVING}: {len(pictures)} pictures, {faster:.1f}x as fast as the run, {MOVING.stat().st_size / 1e6:.2f} MB")


def _record(browser: Browser, folder: Path) -> Iterator[Moment]:
    """What is there while the program runs, every `PAUSE` seconds, until it has printed its last line."""
    with terminal_with(folder, str(write_program(folder, PROGRAM, "thumbnails.py"))) as terminal:
        [url] = wait_until(lambda: re.findall(r"(http\S+)\n", terminal.text), what="the address of the live page")
        page = _open(browser, PAGE_HEIGHT)
        page.goto(url)
        page.get_by_text("Live").wait_for()
        (folder / "watched").touch()
        page.locator("#job-status[data-state=running]").wait_for()
        start, ended = time.monotonic(), False
        while not ended:
            now, text = time.monotonic(), terminal.text
            ended = ", first: " in text
            if ended:
                page.locator("#job-status[data-state=completed_with_errors]").wait_for()
            yield Moment(now - start, screen(text), page.screenshot())
            spend(max(0.0, now + PAUSE - time.monotonic()))
        page.set_viewport_size(STILL_SIZE)
        page.get_by_text("tea-gardens-0").click()
        page.locator("#item-body img").wait_for()
        page.mouse.move(0, 0)
        page.evaluate("window.scrollTo(0, 0)")
        _window(Image.open(io.BytesIO(page.screenshot()))).save(STILL, optimize=True)
        (folder / "seen").touch()
        terminal.end()


def _terminals(browser: Browser, moments: list[Moment]) -> Iterator[bytes]:
    page = _open(browser, TERMINAL_HEIGHT)
    page.set_content(SHOWN)
    prompt = page.locator("pre").inner_html()
    for moment in moments:
        page.locator("pre").evaluate(
            "(pre, inner) => { pre.innerHTML = inner }", prompt + html.escape("\n".join(moment.lines))
        )
        yield page.screenshot()


def _open(browser: Browser, height: int) -> Page:
    """A page without motion of its own, which would be half done in a picture."""
    return browser.new_page(
        viewport={"width": WIDTH, "height": height},
        device_scale_factor=SCALE,
        reduced_motion="reduce",
        color_scheme="light",
    )


def _together(above: bytes, moment: Moment) -> Image.Image:
    """The terminal above the page, as one window."""
    parts = [Image.open(io.BytesIO(part)).convert("RGB") for part in (above, moment.page)]
    whole = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)))
    whole.paste(parts[0], (0, 0))
    whole.paste(parts[1], (0, parts[0].height))
    return _window(whole)


def _window(whole: Image.Image) -> Image.Image:
    """With an edge and round corners, which are seen on any background."""
    whole = whole.convert("RGB")
    corners, edge = Image.new("L", whole.size), (0, 0, whole.width - 1, whole.height - 1)
    ImageDraw.Draw(corners).rounded_rectangle(edge, RADIUS, fill=255)
    ImageDraw.Draw(whole).rounded_rectangle(edge, RADIUS, outline="#8b90a8", width=2)
    whole.putalpha(corners)
    return whole


if __name__ == "__main__":
    main()
