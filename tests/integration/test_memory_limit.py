"""A limit of memory for each worker, with real workers and real memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from mpqueue import JobQueue, MemoryLimitError, RetryPolicy
from tests.support import handlers as do
from tests.support import hogs
from tests.support.hogs import MB
from tests.support.results import results_of

pytestmark = pytest.mark.slow


def sampler_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "sampler" in thread.name]


@pytest.mark.holds("error: MemoryLimitError", "fault: the worker dies: segfault, os._exit, SIGKILL, out of memory")
def test_an_item_that_takes_too_much_fails_and_nobody_else_does() -> None:
    handler = do.only(0, lambda item: hogs.take_and_hang(600))
    with JobQueue(2, retry=RetryPolicy(max_retries=1, base_delay=0.0), per_worker={"memory": "300MB"}) as queue:
        job = queue.run(range(50), handler)
    hog, *others = job.items
    assert (hog.status, hog.attempts) == ("failed", 2)
    assert isinstance(hog.exception, MemoryLimitError)
    assert isinstance(hog.exception, MemoryError)
    assert "more than per_worker['memory'] of 300 MB" in str(hog.exception)
    assert hog.peak_memory is not None
    assert hog.peak_memory > 300_000_000
    assert [(item.result, item.attempts) for item in others] == [(at, 1) for at in range(1, 50)]


def test_a_worker_that_grows_from_item_to_item_is_replaced_and_nobody_is_charged() -> None:
    def handle(item: int) -> int:
        hogs.leak(25)
        return do.return_pid(item)

    with JobQueue(2, per_worker={"memory": 200 * MB}) as queue:
        job = queue.run(range(30), handle)
    assert (job.completed, job.retries) == (30, 0)
    assert {item.attempts for item in job.items} == {1}
    assert len(set(results_of(job))) >= 4


@pytest.mark.long
def test_shared_memory_is_nobody_s_own_and_does_not_count() -> None:
    array = np.ones(400 * MB, np.uint8)
    with JobQueue(1, max_retries=0, per_worker={"memory": "200MB"}) as queue:
        job = queue.run([array, array], hogs.sum_of)
        assert results_of(job) == [400 * MB] * 2


def test_the_sampler_runs_only_where_there_is_a_limit() -> None:
    with JobQueue(1) as queue:
        queue.run([1], do.succeed)
        assert sampler_threads() == []
    with JobQueue(1, per_worker={"memory": "1GB"}) as queue:
        queue.run([1], do.succeed)
        assert len(sampler_threads()) == 1
    assert sampler_threads() == []
