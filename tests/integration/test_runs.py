"""`JobRun`: a started job as a future, and its items as they finish."""

from __future__ import annotations

import concurrent.futures
import gc
import threading

import pytest

from mpqueue import Job, JobItem, JobQueue, JobRun, JobStatus
from tests.support import handlers as do
from tests.support.leaks import threads_of_queues
from tests.support.recorder import Recorder
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


def test_run_is_a_future_that_resolves_to_the_finished_job_and_calls_its_callbacks_once(gate: Gate) -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", ["a"], do.block_until_told(gate))
        run = queue.start("job")
        assert isinstance(run, JobRun)
        assert isinstance(run, concurrent.futures.Future)
        assert isinstance(run.job, Job)
        assert (run.done(), run.running(), run.cancelled()) == (False, True, False)
        with pytest.raises(TimeoutError):
            run.result(0.01)
        assert run.job.status is JobStatus.RUNNING
        seen, called = list[object](), threading.Event()
        run.add_done_callback(seen.append)
        run.add_done_callback(lambda run: called.set())
        gate.open()
        assert run.result(300).id == run.job.id == "job"
        assert (run.done(), run.running(), run.exception()) == (True, False, None)
        assert called.wait(300)
    assert seen == [run]


def test_cancelling_the_run_cancels_the_job_and_result_still_gives_it(gate: Gate) -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", ["a", "b"], do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for("a")
        assert run.cancel() is True
        assert run.job.cancelled
        assert not run.done()
        gate.open()
        assert [item.result for item in run.as_completed()] == ["a"], "what ends pending does not come"
        assert run.result(300).status is JobStatus.CANCELLED
        assert run.job.results == ["a", None]
        assert (run.cancelled(), run.exception()) == (False, None)
        assert run.cancel() is True, "a finished one stays as it is"


def test_cancelling_a_run_leaves_another_job_of_the_same_id_alone(gate: Gate) -> None:
    may_go_on = threading.Event()
    with JobQueue(1) as queue:
        queue.on("job:finished", lambda event: may_go_on.wait(300))
        first = queue.create_job("job", [1], do.double)
        old = queue.start("job")
        wait_until(lambda: first.status.final)
        second = queue.create_job("job", ["a", "b"], do.block_until_told(gate), replace=True, chunksize=1)
        new = queue.start("job")
        assert not old.done(), "its end is still to be delivered"
        assert (old.cancel(), second.cancelled) == (True, False)
        assert (new.cancel(), second.cancelled) == (True, True)
        gate.open()
        may_go_on.set()
        assert (old.result(300).status, new.result(300).status) == (JobStatus.COMPLETED, JobStatus.CANCELLED)


def test_run_can_be_cancelled_after_its_job_was_cleared_and_while_its_queue_closes(gate: Gate) -> None:
    may_go_on = threading.Event()
    queue = JobQueue(1)
    queue.on("job:finished", lambda event: may_go_on.wait(300))
    job = queue.create_job("cleared", [1], do.double)
    cleared = queue.start("cleared")
    wait_until(lambda: job.status.final)
    queue.clear_job("cleared")
    assert cleared.cancel() is True
    queue.create_job("open", ["a"], do.block_until_told(gate))
    open_run = queue.start("open")
    gate.wait_for("a")
    queue.close(wait=False)
    assert open_run.cancel() is True
    gate.open()
    may_go_on.set()
    assert cleared.result(300).status is JobStatus.COMPLETED
    assert open_run.result(300).status is JobStatus.CANCELLED


def test_runs_may_be_waited_for_together() -> None:
    with JobQueue(2) as queue:
        runs = []
        for name in "abc":
            queue.create_job(name, range(20), do.double)
            runs.append(queue.start(name))
        done, not_done = concurrent.futures.wait(runs, timeout=300)
        assert (done, not_done) == (set(runs), set())
        assert set(concurrent.futures.as_completed(runs)) == set(runs)


# --- as_completed ---------------------------------------------------------------------------------------------------


def test_as_completed_gives_finished_items_first_then_the_rest_as_they_finish(gate: Gate) -> None:
    with JobQueue(2) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", list("abcde"), do.only("a", do.block_until_told(gate)), chunksize=1)
        run = queue.start("job")
        recorder.wait_for("job:progress", 4)
        items = run.as_completed()
        found = [next(items) for _ in range(4)]
        assert {item.result for item in found} == set("bcde")
        gate.open()
        found += items
    assert found[-1].result == "a"
    assert len(found) == 5
    assert all(isinstance(item, JobItem) for item in found)


def test_as_completed_comes_to_its_end_when_the_queue_is_closed_by_force(gate: Gate) -> None:
    queue = JobQueue(1)
    queue.create_job("job", ["a", "b"], do.only("b", do.announce(gate, do.hang_sleep)), chunksize=1)
    run = queue.start("job")
    items = run.as_completed()
    assert next(items).result == "a"
    gate.wait_for("b")
    queue.close(kill=True)
    assert list(items) == []
    assert run.result(300).status is JobStatus.CANCELLED


def test_unresolved_run_keeps_its_queue_alive(gate: Gate) -> None:
    def begin() -> JobRun:
        queue = JobQueue(1)
        queue.create_job("job", list("abc"), do.block_until_told(gate))
        return queue.start("job")

    run = begin()
    gate.wait_for("a")
    gc.collect()
    gate.open()
    assert run.result(300).results == ["a", "b", "c"]
    wait_until(lambda: not threads_of_queues())
