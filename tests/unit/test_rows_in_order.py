"""Rows in the order of their items: whatever order they come in, in memory or put aside."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue._output import row_outlet
from mpqueue._output.row_outlet import RowsInOrder


def rows_of(items: Sequence[int]) -> list[dict[str, Any]]:
    return [{"id": item} for item in items]


@given(
    counts=st.lists(st.integers(1, 4), max_size=12),
    order=st.randoms(use_true_random=False),
    most=st.sampled_from([0, 5, 1000]),
    left_out=st.sets(st.integers(0, 11)),
)
def test_rows_come_in_order_and_few_wait_in_memory(
    counts: list[int], order: Any, most: int, left_out: set[int]
) -> None:
    stretches, first = list[range](), 0
    for count in counts:
        stretches.append(range(first, first + count))
        first += count
    came = [stretch for at, stretch in enumerate(stretches) if at not in left_out]
    order.shuffle(came)
    told: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_outlet, "MOST_HELD", most)
        rows = RowsInOrder(rows_of, told.extend, None)
        for items in came:
            rows.put(items, rows_of(items) if items.start % 3 else None, len(items))
            assert sum(len(each.rows) for _, each in rows._waiting if isinstance(each.rows, list)) <= most
        whole = next((items.start for at, items in enumerate(stretches) if at in left_out), None)
        assert [row["id"] for row in told] == [*range(sum(counts) if whole is None else whole)]
        rows.end()
    assert [row["id"] for row in told] == sorted(item for items in came for item in items)


class Dynamic:
    __qualname__ = "nowhere.Dynamic"


class Unloadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


@pytest.mark.parametrize("cannot", [threading.Lock(), Unloadable()])
def test_what_can_t_be_in_the_file_waits_in_memory(cannot: Any, tmp_path: Path) -> None:
    told: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_outlet, "MOST_HELD", 0)
        rows = RowsInOrder(rows_of, told.extend, tmp_path)
        rows.put(range(1, 2), [{"id": 1, "result": Dynamic()}], 10)
        rows.put(range(2, 3), [{"id": 2, "result": cannot}], 10)
        rows.put(range(3, 6), [{"id": 3}, {"id": 4, "result": cannot}, {"id": 5}], 10)
        in_memory = [row for _, each in rows._waiting if isinstance(each.rows, list) for row in each.rows]
        assert sorted(row["id"] for row in in_memory) == [2, 3, 4, 5]
        rows.put(range(1), [{"id": 0}], 10)
    assert [row["id"] for row in told] == [*range(6)]
    assert type(told[1]["result"]).__name__ == "Dynamic"
    assert told[2]["result"] is told[4]["result"] is cannot
    rows.end()
