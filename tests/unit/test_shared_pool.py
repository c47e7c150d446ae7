"""The pool that `map` and its kin share: made when it is needed, kept while it is used, ended once it is idle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._dropin import shared_pool
from mpqueue._dropin.shared_pool import IDLE_SECONDS, SharedPool


class Queue:
    """A queue without workers; the first one may be refused them."""

    refused = False

    def __init__(self, *_: object, **__: object) -> None:
        self.ends: list[bool] = []
        self._host = SimpleNamespace(is_broken=False, want_workers=self._want_workers)

    def _want_workers(self, _: int) -> None:
        if Queue.refused:
            raise OSError("no more processes")

    def close(self, *, kill: bool = False) -> None:
        self.ends.append(kill)


class Watch:
    """An event that is waited for: time passes, and before each look a test does something, until nothing is left."""

    def __init__(self, *looks: Callable[[], object]) -> None:
        self._looks = list(looks)

    def wait(self, seconds: float) -> bool:
        assert seconds == IDLE_SECONDS == 30
        if not self._looks:
            return True
        self._looks.pop(0)()
        return False


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> SharedPool:
    monkeypatch.setattr(shared_pool, "JobQueue", Queue)
    monkeypatch.setattr(Queue, "refused", False)
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)  # a test is the thread
    return SharedPool()


def watch(pool: SharedPool, *looks: Callable[[], object]) -> None:
    event: Any = Watch(*looks)
    pool._watch(event)


def nothing() -> None:
    """No call comes."""


def test_it_ends_once_no_call_came_between_two_looks_and_the_next_call_makes_another(pool: SharedPool) -> None:
    with pool.lease(1) as first:
        pass
    ends = vars(first)["ends"]
    watch(pool, nothing)
    assert ends == [], "a call had come before the first look"
    watch(pool, lambda: pool.give_back(pool.borrow(1)))
    assert ends == []
    watch(pool, nothing)
    assert ends == [False]
    with pool.lease(1) as second:
        assert second is not first


def test_a_call_that_goes_on_keeps_it(pool: SharedPool) -> None:
    queue = pool.borrow(1)
    watch(pool, *[nothing] * 5)
    assert vars(queue)["ends"] == []
    assert not pool.end_if_idle()
    pool.give_back(queue)
    watch(pool, nothing)
    assert vars(queue)["ends"] == [False]


def test_a_call_that_gets_no_workers_does_not_count_as_one(pool: SharedPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "refused", True)
    with pytest.raises(OSError, match="no more processes"):
        pool.borrow(1)
    monkeypatch.setattr(Queue, "refused", False)
    assert pool.end_if_idle()
    with pool.lease(1) as queue:
        assert vars(queue)["ends"] == []
