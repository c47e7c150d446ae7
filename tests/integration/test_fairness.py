"""Several jobs on one queue: who gets the workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue
from mpqueue.events import JOB_PROGRESS
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.waiting import Gate

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


def test_higher_priority_goes_first(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        gate = start_behind_a_blocker(queue, tmp_path)
        for name, priority in (("low", -1), ("middle", 0), ("high", 5)):
            queue.create_job(name, range(20), do.succeed, priority=priority)
            queue.start(name)
        gate.open()
    assert order_of(recorder, "low", "middle", "high") == ["high"] * 20 + ["middle"] * 20 + ["low"] * 20
