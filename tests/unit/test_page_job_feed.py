"""What is told of one job, and that nothing more is told, or looked at, once it has ended."""

from __future__ import annotations

import json
from typing import Any

from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._live_page.job_feed import JobFeed
from mpqueue._options import JobOptions
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus


def ended_job(count: int) -> JobBook:
    book = JobBook(1, "job", make_table(range(count)), JobOptions(RetryPolicy()), None)
    book.table.complete(range(count - 1), [0] * (count - 1))
    book.table.fail(count - 1, Failure(ValueError("no")))
    book.completed, book.failed, book.status = count - 1, 1, JobStatus.COMPLETED_WITH_ERRORS
    return book


def tell_all(feed: JobFeed) -> list[int]:
    """What a few looks tell."""
    told: list[int] = []
    for _ in range(5):
        feed.look(0.0, [])
        while more := feed.encode_changed(100):
            told += more
    return told


def items_in(event: bytes) -> Any:
    return json.loads(event.split(b"data: ")[1])["items"]


def test_a_job_that_has_ended_is_told_once_and_then_left_alone() -> None:
    book = ended_job(250)
    feed = JobFeed(book)
    assert feed.state_changed()
    assert tell_all(feed) == list(range(250))
    assert feed.settled
    feed.state_changed()
    book.table.status[7] = 0  # nobody looks any more
    assert tell_all(feed) == []
    assert not feed.state_changed()
    assert len(items_in(feed.progress_event(None))) == 250


def test_it_is_told_again_when_its_failed_items_run_again() -> None:
    book = ended_job(10)
    feed = JobFeed(book)
    tell_all(feed)
    feed.state_changed()
    book.table.forget_failures()
    book.failed, book.status, book.epoch = 0, JobStatus.RUNNING, book.epoch + 1
    assert feed.state_changed()
    assert tell_all(feed) == [9]
    book.table.fail(9, Failure(ValueError("again")))
    book.failed, book.status = 1, JobStatus.COMPLETED_WITH_ERRORS
    assert feed.state_changed()
    assert tell_all(feed) == [9]
    assert items_in(feed.progress_event([9]))[0]["error"] == "again"
    assert feed.settled


def test_without_viewers_nothing_is_kept_and_the_next_one_gets_all() -> None:
    feed = JobFeed(ended_job(10))
    tell_all(feed)
    feed.forget_items()
    assert items_in(feed.progress_event(None)) == []
    assert tell_all(feed) == list(range(10))
