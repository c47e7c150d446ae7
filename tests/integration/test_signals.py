"""Handlers of signals that users install in a worker, and that raise at any moment."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import pytest

from mpqueue import JobQueue, RetryPolicy, WorkerCrashedError, current_item
from tests.support import handlers as do
from tests.support.length import IS_LONG, long
from tests.support.recorder import Recorder
from tests.support.waiting import spend

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

COUNT = 240
#: Each of so many items leaves an alarm.
EACH = 60


class LateError(Exception):
    """What the handler of the signal raises."""


def raise_late(*_: Any) -> NoReturn:
    raise LateError


def leave_alarm(item: int) -> None:
    """It goes off in a moment: in another item, in the worker's own code, or while the worker waits for work."""
    if item % EACH == 0 and current_item().attempt == 1:
        signal.signal(signal.SIGALRM, raise_late)
        signal.setitimer(signal.ITIMER_REAL, 0.0002 * (1 + item % 7))


class Boxed:
    def __init__(self, item: int) -> None:
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boxed) and other.item == self.item

    def __hash__(self) -> int:
        return hash(self.item)


def give_back(item: int) -> int:
    leave_alarm(item)
    return item


def box(item: int) -> Boxed:
    leave_alarm(item)
    return Boxed(item)


async def give_back_later(item: int) -> int:
    leave_alarm(item)
    return item


class RaisesLater:
    """Gives each item back. Item 2 has the worker's thread raise after so many steps more, whatever these are of."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, item: int) -> int:
        if item == 2 and current_item().attempt == 1:
            sys.setprofile(self.step)
        return item

    def step(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise LateError  # and Python takes the function away


@pytest.mark.parametrize("chunksize", [None, long(1)])
def test_what_is_raised_at_any_step_after_an_item_gives_no_item_the_result_of_another(chunksize: int | None) -> None:
    with JobQueue(1, retry=RetryPolicy(50, base_delay=0)) as queue:
        for steps in range(1, 200 if IS_LONG else 25):
            job = queue.run(range(6), RaisesLater(steps), chunksize=chunksize)
            assert job.results == list(range(6)), steps


@pytest.mark.long(but=["numbers", "coroutines"])
@pytest.mark.holds("promise: An alarm fails the item that it interrupts")
@pytest.mark.parametrize(
    ("handler", "result", "capture"),
    [(give_back, int, False), (box, Boxed, False), (give_back_later, int, False), (box, Boxed, True)],
    ids=["numbers", "objects", "coroutines", "captured"],
)
def test_alarms_that_items_leave_change_no_result_and_lose_none(
    handler: Callable[[int], Any], result: Callable[[int], Any], capture: bool
) -> None:
    with JobQueue(2, retry=RetryPolicy(50, base_delay=0)) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(COUNT), handler, capture_output=capture)
        recorder.check(job)
        assert job.results == [result(item) for item in range(COUNT)]
        raised = {type(tried.exception) for item in job.items for tried in item.history}
        assert raised <= {LateError, WorkerCrashedError}
        assert queue.run(range(10), do.double).results == list(range(0, 20, 2))


def raise_in(seconds: float) -> None:
    signal.signal(signal.SIGALRM, raise_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def report_for_ever(item: str) -> NoReturn:
    raise_in(0.01)
    while True:
        current_item().report(0.5)


def log_for_ever(item: str) -> NoReturn:
    # While `logging` finds out about these it drops what is raised.
    vars(logging).update(logMultiprocessing=False, logAsyncioTasks=False)
    raise_in(0.01)
    while True:
        logging.getLogger("test").warning("%s", item)


def be_struck_in_starting_a_thread(item: str) -> None:
    """By an alarm, at the moment when the second record of a worker starts the thread that sends such."""
    vars(logging).update(logMultiprocessing=False, logAsyncioTasks=False)
    signal.signal(signal.SIGALRM, raise_late)
    sys.setprofile(_strike if item == "struck" else None)
    for which in "first", "second":
        logging.getLogger("test").warning("%s of %s", which, item)
    sys.setprofile(None)


def _strike(_: FrameType, event: str, called: Any) -> None:
    if event == "c_return" and called.__name__.startswith("start_"):
        spend(0.1)  # that thread runs
        signal.raise_signal(signal.SIGALRM)  # and Python takes this function away


async def wait_for_ever(item: str) -> str:
    if item == "culprit":
        raise_in(0.01)
        await asyncio.Event().wait()
    return item


def spend_for_ever(item: str) -> None:
    raise_in(0.01)
    spend(600)


@pytest.mark.long(but=["logs"])
@pytest.mark.holds("promise: An alarm fails the item that it interrupts")
@pytest.mark.parametrize(
    "handler",
    [do.only("culprit", bad) for bad in (spend_for_ever, report_for_ever, log_for_ever)],
    ids=["computes", "reports", "logs"],
)
def test_item_that_ends_itself_by_an_alarm_is_ended_also_while_it(handler: do.Handler) -> None:
    with JobQueue(1, max_retries=0, timeout=60) as queue:
        job = queue.run(["left", "culprit", "right"], handler, chunksize=3)
        assert job.results == ["left", None, "right"]
        assert isinstance(job.items[1].exception, LateError)


@pytest.mark.holds("promise: An alarm fails the item that it interrupts")
def test_alarm_while_an_item_waits_in_an_event_loop_ends_the_worker() -> None:
    with JobQueue(1, max_retries=0, timeout=60) as queue:
        job = queue.run(["left", "culprit", "right"], wait_for_ever, chunksize=3)
        assert job.results == ["left", None, "right"]
        assert [item.attempts for item in job.items] == [1] * 3
        assert isinstance(job.items[1].exception, WorkerCrashedError)


@pytest.mark.holds("promise: An alarm fails the item that it interrupts")
def test_alarm_that_strikes_while_a_record_starts_a_thread_is_the_items_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["struck", "next"], be_struck_in_starting_a_thread, chunksize=2)
        assert [type(item.exception) for item in job.items] == [LateError, type(None)]
    assert [record.getMessage() for record in caplog.records][-2:] == ["first of next", "second of next"]


def test_handlers_see_the_handlers_of_signals_that_they_have_installed() -> None:
    def handle(item: str) -> bool:
        before = signal.signal(signal.SIGUSR1, raise_late)
        seen = signal.getsignal(signal.SIGUSR1)
        again = signal.signal(signal.SIGUSR1, before)
        return (
            (before, seen, again) == (signal.SIG_DFL, raise_late, raise_late)
            and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )

    with JobQueue(1) as queue:
        assert queue.run(["a", "b"], handle).results == [True, True]


def test_ctrl_c_that_somebody_sends_strikes_the_item_that_runs() -> None:
    def handle(item: str) -> str:
        if item == "culprit":
            os.kill(os.getpid(), signal.SIGINT)
            do.hang_sleep(item)
        return item

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["left", "culprit", "right"], handle, chunksize=3)
        assert job.results == ["left", None, "right"]
        assert "KeyboardInterrupt" in (job.items[1].error or "")
