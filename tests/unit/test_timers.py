"""The timer heap."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.state.books import TimerHeap, TimerKind

moments = st.lists(st.floats(0, 100, allow_subnormal=False), max_size=50)


@given(moments, st.floats(0, 100) | st.none())
@settings(max_examples=50)
def test_what_is_due_comes_out_in_order_and_nothing_else_does(due: list[float], now: float | None) -> None:
    heap = TimerHeap()
    now = max(due, default=0.0) if now is None else now  # a timer is due at its very moment
    for moment in due:
        heap.add(moment, TimerKind.RETRY)
    taken = [timer.due for timer in heap.take_due(now)]
    assert taken == sorted(moment for moment in due if moment <= now)
    assert heap.next_due() == min((moment for moment in due if moment > now), default=None)
    assert len(heap) == len(due) - len(taken)
    heap.clear()
    assert (heap.next_due(), len(heap)) == (None, 0)


def test_equal_moments_keep_the_order_in_which_they_were_set() -> None:
    heap = TimerHeap()
    for index in range(20):
        heap.add(1.0, TimerKind.RETRY, detail=index)
    assert [timer.detail for timer in heap.take_due(1.0)] == list(range(20))
