"""Which items of a job a page is told: those that look different from when they were shown last, each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._live_page import changes
from mpqueue._live_page.changes import Changes
from mpqueue._options import JobOptions
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, FAILED, PENDING, PROCESSING, RETRY

ALL = 1_000_000


def book_of(count: int) -> JobBook:
    return JobBook(1, "job", make_table(range(count)), JobOptions(RetryPolicy()), None)


def test_everything_is_told_once_and_then_nothing() -> None:
    told = Changes(book_of(1000))
    assert told.look([], ALL) == [(index, PENDING) for index in range(1000)]
    assert told.look([], ALL) == []


def test_what_runs_is_told_when_it_begins_and_when_it_is_over() -> None:
    book = book_of(5)
    told = Changes(book)
    told.look([], ALL)
    assert told.look([3], ALL) == [(3, PROCESSING)]
    assert told.look([3], ALL) == []
    book.table.complete([3], ["x"])
    assert told.look([3], ALL) == [(3, COMPLETED)]  # the claim may be older than the result
    assert told.look([4], ALL) == [(4, PROCESSING)]
    assert told.look([], ALL) == [(4, PENDING)]


def test_no_look_takes_more_than_it_may_and_none_is_starved() -> None:
    book = book_of(10_000)
    told = Changes(book)
    seen = [told.look([], 300) for _ in range(20)]
    assert [index for part in seen for index, _ in part] == list(range(6000))
    book.table.complete(range(6000), [None] * 6000)  # more changes at the front
    later = [index for _ in range(14) for index, _ in told.look([], 300)]
    assert set(range(6000, 10_000)) <= set(later)
    rest = [told.look([], 300) for _ in range(30)]
    assert sum(map(len, rest)) == 6000 - (len(later) - 4000)


def test_another_failure_with_the_same_status_is_told() -> None:
    book = book_of(3)
    told = Changes(book)
    for attempt in (1, 2):
        book.table.fail_try(1, Failure(ValueError(f"{attempt}")), None)
        book.table.status[1] = RETRY
        book.retries += 1
        assert (1, RETRY) in told.look([], ALL)
        assert told.look([], ALL) == []


def test_items_that_failed_are_told_again_after_they_ran_again() -> None:
    book = book_of(3)
    told = Changes(book)
    book.table.fail(1, Failure(ValueError("first")))
    told.look([], ALL)
    book.table.forget_failures()
    book.epoch += 1
    book.table.fail(1, Failure(ValueError("second")))
    assert told.look([], ALL) == [(1, FAILED)]
    assert told.look([], ALL) == []


def test_of_a_very_long_job_only_what_needs_attention_is_told() -> None:
    book = book_of(changes.MOST_SHOWN + 1)
    told = Changes(book)
    assert told.sparse
    assert told.look([], ALL) == []
    book.table.complete(range(1000), [None] * 1000)
    book.table.fail(5000, Failure(ValueError()))
    assert told.look([7000], ALL) == [(5000, FAILED), (7000, PROCESSING)]
    book.table.complete([7000], [1])
    assert told.look([], ALL) == [(7000, COMPLETED)]
    book.table.forget_failures()
    book.epoch += 1
    assert told.look([], ALL) == [(5000, PENDING)]


@given(
    st.lists(st.tuples(st.integers(0, 599), st.sampled_from([PENDING, COMPLETED, FAILED, RETRY])), max_size=60),
    st.integers(1, 50),
)
def test_what_was_told_is_in_the_end_what_is(steps: list[tuple[int, int]], most: int) -> None:
    book = book_of(600)
    told = Changes(book)
    shown: dict[int, int] = {}
    for index, status in steps:
        book.table.status[index] = status
        part = told.look([], most)
        assert len(part) <= most
        shown.update(part)
    while part := told.look([], most):
        shown.update(part)
    assert [shown[index] for index in range(600)] == list(book.table.status)
