"""Several jobs on one queue: who gets the workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, current_item
from mpqueue.events import JOB_PROGRESS
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


def spend(milliseconds: float) -> Callable[[Any], Any]:
    """A handler that keeps a processor busy for so long."""

    def handle(item: Any) -> Any:
        end = time.process_time() + milliseconds / 1000
        while time.process_time() < end:
            pass
        return item

    return handle


def start_behind_a_blocker(queue: JobQueue, folder: Path) -> Gate:
    """Occupy every worker, so that jobs which are started now begin together when the gate opens."""
    gate = Gate(folder)
    queue.create_job("blocker", range(queue.concurrency), do.block_until_told(gate), chunksize=1)
    queue.start("blocker")
    gate.wait_for(*range(queue.concurrency))
    return gate


def order_of(recorder: Recorder, *job_ids: str) -> list[str]:
    """Whose items ended, in order."""
    return [told.job_id for told in recorder.of(JOB_PROGRESS) if told.job_id in job_ids]


@pytest.mark.parametrize("workers", [1, 2])
def test_two_equal_jobs_share_the_workers(workers: int, tmp_path: Path) -> None:
    with JobQueue(workers) as queue:
        recorder = Recorder(queue)
        gate = start_behind_a_blocker(queue, tmp_path)
        for name in ("one", "two"):
            queue.create_job(name, range(40), spend(20))
            queue.start(name)
        gate.open()
    order = order_of(recorder, "one", "two")
    # Both are under way all the time: neither is through before the other has half of its own.
    last = {name: len(order) - order[::-1].index(name) for name in ("one", "two")}
    first_through = min(last, key=lambda name: last[name])
    other = "two" if first_through == "one" else "one"
    assert order[: last[first_through]].count(other) >= 20


def test_small_job_need_not_wait_for_a_large_one() -> None:
    with JobQueue(2) as queue:
        recorder = Recorder(queue)
        queue.create_job("large", range(300), spend(10))
        queue.start("large")
        recorder.wait_for(JOB_PROGRESS, 10)
        small = queue.run(range(4), spend(10), id="small")
        assert small.completed == 4
        large = queue.get_job("large")
        assert large is not None
        assert not large.status.final
        queue.cancel("large")


def test_higher_priority_goes_first(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        gate = start_behind_a_blocker(queue, tmp_path)
        for name, priority in (("low", -1), ("middle", 0), ("high", 5)):
            queue.create_job(name, range(20), do.succeed, priority=priority)
            queue.start(name)
        gate.open()
    assert order_of(recorder, "low", "middle", "high") == ["high"] * 20 + ["middle"] * 20 + ["low"] * 20


def test_job_of_higher_priority_that_comes_later_overtakes(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        queue.create_job("low", range(10), do.only(3, do.block_until_told(gate)), chunksize=1)
        queue.start("low")
        gate.wait_for(3)
        queue.create_job("high", range(10), do.succeed, priority=1)
        queue.start("high")
        gate.open()
    order = order_of(recorder, "low", "high")
    assert order[:4] == ["low"] * 4
    after = order[4:]
    # One more item of the old job may have been on the worker already.
    assert after.index("high") <= 1
    assert after[after.index("high") :][:10] == ["high"] * 10


def test_worker_with_nothing_of_high_priority_to_do_takes_what_there_is(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with JobQueue(2) as queue:
        queue.create_job("high", ["x"], do.block_until_told(gate), priority=9)
        high = queue.start("high")
        gate.wait_for("x")
        assert queue.run(range(10), do.double).completed == 10
        gate.open()
        assert high.result(60).results == ["x"]


def test_paused_job_frees_its_workers_for_others(tmp_path: Path) -> None:
    with JobQueue(2) as queue:
        queue.create_job("paused", range(100_000), spend(0.05))
        run = queue.start("paused")
        wait_until(lambda: run.job.completed > 100)
        queue.pause("paused")
        gate = Gate(tmp_path)
        queue.create_job("other", range(2), do.block_until_told(gate), chunksize=1)
        other = queue.start("other")
        gate.wait_for(0, 1)
        at_that_time = run.job.completed
        gate.open()
        other.result(60)
        assert run.job.completed == at_that_time
        queue.cancel("paused")


def test_many_jobs_at_once_all_end_and_each_worker_serves_several() -> None:
    def handle(item: int) -> int:
        return current_item().worker

    with JobQueue(2) as queue:
        runs = []
        for number in range(30):
            queue.create_job(str(number), range(20), handle)
            runs.append(queue.start(str(number)))
        workers = Counter(worker for run in runs for worker in run.result(60).results)
    assert sum(workers.values()) == 600
