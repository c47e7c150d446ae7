"""Attempts: which failures are tried again, when, and what counts as a try."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import pytest

from mpqueue import (
    ItemStatus,
    ItemTimeoutError,
    JobQueue,
    RemoteError,
    Retry,
    current_item,
)
from mpqueue.events import ITEM_RETRY
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.systems import not_on_windows
from tests.support.this_system import IS_WINDOWS

pytestmark = pytest.mark.usefixtures("forked_workers")


def delays(recorder: Recorder) -> list[float]:
    return [told.delay for told in recorder.of(ITEM_RETRY)]


# --- which errors ---------------------------------------------------------------------------------------------------


class TroubleError(Exception):
    """Pickles, and can't be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def raise_trouble(item: Any) -> None:
    raise TroubleError("one", "two")


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


# --- timeouts -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.holds("error: ItemTimeoutError")
def test_timeout_error_holds_the_stack_where_the_item_hung() -> None:
    hangs = [do.hang_sleep, do.hang_python, do.hang_holding_gil, do.sigterm_ignore_and_hang]
    with JobQueue(4, max_retries=0, timeout=1) as queue:
        job = queue.run(range(4), lambda at: hangs[at](at), chunksize=1)
    for item, hang in zip(job.items, hangs, strict=True):
        assert isinstance(item.exception, ItemTimeoutError)
        assert isinstance(item.exception, TimeoutError)
        if hang is do.hang_holding_gil and IS_WINDOWS:  # no signal there shows where C code hangs
            assert item.exception.stack is None
        else:
            assert item.exception.stack is not None
            assert hang.__name__ in item.exception.stack


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
