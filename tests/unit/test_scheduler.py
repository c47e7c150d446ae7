"""A job's life in the scheduler: start, pause, resume, cancel, retry_failed, close; what it promises word by word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mpqueue._core.commands import (
    AnnounceFinished,
    AnnounceItems,
    AnnounceState,
    Capabilities,
    ForgetJob,
    StartLane,
)
from mpqueue._core.messages import ChunkReported, JobStartAsked, QueueOpened, TimePassed
from mpqueue._core.rules.job_states import DEATH_SECONDS
from mpqueue._core.rules.outcomes import fail_rest
from mpqueue._core.scheduler import LONGEST_WAIT
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue.errors import JobStateError
from mpqueue.retry import MAX_DELAY, RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, attempts, crash, fail, hang, statuses, succeed
from tests.support.fake_worker import Handler, Item


@pytest.fixture
def fleet() -> FakeLanes:
    """Two lanes, watched."""
    return audited(2)


# -- start -------------------------------------------------------------------------------------------------------------


def test_the_first_job_starts_all_workers_side_by_side(fleet: FakeLanes) -> None:
    fleet.start(fleet.job([succeed()]))
    assert fleet.counts[StartLane] == 2
    fleet.start(fleet.job([succeed()]))
    assert fleet.counts[StartLane] == 2


def test_a_start_may_bring_another_handler(fleet: FakeLanes) -> None:
    job, handler = fleet.job([fail()], retry=RetryPolicy(0)), Handler()
    fleet.handle(QueueOpened())
    fleet.handle(JobStartAsked(job, fleet.clock.wall(), handler))
    assert job.handler is handler
    fleet.run_until_over(job)
    fleet.retry_failed(job)
    assert job.handler is handler, "where none comes it stays"


def test_a_message_from_the_past_does_not_turn_time_back(fleet: FakeLanes) -> None:
    fleet.handle(QueueOpened())
    fleet.scheduler.handle(TimePassed(), 5.0)
    fleet.scheduler.handle(TimePassed(), 4.0)
    assert fleet.books.now == 5.0


@pytest.mark.parametrize(
    ("item", "options"),
    [(fail(), {"retry": RetryPolicy(base_delay=MAX_DELAY)}), (hang(), {"timeout": 1e300})],
    ids=["a retry's delay", "a timeout"],
)
def test_no_wait_is_longer_than_systems_can_wait(fleet: FakeLanes, item: Item, options: dict[str, Any]) -> None:
    job = fleet.started([item], **options)
    fleet.run_until_ready()
    fleet.advance(60.0)
    assert fleet.scheduler.deadline is not None
    assert fleet.books.now < fleet.scheduler.deadline <= fleet.books.now + LONGEST_WAIT
    assert job.failed == 0


def test_a_scheduler_with_nothing_to_do_waits_for_nothing(fleet: FakeLanes) -> None:
    fleet.run([succeed(1.0)] * 5)
    fleet.advance(60.0)
    assert fleet.scheduler.deadline is None
    assert fleet.scheduler.quiet


# -- states of a job --------------------------------------------------------------------------------------------------


def pending(fleet: FakeLanes) -> JobBook:
    return fleet.job([succeed(10.0)] * 5)


def run(fleet: FakeLanes) -> JobBook:
    job = pending(fleet)
    fleet.start(job)
    fleet.run_until(1.0)
    return job


def paused(fleet: FakeLanes) -> JobBook:
    job = run(fleet)
    fleet.pause(job)
    return job


def being_cancelled(fleet: FakeLanes) -> JobBook:
    job = run(fleet)
    fleet.cancel(job)
    return job


def completed(fleet: FakeLanes) -> JobBook:
    job = run(fleet)
    fleet.run_until_over(job)
    return job


def failed(fleet: FakeLanes) -> JobBook:
    return fleet.run([fail(1.0)], retry=RetryPolicy(0))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (run, "got one that is running"),
        (paused, "got one that is paused"),
        (completed, r"got one that is completed; create_job\(\) with replace=True makes it anew"),
        (
            failed,
            r"completed_with_errors; retry_failed\(\) runs its failed items again, and create_job\(\) with .* anew",
        ),
    ],
)
def test_a_start_that_is_refused_says_what_to_do_where_that_helps(
    fleet: FakeLanes, state: Callable[[FakeLanes], JobBook], words: str
) -> None:
    with pytest.raises(JobStateError, match=f"expected a pending job to start, .*{words}$"):
        fleet.start(state(fleet))


@pytest.mark.parametrize("retried", [False, True])
def test_a_job_that_had_ended_before_its_program_says_so_once(retried: bool) -> None:
    fleet = FakeLanes(1)
    job = fleet.job([fail()])
    job.table.fail(0, Failure(ValueError()))
    job.go_on()
    job.restored, job.status, job.started_at, job.duration = True, JobStatus.COMPLETED_WITH_ERRORS, 1.0, 2.0
    before = fleet.counts[AnnounceFinished]
    (fleet.retry_failed if retried else fleet.start)(job)
    assert fleet.counts[AnnounceFinished] == before + (not retried)
    assert job.past is None, "of a run here"
    with pytest.raises(JobStateError, match="expected a pending job to start"):
        fleet.start(job)


# -- pause and resume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [FakeLanes.pause, FakeLanes.cancel])
def test_a_pause_and_a_cancel_reach_a_worker_in_the_middle_of_a_chunk(
    fleet: FakeLanes, stop: Callable[[FakeLanes, JobBook], None]
) -> None:
    job = fleet.started([succeed(10.0)] * 6, chunksize=3)
    fleet.run_until(1.0)
    stop(fleet, job)
    fleet.run_until(10.2)
    assert (job.completed, job.lanes, job.status.final) == (2, 0, job.cancelled)


def test_a_paused_job_frees_its_workers_for_others(fleet: FakeLanes) -> None:
    job, other = fleet.job([succeed(1.0)] * 20, chunksize=10), fleet.job([succeed(1.0)] * 2)
    fleet.start(job)
    fleet.run_until(0.5)
    fleet.pause(job)
    fleet.run_all(other)
    assert fleet.now == pytest.approx(2.1)
    assert job.completed == 2


def test_pausing_and_resuming_twice_does_nothing_more(fleet: FakeLanes) -> None:
    job = paused(fleet)
    fleet.pause(job)
    fleet.resume(job)
    fleet.resume(job)
    events = [told.event for told in fleet.told if isinstance(told, AnnounceState)]
    assert events == ["job:paused", "job:resumed"]


def test_a_pause_that_ends_before_the_worker_notices_stops_nothing(fleet: FakeLanes) -> None:
    job = fleet.started([succeed(1.0)] * 10, chunksize=5)
    fleet.run_until(0.5)
    fleet.pause(job)
    fleet.resume(job)
    fleet.run_until_over(job)
    assert fleet.now == pytest.approx(5.1, abs=0.01)


# -- cancel ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [run, being_cancelled])
def test_cancel_with_kill_ends_what_runs_and_charges_nobody(
    fleet: FakeLanes, state: Callable[[FakeLanes], JobBook]
) -> None:
    job = state(fleet)
    fleet.cancel(job, kill=True)
    fleet.run_until_over(job)
    assert fleet.now == 1.0
    assert (statuses(job), attempts(job)) == (["pending"] * 5, [0] * 5)


@pytest.mark.parametrize(
    ("item", "retries", "status"), [(fail(5.0), 3, "pending"), (crash(5.0), 3, "pending"), (fail(5.0), 0, "failed")]
)
def test_an_item_that_fails_after_the_cancel_has_failed_if_that_was_its_last_try_and_is_not_retried(
    fleet: FakeLanes, item: Item, retries: int, status: str
) -> None:
    job = fleet.started([item], retry=RetryPolicy(retries))
    fleet.run_until(1.0)
    fleet.cancel(job)
    fleet.run_until_over(job)
    assert (job.status, statuses(job), attempts(job)) == (JobStatus.CANCELLED, [status], [1])
    assert job.failed == any(isinstance(told, AnnounceItems) for told in fleet.told) == (status == "failed")


# -- retry_failed ------------------------------------------------------------------------------------------------------


def test_a_retry_timer_of_the_old_run_means_nothing_in_the_new_one() -> None:
    fleet = audited(1)
    job = fleet.started([fail()], retry=RetryPolicy(max_retries=1, base_delay=50.0))
    fleet.run_until(20.0)
    fleet.drop(job, 0)
    assert statuses(job) == ["failed"]
    fleet.retry_failed(job)
    fleet.run_until(60.0)  # the old timer was for 50, the new one is for 70
    assert (attempts(job), statuses(job)) == ([1], ["retry"])
    fleet.run_until_over(job)
    assert attempts(job) == [2]


@pytest.mark.parametrize("has_them", [False, True])
def test_it_is_known_whether_a_job_has_objects_of_users_classes(fleet: FakeLanes, has_them: bool) -> None:
    handle: Any = fleet.handle
    fleet.handle = lambda message: handle(  # type: ignore[method-assign]
        message._replace(has_user_objects=has_them) if isinstance(message, ChunkReported) else message
    )
    assert fleet.run([succeed()]).table.live.has_user_objects is has_them


def test_what_a_worker_says_of_items_that_have_failed_meanwhile_changes_nothing() -> None:
    fleet = FakeLanes(1)
    job = fleet.started([succeed(1.0)])
    fleet.run_until(0.5)
    fail_rest(fleet.books, job, ValueError("no"))
    fleet.run_until(9.0)
    assert (job.completed, job.failed, statuses(job), fleet.at_rest) == (0, 1, ["failed"], True)


def test_a_chunk_that_is_under_way_while_its_job_is_forgotten_finds_the_handler() -> None:
    fleet = FakeLanes(1, latency=0.01)
    job = fleet.started([succeed(), *[succeed(1.0)] * 3], chunksize=1)
    fleet.run_while(lambda: fleet.counts[ChunkReported] < 1)  # the next chunk has just been sent
    sent_at = fleet.now
    fleet.drop(job, 1, 2, 3)
    fleet.run_while(lambda: not fleet.counts[ForgetJob])
    assert fleet.now < sent_at + fleet.latency
    fleet.run_until_over(job)
    assert statuses(job) == ["completed", *["failed"] * 3]


# -- close -------------------------------------------------------------------------------------------------------------


def retrying(fleet: FakeLanes) -> JobBook:
    job = fleet.started([fail(times=2), *[succeed(3.0)] * 4])
    fleet.run_until(1.0)
    return job


@pytest.mark.parametrize(
    ("state", "cancel", "status", "done"),
    [
        (run, False, JobStatus.COMPLETED, 5),
        (retrying, False, JobStatus.COMPLETED, 5),
        (paused, False, JobStatus.CANCELLED, 2),
        (run, True, JobStatus.CANCELLED, 2),
        (pending, True, JobStatus.PENDING, 0),
    ],
)
def test_closing_waits_for_started_jobs_cancels_paused_ones_and_leaves_pending_ones(
    fleet: FakeLanes, state: Callable[[FakeLanes], JobBook], cancel: bool, status: JobStatus, done: int
) -> None:
    job = state(fleet)
    fleet.close(cancel=cancel)
    fleet.run_while(lambda: job.active)
    assert (job.status, job.completed) == (status, done)


def test_a_job_that_is_paused_while_the_queue_closes_is_cancelled(fleet: FakeLanes) -> None:
    job = run(fleet)
    fleet.close()
    fleet.pause(job)
    assert job.cancelled
    fleet.run_until_over(job)
    assert job.status is JobStatus.CANCELLED


def test_closing_with_kill_ends_every_job_at_once(fleet: FakeLanes) -> None:
    job, other = run(fleet), paused(fleet)
    fleet.close(cancel=True, kill=True)
    assert (job.status, other.status) == (JobStatus.CANCELLED, JobStatus.CANCELLED)
    assert attempts(job) == [0] * 5
    assert fleet.scheduler.quiet


# -- drain -------------------------------------------------------------------------------------------------------------


def test_draining_starts_nothing_new_and_takes_back_what_is_not_over_in_time() -> None:
    fleet = audited(3)
    job = fleet.job([succeed(3.0), succeed(10.0), fail(2.0), succeed(3.0)], chunksize=1)
    other = fleet.job([succeed()])
    fleet.start(job)
    fleet.run_until(1.0)
    fleet.pause(job)
    fleet.close(within=5.0)
    fleet.run_until_over(job)
    assert (job.status, other.status) == (JobStatus.CANCELLED, JobStatus.PENDING)
    assert fleet.now == 6.0
    assert statuses(job) == ["completed", "pending", "pending", "pending"]
    assert attempts(job) == [1, 0, 1, 0], "only the try that failed is charged"
    fleet.advance(60.0)
    assert fleet.counts[StartLane] == 3, "nothing is to run, so no worker is replaced"
    assert fleet.scheduler.quiet


def test_a_job_whose_last_items_end_while_the_queue_drains_has_completed(fleet: FakeLanes) -> None:
    job = fleet.started([succeed(3.0), succeed(4.0)])
    fleet.run_until(1.0)
    fleet.close(within=5.0)
    fleet.run_until_over(job)
    assert (job.status, job.completed) == (JobStatus.COMPLETED, 2)


@pytest.mark.parametrize(("first", "second", "over"), [(None, 2.0, 3.0), (50.0, 2.0, 3.0), (2.0, 50.0, 3.0)])
def test_a_drain_cuts_short_what_would_wait_for_longer(
    first: float | None, second: float, over: float, fleet: FakeLanes
) -> None:
    job = fleet.started([succeed(100.0)] * 3)
    fleet.run_until(1.0)
    fleet.close(within=first)
    fleet.close(within=second)
    fleet.run_until_over(job)
    assert (job.status, fleet.now) == (JobStatus.CANCELLED, over)


@pytest.mark.parametrize(
    ("can_kill", "kill_seconds", "over"), [(True, 1000.0, 5.0 + DEATH_SECONDS), (False, 0.0, 5.0)], ids=["D", "no kill"]
)
def test_a_drain_does_not_wait_for_workers_that_do_not_die(can_kill: bool, kill_seconds: float, over: float) -> None:
    fleet = FakeLanes(2, engine=Capabilities(own_processes=can_kill), kill_seconds=kill_seconds)
    job = fleet.started([succeed(100.0)] * 3)
    fleet.run_until(1.0)
    fleet.close(within=4.0)
    fleet.run_until_over(job, at_rest=False)
    assert (job.status, fleet.now) == (JobStatus.CANCELLED, over)
    assert attempts(job) == [0] * 3
    assert fleet.scheduler.quiet


def test_no_worker_is_started_for_a_closed_queue_with_nothing_to_do(fleet: FakeLanes) -> None:
    job = completed(fleet)
    fleet.close()
    fleet.kill(0)
    fleet.advance(60.0)
    assert job.status is JobStatus.COMPLETED
    assert fleet.counts[StartLane] == 2


def test_no_worn_out_worker_is_replaced_for_a_closed_queue_with_nothing_to_do() -> None:
    fleet = FakeLanes(1, max_items_per_worker=2)
    job = fleet.started([succeed(1.0)] * 2)
    fleet.close()
    fleet.run_until_over(job)
    fleet.advance(60.0)
    assert fleet.counts[StartLane] == 1


def test_a_run_that_has_ended_is_known_to_the_next_one(fleet: FakeLanes) -> None:
    job = fleet.run([fail(1.0, times=1), succeed(1.0)], retry=RetryPolicy(max_retries=0))
    before = (job.started_at, job.duration)
    fleet.retry_failed(job)
    past = job.past
    assert past is not None
    assert (past.started_at, past.seconds) == before


def test_the_first_reason_for_which_a_job_is_cancelled_stays_also_where_the_queue_drains(fleet: FakeLanes) -> None:
    job = fleet.started([succeed(3.0)])
    fleet.run_until(1.0)
    fleet.cancel(job, why="its disk is full")
    fleet.cancel(job, why="another")
    fleet.close(within=5.0)
    fleet.run_until_over(job)
    assert (job.status, job.stopped_why) == (JobStatus.CANCELLED, "its disk is full")


def test_a_reason_that_is_found_when_all_items_have_ended_counts_and_a_user_s_cancel_does_not(
    fleet: FakeLanes,
) -> None:
    job = fleet.run([succeed()])
    fleet.cancel(job)
    assert (job.status, job.stopped_why) == (JobStatus.COMPLETED, None)
    fleet.cancel(job, why="its stream ended badly")
    assert (job.status, job.stopped_why) == (JobStatus.CANCELLED, "its stream ended badly")
