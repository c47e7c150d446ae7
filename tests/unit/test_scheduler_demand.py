"""How much work waits: what engines get whose workers come and go with it."""

from __future__ import annotations

from mpqueue._core.capabilities import Capabilities
from mpqueue._core.commands import TellDemand
from mpqueue.status import JobStatus
from tests.support.fake_lanes import FakeLanes, succeed

ELASTIC = Capabilities(is_here=False, patience=100.0)


def test_demand_is_told_at_the_start_when_it_halves_and_at_the_end() -> None:
    fleet = FakeLanes(2, engine=ELASTIC)
    fleet.start(job := fleet.job([succeed(60.0)] * 100))
    assert fleet.demands[-1].lanes in (98, 100)
    fleet.run_until_over(job)
    lanes = [demand.lanes for demand in fleet.demands]
    assert lanes == sorted(lanes, reverse=True)
    assert lanes[-1] == 0
    assert len(lanes) < 20
    assert max(demand.seconds for demand in fleet.demands) > 60.0 * 32
    assert fleet.demands[-1] == TellDemand()


def test_a_job_demands_no_more_lanes_than_it_may_have_and_none_while_it_is_paused() -> None:
    fleet = FakeLanes(1, engine=ELASTIC)
    fleet.full.add(0)
    fleet.start(job := fleet.job([succeed()] * 100, max_lanes=7))
    assert fleet.demands == [TellDemand(7, 0.0)]
    fleet.pause(job)
    fleet.resume(job)
    fleet.cancel(job)
    assert [demand.lanes for demand in fleet.demands] == [7, 0, 7, 0]


def test_jobs_demand_together_what_each_of_them_does_that_has_not_gone_out() -> None:
    fleet = FakeLanes(1, engine=ELASTIC)
    one, other = fleet.job([succeed(9.0)] * 100, max_lanes=4, chunksize=1), fleet.job([succeed(9.0)] * 50, max_lanes=5)
    one.sizer.seconds_per_item, other.sizer.seconds_per_item = 2.0, 1.0
    fleet.start(one)
    fleet.run_until(1.0)
    fleet.start(other)
    assert fleet.demands == [TellDemand(4, 200.0), TellDemand(3, 198.0), TellDemand(8, 248.0)]


def test_other_engines_are_told_nothing() -> None:
    fleet = FakeLanes(1)
    fleet.start(job := fleet.job([succeed()]))
    fleet.run_until_over(job)
    assert fleet.demands == []


def test_workers_that_have_no_room_yet_are_awaited_for_as_long_as_it_takes() -> None:
    """Where others have it, that is no lack of workers; where there is none, it is."""
    fleet = FakeLanes(1, engine=ELASTIC)
    fleet.full.add(0)
    fleet.awaited.add(0)
    fleet.start(job := fleet.job([succeed()]))
    fleet.advance(1000.0)
    assert job.active
    fleet.make_room(0)
    fleet.run_until_over(job)
    assert job.status is JobStatus.COMPLETED
