"""What one thread waits for and another sets, interrupted at each moment."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future, _base
from contextlib import suppress

import pytest

from mpqueue._parent.surroundings.replies import SafeFuture
from tests.support.interruptions import Interruption

WHERE = ("concurrent.futures", "mpqueue.", "threading")


def test_a_future_whose_cancel_was_interrupted_is_cancelled_or_not() -> None:
    cancelled = []
    for number in range(60):
        future = SafeFuture[int]()
        interruption = Interruption(number, WHERE)
        with suppress(KeyboardInterrupt):
            interruption.run(future.cancel)
        cancelled.append(future.done())
        assert future.cancelled() is future.done()
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(60)
    assert {*cancelled} == {False, True}


def test_a_future_is_done_as_soon_as_those_that_wait_for_it_hear_of_it() -> None:
    future, heard = SafeFuture[int](), list[bool]()

    class Waiter(_base._FirstCompletedWaiter):
        def add_result(self, done: Future[int]) -> None:
            heard.append(done.done())

    future._waiters.append(Waiter())
    future.set_result(3)
    assert heard == [True]
