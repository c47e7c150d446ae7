"""How a job is shown: its header and its items say the same, and nothing more is looked at once it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from mpqueue._live_page.looks.job_feed import JobFeed
from mpqueue._live_page.served import Served
from mpqueue._options import JobOptions
from mpqueue._parent.running import LaneNow
from mpqueue._wire.memory.ledger import Phase
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, FAILED, ITEM_CODES, PENDING, PROCESSING, RETRY, JobStatus


class Clock:
    """All of `Served` that a job's feed asks."""

    def now(self) -> float:
        return 0.0

    def has_report(self, job: JobBook) -> bool:
        return False


def feed_of(book: JobBook) -> JobFeed:
    return JobFeed(book, cast("Served", Clock()))


def book_of(count: int, status: JobStatus = JobStatus.RUNNING) -> JobBook:
    book = JobBook(1, "job", make_table(range(count)), JobOptions(RetryPolicy()), None)
    book.status = status
    return book


def ended_job(count: int) -> JobBook:
    book = book_of(count, JobStatus.COMPLETED_WITH_ERRORS)
    book.table.complete(range(count - 1), [0] * (count - 1))
    book.table.fail(count - 1, Failure(ValueError("no")))
    book.completed, book.failed = count - 1, 1
    return book


def look(feed: JobFeed, running: Sequence[int] = ()) -> None:
    lanes = [LaneNow(at, LaneState.READY, 1, 1, Phase.RUNNING, (index,)) for at, index in enumerate(running)]
    feed.look(0.0, 0.0, lanes, {})


@given(
    st.lists(st.sampled_from([PENDING, COMPLETED, FAILED, RETRY]), min_size=1, max_size=40),
    st.sets(st.integers(0, 39), max_size=5),
)
def test_the_header_says_what_the_items_are_at(statuses: list[int], running: set[int]) -> None:
    book = book_of(len(statuses))
    book.table.status[:] = bytes(statuses)
    feed = feed_of(book)
    look(feed, sorted(index for index in running if index < len(statuses)))
    shown = feed.shown()
    counts = {name: shown.statuses.count(ITEM_CODES.index(name)) for name in shown.state["counts"]}
    assert shown.state["counts"] == counts
    assert sum(counts.values()) == shown.state["total"] == len(statuses)
    assert (shown.state["completed"], shown.state["failed"]) == (counts["completed"], counts["failed"])
    for index, status in enumerate(statuses):
        ended = status in (COMPLETED, FAILED)
        assert shown.statuses[index] == (PROCESSING if index in running and not ended else status)


def test_what_ended_does_not_run_whatever_its_lane_says_still() -> None:
    book = book_of(3)
    feed = feed_of(book)
    look(feed, [1, 2])
    book.table.complete([1], ["x"])
    assert list(feed.shown().statuses) == [PENDING, COMPLETED, PROCESSING]
    book.status = JobStatus.CANCELLED
    assert list(feed.shown().statuses) == [PENDING, COMPLETED, PENDING]


def test_its_version_changes_with_what_its_items_are_at() -> None:
    book = book_of(3)
    feed = feed_of(book)
    versions = []
    for running in ([], [0], [0], [1], [1, 2]):
        look(feed, running)
        versions.append(feed.state()["version"])
    book.retries += 1
    look(feed, [1, 2])
    versions.append(feed.state()["version"])
    assert versions == [1, 2, 2, 3, 4, 5]


def test_a_job_that_has_ended_is_told_once_and_then_left_alone() -> None:
    book = ended_job(250)
    feed = feed_of(book)
    look(feed)
    assert [feed.settled, feed.state_changed(), feed.settled] == [False, True, True]
    book.completed = 7  # which is not looked at any more
    assert not feed.state_changed()


def test_the_items_of_a_job_that_does_not_run_are_not_looked_at_for_its_state() -> None:
    class Recorded(JobBook):
        """Its items are in a journal, of which nothing is to be read."""

        total = 10

    book: Any = ended_job(10)
    table, book.__class__ = book.table, Recorded
    del book.table
    state = feed_of(book).state()
    assert state["counts"] == {"completed": 9, "failed": 1, "retry": 0, "processing": 0, "pending": 0}
    book.table = table
    assert feed_of(book).shown().state["counts"] == state["counts"]


def test_it_is_told_again_when_its_failed_items_ran_again_between_two_looks() -> None:
    book = ended_job(10)
    feed = feed_of(book)
    look(feed)
    feed.state_changed()
    book.epoch += 1
    look(feed)
    assert [feed.state_changed(), feed.settled] == [True, True]


def test_it_is_told_again_when_its_failed_items_run_again() -> None:
    book = ended_job(10)
    feed = feed_of(book)
    look(feed)
    feed.state_changed()
    before = feed.state()["version"]
    book.table.forget_failures()
    book.failed, book.status, book.epoch = 0, JobStatus.RUNNING, book.epoch + 1
    assert not feed.settled
    look(feed)
    assert feed.state_changed()
    assert feed.state()["version"] > before
    book.table.fail(9, Failure(ValueError("again")))
    book.failed, book.status = 1, JobStatus.COMPLETED_WITH_ERRORS
    look(feed)
    assert feed.state_changed()
    assert feed.settled
