"""How much work waits: what engines get whose workers come and go with it."""

from __future__ import annotations

from mpqueue._core.commands import Capabilities, TellDemand
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
