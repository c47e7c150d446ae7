"""mpqueue's own mistakes, which an engine makes here whose calls raise although they must not.

The queue ends with `InternalError`, and nothing waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mpqueue import InternalError, JobQueue, JobRun
from mpqueue.backends import LokyBackend
from mpqueue.status import JobStatus
from mpqueue.testing import InlinePool
from tests.support.front_ends import FRONT_ENDS, FrontEnd
from tests.support.handlers import block_until_told, square, succeed
from tests.support.waiting import Gate
from tests.support.wrapped_engine import WrappedEngine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

#: Seconds that anything may take to end.
LIMIT = 60.0


def make_a_mistake() -> None:
    raise ZeroDivisionError("a mistake of ours")


def flawed() -> WrappedEngine:
    """An engine that can't send anything to its workers."""
    return WrappedEngine(InlinePool(), {"send": make_a_mistake})


def check(run: JobRun) -> None:
    """The run ended with the mistake, and its items lost no try by it."""
    with pytest.raises(InternalError, match=r"mpqueue made a mistake .*; please report it") as raised:
        run.result(LIMIT)
    assert "ZeroDivisionError: a mistake of ours" in raised.value.traceback
    assert run.job.status is JobStatus.COMPLETED_WITH_ERRORS
    assert not run.job.failures


@pytest.mark.holds("error: InternalError", "fault: mpqueue itself has a bug")
def test_all_jobs_of_a_queue_end_with_a_mistake_and_keep_what_has_ended(gate: Gate) -> None:
    def wait_from_the_second_on(item: str) -> str:
        if item != "a":
            gate.pass_through(item)
        return item

    engine = WrappedEngine(LokyBackend())
    with JobQueue(2, backend=engine) as queue:
        queue.create_job("first", ["a", "b", "c"], wait_from_the_second_on, chunksize=1, concurrency=1)
        first = queue.start("first")
        gate.wait_for("b")
        engine.calls["send"] = make_a_mistake
        queue.create_job("second", [1, 2], square)
        with pytest.raises(InternalError):
            queue.start("second").result(LIMIT)
        check(first)
        assert first.job.items[0].result == "a"
        assert {item.status for item in first.job.items[1:]} <= {"processing", "pending"}


def test_calls_of_a_queue_that_a_mistake_has_ended_raise_it() -> None:
    with JobQueue(1, backend=flawed()) as queue:
        queue.create_job("job", [1], succeed)
        with pytest.raises(InternalError):
            queue.start("job").result(LIMIT)
        for call in (
            lambda: queue.create_job("next", [1], succeed),
            lambda: queue.start("job"),
            lambda: queue.pause("job"),
            lambda: queue.cancel("job"),
        ):
            with pytest.raises(InternalError, match="mistake"):
                call()
        assert queue.get_job("job") is not None
        assert queue.get_stats().total == 1


def test_a_journal_does_not_record_it_and_the_next_run_goes_on(tmp_path: Path, gate: Gate) -> None:
    path, engine = tmp_path / "journal.db", WrappedEngine(InlinePool(), {})
    with JobQueue(1, journal=path, backend=engine) as queue:
        job = queue.create_job("job", range(4), block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for(0)
        engine.calls["send"] = make_a_mistake
        gate.open()
        check(run)
    with JobQueue(1, journal=path) as queue:
        job = queue.create_job("job", range(4), block_until_told(gate), chunksize=1)
        assert not job.failures
        assert queue.start("job").result(LIMIT).results == [0, 1, 2, 3]


@pytest.mark.parametrize("front_end", [one for one in FRONT_ENDS if "joblib" not in one.name], ids=str)
def test_every_way_to_call_a_function_raises_it(front_end: FrontEnd) -> None:
    with front_end.open(backend=flawed()) as call, pytest.raises(InternalError):
        list(call(square, range(10)))


async def awaited(run: JobRun) -> object:
    return await run


@pytest.mark.parametrize("wait", [lambda run: asyncio.run(awaited(run)), lambda run: list(run.as_completed())])
def test_every_way_to_wait_for_a_run_raises_it(wait: Callable[[JobRun], object]) -> None:
    with JobQueue(1, backend=flawed()) as queue:
        queue.create_job("job", [1], square)
        run = queue.start("job")
        with pytest.raises(InternalError):
            wait(run)
