"""Calls that meet: what happens when two things that a queue can be asked for come at the same moment."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobFinished, JobQueue, JobRun, JobStatus, QueueClosedError, RetryPolicy
from mpqueue.backends import LokyBackend
from mpqueue.testing import InlinePool
from tests.support.handlers import fail_with, hang_sleep, only, return_length, succeed
from tests.support.programs import run_program
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")

NEVER = RetryPolicy(max_retries=0)


def test_failed_items_can_be_retried_from_the_listener_that_hears_of_the_end(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", [1], fail_with(ValueError("no")), retry=NEVER)
        again: list[JobRun] = []

        @queue.on("job:finished")
        def retry(event: JobFinished) -> None:
            if not again:
                again.append(queue.retry_failed("job"))
                assert not first.done()

        first = queue.start("job")
        assert first.result(300).id == "job"
        wait_until(lambda: again)
        assert again[0].result(300).status is JobStatus.COMPLETED_WITH_ERRORS
        assert len(first.job.items[0].history) == 2
        assert first.job.finished_at is not None


def test_each_run_resolves_with_its_own_end_while_listeners_are_slow(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        heard, go_on = threading.Event(), threading.Event()
        told: list[JobFinished] = []
        ends: list[int] = []

        @queue.on("job:finished")
        def wait(event: JobFinished) -> None:
            told.append(event)
            heard.set()
            go_on.wait(300)

        queue.create_job("job", [1], fail_with(ValueError("no")), retry=NEVER)
        first = queue.start("job")
        assert heard.wait(300)
        second = queue.retry_failed("job")
        wait_until(lambda: second.job.status.final, what="the job to end again, which nobody has heard of yet")
        second.add_done_callback(lambda run: ends.append(len(told)))
        assert not first.done()
        assert not second.done()
        go_on.set()
        first.result(300)
        second.result(300)
        wait_until(lambda: ends)
        assert ends == [2], "the second run resolved after both ends were told"


# --- start and close ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [False, True])
def test_a_start_that_meets_a_close_runs_or_is_refused(kill: bool) -> None:
    for _ in range(20):
        queue, both = JobQueue(1, backend=InlinePool()), threading.Barrier(2)
        queue.create_job("job", [1], succeed)

        def close(queue: JobQueue = queue, both: threading.Barrier = both) -> None:
            both.wait(300)
            queue.close(kill=kill)

        closer = threading.Thread(target=close)
        closer.start()
        both.wait(300)
        try:
            status = queue.start("job").result(300).status
        except QueueClosedError:
            (job,) = queue.jobs()
            assert job.status is JobStatus.PENDING
        else:
            assert status is JobStatus.COMPLETED or (kill and status is JobStatus.CANCELLED)
        closer.join(300)
        assert not closer.is_alive()


class SlowToOpen(LokyBackend):
    """Its workers do not start before they are let."""

    opened, go_on = threading.Event(), threading.Event()

    def open(self, *args: Any, **kwargs: Any) -> Any:
        self.opened.set()
        assert self.go_on.wait(300)
        return super().open(*args, **kwargs)


def test_workers_that_start_while_the_queue_is_killed_are_ended() -> None:
    queue = JobQueue(1, backend=SlowToOpen())
    queue.create_job("job", ["bystander", "hangs"], only("hangs", hang_sleep))
    runs: list[JobRun] = []
    starter = threading.Thread(target=lambda: runs.append(queue.start("job")))
    starter.start()
    assert SlowToOpen.opened.wait(300)
    killer = threading.Thread(target=queue.close, kwargs={"kill": True})
    killer.start()
    wait_until(lambda: "closed" in repr(queue))
    SlowToOpen.go_on.set()
    starter.join(300)
    killer.join(300)
    assert runs[0].result(0).status is JobStatus.CANCELLED


def test_closed_queue_that_is_still_held_keeps_no_shared_memory() -> None:
    with JobQueue(1) as queue:
        assert queue.run([bytes(1 << 20)], return_length).results == [1 << 20]
        assert shared_memory_held() > 0
    assert shared_memory_held() == 0
    assert queue.get_stats().completed == 1


def shared_memory_held() -> int:
    """How many segments this process has open."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum("mpqueue-segment" in os.readlink(link) for link in links if link.is_symlink())


#: Whatever is dropped, in whatever state, is dropped inside a garbage collection, which may begin at any allocation.
DROPPED = """
import gc, itertools, logging, random, sys, warnings
import mpqueue

class Cycle:
    def __init__(self):
        self.itself = self

def double(item):
    return 2 * item

def drop_some(chance):
    held = Cycle()
    what = chance.choice(["pool", "stream", "executor", "queue"])
    if what == "pool":
        held.pool = mpqueue.Pool(1, max_retries=0)
        for make in chance.choices([held.pool.imap, held.pool.imap_unordered], k=3):
            inner = Cycle()
            inner.results = make(double, itertools.count())
            for _ in range(chance.randrange(3)):
                next(inner.results)
            del inner
            if chance.random() < 0.5:
                assert held.pool.map(double, range(3)) == [0, 2, 4]
    elif what == "stream":
        held.results = mpqueue.imap(double, itertools.count(), concurrency=1)
        for _ in range(chance.randrange(5)):
            next(held.results)
    elif what == "executor":
        held.executor = mpqueue.Executor(1)
        held.calls = [held.executor.submit(double, item) for item in range(chance.randrange(4))]
        held.mapped = held.executor.map(double, range(50), buffersize=chance.choice([None, 9]))
        next(held.mapped)
    else:
        held.queue = mpqueue.JobQueue(1)
        held.queue.create_job("job", range(chance.randrange(1, 50)), double)
        held.run = held.queue.start("job")

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    chance = random.Random(int(sys.argv[1]))
    for _ in range(30):
        gc.set_threshold(chance.choice([1, 2, 5, 20]))
        drop_some(chance)
    gc.set_threshold(700)
    print(mpqueue.map(double, range(3)))
"""


@pytest.mark.long(but=["1"])
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_a_garbage_collection_drops_nothing_waits(tmp_path: Path, seed: int) -> None:
    assert run_program(tmp_path, DROPPED, str(seed)).stdout == "[0, 2, 4]\n"
