"""Engines that can't tell what a dead worker ran, whose workers die together, or that have no room for all of them."""

from __future__ import annotations

import random

import pytest

from mpqueue._core.commands import Capabilities
from mpqueue._core.messages import LaneDied, LanesResized, LaneStartFailed
from mpqueue._core.state.pending import Care
from mpqueue.errors import WorkerStartError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, attempts, crash, fail, hang, spoil, statuses, succeed
from tests.support.fake_worker import Outcome, Try

AT_ONCE = RetryPolicy(max_retries=1, base_delay=0.0)


def _kill_within(fleet: FakeLanes, items: list[int]) -> None:
    """End the worker by itself while it runs these items."""
    chunks = fleet.books.lanes[0].chunks
    fleet.run_while(lambda: [[*chunk.indices] for chunk in chunks] != [items])
    fleet.advance(0.5)
    fleet.kill(0)
    fleet.step()


def test_finding_the_culprit_costs_few_deaths() -> None:
    fleet = audited(2, is_blind=True, fate_of=lambda _: "all")
    job = fleet.run(
        [crash(times=1) if at == 700 else succeed(1e-5) for at in range(1000)], retry=AT_ONCE, chunksize=500
    )
    assert attempts(job)[700] == 2
    assert job.failed == 0
    assert fleet.counts[LaneDied] <= 2 * 12, "500 items are halved nine times"


def test_a_group_of_suspects_has_no_more_items_than_its_worker_may_have() -> None:
    fleet = audited(1, max_items_per_worker=4)
    job = fleet.started(
        [spoil(times=3), succeed(), succeed(), succeed()], retry=RetryPolicy(base_delay=0.0), chunksize=4
    )
    fleet.run_while(lambda: job.next_care is not Care.ALONE)
    urgent = fleet.started([succeed()], priority=1)
    fleet.run_until_over(job, urgent)
    assert statuses(job) == ["completed"] * 4


def test_an_item_that_ends_its_worker_before_its_answer_is_found_among_those_that_ran_before_it() -> None:
    fleet = audited(2, fate_of=lambda _: "process")
    quick = [spoil() if at == 5 else succeed(1e-6) for at in range(8)]
    job = fleet.run([*quick, succeed(9.0)], retry=AT_ONCE, chunksize=8)
    assert attempts(job) == [2 if at == 5 else 1 for at in range(9)]
    assert fleet.counts[LaneDied] <= 2 * 8


def test_an_item_whose_worker_dies_is_not_charged_for_one_that_ended_well_in_that_worker_before() -> None:
    fleet = audited(1, is_blind=True)
    job = fleet.started([succeed(1.0), succeed(1.0)], retry=AT_ONCE, chunksize=2)
    _kill_within(fleet, [0, 1])
    _kill_within(fleet, [0, 1])  # as a group, which is halved
    fleet.run_while(lambda: job.completed == 0)
    _kill_within(fleet, [1])  # the item before it may have spoiled the worker
    fleet.run_until_over(job)
    assert [chunk.care for chunk in fleet.chunks][-1] is Care.APART
    assert attempts(job) == [1, 1]
    assert fleet.counts[LaneDied] == 3


def test_while_a_suspect_runs_nothing_else_does_in_its_process() -> None:
    fleet = audited(4, fate_of=lambda lane: lane // 2)
    job = fleet.started([crash(0.5, times=1), *[succeed(1.0) for _ in range(9)]], retry=AT_ONCE)
    alone = []

    def look(*_: object) -> None:
        for lane in fleet.books.lanes:
            if any(chunk.isolated for chunk in lane.chunks):
                mate = fleet.books.lanes[lane.number ^ 1]
                alone.append(len(lane.chunks) == 1 and not mate.chunks)

    fleet.watchers.append(look)
    fleet.run_until_over(job)
    assert alone
    assert all(alone)
    assert job.completed == 10


def test_a_retry_of_a_job_goes_on_beside_the_suspects_of_another() -> None:
    fleet = audited(2, is_blind=True, fate_of=lambda _: "all")
    bad = fleet.job([crash(0.01), *[succeed(0.01) for _ in range(5)]], retry=AT_ONCE)
    good = fleet.job([fail(0.01, times=1), *[succeed(0.01) for _ in range(5)]], retry=AT_ONCE)
    fleet.run_all(bad, good)
    assert attempts(bad) == [2, 1, 1, 1, 1, 1]
    assert good.status is JobStatus.COMPLETED


def test_whoever_was_sent_away_is_not_suspected() -> None:
    fleet = audited(1, is_blind=True)
    job = fleet.started([succeed(1.0), succeed(1.0)])
    fleet.run_until_ready()
    fleet.advance(0.5)
    worker = fleet.workers[0]
    assert worker is not None
    worker.end()
    fleet.handle(LaneDied(0, worker.generation, worker.pid, innocent=True))
    assert job.pending.next_care is not Care.ALONE
    fleet.run_until_over(job)
    assert attempts(job) == [1, 1]


def test_cancelling_forgets_the_suspects() -> None:
    fleet = audited(2, is_blind=True, fate_of=lambda _: "all")
    job = fleet.started([crash(0.5), *[succeed(1.0) for _ in range(5)]], retry=AT_ONCE)
    fleet.run_while(lambda: job.pending.next_care is not Care.ALONE)
    fleet.cancel(job)
    fleet.run_until_over(job)
    assert job.status is JobStatus.CANCELLED


@pytest.mark.parametrize("seed", range(20))
def test_blind_histories_end_with_the_right_attempts(seed: int) -> None:
    rng = random.Random(seed)
    fates = rng.choice([lambda _: "all", lambda lane: lane // 2, lambda _: None])
    fleet = audited(4, is_blind=rng.random() < 0.7, fate_of=fates, latency=rng.choice([0.0, 0.01]))
    culprits = set(rng.sample(range(60), 3))
    items = [crash(0.001, times=1) if at in culprits else succeed(rng.choice([1e-5, 0.001, 0.1])) for at in range(60)]
    job = fleet.run(items, retry=AT_ONCE)
    assert statuses(job) == ["completed"] * 60
    assert attempts(job) == [2 if at in culprits else 1 for at in range(60)]


# -- no room ---------------------------------------------------------------------------------------------------------


def test_a_lane_without_room_is_done_without_until_it_comes() -> None:
    fleet = audited(2)
    fleet.full.add(1)
    job = fleet.started([succeed(1.0) for _ in range(10)])
    fleet.advance(3.5)
    assert not fleet.warnings
    fleet.make_room(1)
    fleet.run_until_over(job)
    assert fleet.now < 9, "two worked from then on"


def test_setups_that_fail_wherever_there_is_room_fail_the_job() -> None:
    fleet = audited(2)
    fleet.full.add(1)
    broken = Try(0.0, Outcome.FAILURE)
    job = fleet.started([succeed()], load=lambda lane, _: broken, retry=RetryPolicy(max_retries=0))
    fleet.run_until_over(job, limit=10)
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS


def test_a_worker_that_leaves_after_its_setup_failed_leaves_the_job_to_the_others() -> None:
    fleet = audited(2)
    broken = Try(0.0, Outcome.FAILURE)
    job = fleet.started(
        [succeed(1.0) for _ in range(4)],
        load=lambda lane, _: broken if lane == 0 else Try(),
        retry=RetryPolicy(max_retries=0),
    )
    fleet.advance(0.5)
    fleet.full.add(0)
    fleet.kill(0)
    fleet.run_until_over(job)
    assert job.completed == 4


def test_no_room_at_all_interrupts_the_jobs_when_patience_ends() -> None:
    fleet = audited(1, engine=Capabilities(patience=100.0))
    fleet.full.add(0)
    job = fleet.started([succeed()])
    fleet.advance(99.0)
    assert job.active
    fleet.run_until_over(job, limit=10)
    assert isinstance(job.interrupted, WorkerStartError)
    assert statuses(job) == ["pending"]


def test_no_room_for_the_worker_that_a_smaller_queue_keeps_is_no_room_at_all() -> None:
    fleet = audited(2, engine=Capabilities(patience=100.0))
    fleet.full.add(0)
    job = fleet.started([succeed(1.0)] * 5, chunksize=1)
    fleet.advance(1.5)
    fleet.handle(LanesResized(1))
    fleet.run_until_over(job, limit=120)
    assert isinstance(job.interrupted, WorkerStartError)
    assert job.completed == 2


def test_workers_that_could_never_be_started_interrupt_the_jobs_at_once() -> None:
    fleet = audited(1)
    fleet.broken.add(0)
    job = fleet.started([hang()])
    fleet.handle(LaneStartFailed(0, 1, OSError("another version"), final=True))
    assert isinstance(job.interrupted, WorkerStartError)
    assert "another version" in str(job.stopped_why)
