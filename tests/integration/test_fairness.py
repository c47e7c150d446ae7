"""Several jobs on one queue: who gets the workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpqueue import JobQueue
from mpqueue.events import JOB_PROGRESS
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


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


def test_higher_priority_goes_first(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        gate = start_behind_a_blocker(queue, tmp_path)
        for name, priority in (("low", -1), ("middle", 0), ("high", 5)):
            queue.create_job(name, range(20), do.succeed, priority=priority)
            queue.start(name)
        gate.open()
    assert order_of(recorder, "low", "middle", "high") == ["high"] * 20 + ["middle"] * 20 + ["low"] * 20
