"""Pause, resume and cancel: in the seed's words, in every state, and what becomes of the items."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from mpqueue import ItemStatus, JobQueue, JobStateError, JobStatus
from mpqueue.events import JOB_FINISHED, JOB_PAUSED, JOB_PROGRESS, JOB_RESUMED, JOB_STARTED
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.strength import workers_of
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")


# --- stopping by itself -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_too_many_failures_stop_it_and_what_runs_may_end(tmp_path: Path) -> None:
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(100), do.fail, id="job", max_failures=3, chunksize=1)
        recorder.check(job)
        assert (job.status, job.cancelled) == (JobStatus.CANCELLED, True)
        assert str(job.stopped_why).endswith(" items failed, more than max_failures=3")
        assert 4 <= job.failed < 10
        exactly = queue.run(range(3), do.fail, max_failures=3)
        assert (exactly.status, exactly.stopped_why) == (JobStatus.COMPLETED_WITH_ERRORS, None)
        # Failures count from its start.
        queue.create_job("again", range(4), do.fail, max_failures=4)
        queue.start("again").result()
        assert queue.retry_failed("again").result().stopped_why is None


@pytest.mark.parametrize("state", ["running", "paused", "open"])
def test_its_deadline_stops_it(state: str, gate: Gate) -> None:
    with JobQueue(1) as queue:
        handler = do.only(1, do.block_until_told(gate))
        job = queue.open_job("job", range(1, 5), handler, deadline=0.3, chunksize=1)
        run = queue.start("job")
        if state == "paused":
            queue.pause("job")
        if state != "open":
            queue.seal("job")
        wait_until(lambda: job.cancelled)
        gate.open()
        run.result()
        assert job.status is JobStatus.CANCELLED
        assert job.completed <= 1, "what ran may end, nothing more begins"
        assert job.stopped_why == "it was not over after deadline=0.3 seconds"
        assert queue.run([1], do.succeed, deadline=300.0).stopped_why is None


# --- pause ----------------------------------------------------------------------------------------------------------


@pytest.mark.holds(
    "seed: pause: paused is true, and the status is paused",
    "seed: pause: active items run to their end",
    "seed: pause: new items don't start until the job is resumed",
    "seed: resume: a paused job goes on",
    "seed: Job: pending, running, paused, completed, completed_with_errors or cancelled",
)
def test_pause_lets_active_items_end_and_starts_no_new_ones_until_resumed(tmp_path: Path, gate: Gate) -> None:
    last = Gate(tmp_path / "last")
    with JobQueue(2) as queue:
        recorder = Recorder(queue)
        handle = do.only(5, do.block_until_told(last), do.block_until_told(gate))
        job = queue.create_job("job", range(6), handle, chunksize=1)
        run = queue.start("job")
        gate.wait_for(0, 1)
        queue.pause("job")
        assert (job.paused, job.status) == (True, "paused")
        gate.open()
        # Active items continue until their operation is complete ...
        recorder.wait_for(JOB_PROGRESS, 2)
        # ... and the workers are free: another job runs on all of them while new items of this one don't start.
        assert len(workers_of(queue)) == 2
        assert gate.arrived() == {"0", "1"}
        assert [item.status for item in job.items] == ["completed"] * 2 + ["pending"] * 4
        assert not run.done()
        queue.resume("job")
        assert (job.paused, job.status) == (False, "running")
        last.open()
        assert run.result().results == list(range(6))
        recorder.check(job)
    assert recorder.names("job")[:2] == [JOB_STARTED, JOB_PAUSED]
    assert recorder.names("job").count(JOB_RESUMED) == 1


# --- cancel ---------------------------------------------------------------------------------------------------------


@pytest.mark.holds(
    "seed: cancel: cancelled is true",
    "seed: cancel: active items may complete",
    "seed: cancel: pending items don't start",
    "seed: cancel: the final status is cancelled",
)
def test_cancel_lets_active_items_complete_and_starts_no_pending_ones(gate: Gate) -> None:
    with JobQueue(2) as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", range(6), do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for(0, 1)
        queue.cancel("job")
        assert job.cancelled, "at once"
        assert job.status is JobStatus.RUNNING, "changes with job:finished"
        assert not run.done()
        gate.open()
        assert run.result(300).status is JobStatus.CANCELLED
        assert [item.status for item in job.items] == ["completed"] * 2 + ["pending"] * 4
        assert (job.completed, job.results) == (2, [0, 1, None, None, None, None])
        assert gate.arrived() == {"0", "1"}
        recorder.check(job)
        assert len(workers_of(queue)) == 2


def test_cancel_with_kill_ends_active_items_at_once(gate: Gate) -> None:
    with JobQueue(2) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", range(4), do.announce(gate, do.sigterm_ignore_and_hang), chunksize=1)
        run = queue.start("job")
        gate.wait_for(0, 1)
        queue.cancel("job", kill=True)
        job = run.result(300)
        assert (job.status, job.completed, job.failed) == ("cancelled", 0, 0)
        assert [(item.status, item.attempts) for item in job.items] == [("pending", 0)] * 4
        recorder.check(job)
        assert len(workers_of(queue)) == 2


def test_cancel_of_a_pending_job_is_immediate_and_tells_only_that_it_finished() -> None:
    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", ["a", "b"], do.succeed)
        queue.cancel("job")
        assert (job.status, job.cancelled) == ("cancelled", True)
        (finished,) = recorder.wait_for(JOB_FINISHED)
        assert (finished.status, finished.completed, finished.failed, finished.duration) == ("cancelled", 0, 0, 0)
        with pytest.raises(JobStateError, match="cancelled"):
            queue.start("job")
        queue.cancel("job")
        assert queue.run(["x"], do.succeed).results == ["x"]
    assert recorder.names("job") == [JOB_FINISHED]


@pytest.mark.slow
@pytest.mark.holds("promise: Every item ends once")
@pytest.mark.parametrize("moment", range(5))
def test_cancel_at_any_moment_ends_the_job_and_balances_the_books(moment: int) -> None:
    with JobQueue(2) as queue:
        recorder = Recorder(queue)
        reached = threading.Event()

        @queue.on(JOB_PROGRESS)
        def count(progress: Any) -> None:
            if progress.completed >= 10**moment:
                reached.set()

        queue.create_job("job", range(10 ** (moment + 1)), do.double)
        run = queue.start("job")
        assert reached.wait(300)
        queue.cancel("job")
        job = run.result(300)
        recorder.check(job)
        for item in job.items:
            assert item.result == (2 * item.payload if item.status is ItemStatus.COMPLETED else None)
