"""Handlers of signals that users install in a worker, and that raise at any moment."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import pytest

from mpqueue import JobQueue, RetryPolicy, current_item
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.strength import workers_of

pytestmark = pytest.mark.slow

COUNT = 3000
#: Seconds between two signals: several in each chunk.
OFTEN = 0.002


class LateError(Exception):
    """What the handler of the signal raises."""


def raise_late(*_: Any) -> NoReturn:
    raise LateError


def raise_late_in_items(_: int, frame: FrameType | None) -> None:
    if frame is None or frame.f_code is not alarm_often.__code__:
        raise LateError


def alarm_often() -> Iterator[None]:
    signal.signal(signal.SIGALRM, raise_late_in_items)
    signal.setitimer(signal.ITIMER_REAL, OFTEN, OFTEN)
    yield
    # An alarm that struck here would leave the clock running for whoever comes next: see `raise_late_in_items`.
    signal.setitimer(signal.ITIMER_REAL, 0)


class Boxed:
    def __init__(self, item: int) -> None:
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boxed) and other.item == self.item

    def __hash__(self) -> int:
        return hash(self.item)


def give_back(item: int, _: None) -> int:
    return item


def box(item: int, _: None) -> Boxed:
    return Boxed(item)


async def give_back_later(item: int, _: None) -> int:
    return item


@pytest.mark.long(but=["numbers", "coroutines"])
@pytest.mark.holds("promise: An alarm fails the item that it interrupts")
@pytest.mark.parametrize(
    ("handler", "result", "capture"),
    [(give_back, int, False), (box, Boxed, False), (give_back_later, int, False), (box, Boxed, True)],
    ids=["numbers", "objects", "coroutines", "captured"],
)
def test_what_a_signal_s_handler_raises_costs_one_try_of_the_item_that_runs_and_nothing_else(
    handler: Callable[[int, None], Any], result: Callable[[int], Any], capture: bool
) -> None:
    with JobQueue(2, retry=RetryPolicy(50, base_delay=0)) as queue:
        before = workers_of(queue)
        recorder = Recorder(queue)
        job = queue.run(range(COUNT), handler, setup=alarm_often, capture_output=capture)
        recorder.check(job)
        assert job.results == [result(item) for item in range(COUNT)]
        assert {type(tried.exception) for item in job.items for tried in item.history} <= {LateError}
        assert queue.run(range(10), do.double).results == list(range(0, 20, 2))
        assert workers_of(queue) == before


def report_for_ever(item: str) -> NoReturn:
    signal.signal(signal.SIGALRM, raise_late)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while True:
        current_item().report(0.5)


def log_for_ever(item: str) -> NoReturn:
    signal.signal(signal.SIGALRM, raise_late)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while True:
        logging.getLogger("test").warning("%s", item)


@pytest.mark.long(but=["logs"])
@pytest.mark.holds("promise: An alarm fails the item that it interrupts")
@pytest.mark.parametrize("bad", [report_for_ever, log_for_ever], ids=["reports", "logs"])
def test_item_that_ends_itself_by_an_alarm_is_ended_also_while_it(bad: do.Handler) -> None:
    with JobQueue(1, max_retries=0, timeout=60) as queue:
        job = queue.run(["left", "culprit", "right"], do.only("culprit", bad), chunksize=3)
        assert job.results == ["left", None, "right"]
        assert isinstance(job.items[1].exception, LateError)


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
