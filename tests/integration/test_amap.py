"""`mpqueue.amap`, and awaiting runs: in asyncio, in trio, and in anyio on trio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest

import mpqueue
from mpqueue import (
    Job,
    JobProgress,
    JobQueue,
    JobRun,
    JobStatus,
)
from mpqueue.events import JOB_PROGRESS
from mpqueue.testing import close_shared_pool
from tests.support import handlers as do
from tests.support.leaks import threads_of_queues
from tests.support.loops import LONG_WORK, Run, arrive, each_loop, in_loops
from tests.support.programs import is_running
from tests.support.waiting import Gate, spend, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]


@in_loops
async def test_loop_runs_on_and_calls_run_side_by_side(gate: Gate) -> None:
    found: dict[str, list[str]] = {}

    async def call(name: str) -> None:
        found[name] = await mpqueue.amap(do.block_until_told(gate), name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, "a")
        tasks.start_soon(call, "b")
        await arrive(gate, 2)
        gate.open()
    assert found == {"a": ["a"], "b": ["b"]}


@in_loops
async def test_cancelling_ends_the_work_and_its_running_items(gate: Gate) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mpqueue.amap, do.announce_pid(gate), range(100))
        pids = await arrive(gate)
        tasks.cancel_scope.cancel()
    wait_until(lambda: not any(is_running(int(pid)) for pid in gate.arrived()), what="the running items to end")
    assert pids <= gate.arrived()
    assert await mpqueue.amap(do.double, "a") == ["aa"], "the pool goes on"
    assert close_shared_pool(), "and no call uses it"


# --- queues and runs ------------------------------------------------------------------------------------------------


@in_loops
async def test_queue_can_be_entered_and_its_runs_awaited_and_iterated_over() -> None:
    async with JobQueue(2) as queue:
        queue.create_job("job", list("abc"), do.only("b", do.fail), max_retries=0)
        started = queue.start("job")
        found = {str(item.id): item.error async for item in started}
        job = await started
        assert job is await started
    assert found == {"0": None, "1": "ValueError: cannot do 'b'", "2": None}
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS


@in_loops
async def test_cancelled_wait_for_an_item_loses_none_and_ends_nothing(gate: Gate) -> None:
    async with JobQueue(1) as queue:
        queue.create_job("job", range(30), do.only(0, do.block_until_told(gate)), chunksize=1)
        started = queue.start("job")
        items, found, waits = aiter(started), [], 0
        with anyio.move_on_after(0.05) as scope:
            await anext(items)
        assert scope.cancelled_caught
        gate.open()
        await started
        with contextlib.suppress(StopAsyncIteration):
            while True:
                if not scope.cancelled_caught:
                    spend(LONG_WORK)
                with anyio.move_on_after(0) as scope:  # ends it at the first turn
                    found.append((await anext(items)).result)
                waits += scope.cancelled_caught
        assert found == list(range(30))
        assert waits > 10


@in_loops
async def test_a_loop_over_a_run_that_is_left_hears_nothing_more(gate: Gate) -> None:
    async with JobQueue(1) as queue:
        queue.create_job("job", ["a", "b"], do.only("b", do.block_until_told(gate)), chunksize=1)
        started = queue.start("job")
        async for item in started:
            assert item.result == "a"
            break
        items: Any = aiter(started)
        async with contextlib.aclosing(items):
            assert (await anext(items)).result == "a"
        assert [item async for item in items] == []
        gate.open()


@in_loops
async def test_run_goes_on_without_the_one_who_awaited_it(gate: Gate) -> None:
    async with JobQueue(1) as queue:
        queue.create_job("job", ["a"], do.block_until_told(gate))
        started = queue.start("job")
        with anyio.move_on_after(0.05) as scope:
            await started
        assert scope.cancelled_caught
        gate.open()
        assert (await started).results == ["a"]


@in_loops
async def test_job_can_be_made_to_end_with_the_one_who_awaits_it(gate: Gate) -> None:
    async with JobQueue(1) as queue:
        job = queue.create_job("job", ["a"], do.announce_pid(gate))
        started = queue.start("job", cancel_with_awaiter=True, kill_on_cancel=True)

        async def wait() -> None:
            await started

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await arrive(gate)
            tasks.cancel_scope.cancel()
        assert (await started).status is JobStatus.CANCELLED
        assert job.cancelled


@in_loops
async def test_error_inside_the_block_ends_running_items(gate: Gate) -> None:
    async def leave_by_an_error() -> None:
        async with JobQueue(1) as queue:
            queue.create_job("job", ["a"], do.announce_pid(gate))
            queue.start("job")
            await arrive(gate)
            raise LookupError

    with pytest.raises(LookupError):
        await leave_by_an_error()
    wait_until(lambda: not any(is_running(int(pid)) for pid in gate.arrived()), what="the running item to end")


async def come_true(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - a thread to wait in would outlive the test
        await anyio.sleep(0.001)


@each_loop
@pytest.mark.parametrize("end", ["async with", "adrain"])
def test_a_close_that_is_cancelled_waits_for_no_listener(end: str, run: Run) -> None:
    inside, may_go_on, told = threading.Event(), threading.Event(), list[bool]()
    queues, runs = list[JobQueue](), list[JobRun[Any, Any]]()

    def hear(_: JobProgress) -> None:
        inside.set()
        told.append(may_go_on.wait(300))  # as one that waits for the loop

    async def use_queue() -> None:
        async with JobQueue(1) as queue:
            queue.create_job("job", ["a", "bystander"], do.return_pid)
            queue.on(JOB_PROGRESS, hear)
            runs.append(queue.start("job"))
            await come_true(lambda: inside.is_set() and runs[0].job.status.final)
            queues.append(queue)
            if end == "adrain":
                await queue.adrain(600)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use_queue)
            await come_true(lambda: queues and "JobQueue closed" in repr(queues[0]))
            tasks.cancel_scope.cancel()
        assert told == [], "it was still waited for"
        assert not any(is_running(pid) for pid in runs[0].job.results if pid is not None)
        # the thread that has closed the queue may be at its very end
        await come_true(lambda: [name.rpartition("-")[0] for name in threads_of_queues()] == ["mpqueue-listeners"])
        assert not runs[0].done()

    try:
        run(main)
    finally:
        may_go_on.set()
    assert runs[0].result(300).completed == 2
    assert told == [True, True]
    wait_until(lambda: not threads_of_queues())


@in_loops
async def test_the_loop_goes_on_while_a_cancelled_close_ends() -> None:
    inside, may_go_on, kept = threading.Event(), threading.Event(), list[dict[str, Any]]()
    runs = list[JobRun[Any, Any]]()

    class Rows:
        def write(self, rows: Sequence[dict[str, Any]]) -> None:
            inside.set()
            if may_go_on.wait(300):
                kept.extend(rows)

        def close(self) -> None:
            pass

    async def use_queue() -> None:
        async with JobQueue(1) as queue:
            handler = do.only("hangs", do.hang_sleep)
            queue.create_job("job", ["bystander", "hangs"], handler, chunksize=1, results=Rows())
            runs.append(queue.start("job"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use_queue)
        await come_true(inside.is_set)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await come_true(lambda: runs[0].job.cancelled)
        may_go_on.set()
    assert runs[0].result(300).cancelled, "the close waits for the sink, and that for the loop"
    assert kept


# --- what only asyncio's own tools do ------------------------------------------------------------

PATIENCE = 300.0


def test_gather_wait_for_and_as_completed_work() -> None:
    async def main() -> list[Job]:
        async with JobQueue(2) as queue:
            for name in "abcdef":
                queue.create_job(name, range(10), do.double)
            together = await asyncio.gather(queue.start("a"), queue.start("b"))
            alone = await asyncio.wait_for(queue.start("c"), PATIENCE)
            one_by_one = [await ended for ended in asyncio.as_completed([queue.start("d"), queue.start("e")])]
            task = asyncio.ensure_future(queue.start("f"))
            await asyncio.wait([task])
            return [*together, alone, *one_by_one, task.result()]

    jobs = asyncio.run(main())
    assert sorted(job.id for job in jobs) == list("abcdef")
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}


def test_run_may_be_awaited_in_a_loop_other_than_the_one_that_started_it() -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", list("abc"), do.succeed)
        run = queue.start("job")

        async def main() -> Job:
            return await run

        assert asyncio.run(main()).results == ["a", "b", "c"]
        assert asyncio.run(main()).results == ["a", "b", "c"]


def test_loop_that_is_closed_before_the_job_ends_harms_nobody(gate: Gate) -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", ["a"], do.block_until_told(gate))
        run = queue.start("job")

        async def main() -> None:
            awaiter = asyncio.ensure_future(run)
            await asyncio.to_thread(gate.wait_for, "a")
            awaiter.cancel()

        asyncio.run(main())
        gate.open()
        assert run.result(PATIENCE).results == ["a"]
