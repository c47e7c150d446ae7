"""mpqueue's own mistakes, which an engine makes here whose calls raise although they must not.

What a mistake touches ends with `InternalError`, what it does not goes on, and nothing waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import Executor, InternalError, JobQueue, JobRun, Pool
from mpqueue.backends import Backend, LokyBackend
from mpqueue.status import JobStatus
from mpqueue.testing import InlinePool
from tests.support.handlers import block_until_told, square, succeed
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

#: Seconds that anything may take to end.
LIMIT = 60.0


class Flawed:
    """A pool or a lane of another engine, of which the methods that are named in ``mistakes`` raise."""

    def __init__(self, sound: Any, mistakes: set[str]) -> None:
        vars(self).update(sound=sound, mistakes=mistakes)

    def __getattr__(self, name: str) -> Any:
        if name in self.mistakes:
            return self.fail
        found = getattr(self.sound, name)
        return self.flawed_lane if name == "lane" else found

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.sound, name, value)

    def fail(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    def flawed_lane(self, number: int) -> Any:
        lane = self.sound.lane(number)
        return None if lane is None else Flawed(lane, self.mistakes)


class FlawedEngine:
    """The engine that a queue is given: the methods that are in its ``mistakes`` raise, from when they are there."""

    def __init__(self, sound: Backend, *mistakes: str) -> None:
        self.sound, self.mistakes = sound, set(mistakes)
        self.capabilities = sound.capabilities

    def count_workers(self) -> int:
        return self.sound.count_workers()

    def open(self, settings: Any, inbox: Any) -> Any:
        return Flawed(self.sound.open(settings, inbox), self.mistakes)


def check(run: JobRun) -> None:
    """The run ended with the mistake, and its items lost no try by it."""
    with pytest.raises(InternalError, match=r"mpqueue made a mistake .*; please report it") as raised:
        run.result(LIMIT)
    assert "ZeroDivisionError: a mistake of ours" in raised.value.traceback
    assert run.job.status is JobStatus.COMPLETED_WITH_ERRORS
    failed = [item for item in run.job.items if item.status == "failed"]
    assert failed
    assert all(isinstance(item.exception, InternalError) and not item.attempts for item in failed)


@pytest.mark.holds("fault: mpqueue itself has a bug", "error: InternalError")
def test_the_job_that_a_mistake_touched_ends_and_the_one_beside_it_goes_on(tmp_path: Path) -> None:
    engine, gate = FlawedEngine(LokyBackend()), Gate(tmp_path)
    with JobQueue(2, backend=engine) as queue:
        queue.create_job("bystander", ["a", "b"], block_until_told(gate), chunksize=1, concurrency=1)
        bystander = queue.start("bystander")
        gate.wait_for("a")
        engine.mistakes.add("send")
        queue.create_job("victim", [1, 2], square)
        check(queue.start("victim"))
        engine.mistakes.clear()
        assert not bystander.done()
        gate.open()
        assert bystander.result(LIMIT).results == ["a", "b"]
        assert queue.retry_failed("victim").result(LIMIT).results == [1, 4]


@pytest.mark.parametrize("mistake", ["start", "send", "lane"])
def test_a_mistake_at_the_start_of_a_worker_or_of_its_chunk_ends_the_job(mistake: str) -> None:
    engine = FlawedEngine(LokyBackend(), mistake)
    with JobQueue(1, backend=engine) as queue:
        queue.create_job("job", [1, 2], square)
        with pytest.raises(InternalError):
            queue.start("job").result(LIMIT)


@pytest.mark.parametrize("mistake", ["set_flags", "kill"])
def test_a_mistake_while_a_job_is_paused_or_cancelled_ends_it(mistake: str, tmp_path: Path) -> None:
    engine, gate = FlawedEngine(LokyBackend()), Gate(tmp_path)
    with JobQueue(1, backend=engine) as queue:
        queue.create_job("job", ["a", "b"], block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for("a")
        engine.mistakes.add(mistake)
        if mistake == "kill":
            queue.cancel("job", kill=True)
        else:
            queue.pause("job")
        with pytest.raises(InternalError):
            run.result(LIMIT)
        gate.open()


def test_calls_of_a_queue_that_a_mistake_has_ended_raise_it() -> None:
    engine = FlawedEngine(InlinePool(), "send", "recycle")  # it can't be mended either
    with JobQueue(1, backend=engine) as queue:
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


def test_a_journal_does_not_record_it_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path, gate, engine = tmp_path / "journal.db", Gate(tmp_path), FlawedEngine(InlinePool())
    with JobQueue(1, journal=path, backend=engine) as queue:
        job = queue.create_job("job", range(4), block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for(0)
        engine.mistakes.add("send")
        gate.open()
        check(run)
    with JobQueue(1, journal=path) as queue:
        job = queue.create_job("job", range(4), block_until_told(gate), chunksize=1)
        assert not job.failures
        assert queue.start("job").result(LIMIT).results == [0, 1, 2, 3]


async def amapped(backend: Backend) -> list[int]:
    return await mpqueue.amap(square, range(10), backend=backend)


async def awaited(run: JobRun) -> object:
    return await run


def in_pool(call: Callable[[Pool], object]) -> Callable[[Backend], object]:
    def use(backend: Backend) -> object:
        with Pool(1, backend=backend) as pool:
            return call(pool)

    return use


def in_executor(call: Callable[[Executor], object]) -> Callable[[Backend], object]:
    def use(backend: Backend) -> object:
        with Executor(1, backend=backend) as executor:
            return call(executor)

    return use


def in_job(take: Callable[[JobRun], object]) -> Callable[[Backend], object]:
    def use(backend: Backend) -> object:
        with JobQueue(1, backend=backend) as queue:
            queue.create_job("job", [1], square)
            return take(queue.start("job"))

    return use


USES: dict[str, Callable[[Backend], object]] = {
    "map": lambda backend: mpqueue.map(square, range(10), backend=backend),
    "amap": lambda backend: asyncio.run(amapped(backend)),
    "imap": lambda backend: list(mpqueue.imap(square, range(10), backend=backend)),
    "await": in_job(lambda run: asyncio.run(awaited(run))),
    "as_completed": in_job(lambda run: list(run.as_completed())),
    "Pool.map": in_pool(lambda pool: pool.map(square, range(10))),
    "Pool.apply": in_pool(lambda pool: pool.apply(square, (1,))),
    "Pool.imap": in_pool(lambda pool: list(pool.imap(square, range(10)))),
    "Executor.submit": in_executor(lambda executor: executor.submit(square, 1).result(LIMIT)),
    "Executor.map": in_executor(lambda executor: list(executor.map(square, range(10)))),
}


@pytest.mark.parametrize("mistakes", [["send"], ["send", "recycle"]], ids=["its job ends", "its queue ends"])
@pytest.mark.parametrize("use", USES)
def test_every_way_to_run_a_function_raises_it(use: str, mistakes: list[str]) -> None:
    with pytest.raises(InternalError):
        USES[use](FlawedEngine(InlinePool(), *mistakes))
