"""`Job` and `JobItem`: views of the books, and their wire form."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._output.notebook_forms import queue_as_html
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import JobItem, as_json
from mpqueue.errors import ItemError
from mpqueue.retry import RetryPolicy
from mpqueue.status import ITEM_CODES, RETRY, ItemStatus, JobStatus, QueueStats


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


def test_the_statuses_are_these_strings() -> None:
    assert [str(status) for status in ITEM_CODES] == ["pending", "processing", "completed", "failed", "retry"]
    assert [str(status) for status in JobStatus] == [
        "pending",
        "running",
        "paused",
        "completed",
        "completed_with_errors",
        "cancelled",
    ]
    assert [str(status) for status in ItemStatus] == [str(status) for status in ITEM_CODES]
    assert all(isinstance(status, str) for status in (*JobStatus, *ItemStatus))
    assert [status for status in JobStatus if status.final] == ["completed", "completed_with_errors", "cancelled"]


def test_an_item_shows_its_row(book: JobBook) -> None:
    completed, failed, retrying, pending = Job(book).items
    assert [item.status for item in Job(book).items] == ["completed", "failed", "retry", "pending"]
    assert [item.attempts for item in Job(book).items] == [1, 4, 1, 0]
    assert (completed.result, completed.error, completed.exception) == ({"altText": "a cat"}, None, None)
    assert (failed.result, failed.error, failed.traceback) == (None, "ValueError: no", "a traceback")
    assert isinstance(failed.exception, ValueError)
    assert (retrying.error, retrying.error_type) == ("KeyError: 'k'", "KeyError")
    assert (pending.error, pending.exception, pending.traceback, pending.history) == (None, None, None, [])
    assert pending.payload == {"id": "d"}


def test_an_item_is_processing_only_while_a_worker_runs_it(book: JobBook) -> None:
    book.table.live.running = lambda: {0: 0.0, 2: 0.5, 3: 0.0}
    assert [item.status for item in Job(book).items] == ["completed", "failed", "processing", "processing"]
    book.table.live.running = dict
    assert Job(book).items[3].status is ItemStatus.PENDING


def test_an_item_s_history_names_error_duration_and_process(book: JobBook) -> None:
    (tried,) = Job(book).items[2].history
    assert (tried.error, tried.duration, tried.pid) == ("KeyError: 'k'", 0.25, 43)
    assert len(Job(book).items[1].history) == 4


def test_an_item_that_completed_has_a_history_and_no_error(book: JobBook) -> None:
    book.table.complete([2], ["fine"])
    item = Job(book).items[2]
    assert (item.status, item.attempts, item.error, len(item.history)) == ("completed", 2, None, 1)


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


def test_items_are_a_sequence(book: JobBook) -> None:
    items = Job(book).items
    assert len(items) == 4
    assert [item.id for item in items[1:3]] == ["b", "c"]
    assert items[-1].id == "d"
    assert [item.id for item in reversed(items)] == ["d", "c", "b", "a"]
    assert items[2] in items
    with pytest.raises(IndexError):
        _ = items[4]


# -- the wire ----------------------------------------------------------------------------------------------------------


def test_an_item_s_wire_form_has_no_unset_keys(book: JobBook) -> None:
    assert [item.to_dict() for item in Job(book).items] == [
        {"id": "a", "status": "completed", "attempts": 1, "result": {"altText": "a cat"}, "proposedAlt": "a cat"},
        {"id": "b", "status": "failed", "attempts": 4, "error": "no", "errorType": "ValueError"},
        {"id": "c", "status": "retry", "attempts": 1, "error": "'k'", "errorType": "KeyError"},
        {"id": "d", "status": "pending", "attempts": 0},
    ]


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


def test_a_job_s_wire_form_has_times_only_where_there_are_any(book: JobBook) -> None:
    wire = Job(book).to_dict()
    assert list(wire) == ["id", "status", "total", "completed", "failed", "items", "paused", "cancelled"]
    book.started_at, book.finished_at, book.duration = 10.0, 12.5, 2.5
    book.status = JobStatus.COMPLETED_WITH_ERRORS
    wire = Job(book).to_dict()
    assert (wire["startedAt"], wire["finishedAt"], wire["status"]) == (10_000, 12_500, "completed_with_errors")


# -- the job -----------------------------------------------------------------------------------------------------------


def test_a_job_shows_its_book(book: JobBook) -> None:
    job = Job(book)
    assert (job.id, job.status, job.total, job.completed, job.failed) == ("a", "pending", 4, 1, 1)
    assert (job.started_at, job.finished_at, job.duration) == (None, None, None)
    assert not job.paused
    assert not job.cancelled
    book.status = JobStatus.PAUSED
    assert job.paused


def test_results_come_in_item_order_with_gaps(book: JobBook) -> None:
    assert Job(book).results == [{"altText": "a cat"}, None, None, None]


def test_failures_come_in_item_order_with_their_causes() -> None:
    book = book_of([{"id": letter} for letter in "abc"])
    fail(book, 2, KeyError("late"))
    fail(book, 0, ValueError("early"), tries=2)
    failures = Job(book).failures
    assert [failure.item.id for failure in failures] == ["a", "c"]
    assert [type(failure.__cause__) for failure in failures] == [ValueError, KeyError]
    assert str(failures[0]) == "item 'a' of job 'a' failed after 2 tries: ValueError: early"


def test_a_job_without_failures_raises_nothing() -> None:
    Job(book_of([1, 2])).raise_for_failures()


def test_a_job_with_failures_raises_all_of_them(book: JobBook) -> None:
    with pytest.raises(ExceptionGroup, match="1 of 4 items failed") as raised:
        Job(book).raise_for_failures()
    (error,) = raised.value.exceptions
    assert isinstance(error, ItemError)


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


def test_notebooks_show_tables_in_which_nothing_of_users_is_markup(book: JobBook) -> None:
    book.id = "<b>job"
    fail(book, 0, ValueError("<script>"))
    html = Job(book)._repr_html_()
    assert "&lt;b&gt;job" in html
    assert "ValueError × 2, first: a" in html
    assert "<b>" not in html
    assert "<script>" not in html
    assert queue_as_html("<JobQueue>", [Job(book)] * 12).count("&lt;b&gt;job") == 10
    assert "... and 2 earlier ones" in queue_as_html("", [Job(book)] * 12)
    assert "<td>1,000</td>" in QueueStats(1000, 0, 0, 1000)._repr_html_()
