"""Awaiting runs in asyncio: what only its own tools do. See test_amap.py for what holds in every loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from mpqueue import Job, JobQueue, JobStatus
from tests.support import handlers as do
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

T = TypeVar("T")

#: Seconds until a test counts as hanging.
PATIENCE = 300.0


def in_loop(main: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE):
            return await main()

    return asyncio.run(bounded())


async def arrive(gate: Gate, *names: object) -> None:
    await asyncio.to_thread(gate.wait_for, *names)


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

    jobs = in_loop(main)
    assert sorted(job.id for job in jobs) == list("abcdef")
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}


def test_cancelled_job_is_awaited_without_cancelled_error(tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    async def main() -> Job:
        async with JobQueue(1) as queue:
            queue.create_job("job", ["a"], do.announce(gate, do.hang_sleep))
            run = queue.start("job")
            await arrive(gate, "a")
            queue.cancel("job", kill=True)
            return await run

    assert in_loop(main).status is JobStatus.CANCELLED


def test_run_may_be_awaited_in_a_loop_other_than_the_one_that_started_it() -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", list("abc"), do.succeed)
        run = queue.start("job")

        async def main() -> Job:
            return await run

        assert in_loop(main).results == ["a", "b", "c"]
        assert in_loop(main).results == ["a", "b", "c"]


def test_loop_that_is_closed_before_the_job_ends_harms_nobody(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with JobQueue(1) as queue:
        queue.create_job("job", ["a"], do.block_until_told(gate))
        run = queue.start("job")

        async def main() -> None:
            awaiter = asyncio.ensure_future(run)
            await arrive(gate, "a")
            awaiter.cancel()

        in_loop(main)
        gate.open()
        assert run.result(PATIENCE).results == ["a"]
