"""A report's forms: text and page."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mpqueue import _text
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.timings import PastRun
from mpqueue._queue.job import Job
from mpqueue._report.figures import measure
from mpqueue._report.job_report import Report, _aligned, make_report
from mpqueue._report.plots import STRETCHES, throughput
from mpqueue._report.report_sections import Section, subtitles
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.pickling.packed_handler import pack_handler
from mpqueue.status import JobStatus
from tests.support.runs import START, Run

HOSTILE = "<script>alert('é')</script> & \"co\""
#: Noon of a day, seconds since the epoch.
DAY = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
VOID = {"meta"}


def told(job_id: str = "job", **options: Any) -> JobBook:
    """A run with something of everything."""
    run = Run(range(40), lanes=2, ready=False, job_id=job_id, **options)
    for lane in (0, 1):
        run.timings.lane_ready(lane, START + 0.5)
        run.chunk(
            1,
            3,
            lane=lane,
            items=3,
            left=0.9,
            pickling=0.1,
            setup=1.0,
            stretches=[(1, 0.4, 0.3), (2, 0.3, 0.3)],
            way=0.1,
        )
    run.timings.paused(START + 4)
    run.timings.resumed(START + 5)
    for number in range(20):
        run.chunk(5 + number / 10, 5 + (number + 0.8) / 10, lane=number % 2, decoding=0.01, size=1000)
    run.timings.lane_gone(1, START + 8, worked=True, died=True)
    run.book.table.note_peaks({3: 100 << 20, 4: 512_000_000, 5: 256_000_000})
    run.book.table.fail_try(7, Failure(ValueError(HOSTILE), elapsed=0.1), 1)
    run.book.table.fail(7, Failure(ValueError(HOSTILE)))
    run.book.completed, run.book.failed, run.book.retries = 25, 1, 1
    run.book.past = PastRun(DAY, 41.0, 127.1, 450)
    return run.end(9)


def report(book: JobBook) -> Report:
    return make_report(book, None)


# -- text --------------------------------------------------------------------------------------------------------------


def test_the_text_has_all_that_is_known_in_lines_of_at_most_100() -> None:
    text = str(report(told()))
    assert text.startswith("Job 'job' completed: 25 of 40 items completed, 1 failed, 1 retry, in 9.00 s on 2 workers\n")
    for heading in (
        "Where the workers' time went (2 x 8.00 s)",
        "What the parent did meanwhile (of 9.00 s)",
        "How long items took\n  An item took ",
        "The slowest items",
    ):
        assert f"\n{heading}" in text
    for line in (r"in the handler +23% +3\.60 s", r"in setup +12% +2\.00 s", r"replacing workers +6\.2% +1\.00 s"):
        assert re.search(line, text), text
    assert re.search(r"paused +1\.00 s", text)
    assert re.search(r"the most memory +512 MB, in item 4; the median is 256 MB", text)
    assert "1 x ValueError: <script>" in text
    assert "\n  used: 0.5 of 2 CPUs\n  outside the handler: 77% of the workers' time: " in text
    assert "\n  last run: 2026-11-27, 41.0 s, 3.1 CPUs, 450 items\n" in text
    assert max(map(len, text.splitlines())) <= 100
    assert text == text.rstrip()


def test_a_report_begins_with_what_failed_and_where(tmp_path: Path) -> None:
    book = told(HOSTILE)
    trace = 'Traceback (most recent call last):\n  File "/srv/h.py", line 3, in h\n    x\nValueError: no header'
    for index in (8, 9):
        book.table.fail(index, Failure(ValueError("no header"), trace))
    book.status = JobStatus.COMPLETED_WITH_ERRORS
    text, page = str(report(book)), report(book).to_html()
    assert " with errors: " in text.splitlines()[0]
    found = text.index("\nWhat failed\n  - ValueError × 2 at h.py:3, first: 8: no header\n      Traceback (most recent")
    assert found < text.index("\nWhat could make it quicker\n  - ") < text.index("\nWhere the workers' time went")
    parts = [
        "<h2>What failed</h2>",
        "ValueError × 2 at h.py:3",
        "<pre",
        "<h2>What could make it quicker",
        "<h2>Where the workers",
    ]
    assert sorted(parts, key=page.index) == parts
    assert "<h2>What failed</h2>" not in report(Run(()).end(0)).to_html()


def test_a_job_that_runs_still_reports_so_far_and_one_that_never_started_refuses() -> None:
    run = Run()
    run.chunk(0, 1)
    assert "Job 'job' running: 1 of 1,000 items completed" in str(report(run.book))
    run.book.started_at, run.book.status = None, JobStatus.PENDING
    with pytest.raises(ValueError, match="job 'job': expected a job that was started, got one that is pending"):
        Job(run.book).report()


@pytest.mark.parametrize(
    ("cpu", "elsewhere", "says"),
    [
        (3.1, False, "used: 3.1 of 4 CPUs"),
        (4.1, False, "used: 4.0 of 4 CPUs"),
        (9.0, False, "used: 9.0 CPUs, more than the 4 that are counted"),
        (9.0, True, "used: 9.0 CPUs, on several machines"),
        (0.0, False, "used: CPUs were not measured"),
    ],
)
def test_cpus_are_told_as_they_can_be_known(cpu: float, elsewhere: bool, says: str) -> None:
    run = Run(lanes=10)
    run.chunk(0, 10, cpu=10 * cpu)
    figures = measure(run.end(10), START, 4)
    assert says in subtitles(replace(figures, elsewhere=elsewhere))


@pytest.mark.parametrize(
    ("past", "says"),
    [
        ((None, 12.0, 4), "last run: 2026-11-27, not known when it ended"),
        ((41.0, None, None), "last run: 2026-11-27, 41.0 s"),
        ((0.0, 0.0, 0), "last run: 2026-11-27, 0 us, 0 items"),
    ],
)
def test_what_is_not_known_of_the_last_run_is_left_out(past: Any, says: str) -> None:
    book = told()
    book.past = PastRun(DAY, *past)
    assert list(subtitles(measure(book, START, 2)))[-1] == says


def test_an_empty_job_has_a_report() -> None:
    run = Run(())
    book = run.end(0)
    made = report(book)
    assert str(made).startswith("Job 'job' completed: 0 of 0 items completed, in 0 us on 1 worker\n")
    assert_page_is_sound(made.to_html())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 us"),
        (41e-9, "41 ns"),
        (0.9996e-6, "1 us"),
        (40e-6, "40 us"),
        (0.9996e-3, "1.00 ms"),
        (0.0416, "41.6 ms"),
        (0.99949, "999 ms"),
        (1.926, "1.93 s"),
        (99.99, "100 s"),
        (192, "3 min 12 s"),
        (3 * 3600 + 120, "3 h 02 min"),
    ],
)
def test_seconds_have_three_digits_and_the_unit_that_fits(seconds: float, text: str) -> None:
    assert _text.seconds(seconds) == text


def test_other_numbers_are_written_for_people_too() -> None:
    assert [_text.size(size) for size in (0, 999, 1000, 31_400_000, 2e9)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "31.4 MB",
        "2.00 GB",
    ]
    assert [_text.percent(share) for share in (0, 0.0001, 0.012, 0.0999, 0.62, 1)] == [
        *("0.0%", "<0.1%", "1.2%", "10%", "62%", "100%")
    ]
    assert [_text.counted(*pair) for pair in ((1, "retry"), (2, "retry"), (2000, "item"))] == [
        *("1 retry", "2 retries", "2,000 items")
    ]


# -- the page ----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Checks that each tag is closed, in order; collects what would be fetched, or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def assert_page_is_sound(text: str) -> Page:
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|//|url\(|@import", text.replace("<!doctype html>", ""))
    assert not [value for _, attrs in page.tags for name, value in attrs.items() if name.startswith("on")]
    return page


def test_the_page_is_whole_and_fetches_nothing_whatever_ids_and_errors_say() -> None:
    page = assert_page_is_sound(report(told(HOSTILE)).to_html())
    assert HOSTILE in "".join(page.words)
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    assert all(attrs["aria-label"] for tag, attrs in page.tags if tag == "svg")
    assert "prefers-color-scheme: dark" in page.words[1] + "".join(page.words)


def test_every_colour_of_the_page_has_a_value_by_day_and_by_night() -> None:
    text = report(told()).to_html()
    used = set(re.findall(r"var\(--(\w+)\)", text))
    dark = re.compile(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", re.DOTALL)
    day, night = dark.sub("", text), "".join(dark.findall(text))
    for half in (day, night):
        assert used <= set(re.findall(r"--(\w+): #", half))


def test_many_workers_make_no_huge_page() -> None:
    run = Run(range(20_000), lanes=200)
    for number in range(20_000):
        run.chunk(number / 100, number / 100 + 1, lane=number % 200)
    assert len(report(run.end(202)).to_html()) < 3_000_000


def test_a_notebook_shows_the_page_in_a_frame() -> None:
    (tag, attrs), *_ = Page(report(told(HOSTILE))._repr_html_()).tags
    assert tag == "iframe"
    assert_page_is_sound(attrs["srcdoc"] or "")


def test_a_report_is_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = report(told())
    assert made.save(tmp_path / "a.html").read_text(encoding="utf-8") == made.to_html()
    assert made.save(tmp_path / "a.txt").read_text(encoding="utf-8") == f"{made}\n"
    with pytest.raises(ValueError, match=r"expected a file named .html, .txt or .md, got '.*b.pdf'"):
        made.save(tmp_path / "b.pdf")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        made.save(tmp_path / "c.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.txt"]


def test_a_method_of_a_built_in_type_has_a_name_too() -> None:
    assert pack_handler("job", str.upper, None, IdRule.POSITION).name == "str.upper"


def test_a_long_name_of_an_item_and_an_error_of_several_lines_leave_the_figures_of_a_table() -> None:
    rows = [("x" * 200, "3 ms"), ("two\nlines", "4 ms")]
    head, *lines = _aligned(Section("items", columns=(("item", False), ("time", True)), rows=rows))
    assert head.split() == ["item", "time"]
    assert [row[-4:] for row in lines] == ["3 ms", "4 ms"]
    assert "two\\nlines" in lines[1]


def test_the_throughput_adds_up_to_the_items_and_failed_tries_are_apart() -> None:
    run = Run(range(100))
    run.chunk(0, 5, items=30)
    run.chunk(5, 10, items=70)
    book = run.end(10)
    spans = [span._replace(failures=span.items / 2) for span in book.timings.spans()]
    drawn, pace = throughput(spans, START, 10, [])
    assert pace == "at most 14/s, last 7/s"
    assert f'aria-label="Items per second over the whole run: {pace}"' in drawn
    titles = re.findall(r"<title>from ([\d.]+) (?:us|ms|s) on: (\d+)/s, and (\d+)/s failed</title>", drawn)
    assert len(titles) == 2 * STRETCHES
    assert {(good, bad) for _, good, bad in titles} == {("3", "3"), ("7", "7")}
