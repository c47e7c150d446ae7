"""Setup that fails: again by the policy; then the lane sits the job out; failing in every worker, the job ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpqueue._core.commands import AnnounceFinished, AnnounceItems, KillLane, ObserveLane, StartLane
from mpqueue._core.rules.limits import ANSWER_LIMIT
from mpqueue.errors import GiveUp, SetupError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, attempts, errors, statuses, succeed
from tests.support.fake_worker import Outcome, Try

NO_MODEL = OSError("no such model")


def failing(seconds: float = 0.1, error: BaseException = NO_MODEL) -> Try:
    return Try(seconds, Outcome.FAILURE, error)


HANGING, CRASHING = Try(0.0, Outcome.HANG), Try(0.1, Outcome.CRASH)


@pytest.mark.parametrize(
    ("load", "moments", "words"),
    [
        pytest.param(lambda time: failing(0.0) if time <= 2 else Try(), [0.1, 2.1, 6.1], None, id="after its delays"),
        pytest.param(lambda _: failing(0.0), [0.1, 2.1, 6.1, 14.1], "raised OSError: no such model", id="no longer"),
        pytest.param(lambda _: failing(error=GiveUp("no licence")), [0.1], "no licence", id="not if it gives up"),
        pytest.param(lambda time: HANGING if time == 1 else Try(), [0.1, 7.1], None, id="if it hangs"),
        pytest.param(lambda _: HANGING, [0.1, 7.1, 16.1, 29.1], "setup_timeout of 5 s", id="no longer if it hangs"),
        pytest.param(lambda _: CRASHING, [0.1, 2.2, 6.3, 14.4], "SIGSEGV", id="if it kills its worker"),
        pytest.param(lambda _: Try(4.9), [0.1], None, id="not within its time"),
    ],
)
def test_a_setup_that_fails_is_tried_again_by_the_policy(
    load: Callable[[int], Try], moments: list[float], words: str | None
) -> None:
    fleet = audited(1)
    job = fleet.run([succeed(60.0)], load=lambda _, time: load(time), setup_timeout=5.0)
    assert fleet.loads == [(0, moment) for moment in moments]
    assert (errors(job), attempts(job)) == ([None], [1]) if words is None else ([SetupError], [0])
    assert words is None or words in str(job.table.failures[0].error)
    assert fleet.warnings == []


@pytest.mark.parametrize(("retries", "loads"), [(0, 3), (3, 12)])
def test_a_setup_that_fails_in_every_worker_ends_the_job_once_and_starts_no_worker_again(
    retries: int, loads: int
) -> None:
    fleet = audited(3)
    job = fleet.run([succeed()] * 100, load=lambda lane, time: failing(), retry=RetryPolicy(retries))
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    assert (statuses(job), attempts(job)) == (["failed"] * 100, [0] * 100)
    assert job.table.failures[0].error.__cause__ is NO_MODEL
    assert sum(isinstance(told, AnnounceFinished) for told in fleet.told) == 1
    assert (len(fleet.loads), fleet.counts[StartLane]) == (loads, 3)


def test_errors_of_users_classes_are_left_to_be_freed_elsewhere() -> None:
    fleet, raised = audited(1), [ValueError(nth) for nth in range(3)]
    setup = RetryPolicy(2, base_delay=0.0)
    fleet.run([succeed()], load=lambda _, nth: Try(0.0, Outcome.FAILURE, raised[nth - 1]), retry=setup)
    assert [getattr(one, "error", one) for one in fleet.books.take_unneeded()] == raised
    assert fleet.books.take_unneeded() == []


def test_items_that_had_ended_keep_their_outcome() -> None:
    fleet = audited(1)
    job = fleet.started([succeed(1.0)] * 3, load=lambda lane, time: Try() if time == 1 else failing())
    fleet.run_until(1.5)
    fleet.kill(0)
    fleet.run_until_over(job)
    assert statuses(job) == ["completed", "failed", "failed"]


def test_other_jobs_use_the_lane_while_setup_waits_for_its_next_try_and_when_it_has_none() -> None:
    fleet = audited(1)
    bad, good = fleet.job([succeed()], load=lambda lane, time: failing(0.0)), fleet.job([succeed(0.5)] * 3)
    fleet.start(bad, good)
    fleet.run_until_over(good)
    assert fleet.now == pytest.approx(1.6)
    fleet.run_until_over(bad)
    assert fleet.run([succeed()]).completed == 1


def test_after_retry_failed_every_lane_may_try_the_setup_again() -> None:
    fleet = audited(1)
    broken = True

    def load(lane: int, time: int) -> Try:
        return failing() if broken else Try()

    job = fleet.run([succeed()] * 2, load=load)
    assert job.failed == 2
    broken = False
    fleet.retry_failed(job)
    fleet.run_until_over(job)
    assert (job.status, attempts(job)) == (JobStatus.COMPLETED, [1, 1])


def test_a_cancelled_job_s_setup_is_not_tried_again() -> None:
    fleet = audited(1)
    job = fleet.started([succeed()], load=lambda lane, time: failing(1.0))
    fleet.run_until(0.5)
    fleet.cancel(job)
    fleet.run_until_over(job)
    fleet.advance(60.0)
    assert len(fleet.loads) == 1
    assert job.status is JobStatus.CANCELLED
    assert not any(isinstance(told, AnnounceItems) for told in fleet.told)


def test_a_setup_timeout_costs_no_looks_once_setup_is_done() -> None:
    fleet = audited(1)
    fleet.run([succeed(500.0), *[succeed(5.0)] * 100], load=lambda lane, time: Try(0.5), setup_timeout=1.0)
    assert fleet.counts[ObserveLane] < 1000 / ANSWER_LIMIT + 10


def test_a_job_ends_when_the_last_lane_that_could_run_it_goes() -> None:
    """Its setup failed on the lane that stays; the other one was still busy when there were to be fewer."""
    fleet = audited(2)
    other = fleet.started([succeed(5.0)] * 2)
    fleet.run_until(0.2)
    once = RetryPolicy(max_retries=0)
    job = fleet.started(
        [succeed(1.0)] * 3, load=lambda lane, _: failing() if lane == 0 else Try(), max_lanes=1, retry=once
    )
    fleet.kill(0)
    fleet.run_while(lambda: not job.setups)
    fleet.resize(1)
    fleet.run_until_over(job, other, limit=60.0)
    assert {type(failure.error) for failure in job.table.failures.values()} == {SetupError}


def test_a_setup_that_begins_after_the_first_look_has_its_timeout_from_then() -> None:
    fleet = FakeLanes(1, latency=2.0)
    fleet.started([succeed()], load=lambda _, __: Try(0.0, Outcome.HANG), setup_timeout=1.5)
    fleet.run_while(lambda: not fleet.counts[KillLane])
    assert fleet.now == pytest.approx(0.1 + 2.0 + 2.0 + 1.5)
