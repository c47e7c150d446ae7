"""Large things travel: 300 MB each way, many results at once, deep ones, and workers killed in the middle of it."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from mpqueue import JobQueue, RetryPolicy, WorkerCrashedError, current_item
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.results import results_of
from tests.support.strength import workers_of

pytestmark = pytest.mark.slow

BIG = 300_000_000


def test_300_mb_go_there_and_back() -> None:
    items = [b"left", bytes(BIG), b"right"]
    with JobQueue(1) as queue:
        assert queue.run(items, do.succeed, chunksize=3).results == items
        assert len(workers_of(queue)) == 1


def test_items_and_results_of_all_sizes_come_through_unchanged() -> None:
    with JobQueue(2) as queue:
        for size in (0, 1, 65_535, 65_536, 1_000_000):
            items = [os.urandom(size) for _ in range(8)]
            assert queue.run(items, do.succeed).results == items


def test_worker_that_is_killed_while_its_large_result_travels_costs_one_try() -> None:
    def handle(item: str) -> bytes:
        if item == "culprit" and current_item().attempt == 1:
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
            threading.Event().wait(0.03)
        return bytes(200_000_000) if item == "culprit" else b"small"

    with JobQueue(1, retry=RetryPolicy(3, base_delay=0)) as queue:
        recorder = Recorder(queue)
        job = queue.run(["left", "culprit", "right"], handle, chunksize=1)
        recorder.check(job)
        assert [len(result) for result in results_of(job)] == [5, 200_000_000, 5]
        assert all(isinstance(failed.exception, WorkerCrashedError) for failed in job.items[1].history)
        assert len(workers_of(queue)) == 1


def test_deeply_nested_items_fail_alone_or_come_through() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["left", nested, "right"], lambda item: item if isinstance(item, str) else "deep")
        assert [job.results[0], job.results[2]] == ["left", "right"]
        assert "recursion" in (job.items[1].error or "")
    while nested:
        nested = nested.pop()
