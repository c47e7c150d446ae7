"""The thread that is there while there is something to do."""

from __future__ import annotations

from functools import partial

import pytest

from mpqueue._parent.errands import Errands
from tests.support.waiting import wait_until


def test_an_errand_that_no_thread_could_be_started_for_is_done_with_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    errands, done = Errands("errands", print), list[int]()
    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        errands.put(partial(done.append, 1))
    assert errands.busy
    errands.put(partial(done.append, 2))
    wait_until(lambda: done == [1, 2])
    errands.end()


def test_an_errand_that_no_thread_could_be_started_for_is_done_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    errands, done = Errands("errands", print), list[int]()
    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        errands.put(partial(done.append, 1))
        errands.go_on()
    assert errands.busy
    errands.go_on()
    wait_until(lambda: done == [1])
    errands.end()


def test_errands_are_done_in_order_and_the_thread_goes_when_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpqueue._parent.errands.LINGER", 0.001)
    errands, done = Errands("errands", print), list[int]()
    for number in range(100):
        errands.put(partial(done.append, number))
    wait_until(lambda: errands.thread is None, what="the thread's end")
    assert done == list(range(100))
    assert not errands.busy
    errands.put(partial(done.append, 100))
    thread = errands.thread
    errands.end()
    if thread is not None:
        thread.join(30)
    assert done[-1] == 100
