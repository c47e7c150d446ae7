"""The thread that is there while there is something to do, run here by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from mpqueue._parent import users_threads as errands_module
from mpqueue._parent.users_threads import Errands
from tests.unit.hand_run import Starts


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands_module, "LINGER", 0.0)


@pytest.mark.parametrize("refused", [1, 2, 4])
def test_an_errand_that_no_thread_could_be_started_for_is_done_with_the_next_one_or_once_there_is_room(
    refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, looks, done = Starts(monkeypatch, refused), list[Callable[[], None]](), list[int]()
    errands = Errands("errands", print, lambda _, look: looks.append(look))
    for number in range(2):
        errands.put(partial(done.append, number))
        assert errands.busy
    assert len(looks) == 1
    while looks:
        looks.pop()()
    starts.run(errands)
    assert (done, errands.busy) == ([0, 1], False)


def test_errands_are_done_in_order_and_the_thread_goes_when_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, errands, done = Starts(monkeypatch, 0), Errands("errands", print, print), list[int]()
    for number in range(100):
        errands.put(partial(done.append, number))
    starts.run(errands)
    assert done == list(range(100))
    assert starts.count == 1
    assert errands.thread is None
    errands.put(partial(done.append, 100))
    errands.end()
    starts.run(errands)
    assert done[-1] == 100
    assert starts.count == 2
