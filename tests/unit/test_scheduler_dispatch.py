"""Which job's items go where: chunks, prefetch, priorities, fairness, recycling."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from typing import Any

import pytest

from mpqueue._core.commands import AnnounceItems, Capabilities, RecycleLane, SendChunk, StartLane
from mpqueue._core.messages import ChunkReported
from mpqueue._core.rules import dispatch
from mpqueue._core.rules.chunking import TARGET_BYTES
from mpqueue._core.rules.dispatch import STICKINESS
from mpqueue._core.rules.reports import EMPTY_CHUNK_S
from mpqueue._core.state.lane_book import CHUNKS_PER_LANE
from mpqueue._wire.frames import Ended, WorkTimes
from mpqueue.retry import RetryPolicy
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, fail, succeed
from tests.support.fake_worker import Item, Try


def chunks_on(fleet: FakeLanes) -> list[int]:
    """How many chunks are on each lane."""
    return [len(lane.chunks) for lane in fleet.books.lanes]


def lanes_of(fleet: FakeLanes) -> Counter[int]:
    """How many lanes each job has, by its number."""
    return Counter(lane.job.number for lane in fleet.books.lanes if lane.job is not None)


def order_of_ends(fleet: FakeLanes) -> list[int]:
    """The numbers of the jobs whose items ended, in that order."""
    return [told.job.number for told in fleet.told if isinstance(told, AnnounceItems)]


# -- chunks ------------------------------------------------------------------------------------------------------------


def test_all_lanes_end_together_after_few_chunks_whatever_each_holds() -> None:
    fleet = audited(2)
    fleet.run([succeed(0.001)] * 400)
    assert fleet.now - fleet.start_seconds < 0.2 * 1.01
    assert fleet.counts[SendChunk] <= 16


@pytest.mark.parametrize("most", [4, 2])
def test_big_items_travel_in_small_chunks(most: int) -> None:
    fleet = audited(1, engine=Capabilities(chunk_bytes=TARGET_BYTES * most // 4))
    fleet.item_bytes = TARGET_BYTES // 4
    job = fleet.started([succeed(1e-4)] * 1000)
    fleet.run_while(lambda: job.completed < 500)
    assert max(len(chunk.indices) for chunk in fleet.books.lanes[0].chunks) == most


@pytest.mark.parametrize(("handling", "seconds"), [(0.25, 0.5 - EMPTY_CHUNK_S), (0.75, 0.75)])
def test_what_is_done_once_for_a_job_or_for_any_chunk_is_no_time_of_its_items(handling: float, seconds: float) -> None:
    fleet = FakeLanes(1)
    job = fleet.started([succeed(10.0)] * 2, chunksize=1)
    fleet.run_until(1.0)
    times = WorkTimes(0.0, 1.0, 0.25, 0.25, 0.0, handling, 0.0, cpu=1.0, delayed=0.0)
    fleet.handle(ChunkReported(0, 1, 1, 0, 1, [0], {}, (), busy=1.0, ended=Ended.DONE, times=times))
    assert job.sizer.seconds_per_item == pytest.approx(seconds, rel=1e-6)


def test_a_step_gives_only_so_many_lanes_a_chunk_and_the_next_steps_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MOST_AT_ONCE", 3)
    fleet, sent = FakeLanes(8), list[int]()
    job = fleet.started([succeed(1.0)] * 8)
    fleet.pause(job)
    fleet.advance(1.0)
    fleet.watchers.append(lambda _, commands: sent.append(sum(isinstance(one, SendChunk) for one in commands)))
    fleet.resume(job)
    fleet.advance(0.1)
    assert [count for count in sent if count] == [3, 3, 2]


def test_a_lane_gets_a_second_chunk_in_advance_only_of_items_known_to_be_short() -> None:
    fleet = audited(1)
    fleet.start(fleet.job([succeed(1.0)] * 10))
    fleet.run_until(3.0)
    assert chunks_on(fleet) == [1]

    fleet = audited(1)
    fleet.start(fleet.job([succeed(0.03)] * 10))
    assert chunks_on(fleet) == [0]
    fleet.run_until_ready()
    fleet.step()
    assert chunks_on(fleet) == [1], "nothing is known yet"
    fleet.advance(0.05)
    assert chunks_on(fleet) == [CHUNKS_PER_LANE]


# -- priorities --------------------------------------------------------------------------------------------------------


def test_what_runs_is_not_interrupted_by_a_higher_priority() -> None:
    fleet = audited(1)
    low, high = fleet.job([succeed(5.0)] * 2), fleet.job([succeed(1.0)], priority=9)
    fleet.start(low)
    fleet.run_until(1.0)
    fleet.start(high)
    fleet.run_until_over(low, high)
    assert order_of_ends(fleet) == [1, 2, 1]


@pytest.mark.parametrize(
    ("priorities", "most", "shares"),
    [
        ((0,), None, [8]),
        ((0, 0), None, [4, 4]),
        ((0, 1, 1), None, [2, 4, 4]),  # those above it go first, those below it don't count
        ((2, 1, 0), None, [8, 4, 2]),
        ((0, 0), 3, [3, 3]),
        ((0,) * 20, None, [1] * 20),
    ],
)
def test_a_job_reckons_with_the_lanes_that_equal_and_higher_ones_leave_it(
    priorities: tuple[int, ...], most: int | None, shares: list[int]
) -> None:
    fleet = audited(8)
    jobs = [fleet.job([succeed(1.0)] * 50, priority=priority, max_lanes=most) for priority in priorities]
    aside = fleet.job([succeed(1.0)] * 50, priority=9)
    fleet.start(*jobs, aside)
    fleet.pause(aside)
    fleet.run_until_ready()
    assert [dispatch._lanes_for(fleet.books, job) for job in jobs] == shares


@pytest.mark.parametrize(
    ("priority", "rival", "stands_back"),
    [
        (0, {"priority": 1}, True),
        (0, {"priority": 1, "max_lanes": 2}, False),  # it has all that it may have
        (1, {"priority": 0}, False),
        (0, {"priority": 0}, False),  # each has one of the two lanes
        (0, None, False),
    ],
)
def test_a_job_gets_nothing_in_advance_where_its_lanes_would_rather_serve_another(
    priority: int, rival: dict[str, Any] | None, stands_back: bool
) -> None:
    fleet = audited(2)
    job = fleet.job([succeed(1.0)] * 50, priority=priority)
    others = [] if rival is None else [fleet.job([succeed(1.0)] * 50, **rival)]
    fleet.start(job, *others)
    fleet.run_until(0.5)
    assert dispatch._stands_back(fleet.books, job) is stands_back
    for other in others:
        fleet.pause(other)
    assert not dispatch._stands_back(fleet.books, job)


# -- fairness ----------------------------------------------------------------------------------------------------------


def test_two_equal_jobs_share_a_single_lane_by_time() -> None:
    fleet = audited(1)
    short, long = fleet.job([succeed(0.2)] * 100), fleet.job([succeed(1.0)] * 20)
    fleet.start(short, long)
    fleet.run_until(20.0)
    assert short.seconds_used == pytest.approx(long.seconds_used, abs=2.0)


def test_a_job_that_starts_late_gets_its_share_at_once_and_no_more() -> None:
    fleet = audited(2)
    first, late = fleet.job([succeed(0.5)] * 300), fleet.job([succeed(0.5)] * 300)
    fleet.start(first)
    fleet.run_until(30.0)
    fleet.start(late)
    fleet.advance(0.6)
    assert lanes_of(fleet) == {1: 1, 2: 1}
    before = first.completed
    fleet.advance(30.0)
    assert first.completed - before == pytest.approx(60, abs=3)


def test_a_job_that_was_paused_does_not_make_up_for_it_at_the_others_cost() -> None:
    fleet = audited(1)
    first, second = fleet.job([succeed(0.5)] * 300), fleet.job([succeed(0.5)] * 300)
    fleet.start(first, second)
    fleet.run_until(5.0)
    fleet.pause(first)
    fleet.advance(50.0)
    fleet.resume(first)
    before = (first.completed, second.completed)
    fleet.advance(10.0)
    assert first.completed - before[0] == pytest.approx(10, abs=2)
    assert second.completed - before[1] == pytest.approx(10, abs=2)


def test_a_lane_loads_no_second_handler_for_a_moment_s_difference() -> None:
    fleet = audited(1, start_seconds=0)
    fleet.run_all(*(fleet.job([succeed(0.001)] * 400, load=lambda lane, time: Try()) for _ in range(2)))
    assert fleet.loads == [(0, 0.0), (0, pytest.approx(STICKINESS, abs=0.05))]


# -- recycling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "items", "chunksize", "recycled"),
    [
        pytest.param(3, [succeed(0.2)] * 10, None, 3, id="items"),
        pytest.param(2, [fail(times=3)], None, 2, id="retries, which count as items"),
        pytest.param(4, [succeed(1.0)] * 8, 4, 2, id="items without those that were handed back"),
    ],
)
def test_a_worker_is_replaced_after_so_many_items(
    most: int, items: list[Item], chunksize: int | None, recycled: int
) -> None:
    fleet = audited(1, max_items_per_worker=most)
    fleet.run(items, chunksize=chunksize, retry=RetryPolicy(base_delay=1.0, factor=1.0))
    assert (fleet.counts[RecycleLane], fleet.counts[StartLane]) == (recycled, recycled + 1)


def test_lanes_may_be_added_while_jobs_run() -> None:
    fleet = audited(1)
    job = fleet.started([succeed(1.0)] * 12)
    fleet.run_until(0.5)
    fleet.want(4)
    fleet.run_until_over(job)
    assert len(fleet.books.lanes) == 4
    assert fleet.now < 5.0


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "sigma"), [(2, 2.0), (16, 0.5), (64, 1.0)])
def test_with_costs_all_is_over_within_two_percent_of_list_scheduling(lanes: int, sigma: float) -> None:
    rng = random.Random(lanes)
    seconds = [rng.lognormvariate(0.0, sigma) for _ in range(300)]
    fleet = FakeLanes(lanes)
    job = fleet.job([succeed(each) for each in seconds])
    job.order_by(seconds)
    fleet.run_all(job)
    assert job.duration is not None
    assert job.duration - fleet.start_seconds <= 1.02 * longest_first(seconds, lanes)


def longest_first(seconds: list[float], lanes: int) -> float:
    """When the last item ends, where each lane takes the longest item that is left."""
    ends = [0.0] * lanes
    for each in sorted(seconds, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends)
