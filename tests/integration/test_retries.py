"""Attempts: which failures are tried again, when, and what counts as a try."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpqueue import (
    GiveUp,
    ItemStatus,
    ItemTimeoutError,
    JobQueue,
    RemoteError,
    Retry,
    RetryPolicy,
    current_item,
)
from mpqueue.events import ITEM_RETRY
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.systems import not_on_windows
from tests.support.this_system import IS_WINDOWS, KILL
from tests.support.waiting import Gate

pytestmark = pytest.mark.usefixtures("forked_workers")

#: The default policy, a hundred times as fast.
QUICK = RetryPolicy(base_delay=0.02)


def delays(recorder: Recorder) -> list[float]:
    return [told.delay for told in recorder.of(ITEM_RETRY)]


# --- how often and when ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.holds(
    "seed: start: failed items are retried with exponential backoff",
    "seed: retries: after max_retries the item has failed",
)
def test_item_is_tried_four_times_by_default_with_doubled_delays() -> None:
    with JobQueue(1, retry=QUICK) as queue:
        recorder = Recorder(queue)
        job = queue.run(["a"], do.fail)
    assert job.items[0].attempts == 4
    assert delays(recorder) == pytest.approx([0.02, 0.04, 0.08])
    assert [(told.attempt, told.error) for told in recorder.of(ITEM_RETRY)] == [
        (number, "ValueError: cannot do 'a'") for number in (1, 2, 3)
    ]
    recorder.check(job)


@pytest.mark.holds("seed: retries: after 2, 4 and 8 seconds")
def test_first_delay_is_two_seconds_by_default() -> None:
    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", ["a"], do.fail)
        run = queue.start("job")
        (retry,) = recorder.wait_for(ITEM_RETRY)
        assert (retry.attempt, retry.delay) == (1, 2.0)
        assert run.job.items[0].status is ItemStatus.RETRY
        queue.cancel("job")
        run.result()


@pytest.mark.slow
def test_retry_may_run_on_another_worker() -> None:
    def handle(item: str) -> int:
        if current_item().attempt == 1:
            os.kill(os.getpid(), KILL)
        return os.getpid()

    with JobQueue(1, retry=QUICK) as queue:
        (item,) = queue.run(["a"], handle).items
    assert item.history[0].pid != item.result


# --- which policy ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.holds("seed: JobQueue: max_retries is 3 by default")
@pytest.mark.parametrize(
    ("of_queue", "of_job", "attempts"),
    [
        ({}, {"max_retries": 0}, 1),
        ({"max_retries": 0}, {}, 1),
        ({"max_retries": 0}, {"max_retries": 2, "retry": None}, 3),
        ({"max_retries": 2}, {"max_retries": 0}, 1),
        ({"retry": RetryPolicy(2, base_delay=0)}, {}, 3),
        ({"retry": RetryPolicy(2, base_delay=0)}, {"max_retries": 1}, 2),
        ({"retry": RetryPolicy(2, base_delay=0)}, {"retry": RetryPolicy(0)}, 1),
        ({"max_retries": 0}, {"retry": RetryPolicy(2, base_delay=0)}, 3),
    ],
    ids=str,
)
def test_what_is_given_nearer_wins(of_queue: dict[str, Any], of_job: dict[str, Any], attempts: int) -> None:
    def handle(item: str) -> None:
        # The default's delays, where they hold, are too long for a test.
        raise Retry(delay=0)

    with JobQueue(1, **of_queue) as queue:
        assert queue.run(["a"], handle, **of_job).items[0].attempts == attempts


def test_max_retries_and_retry_on_one_level_are_refused() -> None:
    with pytest.raises(ValueError, match="expected max_retries or retry, got both"):
        JobQueue(max_retries=1, retry=RetryPolicy())
    with JobQueue(1) as queue:
        with pytest.raises(ValueError, match="expected max_retries or retry, got both"):
            queue.create_job("job", ["a"], do.fail, max_retries=1, retry=RetryPolicy())
        assert queue.jobs() == []


# --- which errors ---------------------------------------------------------------------------------------------------


class BaseTroubleError(Exception):
    """Has a subclass that can't travel."""


class TroubleError(BaseTroubleError):
    """Pickles, and can't be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def raise_trouble(item: Any) -> None:
    raise TroubleError("one", "two")


@pytest.mark.holds("error: Retry")
def test_retry_asks_for_another_try_after_its_own_delay() -> None:
    def handle(item: float) -> int:
        attempt = current_item().attempt
        if attempt < 3:
            raise Retry(delay=item)
        return attempt

    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        job = queue.run([0.01, 0], handle)
    assert job.results == [3, 3]
    assert sorted(delays(recorder)) == [0, 0, 0.01, 0.01]
    assert [item.attempts for item in job.items] == [3, 3]


@pytest.mark.holds("error: GiveUp")
def test_give_up_fails_at_once() -> None:
    with JobQueue(1) as queue:
        (item,) = queue.run(["a"], do.give_up).items
    assert (item.attempts, item.error) == (1, "GiveUp: hopeless")
    assert isinstance(item.exception, GiveUp)


# --- what counts ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_attempts_are_counted_when_each_try_ends(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with JobQueue(1, retry=RetryPolicy(1, base_delay=0)) as queue:
        queue.create_job("job", ["a"], do.only("a", do.block_until_told(gate, do.fail)))
        run = queue.start("job")
        gate.wait_for("a")
        assert run.job.items[0].attempts == 0
        gate.open()
        run.result()
    assert run.job.items[0].attempts == 2


def test_try_that_shutdown_cuts_short_is_not_charged(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    queue = JobQueue(1)
    queue.create_job("job", ["a", "b"], do.announce(gate, do.hang_sleep))
    run = queue.start("job")
    gate.wait_for("a")
    queue.close(kill=True)
    assert [(item.status, item.attempts) for item in run.job.items] == [("pending", 0)] * 2


@pytest.mark.slow
@pytest.mark.holds("promise: Every item ends once")
def test_item_that_a_crash_ran_again_delivers_its_result_once(tmp_path: Path) -> None:
    """What the worker had finished and not sent home runs again: two calls, one result, one event."""
    with JobQueue(1, retry=RetryPolicy(1, base_delay=0)) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(10), do.count_calls(tmp_path, do.only(9, do.at_first(do.kill_self))), chunksize=10)
        recorder.check(job)
    assert job.results == list(range(10))
    assert [item.attempts for item in job.items] == [1] * 9 + [2]


def test_attempt_number_that_the_handler_sees_is_the_one_that_is_charged() -> None:
    def handle(item: str) -> list[int]:
        seen = current_item().attempt
        if seen < 4:
            raise ValueError(seen)
        return [seen]

    with JobQueue(1, retry=QUICK) as queue:
        (item,) = queue.run(["a"], handle).items
    assert (item.result, item.attempts) == ([4], 4)
    assert [failed.message for failed in item.history] == ["1", "2", "3"]


# --- timeouts -------------------------------------------------------------------------------------------------------


STACKS: list[tuple[Callable[[Any], Any], str]] = [
    (do.hang_sleep, "hang_sleep"),
    (do.hang_python, "hang_python"),
    (do.hang_holding_gil, "hang_holding_gil"),
    (do.sigterm_ignore_and_hang, "sigterm_ignore_and_hang"),
]


@pytest.mark.slow
@pytest.mark.holds("error: ItemTimeoutError")
@pytest.mark.parametrize(("bad", "name"), STACKS, ids=lambda value: value if isinstance(value, str) else "")
def test_timeout_error_holds_the_stack_where_the_item_hung(bad: do.Handler, name: str) -> None:
    with JobQueue(1, max_retries=0, timeout=1) as queue:
        (item,) = queue.run(["a"], bad).items
    assert isinstance(item.exception, ItemTimeoutError)
    assert isinstance(item.exception, TimeoutError)
    if bad is do.hang_holding_gil and IS_WINDOWS:  # no signal there shows where C code hangs
        assert item.exception.stack is None
    else:
        assert item.exception.stack is not None
        assert name in item.exception.stack


@pytest.mark.slow
@pytest.mark.holds(
    "wait: your handler, unpickling its item, pickling its result", "fault: the function hangs, with timeout="
)
def test_timeout_is_for_each_item_also_inside_a_chunk(tmp_path: Path) -> None:
    """Together the items take longer than the timeout; one after another none does, but for the culprit."""

    def handle(item: int) -> int:
        threading.Event().wait(300 if item == 7 else 0.2)
        return item

    with JobQueue(1, max_retries=0, timeout=1.2) as queue:
        job = queue.run(range(12), handle, chunksize=12)
    assert [item.id for item in job.items if item.status is ItemStatus.FAILED] == [7]
    assert [item.attempts for item in job.items] == [1] * 12


class LoadsSlowly:
    """A handler whose unpickling takes two seconds."""

    def __call__(self, item: str) -> str:
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        return load_slowly, ()


def load_slowly() -> LoadsSlowly:
    threading.Event().wait(2)
    return LoadsSlowly()


@pytest.mark.holds("error: RemoteError", "promise: Every error is reported")
def test_remote_error_keeps_type_message_and_traceback() -> None:
    with JobQueue(1, max_retries=0) as queue:
        (item,) = queue.run(["a"], raise_trouble).items
    error = item.exception
    assert isinstance(error, RemoteError)
    assert error.type_name == f"{__name__}.TroubleError"
    assert (error.message, item.error) == ("onetwo", "TroubleError: onetwo")
    assert "in raise_trouble" in error.traceback
    assert str(error) == f"{__name__}.TroubleError: onetwo"


@pytest.mark.slow
def test_seconds_of_short_items_that_fail_are_theirs_alone() -> None:
    """They are not those of all that ran since the clock was read last."""

    def handler(item: int) -> int:
        if item % 3 == 0:
            raise ValueError(item)
        return item

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(range(6000), handler)
    assert job.duration is not None
    assert sum(item.elapsed or 0.0 for item in job.items) <= 2 * job.duration


@pytest.mark.slow
@not_on_windows("no signal asks a worker there where it is")
def test_c_code_whose_wait_is_cut_short_is_late_all_the_same() -> None:
    """The signal that asks where it is ends such a wait, and the handler returns before it is killed."""

    def handler(item: int) -> str:
        left = ctypes.CDLL(None).sleep(60)
        return f"{left} s early"

    with JobQueue(1, max_retries=0, timeout=0.3) as queue:
        for _ in range(3):
            (item,) = queue.run([1], handler).items
            assert isinstance(item.exception, ItemTimeoutError)
