"""What one thread waits for and another sets, interrupted at each moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, _base, as_completed, wait
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from mpqueue._parent.surroundings.replies import Reply, SafeEvent, SafeFuture
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


#: The locks of `wait` and `as_completed` are the standard library's own.
BEYOND = ("mpqueue.", "threading")
WAITS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any], tuple[str, ...]]] = {
    "event": (SafeEvent, lambda event: event.wait(0.0), lambda event: event.set(), WHERE),
    "reply": (Reply[None], lambda reply: reply.result(0.0), lambda reply: reply.set_result(None), WHERE),
    "result": (SafeFuture[None], lambda future: future.result(0.0), lambda future: future.set_result(None), WHERE),
    "exception": (
        SafeFuture[None],
        lambda future: future.exception(0.0),
        lambda future: future.set_exception(OSError()),
        WHERE,
    ),
    "callback": (SafeFuture[None], lambda future: future.add_done_callback(str), lambda future: future.cancel(), WHERE),
    "done": (
        SafeFuture[None],
        lambda future: (future.done(), future.running()),
        lambda future: future.set_result(None),
        WHERE,
    ),
    "wait": (SafeFuture[None], lambda future: wait([future], 0.0), lambda future: future.cancel(), BEYOND),
    "as_completed": (
        SafeFuture[None],
        lambda future: next(as_completed([future], 0.0)),
        lambda future: future.cancel(),
        BEYOND,
    ),
}


@pytest.mark.parametrize("what", WAITS)
def test_an_interrupted_wait_never_blocks_what_it_waited_for(what: str) -> None:
    """If it did, this would wait for itself."""
    make, begin_to_wait, resolve, where = WAITS[what]
    for number in range(1000):
        interruption, waited_for = Interruption(number, where), make()
        with suppress(KeyboardInterrupt, TimeoutError):
            interruption.run(partial(begin_to_wait, waited_for))
        resolve(waited_for)
        if not interruption.came:
            return
    pytest.fail("it never went through")


def test_a_wait_for_an_event_that_is_set_ends_and_one_that_was_given_up_leaves_nothing() -> None:
    event, other = SafeEvent(), SafeEvent()
    assert not event.wait(0.0, unless=other)
    other.set()
    assert not event.wait(60.0, unless=other)
    event.set()
    assert event.wait(0.0, unless=other), "what it waits for comes first"
    event.clear()
    assert not event.wait(0.0)
    assert not event._waiting
    assert not other._waiting


def test_an_interrupted_set_of_an_event_wakes_all_when_it_is_called_again() -> None:
    for number in range(100):
        interruption, event = Interruption(number, WHERE), SafeEvent()
        waiting = [threading.Lock() for _ in range(2)]
        for lock in waiting:
            lock.acquire()
            event._waiting.append(lock)
        with suppress(KeyboardInterrupt):
            interruption.run(event.set)
        event.set()
        assert not any(lock.locked() for lock in waiting)
        assert event.wait(0.0)
        if not interruption.came:
            return
    pytest.fail("it never went through")


def test_the_first_of_several_replies_counts() -> None:
    told = list[Reply[str]]()
    reply = Reply[str](told.append)
    with pytest.raises(TimeoutError):
        reply.result(0.0)
    reply.set_result("first")
    reply.set_exception(OSError("second"))
    assert reply.result() == "first"
    assert told == [reply]
