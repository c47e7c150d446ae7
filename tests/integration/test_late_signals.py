"""A signal that wakes nobody, since it came just before the main thread slept, still ends what that waits for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

import mpqueue
from mpqueue import Executor, JobQueue, Pool
from tests.support.waiting import Gate, spend

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]


class InterruptError(Exception):
    """What the signal's handler raises."""


def interrupt(*_: Any) -> NoReturn:
    raise InterruptError


def send_past_main_thread(gate: Gate) -> None:
    """What Python sees of a signal that comes just before a wait: it knows of it, and no thread was woken.

    The main thread blocks the signal, so the system gives it to this one, where Python only notes it.
    """
    gate.wait_for(1)
    spend(0.2)  # the main thread sleeps by now
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Holds the handlers until the test is over."""
    gate = Gate(tmp_path)
    before = signal.signal(signal.SIGUSR1, interrupt)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    yield gate
    gate.open()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    signal.signal(signal.SIGUSR1, before)


def by_result(queue: JobQueue, wait: Callable[[int], int]) -> None:
    queue.start(queue.create_job("j", [1], wait).id).result()


def by_as_completed(queue: JobQueue, wait: Callable[[int], int]) -> None:
    list(queue.start(queue.create_job("j", [1], wait).id).as_completed())


def by_close(queue: JobQueue, wait: Callable[[int], int]) -> None:
    queue.start(queue.create_job("j", [1], wait).id)
    queue.close()


def by_map(_: JobQueue, wait: Callable[[int], int]) -> None:
    mpqueue.map(wait, [1])


def by_imap(_: JobQueue, wait: Callable[[int], int]) -> None:
    list(mpqueue.imap(wait, [1]))


def by_pool(_: JobQueue, wait: Callable[[int], int]) -> None:
    with Pool(1) as pool:
        pool.apply(wait, (1,))


def by_shutdown(_: JobQueue, wait: Callable[[int], int]) -> None:
    executor = Executor(1)
    executor.submit(wait, 1)
    try:
        executor.shutdown()
    finally:
        executor.kill_workers()
        executor.shutdown()


@pytest.mark.parametrize("block", [by_result, by_as_completed, by_close, by_map, by_imap, by_pool, by_shutdown])
def test_it_ends_the_wait(block: Callable[[JobQueue, Callable[[int], int]], None], gate: Gate) -> None:
    sender = threading.Thread(target=send_past_main_thread, args=(gate,))
    with JobQueue(1) as queue:
        sender.start()
        with pytest.raises(InterruptError):
            block(queue, partial(hold, gate))
        gate.open()
    sender.join()


def hold(gate: Gate, item: int) -> int:
    gate.pass_through(item)
    return item
