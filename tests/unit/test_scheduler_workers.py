"""Workers that can't be started, and workers that die as soon as they are."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest

from mpqueue._core.commands import KillLane, StartLane
from mpqueue._core.messages import LaneReady, LanesResized, ModulesReloaded
from mpqueue._core.rules.fleet import DEADLY, HOPELESS
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook
from mpqueue.errors import SetupError, WorkerCrashedError, WorkerStartError
from mpqueue.status import JobStatus
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, attempts, errors, statuses, succeed
from tests.support.fake_worker import Outcome, Try


def watched(lanes: int, start_seconds: float = 0.0) -> FakeLanes:
    return audited(lanes, start_seconds=start_seconds)


def starts(fleet: FakeLanes) -> list[float]:
    """When workers are started, from now on."""
    moments: list[float] = []
    fleet.watchers.append(
        lambda _, commands: moments.extend(fleet.now for command in commands if isinstance(command, StartLane))
    )
    return moments


@pytest.mark.parametrize(
    ("starts_at_all", "why"), [(False, "no worker today"), (True, "as soon as it had started")], ids=["none", "dead"]
)
def test_a_worker_that_does_not_start_or_dies_at_once_is_tried_again_after_growing_pauses_for_thirty_seconds(
    starts_at_all: bool, why: str
) -> None:
    fleet = watched(1)
    moments = starts(fleet)
    if starts_at_all:
        fleet.watchers.append(lambda message, _: fleet.kill(0) if isinstance(message, LaneReady) else None)
    else:
        fleet.broken.add(0)
    job = fleet.started([succeed()])
    fleet.run_until(29.9)
    pauses = [round(later - earlier, 6) for earlier, later in pairwise(moments)]
    assert pauses[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert job.status is JobStatus.RUNNING
    fleet.run_until_over(job, limit=5.0)
    assert why in reason_of(job)


def test_the_first_failure_of_a_lane_is_told_and_the_rest_are_not() -> None:
    fleet = watched(2)
    fleet.broken.add(0)
    fleet.start(fleet.job([succeed(1.0)] * 10))
    fleet.run_until(0.05)
    assert ["worker 0 could not be started" in warning for warning in fleet.warnings] == [True]
    fleet.run_until(20.0)
    assert len(fleet.warnings) == 1


def test_after_a_reload_each_worker_ends_what_it_has_and_is_replaced() -> None:
    fleet = watched(3, start_seconds=1.0)
    moments = starts(fleet)
    job, later = fleet.job([succeed(10.0)] * 2, max_lanes=1), fleet.job([succeed(1.0)] * 3)
    fleet.start(job)
    fleet.run_until(5.0)
    fleet.handle(ModulesReloaded())
    fleet.start(later)
    fleet.run_until_over(job, later)
    assert [round(moment, 6) for moment in moments] == [0.0] * 3 + [5.0, 5.0, 11.0]
    assert set(attempts(job)) | set(attempts(later)) == {1}


def reason_of(job: JobBook) -> str:
    """Why the job was interrupted; its items have not failed, and nothing was charged."""
    assert (job.status, job.failed) == (JobStatus.CANCELLED, 0)
    assert set(statuses(job)) == {"pending"}
    assert job.interrupted is not None
    assert job.stopped_why == str(job.interrupted)
    return str(job.interrupted)


def test_without_any_worker_for_thirty_seconds_jobs_are_interrupted_with_the_reason() -> None:
    fleet = watched(2)
    fleet.broken |= {0, 1}
    job, paused = fleet.job([succeed()] * 3), fleet.job([succeed()])
    fleet.start(job, paused)
    fleet.pause(paused)
    fleet.run_until(29.9)
    assert job.status is JobStatus.RUNNING
    fleet.run_until(30.1)
    assert attempts(job) == [0] * 3
    assert "no worker today" in reason_of(job)
    assert sum("no worker could be started" in warning for warning in fleet.warnings) == 1
    assert reason_of(paused) == reason_of(job)
    assert isinstance(job.interrupted, WorkerStartError)
    assert isinstance(job.interrupted.__cause__, OSError)


def test_without_any_worker_calls_fail_and_pipelines_are_interrupted() -> None:
    fleet = watched(1)
    fleet.broken.add(0)
    call, head = fleet.job([succeed()] * 2), fleet.stages([succeed()] * 2, [None, None])
    call.listed = False
    fleet.start(call, head)
    fleet.run_until(31.0)
    assert errors(call) == [WorkerStartError] * 2
    assert "no worker today" in reason_of(head)
    assert [job.status for job in head.family] == [JobStatus.CANCELLED] * 3
    assert fleet.at_rest


def test_a_worker_that_starts_in_the_end_saves_the_jobs_and_forgets_its_failures() -> None:
    fleet = watched(1)
    fleet.broken.add(0)
    job = fleet.started([succeed(100.0)])
    fleet.run_until(26.0)
    fleet.broken.clear()
    fleet.run_until_over(job)
    assert job.status is JobStatus.COMPLETED
    assert fleet.books.lanes[0].start_failures == 0


@pytest.mark.parametrize("lost", [20.0, 50.0])
def test_the_thirty_seconds_begin_when_the_last_worker_is_lost(lost: float) -> None:
    fleet = watched(1)
    job = fleet.started([succeed(100.0)])
    fleet.run_until(lost)
    fleet.broken.add(0)
    fleet.kill(0)
    fleet.run_until(lost + 29.0)
    assert job.status is JobStatus.RUNNING
    fleet.run_until(lost + 31.0)
    assert "no worker could be started for 30.0 s" in reason_of(job)


@pytest.mark.holds("wait: a new worker answers for the first time: its interpreter, its imports, preload=")
def test_a_start_that_outlives_all_patience_is_said_once_and_no_lack_of_workers() -> None:
    fleet = watched(2, start_seconds=1000.0)
    job = fleet.started([succeed()])
    fleet.run_until(31.0)
    assert fleet.warnings == ["no worker has come for 30 s: 2 workers are starting, and the jobs wait"]
    fleet.run_until_over(job)
    assert job.status is JobStatus.COMPLETED
    assert len(fleet.warnings) == 1


def test_a_slow_start_is_waited_for_while_starts_on_other_lanes_fail() -> None:
    fleet = watched(2, start_seconds=0.1)
    fleet.broken.add(1)
    fleet.start_seconds_of[0] = 1000.0
    job = fleet.started([succeed()])
    fleet.run_until_over(job, limit=2000.0)
    assert job.status is JobStatus.COMPLETED


@pytest.mark.parametrize("lanes", [1, 64])
@pytest.mark.parametrize("seconds", [4.9, 100.0])
def test_starts_that_take_their_time_and_always_fail_interrupt_the_jobs(lanes: int, seconds: float) -> None:
    fleet = watched(lanes, start_seconds=seconds)
    fleet.broken |= set(range(lanes))
    job = fleet.started([succeed()])
    fleet.run_until(max(61.0, seconds + 30.0))
    assert "the last reason: OSError('no worker today')" in reason_of(job)


# -- an initializer ----------------------------------------------------------------------------------------------------


def test_workers_that_die_within_a_second_are_none_also_while_one_of_them_lives() -> None:
    fleet = watched(1)
    fleet.watchers.append(
        lambda message, _: (
            fleet.call_at(fleet.now + 0.98, lambda: fleet.kill(0)) if isinstance(message, LaneReady) else None
        )
    )
    job = fleet.job([succeed()])
    fleet.start(job)
    fleet.pause(job)
    fleet.run_until(30.5)
    assert fleet.workers[0] is not None
    fleet.run_until_over(job, limit=2.0)
    assert "as soon as it had started" in reason_of(job)


def test_a_lane_s_next_worker_inherits_nothing_of_the_one_before() -> None:
    of_lane = {"number", "generation", "state", "chunks", "free_at", "is_awaited", "started_at", "start_failures",
               "hopeless", "ready_at", "grant", "bit"}  # fmt: skip
    of_worker = [each.name for each in fields(LaneBook) if each.name not in of_lane]
    lane, new = LaneBook(3), LaneBook(3)
    for name in of_worker:
        setattr(lane, name, {"loaded": {7: None}, "proven": {7}}.get(name, 7))
    lane.renew()
    assert lane.generation == new.generation + 1
    assert {name: getattr(lane, name) for name in of_worker} == {name: getattr(new, name) for name in of_worker}


@pytest.mark.parametrize("initialized", [False, True])
def test_all_is_quiet_once_the_workers_that_start_have_run_what_they_begin_with(initialized: bool) -> None:
    fleet = watched(2)
    if initialized:
        fleet.initialize_with(lambda lane: Try(1.0))
    job = fleet.started([succeed()])
    assert not fleet.scheduler.quiet
    fleet.cancel(job, kill=True)
    assert fleet.scheduler.quiet is not initialized
    fleet.advance(2.0)
    assert fleet.scheduler.quiet


@pytest.mark.holds("wait: the initializer of Pool and Executor")
def test_an_initializer_may_take_longer_than_all_patience() -> None:
    fleet = watched(2)
    fleet.initialize_with(lambda lane: Try(1000.0))
    job = fleet.started([succeed()] * 2)
    fleet.run_until_over(job, limit=2000.0)
    assert job.status is JobStatus.COMPLETED


def test_an_initializer_that_fails_in_every_worker_fails_the_jobs() -> None:
    fleet = watched(2)
    first, last = OSError("no licence here"), OSError("no licence")
    fleet.initialize_with(lambda lane: Try(0.5, Outcome.FAILURE, last if lane else first))
    job = fleet.started([succeed()] * 2)
    fleet.run_until_over(job, at_rest=False)
    assert first in fleet.books.take_unneeded(), "it may be of a user's class, and is freed elsewhere"
    assert errors(job) == [SetupError] * 2
    assert "no licence" in str(job.table.failures[0].error)
    assert fleet.counts[KillLane] == 2
    late = fleet.started([succeed()])
    assert errors(late) == [SetupError]


def test_an_initializer_that_fails_in_one_worker_leaves_the_others_to_work() -> None:
    fleet = watched(2)
    fleet.initialize_with(lambda lane: Try(0.0, Outcome.FAILURE if lane == 0 else Outcome.RESULT))
    job = fleet.run([succeed(1.0)] * 3)
    assert job.status is JobStatus.COMPLETED


def test_an_initializer_that_has_failed_and_then_succeeded_fails_no_later_job() -> None:
    fleet, outcomes = watched(1), [Outcome.RESULT, Outcome.FAILURE]
    fleet.initialize_with(lambda _: Try(0.1, outcomes.pop() if outcomes else Outcome.RESULT))
    assert errors(fleet.started([])) == []
    fleet.run_until(5.0)
    fleet.run([succeed()])
    fleet.kill(0)
    fleet.advance(0.05)
    assert not fleet.books.ready
    assert statuses(fleet.run([succeed()])) == ["completed"]


@pytest.mark.parametrize(
    ("lanes", "left", "full"),
    [
        pytest.param(2, 2, set(), id="all"),
        pytest.param(3, 1, set(), id="all of a queue that was made smaller"),
        pytest.param(3, 3, {0, 2}, id="all that there is room for"),
    ],
)
def test_an_initializer_that_kills_every_worker_fails_the_jobs_after_a_few(
    lanes: int, left: int, full: set[int]
) -> None:
    fleet = watched(lanes)
    fleet.full.update(full)
    fleet.initialize_with(lambda lane: Try(0.5, Outcome.CRASH))
    fleet.handle(LanesResized(left))
    job = fleet.started([succeed()] * 2)
    fleet.run_until_over(job, at_rest=False)
    assert errors(job) == [SetupError] * 2
    assert isinstance(job.table.failures[0].error.__cause__, WorkerCrashedError)
    assert fleet.counts[StartLane] <= left * (DEADLY + 1)
    late = fleet.started([succeed()])
    assert errors(late) == [SetupError]


def test_a_worker_that_is_killed_in_the_initializer_is_no_fault_of_the_initializer() -> None:
    fleet = watched(1)
    left = [Outcome.CRASH] * (DEADLY - 1)
    fleet.initialize_with(lambda lane: Try(0.5, left.pop() if left else Outcome.RESULT))
    job = fleet.run([succeed()] * 2)
    assert job.status is JobStatus.COMPLETED


def test_where_no_worker_ever_came_and_the_reason_lasts_jobs_fail_within_a_second() -> None:
    fleet = watched(2)
    fleet.broken |= {0, 1}
    fleet.lasting = True
    job = fleet.started([succeed()] * 3)
    fleet.run_until(HOPELESS - 0.1)
    assert statuses(job) == ["pending"] * 3
    fleet.run_until(HOPELESS + 0.1)
    assert "no worker today" in reason_of(job)
    assert "no worker today" in fleet.warnings[-1]
    # The next job is given a second of its own, from its start on, and a worker that comes by then.
    fleet.run_until(30.0)
    again, late, before = fleet.job([succeed()]), fleet.job([succeed()]), fleet.counts[StartLane]
    fleet.start(again)
    assert fleet.counts[StartLane] == before + 2
    fleet.run_until(31.0)
    assert reason_of(again)
    fleet.broken.clear()
    fleet.run_all(late)
    assert late.status is JobStatus.COMPLETED
    # Once there was one, it is waited for as long as ever.
    fleet.broken |= {0, 1}
    last = fleet.job([succeed()])
    for number in (0, 1):
        fleet.kill(number)
    fleet.start(last)
    fleet.run_until(fleet.now + 10.0)
    assert last.status is JobStatus.RUNNING
