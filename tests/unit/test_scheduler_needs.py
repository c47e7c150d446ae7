"""What items need while they run: they start while it fits, and give it back once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mpqueue._core.commands import Capabilities, RecycleLane, SendChunk
from mpqueue._core.rules.dispatch import PASSED_SECONDS
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.resources import JobNeeds, Needs, needs_of
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, begun, fail, succeed
from tests.support.fake_worker import Item, Outcome, Try


def watched(lanes: int, **options: Any) -> FakeLanes:
    return audited(lanes, resources={"gpu": 2, "license": 3}, **options)


def needing(fleet: FakeLanes, items: list[Item], *kinds: Needs, of: list[int] | None = None, **options: Any) -> JobBook:
    return fleet.job(items, needs=JobNeeds(kinds, of, memory=100), **options)


def running(fleet: FakeLanes, job: JobBook) -> list[int]:
    """The indices of the job's items that are on a lane."""
    return sorted(i for lane in fleet.books.lanes for chunk in lane.chunks if chunk.job is job for i in chunk.indices)


def left(fleet: FakeLanes) -> dict[str, int]:
    return fleet.books.resources.left


@pytest.mark.parametrize(
    ("needs", "most"),
    [
        (needs_of(uses={"gpu": 1}), 2),
        (needs_of(uses={"license": 2}), 1),
        (needs_of(memory=30), 3),
        (needs_of(cpus=2), 4),
        (needs_of(cpus=3), 2),
        (needs_of(cpus=8), 1),
        (needs_of(uses={"gpu": 1, "license": 2}), 1),
        (needs_of(), 8),
    ],
)
def test_as_many_items_run_as_fit(needs: Needs, most: int) -> None:
    fleet = watched(8)
    job = needing(fleet, [succeed(1.0)] * 20, needs)
    fleet.start(job)
    fleet.run_until(0.5)
    assert len(running(fleet, job)) == most
    assert job.needs is not None
    assert job.needs.most_at_a_time(8, {"gpu": 2, "license": 3}) == most
    fleet.run_until_over(job)
    assert job.status is JobStatus.COMPLETED
    assert left(fleet) == fleet.books.resources.limits


def test_items_of_equal_needs_travel_together() -> None:
    fleet = watched(2)
    kinds = [index // 50 % 2 for index in range(400)]
    job = needing(fleet, [succeed(0.001)] * 400, needs_of(), needs_of(uses={"gpu": 1}), of=kinds)
    fleet.run_all(job)
    assert fleet.counts[SendChunk] < 80


def test_lanes_that_may_not_have_a_packed_chunk_get_what_comes_behind_it() -> None:
    """It goes to the last lane that is asked, which is the only one whose worker has seen no device yet."""
    engine = Capabilities(chunk_seconds=0.045, chunk_cost=0.0001, is_here=False)
    fleet = watched(3, device="gpu", pack_seconds=0.02, engine=engine)
    needs = [needs_of(), needs_of(uses={"gpu": 1}), needs_of(uses={"gpu": 0})]
    items = [succeed(0.0), succeed(0.0), succeed(0.0), succeed(0.03)]
    job = fleet.job(items)
    job.order_by([0.0, 0.0, 0.0, 0.03])
    job.need(JobNeeds(needs, [0, 1, 2, 0], memory=100))
    fleet.run_all(job)
    assert job.completed == 4


def test_items_of_a_job_start_in_their_order_and_other_jobs_go_on_while_the_next_one_waits() -> None:
    fleet = watched(4)
    holder = needing(fleet, [succeed(3.0)], needs_of(uses={"gpu": 1}))
    job = needing(fleet, [succeed(1.0)] * 3, needs_of(), needs_of(uses={"gpu": 2}), of=[0, 1, 0])
    other = needing(fleet, [succeed(1.0)] * 9, needs_of(uses={"gpu": 1}))
    fleet.start(holder, job)
    fleet.run_until(2.5)
    assert (job.completed, running(fleet, job)) == (1, []), "what needs nothing waits behind what needs both"
    fleet.start(other)
    assert running(fleet, other) == [0]
    fleet.run_until_over(holder, job, other)
    assert begun(fleet)[-12:].index(1) < begun(fleet)[-12:].index(2)


def test_all_that_the_first_in_line_needs_is_kept_also_what_is_left_while_it_waits_for_the_rest() -> None:
    """Otherwise those that take one resource and those that take the other could hold it up for ever, in turn."""
    fleet = watched(4)
    ones = needing(fleet, [succeed(1.0)] * 100, needs_of(uses={"gpu": 1}))
    others = needing(fleet, [succeed(1.3)] * 100, needs_of(uses={"license": 2}))
    fleet.start(ones, others)
    fleet.run_until(0.5)
    both = needing(fleet, [succeed(1.0)], needs_of(uses={"gpu": 2, "license": 3}))
    fleet.start(both)
    fleet.run_while(lambda: not running(fleet, both), limit=PASSED_SECONDS + 1.5)
    fleet.run_until_over(ones, others, both)


def test_jobs_that_need_all_cpus_and_jobs_that_need_one_take_turns() -> None:
    """Their items take longer than anything may be passed, and fit only when the other's have ended."""
    fleet = watched(2)
    large = needing(fleet, [succeed(10.0)] * 6, needs_of(cpus=2))
    plain = fleet.job([succeed(10.0)] * 12, chunksize=1)
    fleet.start(large, plain)
    fleet.run_until(60.5)
    assert large.completed >= 2
    assert plain.completed >= 2
    fleet.run_until_over(large, plain)


def test_a_job_with_needs_takes_no_more_than_its_share_of_lanes() -> None:
    """It waits for lanes alone, like the other job: for longer than anything may be passed."""
    fleet = watched(2)
    small = needing(fleet, [succeed(10.0)] * 8, needs_of(uses={"license": 1}), chunksize=1)
    plain = fleet.job([succeed(10.0)] * 8, chunksize=1)
    fleet.start(plain, small)
    fleet.run_until(40.5)
    assert (small.completed, plain.completed) == (4, 4)
    fleet.run_until_over(small, plain)


def test_small_items_pass_a_large_one_of_another_job_but_not_for_ever() -> None:
    """Each second two of the small ones end, never at the same moment: without a limit both units are never free."""
    fleet = watched(4)
    small = needing(fleet, [succeed(1.5)] + [succeed(1.0)] * 100, needs_of(uses={"gpu": 1}))
    fleet.start(small)
    fleet.run_until(0.5)
    large = needing(fleet, [succeed(1.0)], needs_of(uses={"gpu": 2}))
    fleet.start(large)
    fleet.run_until(0.5 + PASSED_SECONDS - 0.1)
    assert small.completed >= 6, "some passed it"
    assert not large.completed
    fleet.run_while(lambda: not running(fleet, large), limit=2.0)
    fleet.run_until_over(large, small)


def test_what_is_passed_keeps_only_what_it_needs() -> None:
    """Items that need none of it go on while the first in line waits."""
    fleet = watched(4)
    holder = needing(fleet, [succeed(60.0)], needs_of(uses={"gpu": 1}))
    other = needing(fleet, [succeed(0.5)] * 300, needs_of(uses={"license": 1}))
    large = needing(fleet, [succeed(1.0)], needs_of(uses={"gpu": 2}))
    fleet.start(holder, other, large)
    fleet.run_until(PASSED_SECONDS + 10.0)
    before = other.completed
    fleet.run_until(PASSED_SECONDS + 20.0)
    assert other.completed - before > 40
    fleet.run_until_over(holder, large, other)


def test_a_lower_priority_never_holds_up_a_higher_one() -> None:
    fleet = watched(4)
    urgent = needing(fleet, [succeed(1.3), *[succeed(1.0)] * 40], needs_of(uses={"gpu": 1}), priority=1)
    large = needing(fleet, [succeed(1.0)], needs_of(uses={"gpu": 2}))
    fleet.run_all(urgent, large)
    assert fleet.now < 24.0, "two at a time, all the way"


# -- beside short items, of which a lane gets the next ones in advance -------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "low", "priority", "limit"),
    [
        (needs_of(uses={"gpu": 1}), None, 5, 0.3),
        (needs_of(uses={"gpu": 1}), None, 0, 0.3),
        (needs_of(), None, 5, 0.3),
        (needs_of(memory=30), None, 5, 0.3),
        (needs_of(uses={"gpu": 2}), None, 5, 0.3),
        (needs_of(uses={"gpu": 1}), needs_of(uses={"license": 1}), 5, 0.3),
        (needs_of(memory=30), needs_of(uses={"license": 1}), 0, 0.3),
        (needs_of(cpus=2), None, 5, PASSED_SECONDS + 0.3),
        (needs_of(cpus=2), None, 0, PASSED_SECONDS + 0.3),
        (needs_of(uses={"gpu": 2}), needs_of(uses={"gpu": 1}), 5, PASSED_SECONDS + 0.3),
    ],
)
def test_short_items_leave_lanes_to_a_job_that_needs_more(
    needs: Needs, low: Needs | None, priority: int, limit: float
) -> None:
    fleet = watched(2, latency=1e-4)
    items = [succeed(0.01)] * (300 if limit < 1.0 else 1400)
    short = fleet.job(items) if low is None else needing(fleet, items, low)
    fleet.start(short)
    fleet.run_while(lambda: any(len(lane.chunks) < 2 for lane in fleet.books.lanes), limit=1.0)
    job = needing(fleet, [succeed(0.1)] * 2, needs, priority=priority)
    fleet.start(job)
    fleet.run_while(lambda: not running(fleet, job), limit=limit)
    fleet.cancel(short)
    fleet.run_until_over(short, job)
    assert job.completed == 2


def test_short_items_leave_a_lane_to_a_job_that_needs_a_device() -> None:
    """No worker that has run anything may have it, so one has to be replaced, which takes an idle lane."""
    fleet = watched(2, latency=1e-4, device="gpu")
    short = fleet.started([succeed(0.01)] * 1400)
    fleet.run_while(lambda: any(len(lane.chunks) < 2 for lane in fleet.books.lanes), limit=1.0)
    job = needing(fleet, [succeed(0.1)] * 2, needs_of(uses={"gpu": 1}), priority=5)
    fleet.start(job)
    fleet.run_while(lambda: not running(fleet, job), limit=PASSED_SECONDS + 0.5)
    fleet.cancel(short)
    fleet.run_until_over(short, job)
    assert job.completed == 2


def test_short_items_that_go_first_are_sent_in_advance_whatever_the_others_need() -> None:
    fleet = watched(2, latency=1e-4)
    short = fleet.job([succeed(0.04)] * 100, priority=1)
    later = needing(fleet, [succeed(0.1)] * 2, needs_of(uses={"gpu": 1}))
    larger = needing(fleet, [succeed(0.1)] * 2, needs_of(cpus=2))
    fleet.start(short, later, larger)
    fleet.run_while(lambda: all(len(lane.chunks) < 2 for lane in fleet.books.lanes), limit=1.0)
    fleet.run_while(lambda: short.completed < 90)
    assert not later.completed + larger.completed
    fleet.run_until_over(short, later, larger)


def test_what_is_first_in_line_lets_others_have_chunks_in_advance_that_take_nothing_from_it() -> None:
    fleet = watched(3, latency=1e-4)
    holder = needing(fleet, [succeed(60.0)], needs_of(uses={"gpu": 1}))
    short = needing(fleet, [succeed(0.04)] * 400, needs_of(uses={"license": 1}))
    large = needing(fleet, [succeed(1.0)], needs_of(uses={"gpu": 2}))
    fleet.start(holder, short, large)
    fleet.run_until(PASSED_SECONDS + 1.0)
    assert fleet.books.first_in_line == (large, needs_of(uses={"gpu": 2}))
    fleet.run_while(lambda: all(len(lane.chunks) < 2 for lane in fleet.books.lanes), limit=1.0)
    fleet.run_until_over(holder, short, large)


# -- workers that see only what they were told of ----------------------------------------------------------------------


def test_a_lane_keeps_its_device_so_that_no_worker_is_replaced() -> None:
    fleet = watched(4, device="gpu")
    job = needing(fleet, [succeed(0.3)] * 30, needs_of(uses={"gpu": 1}))
    fleet.run_all(job)
    assert not fleet.counts[RecycleLane]


def test_a_lane_that_is_not_the_first_to_take_a_device_keeps_its_own() -> None:
    fleet = watched(2, device="gpu")
    fleet.run_all(needing(fleet, [succeed(0.1)] * 2, needs_of(uses={"gpu": 1}), chunksize=1))
    failing = Try(0.1, Outcome.FAILURE)
    only_on_the_second = needing(
        fleet,
        [succeed(0.1)],
        needs_of(uses={"gpu": 1}),
        load=lambda lane, _: failing if lane == 0 else Try(),
        retry=RetryPolicy(max_retries=0),
    )
    fleet.run_all(only_on_the_second)
    assert (only_on_the_second.completed, fleet.counts[RecycleLane]) == (1, 0)


def test_a_worker_that_ran_anything_before_is_replaced_before_it_gets_a_device() -> None:
    fleet = watched(1, device="gpu")
    fleet.run([succeed(0.1)] * 3)
    job = needing(fleet, [succeed(0.1)] * 3, needs_of(uses={"gpu": 1}), needs_of(uses={"gpu": 2}), of=[0, 1, 0])
    fleet.run_all(job)
    assert job.completed == 3
    assert 2 <= fleet.counts[RecycleLane] <= 3, "one unit, both, and perhaps one again"


def test_a_worker_that_has_a_device_runs_what_needs_none_and_nothing_that_needs_a_part_of_it() -> None:
    fleet = watched(1, device="gpu")
    needs = [needs_of(uses={"gpu": 2}), needs_of(), needs_of(uses={"gpu": 1})]
    job = needing(fleet, [succeed(0.1)] * 3, *needs, of=[0, 1, 2], chunksize=1)
    fleet.run_all(job)
    assert (begun(fleet), fleet.counts[RecycleLane]) == ([0, 1, 2], 1)


def test_where_setup_fails_on_the_lane_that_has_the_devices_another_lane_gets_them() -> None:
    fleet = watched(2, device="gpu")
    fleet.run([succeed(0.1)] * 4, chunksize=1)
    failing = Try(0.1, Outcome.FAILURE)
    job = needing(
        fleet,
        [succeed(0.1)] * 3,
        needs_of(uses={"gpu": 2}),
        load=lambda lane, _: failing if lane == 0 else Try(),
        retry=RetryPolicy(max_retries=0),
    )
    fleet.run_all(job)
    assert job.completed == 3


# -- the first in line waits for a lane --------------------------------------------------------------------------------


def fails_beyond(lane: int) -> Any:
    """A setup that works on the first lanes alone."""
    return lambda number, _: Try() if number < lane else Try(0.1, Outcome.FAILURE)


def test_other_lanes_go_on_while_the_first_in_line_waits_for_one_where_its_setup_works() -> None:
    """All that it needs is there, but for a lane: others leave it that, and no lane idles for it."""
    fleet = watched(3)
    holder = fleet.job([succeed(100.0)])
    first = needing(fleet, [succeed(1.0)], needs_of(memory=60), load=fails_beyond(1), retry=RetryPolicy(max_retries=0))
    fleet.start(holder, first)
    fleet.run_until(1.0)
    blocker = needing(fleet, [succeed(10.0)], needs_of(memory=100))
    small = needing(fleet, [succeed(1.0)] * 500, needs_of(memory=30))
    large = needing(fleet, [succeed(1.0)] * 50, needs_of(memory=50))
    plain = fleet.job([succeed(1.0)] * 500)
    fleet.start(blocker, small, large, plain)
    fleet.run_until(20.0)
    assert blocker.completed == 1
    assert fleet.books.first_in_line == (first, needs_of(memory=60))
    before = small.completed, large.completed, plain.completed
    fleet.run_until(80.0)
    assert small.completed + plain.completed > before[0] + before[2] + 100, "two lanes, for 60 s"
    assert large.completed == before[1] == 0, "it would take what the first in line needs"
    fleet.run_while(lambda: not running(fleet, first), limit=40.0)
    assert fleet.now < 101.0, "as soon as the lane is free"
    fleet.cancel(small)
    fleet.cancel(large)
    fleet.cancel(plain)
    fleet.run_until_over(holder, first, small, large, plain)
    assert first.completed == 1


def test_what_the_first_in_line_leaves_goes_out_with_it() -> None:
    fleet, sent = watched(2), list[list[JobBook]]()
    holder, first, other = (needing(fleet, [succeed(10.0)], needs_of(memory=part)) for part in (100, 60, 30))
    fleet.watchers.append(lambda _, commands: sent.append([c.chunk.job for c in commands if isinstance(c, SendChunk)]))
    fleet.run_all(holder, first, other)
    assert [jobs for jobs in sent if jobs] == [[holder], [first, other]]


def test_who_stood_back_is_asked_again_once_the_first_in_line_lacks_something() -> None:
    """One lane is asked before the next gets an urgent item, which takes what the first in line needs."""
    fleet = watched(3)
    no_retry = RetryPolicy(max_retries=0)
    holder = fleet.job([succeed(100.0)])
    first = needing(fleet, [succeed(1.0)], needs_of(3, uses={"gpu": 2}), load=fails_beyond(1), retry=no_retry)
    urgent = needing(
        fleet,
        [succeed(1.0)] * 2,
        needs_of(uses={"gpu": 1}),
        load=lambda lane, _: Try(0.1, Outcome.FAILURE) if lane == 1 else Try(),
        retry=no_retry,
        priority=1,
    )
    fleet.start(holder, first)
    fleet.run_until(1.0)
    fleet.start(urgent)
    fleet.run_until(1.5)
    fleet.pause(urgent)
    blocker = needing(fleet, [succeed(10.0)], needs_of(memory=100))
    other = needing(fleet, [succeed(1.0)], needs_of(memory=50))
    fleet.start(blocker, other)
    fleet.run_until(20.0)
    assert (urgent.completed, blocker.completed, other.completed) == (1, 1, 0)
    fleet.resume(urgent)
    assert len(running(fleet, urgent)) == 1
    assert running(fleet, other) == [0], "no place is kept while the first in line lacks something else"
    fleet.run_until_over(holder, first, urgent, blocker, other)


def test_who_stood_back_is_asked_again_once_the_only_lane_of_the_first_in_line_is_taken() -> None:
    """Taken by another kind of its job that needs the same: it is first in line still, and lacks a lane."""
    fleet = watched(2)
    retry = RetryPolicy(max_retries=2, base_delay=30.0, jitter=0.0)
    plain = fleet.job([fail(0.1, times=1)], retry=retry)
    first = needing(
        fleet,
        [succeed(5.0)] * 2,
        needs_of(),
        needs_of(),
        of=[0, 1],
        load=lambda _, time: Try(0.1, Outcome.FAILURE if time == 1 else Outcome.RESULT),
        retry=retry,
    )
    fleet.start(plain, first)
    fleet.run_until(30.25)
    assert first.setups.keys() == {0, 1}, "it may be tried again on the second lane alone"
    assert (running(fleet, plain), running(fleet, first)) == ([0], [0])
    fleet.run_until_over(plain, first)


def test_a_stage_is_not_first_in_line_while_its_pipeline_has_all_its_lanes() -> None:
    """It waits for a lane of the pipeline's, perhaps for long: the others do not wait for that."""
    fleet = watched(3)
    pipeline = fleet.stages(
        [replace(succeed(0.1), returns=succeed(100.0))] * 2, [None, None], most_lanes=1, chunksize=1
    )
    assert pipeline.pipeline is not None
    pipeline.pipeline.jobs[0].need(JobNeeds([needs_of(memory=60)], memory=100))
    fleet.start(pipeline)
    fleet.run_until(1.0)
    blocker, plain = needing(fleet, [succeed(10.0)], needs_of(memory=100)), fleet.job([succeed(1.0)] * 500)
    fleet.start(blocker, plain)
    fleet.run_until(20.0)
    before = plain.completed
    fleet.run_until(80.0)
    assert plain.completed > before + 100, "two lanes, for 60 s"
    fleet.cancel(plain)
    fleet.run_until_over(pipeline, blocker, plain)
    assert pipeline.completed == 2


def test_an_earlier_stage_that_is_first_in_line_goes_before_a_later_one() -> None:
    """Both have waited for all CPUs, the earlier stage for longer; then the later stage has its turn."""
    fleet = watched(2)
    pipeline = fleet.stages([replace(succeed(1.0), returns=succeed(1.0))] * 3, [None, None], chunksize=1)
    assert pipeline.pipeline is not None
    earlier, later = pipeline.pipeline.jobs
    for stage in (earlier, later):
        stage.need(JobNeeds([needs_of(cpus=2)], memory=100))
    fleet.start(pipeline)
    fleet.run_until(0.5)
    urgent = fleet.started([succeed(6.0)] * 2, priority=1, chunksize=1)
    fleet.run_until(7.5)
    assert (running(fleet, earlier), running(fleet, later)) == ([1], [])
    fleet.run_until(8.5)
    assert (running(fleet, earlier), running(fleet, later)) == ([], [0])
    fleet.run_until_over(pipeline, urgent)
