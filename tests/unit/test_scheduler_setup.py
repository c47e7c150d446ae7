"""Setup that fails: again by the policy; then the lane sits the job out; failing in every worker, the job ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpqueue._core.commands import AnnounceFinished, AnnounceItems, KillLane, ObserveLane, StartLane
from mpqueue._core.rules.overdue import ANSWER_LIMIT
from mpqueue.errors import GiveUp, SetupError, WorkerCrashedError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import Auditor
from tests.support.fake_lanes import FakeLanes, attempts, errors, statuses, succeed
from tests.support.fake_worker import Outcome, Try

Load = Callable[[int, int], Try]
NO_MODEL = OSError("no such model")


def failing(seconds: float = 0.1, error: BaseException = NO_MODEL) -> Try:
    return Try(seconds, Outcome.FAILURE, error)


def watched(lanes: int) -> tuple[FakeLanes, list[tuple[int, float]]]:
    """A fleet, and when its lanes begin to load, from now on."""
    fleet = FakeLanes(lanes)
    Auditor(fleet)
    return fleet, []


def noting(fleet: FakeLanes, loads: list[tuple[int, float]], load: Load) -> Load:
    """The same, and written down."""

    def noted(lane: int, time: int) -> Try:
        loads.append((lane, round(fleet.now, 6)))
        return load(lane, time)

    return noted


def test_setup_that_fails_is_tried_again_by_the_policy() -> None:
    fleet, loads = watched(1)
    load = noting(fleet, loads, lambda lane, time: failing(0.0) if time <= 2 else Try())
    job = fleet.job([succeed()] * 3, load=load)
    fleet.start(job)
    fleet.run_until_over(job)
    assert loads == [(0, 0.1), (0, 2.1), (0, 6.1)]
    assert (job.status, attempts(job)) == (JobStatus.COMPLETED, [1] * 3)
    assert fleet.warnings == []


def test_setup_that_fails_in_every_worker_ends_the_job_once() -> None:
    fleet, _ = watched(2)
    job = fleet.job([succeed()] * 5, load=lambda lane, time: failing())
    fleet.start(job)
    fleet.run_until_over(job)
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    assert (statuses(job), attempts(job)) == (["failed"] * 5, [0] * 5)
    assert errors(job) == [SetupError] * 5
    assert job.table.failures[0].error.__cause__ is NO_MODEL
    assert "raised OSError: no such model" in str(job.table.failures[0].error)
    assert sum(isinstance(told, AnnounceFinished) for told in fleet.told) == 1


def test_there_is_no_storm_of_restarts() -> None:
    fleet, loads = watched(2)
    job = fleet.job([succeed()] * 100, load=noting(fleet, loads, lambda lane, time: failing()))
    fleet.start(job)
    fleet.run_until_over(job)
    assert len(loads) == 8
    assert fleet.counts[StartLane] == 2


def test_items_that_had_ended_keep_their_outcome() -> None:
    fleet, _ = watched(1)
    job = fleet.job([succeed(1.0)] * 3, load=lambda lane, time: Try() if time == 1 else failing())
    fleet.start(job)
    fleet.run_until(1.5)
    fleet.kill(0)
    fleet.run_until_over(job)
    assert statuses(job) == ["completed", "failed", "failed"]


def test_where_it_fails_in_some_the_job_continues_on_the_others_with_one_warning() -> None:
    fleet, _ = watched(3)
    job = fleet.job([succeed(5.0)] * 20, load=lambda lane, time: Try() if lane == 1 else failing())
    fleet.start(job)
    fleet.run_until_over(job)
    assert job.status is JobStatus.COMPLETED
    assert len(fleet.warnings) == 1
    assert "setup failed on worker 0" in fleet.warnings[0]
    assert "the job continues on 2 other workers" in fleet.warnings[0]
    assert "OSError: no such model" in fleet.warnings[0]


def test_a_lane_that_sits_one_job_out_serves_others() -> None:
    fleet, _ = watched(1)
    bad, good = fleet.job([succeed()], load=lambda lane, time: failing()), fleet.job([succeed(0.5)] * 4)
    fleet.start(bad, good)
    fleet.run_until_over(bad, good)
    assert (bad.failed, good.completed) == (1, 4)


def test_other_jobs_use_the_lane_while_setup_waits_for_its_next_try() -> None:
    fleet, _ = watched(1)
    bad, good = fleet.job([succeed()], load=lambda lane, time: failing(0.0)), fleet.job([succeed(0.5)] * 3)
    fleet.start(bad, good)
    fleet.run_until_over(good)
    assert fleet.now == pytest.approx(1.6)


def test_a_setup_that_kills_its_worker_counts_as_failed() -> None:
    fleet, _ = watched(1)
    job = fleet.job([succeed()], load=lambda lane, time: Try(0.1, Outcome.CRASH))
    fleet.start(job)
    fleet.run_until_over(job)
    (error,) = [failure.error for failure in job.table.failures.values()]
    assert isinstance(error, SetupError)
    assert isinstance(error.__cause__, WorkerCrashedError)
    assert fleet.counts[StartLane] == 5


def test_a_setup_that_hangs_is_killed_at_its_timeout_and_tried_again() -> None:
    fleet, loads = watched(1)
    load = noting(fleet, loads, lambda lane, time: Try(0.0, Outcome.HANG) if time == 1 else Try())
    job = fleet.job([succeed()], load=load, setup_timeout=5.0)
    fleet.start(job)
    fleet.run_until_over(job)
    assert loads == [(0, 0.1), (0, 7.1)]
    assert attempts(job) == [1]


def test_a_setup_that_always_hangs_ends_the_job() -> None:
    fleet, _ = watched(2)
    job = fleet.job([succeed()] * 2, load=lambda lane, time: Try(0.0, Outcome.HANG), setup_timeout=5.0)
    fleet.start(job)
    fleet.run_until_over(job)
    assert errors(job) == [SetupError] * 2
    assert "setup_timeout of 5 s" in str(job.table.failures[0].error)


def test_a_setup_within_its_time_is_left_alone() -> None:
    fleet, loads = watched(1)
    job = fleet.job([succeed(60.0)], load=noting(fleet, loads, lambda lane, time: Try(4.9)), setup_timeout=5.0)
    fleet.start(job)
    fleet.run_until_over(job)
    assert len(loads) == 1
    assert attempts(job) == [1]


def test_a_setup_that_gives_up_is_not_tried_again() -> None:
    fleet, loads = watched(1)
    load = noting(fleet, loads, lambda lane, time: failing(error=GiveUp("no licence")))
    job = fleet.job([succeed()], load=load)
    fleet.start(job)
    fleet.run_until_over(job)
    assert len(loads) == 1
    assert errors(job) == [SetupError]


def test_without_retries_one_failure_in_each_worker_is_enough() -> None:
    fleet, loads = watched(3)
    load = noting(fleet, loads, lambda lane, time: failing())
    job = fleet.job([succeed()] * 5, load=load, retry=RetryPolicy(max_retries=0))
    fleet.start(job)
    fleet.run_until_over(job)
    assert sorted(lane for lane, _ in loads) == [0, 1, 2]


def test_setup_runs_once_for_each_worker_and_job() -> None:
    fleet, loads = watched(2)
    first = fleet.job([succeed(0.2)] * 10, load=noting(fleet, loads, lambda lane, time: Try()))
    second = fleet.job([succeed(0.2)] * 10, load=noting(fleet, loads, lambda lane, time: Try()))
    fleet.start(first, second)
    fleet.run_until_over(first, second)
    assert len(loads) <= 4
    assert {lane for lane, _ in loads} == {0, 1}


def test_after_retry_failed_every_lane_may_try_the_setup_again() -> None:
    fleet, _ = watched(1)
    broken = True

    def load(lane: int, time: int) -> Try:
        return failing() if broken else Try()

    job = fleet.job([succeed()] * 2, load=load)
    fleet.start(job)
    fleet.run_until_over(job)
    assert job.failed == 2
    broken = False
    fleet.retry_failed(job)
    fleet.run_until_over(job)
    assert (job.status, attempts(job)) == (JobStatus.COMPLETED, [1, 1])


def test_a_cancelled_job_s_setup_is_not_tried_again() -> None:
    fleet, loads = watched(1)
    job = fleet.job([succeed()], load=noting(fleet, loads, lambda lane, time: failing(1.0)))
    fleet.start(job)
    fleet.run_until(0.5)
    fleet.cancel(job)
    fleet.run_until_over(job)
    fleet.advance(60.0)
    assert len(loads) == 1
    assert job.status is JobStatus.CANCELLED
    assert not any(isinstance(told, AnnounceItems) for told in fleet.told)


def test_a_setup_timeout_costs_no_looks_once_setup_is_done() -> None:
    fleet, _ = watched(1)
    job = fleet.job([succeed(500.0), *[succeed(5.0)] * 100], load=lambda lane, time: Try(0.5), setup_timeout=1.0)
    fleet.start(job)
    fleet.run_until_over(job)
    assert fleet.counts[ObserveLane] < 1000 / ANSWER_LIMIT + 10


def test_a_job_ends_when_the_last_lane_that_could_run_it_goes() -> None:
    """Its setup failed on the lane that stays; the other one was still busy when there were to be fewer."""
    fleet, _ = watched(2)
    other = fleet.job([succeed(5.0)] * 2)
    fleet.start(other)
    fleet.run_until(0.2)
    once = RetryPolicy(max_retries=0)
    job = fleet.job([succeed(1.0)] * 3, load=lambda lane, _: failing() if lane == 0 else Try(), max_lanes=1, retry=once)
    fleet.start(job)
    fleet.kill(0)
    fleet.run_while(lambda: not job.setups)
    fleet.resize(1)
    fleet.run_until_over(job, other, limit=60.0)
    assert {type(failure.error) for failure in job.table.failures.values()} == {SetupError}


def test_a_setup_that_begins_after_the_first_look_has_its_timeout_from_then() -> None:
    fleet = FakeLanes(1, latency=2.0)
    job = fleet.job([succeed()], load=lambda _, __: Try(0.0, Outcome.HANG), setup_timeout=1.5)
    fleet.start(job)
    fleet.run_while(lambda: not fleet.counts[KillLane])
    assert fleet.now == pytest.approx(0.1 + 2.0 + 2.0 + 1.5)
