"""`Job` and `JobItem`: views of the books, and their wire form."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._cli.run_command import say_end
from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._output.notebook_forms import queue_as_html
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import JobItem, as_json
from mpqueue.retry import RetryPolicy
from mpqueue.status import RETRY, QueueStats


def book_of(items: Any) -> JobBook:
    return JobBook(1, "a", make_table(items), JobOptions(RetryPolicy()), None)


def fail(book: JobBook, index: int, error: BaseException, tries: int = 1) -> None:
    failure = Failure(error, "a traceback", 0.5)
    for _ in range(tries):
        book.table.fail_try(index, failure, 42)
    book.table.fail(index, failure)
    book.failed += 1


@pytest.fixture
def book() -> JobBook:
    """Four items: completed, failed, waiting for a retry, pending."""
    book = book_of([{"id": letter} for letter in "abcd"])
    book.table.complete([0], [{"altText": "a cat"}])
    book.completed = 1
    fail(book, 1, ValueError("no"), tries=4)
    book.table.fail_try(2, Failure(KeyError("k"), "a traceback", 0.25, text="'k'"), 43)
    book.table.status[2] = RETRY
    return book


# -- items -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "proposed"),
    [
        ({"alt_text": "x"}, "x"),
        ({"altText": "x"}, "x"),
        ({"alt_text": None, "altText": "x"}, None),
        (SimpleNamespace(alt_text="x"), "x"),
        (SimpleNamespace(altText="x"), "x"),
        ({"other": 1}, None),
        ("text", None),
        (None, None),
    ],
)
def test_the_proposed_alt_is_found_in_the_result(result: Any, proposed: str | None) -> None:
    book = book_of(["x"])
    book.table.complete([0], [result])
    assert Job(book).items[0].proposed_alt == proposed


def test_two_views_of_one_row_are_equal(book: JobBook) -> None:
    items = Job(book).items
    assert items[0] == JobItem(book.table, 0)
    assert len({items[0], JobItem(book.table, 0), items[1]}) == 2
    assert items[0] != "a"
    assert JobItem(book_of([1]).table, 0) != items[0]


# -- the wire ----------------------------------------------------------------------------------------------------------


class Unwritable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
        ({1}, "{1}"),
        (float("nan"), "nan"),
        (b"x", "b'x'"),
        (Unwritable(), "<Unwritable: its repr() raised RuntimeError>"),
    ],
)
def test_what_json_can_not_say_is_written_as_its_repr(value: Any, written: Any) -> None:
    assert as_json(value) == written


def test_what_refers_to_itself_is_written_as_its_repr() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert as_json(loop) == "[[...]]"


def test_ids_and_results_reach_the_wire_whatever_they_are() -> None:
    book = book_of([{"id": (1, b"x")}])
    book.table.complete([0], [{3}])
    wire = Job(book).to_dict()
    assert wire["items"] == [{"id": "(1, b'x')", "status": "completed", "attempts": 1, "result": "{3}"}]
    json.dumps(wire)


# -- the job -----------------------------------------------------------------------------------------------------------


def test_everything_has_a_short_repr(book: JobBook) -> None:
    job = Job(book)
    assert repr(job) == "<Job 'a' pending: 1 completed, 1 failed of 4>"
    assert repr(job.items) == "<4 items: 1 completed, 1 failed>"
    assert repr(job.items[0]) == "<JobItem 'a' completed>"
    assert repr(job.items[1]).startswith("<JobItem 'b' failed: ")
    for one in (job.items[1], *job.items[1].history, *job.failures, *job.failure_groups()):
        assert "\n" not in repr(one)


def test_an_item_s_repr_has_its_label_and_one_line_of_its_error() -> None:
    book = book_of([Path("a.jpg")])
    fail(book, 0, ValueError("two\nlines"))
    assert repr(Job(book).items[0]) == "<JobItem 0 (a.jpg) failed: ValueError: two\\nlines>"
    assert repr(Job(book).items[0].history[0]).startswith("<FailedTry ValueError: two\\nlines after ")
    assert repr(Job(book).failure_groups()) == "[<FailureGroup ValueError × 1, first: a.jpg: two\\nlines>]"


def test_the_command_line_names_no_more_than_ten_failures_and_groups_and_counts_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    book = book_of(list(map(str, range(1012))))
    for index in range(12):
        fail(book, index, type(f"Error{index}", (Exception,), {})("no"))
    book.completed = 1000
    say_end(Job(book))
    lines = capsys.readouterr().err.splitlines()
    assert lines[9:12] == [
        "failed: 9: Error9: no (after 1 try)",
        "... and 2 more; together:",
        "    Error0 × 1, first: 0: no",
    ]
    assert lines[21:] == ["    ... and 2 more groups", "1,012 items: 1,000 completed, 12 failed"]


def test_notebooks_show_tables_in_which_nothing_of_users_is_markup(book: JobBook) -> None:
    book.id = "<b>job"
    fail(book, 0, ValueError("<script>"))
    html = Job(book)._repr_html_()
    assert "&lt;b&gt;job" in html
    assert "ValueError × 2, first: a" in html
    assert '<progress max="4" value="3">75 %</progress>' in html
    assert "<b>" not in html
    assert "<script>" not in html
    assert queue_as_html("<JobQueue>", [Job(book)] * 12).count("&lt;b&gt;job") == 10
    assert "... and 2 earlier jobs" in queue_as_html("", [Job(book)] * 12)
    assert "... and 1 earlier job<" in queue_as_html("", [Job(book)] * 11)
    assert "<td>1,000</td>" in QueueStats(1000, 0, 0, 1000)._repr_html_()
