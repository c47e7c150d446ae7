"""Rows in the order of their items: whatever order they come in, in memory or put aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue._output import rows_in_order
from mpqueue._output.rows_in_order import RowsInOrder


@given(
    counts=st.lists(st.integers(1, 4), max_size=12),
    order=st.randoms(use_true_random=False),
    most=st.sampled_from([0, 5, 1000]),
    left_out=st.sets(st.integers(0, 11)),
)
def test_rows_come_in_order_and_few_wait_in_memory(
    counts: list[int], order: Any, most: int, left_out: set[int]
) -> None:
    stretches, first = [], 0
    for count in counts:
        stretches.append((first, count))
        first += count
    came = [stretch for at, stretch in enumerate(stretches) if at not in left_out]
    order.shuffle(came)
    told: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_in_order, "MOST_HELD", most)
        rows = RowsInOrder(told.extend, None)
        for first, count in came:
            rows.put(first, count, [{"id": first + at} for at in range(count)], count)
            assert sum(len(each.rows) for each in rows._waiting) <= most
        whole = next((first for at, (first, _) in enumerate(stretches) if at in left_out), None)
        assert [row["id"] for row in told] == [*range(sum(counts) if whole is None else whole)]
        rows.end()
    assert [row["id"] for row in told] == sorted(first + at for first, count in came for at in range(count))


def test_what_a_hand_on_raises_comes_through_and_what_waits_is_there(tmp_path: Path) -> None:
    class Dynamic:
        __qualname__ = "nowhere.Dynamic"

    told: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_in_order, "MOST_HELD", 0)
        rows = RowsInOrder(told.extend, tmp_path)
        rows.put(1, 1, [{"id": 1, "result": Dynamic()}], 10)
        assert not rows._waiting[0].rows
        rows.put(0, 1, [{"id": 0}], 10)
    assert [row["id"] for row in told] == [0, 1]
    assert type(told[1]["result"]).__name__ == "Dynamic"
    rows.close()
