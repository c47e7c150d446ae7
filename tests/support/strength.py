"""Proof that a pool has all its workers, at work at the same time."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mpqueue import JobQueue, JobStatus
from tests.support.handlers import block_until_told, return_pid
from tests.support.results import results_of
from tests.support.waiting import Gate


def workers_of(queue: JobQueue) -> set[int]:
    """The process ids of all workers of a queue, found by running an item in each of them at the same time.

    Raises:
        AssertionError: There are not `concurrency` of them within the usual time.
    """
    with tempfile.TemporaryDirectory() as folder:
        gate = Gate(Path(folder))
        handler = block_until_told(gate, return_pid)
        # A time limit of its own: on a busy machine the first may wait long for the last, and is no hung item.
        job = queue.create_job(f"strength in {folder}", range(queue.concurrency), handler, timeout=60)
        run = queue.start(job.id)
        try:
            gate.wait_for(*range(queue.concurrency))
        finally:
            gate.open()
        assert run.result(timeout=300).status is JobStatus.COMPLETED
        queue.clear_job(job.id)
    pids = set(results_of(job))
    assert len(pids) == queue.concurrency
    return pids
