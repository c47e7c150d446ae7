"""Which items are listed: filtered, searched and sorted as asked, at a bounded cost while the job runs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mpqueue._core.state.item_table import Failure, ItemTable, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._live_page.listing import ATTEMPTS, ELAPSED, INDEX, Listing, Wish
from mpqueue._options import JobOptions
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY


class Clock:
    """Goes on by so much each time that it is read."""

    def __init__(self, step: float = 0.001) -> None:
        self.at, self.step = 0.0, step

    def __call__(self) -> float:
        self.at += self.step
        return self.at


def job_of(table: ItemTable) -> JobBook:
    return JobBook(1, "job", table, JobOptions(RetryPolicy()), None)


@given(
    st.lists(
        st.tuples(st.sampled_from([PENDING, COMPLETED, FAILED, RETRY]), st.integers(0, 3), st.integers(0, 5)),
        max_size=50,
    ),
    st.sampled_from([None, PENDING, COMPLETED, FAILED]),
    st.sampled_from([(), ("4",), ("1", "2")]),
    st.sampled_from([INDEX, ELAPSED, ATTEMPTS]),
    st.booleans(),
)
def test_it_is_what_a_list_of_all_items_would_be(
    items: list[tuple[int, int, int]], status: int | None, words: tuple[str, ...], order: str, descending: bool
) -> None:
    table = make_table(range(len(items)))
    for index, (code, attempts, elapsed) in enumerate(items):
        table.status[index], table.attempts[index], table.elapsed[index] = code, attempts, elapsed
    found = Listing(job_of(table), Clock()).find(Wish(status, words, None, order, descending), bytes(table.status))
    expected = [
        index
        for index, (code, _, _) in enumerate(items)
        if status in (None, code) and all(word in f"{index} none" for word in words)
    ]
    assert sorted(found.indices) == expected
    columns: dict[str, Any] = {INDEX: range(len(items)), ELAPSED: table.elapsed, ATTEMPTS: table.attempts}
    ran = [index for index in found.indices if order == INDEX or table.attempts[index]]
    values = [columns[order][index] for index in ran]
    assert values == sorted(values, reverse=descending)
    assert list(found.indices)[: len(ran)] == ran  # what never ran comes last


def test_a_search_finds_what_an_item_has_become() -> None:
    table = make_table(["a", "b"])
    book, clock = job_of(table), Clock()
    made, wish = Listing(book, clock), Wish(words=("broken",))
    assert made.find(wish, bytes(2)).indices == []
    table.fail_try(1, Failure(ValueError("BROKEN")), None)
    table.fail(1, Failure(ValueError("BROKEN")))
    book.failed = 1
    clock.at += 1.0
    assert made.find(wish, bytes(table.status)).indices == [1]
    table.forget_failures()
    book.epoch += 1
    clock.at += 1.0
    assert made.find(wish, bytes(table.status)).indices == []


def test_a_search_whose_job_has_not_changed_is_not_made_again() -> None:
    table = make_table(["a", "b"])
    book, clock = job_of(table), Clock()
    made, wish = Listing(book, clock), Wish(words=("b",))
    assert made.find(wish, bytes(2)).indices == [1]
    clock.at += 1000.0
    table.payloads[0] = "b"
    assert made.find(wish, bytes(2)).indices == [1]
    book.retries = 1
    assert made.find(wish, bytes(2)).indices == [0, 1]
