"""The thread that waits for everything at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from mpqueue._engines.loky.process.watcher import Watcher


@pytest.fixture
def faults() -> list[BaseException]:
    return []


@pytest.fixture
def watcher(faults: list[BaseException]) -> Iterator[Watcher]:
    watching = Watcher("a watcher", faults.append)
    yield watching
    watching.call(watching.stop)
    watching.thread.join(30)
    assert not watching.thread.is_alive()


def do(watcher: Watcher, call: Callable[[], object]) -> None:
    """Have something done on its thread, and wait until it is."""
    done = threading.Event()
    watcher.call(call)
    watcher.call(done.set)
    assert done.wait(30)


def test_calls_are_made_in_order_on_its_thread(watcher: Watcher) -> None:
    made: list[tuple[int, bool]] = []
    for number in range(100):
        watcher.call(lambda number=number: made.append((number, threading.current_thread() is watcher.thread)))
    do(watcher, lambda: None)
    assert made == [(number, True) for number in range(100)]


def test_timers_go_off_in_the_order_of_their_moments_and_not_where_cancelled(watcher: Watcher) -> None:
    gone_off: list[str] = []
    over = threading.Event()

    def begin() -> None:
        watcher.later(0.02, gone_off.append, "second")
        watcher.later(0.01, gone_off.append, "first")
        watcher.cancel(watcher.later(0.015, gone_off.append, "cancelled"))
        watcher.later(0.03, over.set)

    watcher.call(begin)
    assert over.wait(30)
    assert gone_off == ["first", "second"]


def test_what_is_readable_is_told_until_it_is_forgotten(watcher: Watcher, pipe: tuple[int, int]) -> None:
    read, write = pipe
    texts: list[bytes] = []
    came = threading.Event()

    def take() -> None:
        texts.append(os.read(read, 1))
        if len(texts) == 2:
            came.set()

    do(watcher, lambda: watcher.on_readable(read, take))
    os.write(write, b"ab")
    assert came.wait(30)
    do(watcher, lambda: watcher.forget(read))
    do(watcher, lambda: watcher.forget(read))
    os.write(write, b"c")
    do(watcher, lambda: None)
    assert texts == [b"a", b"b"]


def test_reader_that_another_one_has_forgotten_is_not_called(watcher: Watcher, pipe: tuple[int, int]) -> None:
    read, write = pipe
    other = os.dup(read)
    called: list[int] = []

    def be_the_only_one(mine: int, others: int) -> None:
        called.append(mine)
        watcher.forget(mine)
        watcher.forget(others)

    def begin() -> None:
        watcher.on_readable(read, lambda: be_the_only_one(read, other))
        watcher.on_readable(other, lambda: be_the_only_one(other, read))
        os.write(write, b"a")

    do(watcher, begin)
    do(watcher, lambda: None)
    do(watcher, lambda: None)
    os.close(other)
    assert len(called) == 1


def test_call_that_raises_is_a_fault_and_the_thread_goes_on(watcher: Watcher, faults: list[BaseException]) -> None:
    def fail() -> None:
        raise SystemExit("a bug of ours")

    do(watcher, fail)
    assert [str(fault) for fault in faults] == ["a bug of ours"]


def test_calls_after_the_end_do_nothing() -> None:
    watcher = Watcher("a watcher", print)
    watcher.call(watcher.stop)
    watcher.thread.join(30)
    watcher.call(pytest.fail, "called")
