"""A stream's table: rows that come and go."""

from __future__ import annotations

from typing import Any

from mpqueue._core.state.item_table import Failure, ItemTable
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY


def table_of(*items: Any) -> ItemTable:
    table = ItemTable.of_stream()
    table.admit(table.add(items))
    return table


def test_rows_are_counted_over_the_whole_stream() -> None:
    assert len(ItemTable.of_stream()) == 0
    table = table_of("a", "b")
    assert table.add(["c"]) == range(2, 3)
    assert table.add(["d"]) == range(3, 4)
    table.complete([0], ["A"])
    table.take(0)
    assert (len(table), table.added) == (2, 4), "the scheduler has not heard of the last two"
    assert (list(table.payloads), list(table.status)) == ([None, "b"], [COMPLETED, PENDING])
    assert ([*table.ended_stretches()], [*table.unfinished_stretches()]) == ([range(1)], [range(1, 2)])
    table.admit(range(2, 4))
    assert len(table) == 4
    assert table.payloads_of(range(1, 4)) == ["b", "c", "d"]


def test_row_is_as_expected_until_something_fails() -> None:
    table = table_of("a", "b")
    table.complete(range(1), [None])
    assert [table.status[index] for index in range(2)] == [COMPLETED, PENDING]
    assert [table.attempts[index] for index in range(2)] == [1, 0]
    assert [table.results[index] for index in range(2)] == [None, None]
    assert [table.ended(index) for index in range(2)] == [True, False]
    assert (table.ended_indices(), table.unfinished()) == ([0], [1])


def test_taken_rows_are_gone_and_count_as_ended() -> None:
    table = table_of("a", "b", "c")
    table.complete(range(3), ["A", None, "C"])
    assert table.take_all(range(1)) == ["A"]
    assert table.take_all([2, 1]) == ["C", None]
    assert all(table.ended(index) for index in range(3))
    assert not table.payloads.kept
    assert not table.results.kept
    assert (table.ended_indices(), table.unfinished()) == ([], [])


def test_failure_stands_in_the_place_of_the_result() -> None:
    table = table_of("a", "b", "c")
    failure = Failure(ValueError("b"))
    table.fail_try(1, failure, pid=1)
    table.fail(1, failure)
    table.complete([0, 2], ["A", "C"])
    assert table.status[1] == FAILED
    assert table.take_all(range(3)) == ["A", failure, "C"]
    columns: list[Any] = [table.payloads, table.results, table.status, table.attempts, table.elapsed]
    assert not any(column.kept for column in columns)
    assert not table.failures
    assert not table.history


def test_item_that_failed_and_then_completed_has_its_result() -> None:
    table = table_of("a", "b")
    table.fail_try(0, Failure(ValueError("a")), pid=1)
    table.status[0] = RETRY
    table.complete([0, 1], ["A", "B"])
    assert (table.status[0], table.attempts[0]) == (COMPLETED, 2)
    assert (table.status[1], table.attempts[1]) == (COMPLETED, 1)
    assert table.take(0) == ("A", None)
    assert table.take_all([1]) == ["B"]
    assert not table.failures


def test_failed_try_that_is_not_charged_is_not_counted() -> None:
    table = table_of("a")
    table.fail_try(0, Failure(ValueError("a"), charged=False), pid=None)
    assert table.attempts[0] == 0
    table.complete([0], ["A"])
    assert table.attempts[0] == 1


def test_waiting_items_become_pending_again() -> None:
    table = table_of("a")
    table.fail_try(0, Failure(ValueError("a")), pid=1)
    table.status[0] = RETRY
    table.reset_waiting()
    assert table.status[0] == PENDING
