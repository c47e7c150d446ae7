"""Items stuck behind a slow one, and idle lanes: what is taken, when, and what looking for it costs."""

from __future__ import annotations

from collections import Counter

import pytest

from mpqueue._core.commands import AnnounceItems, LowerLimit, ObserveLane, SendChunk
from mpqueue._core.messages import ChunkReported
from mpqueue._core.rules import stealing
from mpqueue._core.rules.limits import ANSWER_LIMIT
from mpqueue._core.rules.stealing import BEGIN_SECONDS
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.lane_book import Chunk, LaneBook, LaneState
from mpqueue._core.state.pending import Care
from mpqueue._wire.frames import Ended
from mpqueue._wire.memory.ledger import SETTLE, Claim, Phase
from mpqueue.status import JobStatus
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, attempts, begun, fail, packed, statuses, succeed
from tests.support.fake_worker import Item, Packing, Try


def test_items_behind_a_slow_one_go_to_an_idle_lane() -> None:
    fleet = audited(2)
    job = fleet.started([succeed(10.0), *[succeed(0.1)] * 9], chunksize=10)
    fleet.run_until(2.0)
    assert job.completed == 9
    fleet.run_until_over(job)
    assert fleet.now == pytest.approx(10.1)
    assert Counter(begun(fleet)) == dict.fromkeys(range(10), 1), "nothing runs twice"


@pytest.mark.parametrize(
    ("lanes", "items", "chunksize", "seconds"),
    [
        pytest.param(2, 2, 2, 1.1, id="two in one chunk run side by side"),
        # One of one waiting item for one idle lane: rounding must not leave it.
        pytest.param(2, 4, 2, 2.1, id="the last of a chunk although its neighbour is not slow yet"),
        pytest.param(4, 8, 8, 2.1, id="a chunk for all idle lanes"),
    ],
)
def test_slow_items_are_shared(lanes: int, items: int, chunksize: int, seconds: float) -> None:
    fleet = audited(lanes)
    fleet.run([succeed(1.0)] * items, chunksize=chunksize)
    assert fleet.now == pytest.approx(seconds, abs=0.02)


def test_a_chunk_that_waits_behind_a_slow_item_is_taken_as_a_whole() -> None:
    fleet = audited(2)
    job = fleet.run([succeed(0.001)] * 200 + [succeed(5.0)] + [succeed(0.001)] * 30)
    assert fleet.now == pytest.approx(5.2, abs=0.1)
    assert attempts(job) == [1] * 231


def test_a_stretch_that_was_cut_off_behind_a_slow_item_comes_free() -> None:
    """All of it was claimed when it was first looked at, and only its first item after 48 ms."""
    fleet = audited(4)
    fleet.run([*[succeed(20e-6)] * 2000, *[succeed(3.0)] * 4])
    assert fleet.now == pytest.approx(3.25, abs=0.1), "all four are in one chunk; one after the other is taken from it"


def test_the_chunk_that_runs_is_shared_although_the_one_behind_it_is_gone_already() -> None:
    fleet = audited(2)
    job = fleet.job([succeed(0.001)] * 40, chunksize=20)
    books, lane = fleet.books, fleet.books.lanes[0]
    for number, end in ((1, 20), (2, 0)):
        chunk = Chunk(number, job, range(20 * number - 20, 20 * number), Care.NONE, 0.02, 0.0)
        chunk.end = end
        books.add_chunk(lane, chunk)
    for each in books.lanes:
        fleet.books.enter(each, LaneState.READY)
    job.status, job.sizer.seconds_per_item, books.look_to_rob = JobStatus.RUNNING, 0.001, lane.bit
    stealing.judge(books, lane, Claim(1, Phase.RUNNING, 0, 4, 0.0), books.now)
    assert books.commands == [LowerLimit(0, 1, 12)]


def lane_with_chunks(fleet: FakeLanes, *sizes: int) -> tuple[LaneBook, list[Chunk]]:
    """Lane 0 with chunks of a job of tiny items, from the scheduler's middle; the other lanes are idle."""
    job, lane, start, chunks = fleet.job([succeed(0.0001)] * sum(sizes)), fleet.books.lanes[0], 0, []
    for number, size in enumerate(sizes, 1):
        chunks.append(Chunk(number, job, range(start, start + size), Care.NONE, 0.02, 0.0))
        fleet.books.add_chunk(lane, chunks[-1])
        start += size
    job.pending.take(start)
    for each in fleet.books.lanes:
        fleet.books.enter(each, LaneState.READY)
    fleet.books.jobs[job.number] = job
    job.status, job.sizer.seconds_per_item = JobStatus.RUNNING, 0.0001
    return lane, chunks


def observe_after_settling(fleet: FakeLanes, lane: LaneBook, claim: Claim) -> None:
    fleet.books.now += 2 * SETTLE
    stealing.judge(fleet.books, lane, claim, fleet.books.now)


def test_a_chunk_that_ran_to_its_end_unseen_is_not_taken_although_its_report_is_late() -> None:
    """When the limit has settled the worker is at its next chunk, so its claim says nothing of the one before."""
    fleet = FakeLanes(2)
    lane, (first, second) = lane_with_chunks(fleet, 20, 20)
    fleet.books.now, fleet.books.look_to_rob = 1.0, lane.bit
    stealing.judge(fleet.books, lane, Claim(1, Phase.RUNNING, 0, 5, 0.5), fleet.books.now)
    assert LowerLimit(0, 1, 5) in fleet.books.commands
    observe_after_settling(fleet, lane, Claim(2, Phase.RUNNING, 0, 0, 1.001))
    assert first.end == 20
    assert second.end == 0


def test_of_what_ran_beyond_the_end_that_its_chunk_has_by_now_nothing_counts() -> None:
    """Other lanes have it."""
    fleet = FakeLanes(2)
    lane, (chunk,) = lane_with_chunks(fleet, 4)
    chunk.end = 2
    failures = {at: Failure(ValueError(at)) for at in (1, 3)}
    report = ChunkReported(
        0, lane.generation, 1, 0, 4, ["a", None, "c", None], failures, [(4, 0.1, 0.1)], 0.4, Ended.DONE
    )
    told = [one for one in fleet.scheduler.handle(report, 1.0) if isinstance(one, AnnounceItems)]
    assert [(list(one.indices), [*one.retrying]) for one in told] == [([0, 1], [1])]
    assert statuses(chunk.job) == ["completed", "retry", "pending", "pending"]
    assert list(chunk.job.table.results) == ["a", None, None, None]


def test_what_has_run_is_not_taken_while_its_results_are_pickled() -> None:
    fleet = FakeLanes(2)
    lane, (chunk,) = lane_with_chunks(fleet, 20)
    fleet.books.now, fleet.books.look_to_rob = 1.0, lane.bit
    stealing.judge(fleet.books, lane, Claim(1, Phase.PACKING, 1, 8, 0.5), fleet.books.now)
    observe_after_settling(fleet, lane, Claim(1, Phase.PACKING, 2, 8, 0.9))
    assert chunk.end == 8


def test_a_chunk_may_be_taken_once_the_one_before_it_whose_limit_was_settling_is_gone() -> None:
    fleet = FakeLanes(2)
    lane, (first, _) = lane_with_chunks(fleet, 20, 20)
    first.settling, first.job.lanes_to_rob = 5, 0  # as the search for stuck items leaves it
    fleet.books.remove_chunk(lane, first)
    assert first.job.lanes_to_rob == lane.bit


def test_what_the_worker_claims_while_the_limit_settles_stays_with_it() -> None:
    fleet = audited(2)
    fleet.run([succeed(SETTLE * 0.9)] * 200, chunksize=40)
    assert Counter(begun(fleet)) == dict.fromkeys(range(200), 1)
    assert fleet.counts[LowerLimit] > 0


def test_each_of_two_chunks_on_a_lane_has_a_limit_of_its_own_after_a_refused_one() -> None:
    """The ledger has two limits: for chunks of even and of odd number."""
    fleet = audited(2)
    items = [succeed()] * 5 + [succeed(0.001)] * 12 + [succeed()] * 2 + [packed(Packing.UNPICKLABLE)]
    fleet.run(items)
    assert Counter(begun(fleet)) == dict.fromkeys(range(19), 1)


def test_no_lane_that_sits_a_job_out_makes_anybody_look() -> None:
    fleet = audited(2)
    job = fleet.started(
        [succeed(10.0)] * 4,
        chunksize=4,
        load=lambda lane, time: Try() if lane == 0 else fail().tries[0],
    )
    fleet.run_until(20.0)
    before = fleet.counts[ObserveLane]
    fleet.run_until_over(job)
    assert fleet.counts[ObserveLane] == before


def test_items_behind_a_long_loading_go_to_a_lane_that_has_loaded() -> None:
    fleet = audited(2)
    job = fleet.run([succeed(0.1)] * 10, chunksize=5, load=lambda lane, time: Try(60.0 if lane == 0 else 1.0))
    assert job.duration is not None
    assert job.duration < 5.0


def test_nobody_steals_from_a_lane_that_loads_to_load_as_long() -> None:
    fleet = audited(4)
    fleet.started([succeed(0.1)] * 4, chunksize=4, load=lambda lane, time: Try(60.0))
    fleet.run_until(50.0)
    assert fleet.counts[SendChunk] == 1


# -- chunks on their way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0.003, 0.01, 0.3])
def test_a_chunk_that_is_slow_to_arrive_is_not_sent_around(latency: float) -> None:
    """Each lane would take it from the other before it began, for ever."""
    fleet = audited(3, latency=latency)
    fleet.run([succeed(0.001)] * 3 + [succeed(1.0)])
    assert fleet.counts[SendChunk] <= 5
    assert fleet.counts[ObserveLane] < 100


def test_a_chunk_that_never_begins_is_taken_elsewhere_in_the_end() -> None:
    """A worker may be stopped while it is idle."""
    fleet = audited(2)
    fleet.run([succeed(0.1)] * 2)
    stopped = fleet.workers[0]
    assert stopped is not None
    stopped.alive = False
    job = fleet.started([succeed(0.1)])
    fleet.run_while(lambda: not job.status.final)
    assert job.duration is not None
    assert BEGIN_SECONDS < job.duration < 3 * BEGIN_SECONDS


def test_a_chunk_that_takes_longer_to_arrive_than_that_arrives_in_the_end() -> None:
    fleet = audited(8, latency=3 * BEGIN_SECONDS)
    fleet.run([succeed(0.1)])
    assert fleet.counts[SendChunk] <= 4


# -- what looking costs ------------------------------------------------------------------------------------------------


def test_one_slow_item_that_runs_alone_is_looked_at_twice_at_most_for_stealing() -> None:
    fleet = audited(4)
    job = fleet.started([succeed(1000.0)])
    fleet.run_until(0.1005)
    assert not fleet.counts[ObserveLane], "it has just been sent"
    fleet.run_until_over(job)
    assert fleet.counts[ObserveLane] <= 2 + 1000 / ANSWER_LIMIT


@pytest.mark.parametrize(
    ("lanes", "items", "loading", "seconds", "looks"),
    [
        pytest.param(4, [succeed(0.001)] * 500 + [succeed(500.0)] * 3, 0.0, 500, 40, id="a long tail"),
        pytest.param(2, [succeed(0.1)] * 2, 3600.0, 3600, 40, id="a long loading"),
        pytest.param(2, [succeed(0.001)] * 300, 0.0, 0, 60, id="a shared tail"),
    ],
)
def test_what_lasts_is_looked_at_ever_more_seldom(
    lanes: int, items: list[Item], loading: float, seconds: float, looks: int
) -> None:
    fleet = audited(lanes, latency=0.0002)
    fleet.run(items, load=lambda lane, time: Try(loading))
    assert fleet.counts[ObserveLane] < looks + lanes * seconds / ANSWER_LIMIT


def test_nothing_is_taken_from_a_job_that_may_have_no_other_lane() -> None:
    fleet = audited(3)
    stream = fleet.stream(max_lanes=1)
    fleet.add(stream, [succeed(0.05)] * 40)
    fleet.seal(stream)
    fleet.run_until_over(stream)
    assert stream.completed == 40
    assert fleet.counts[LowerLimit] == fleet.counts[ObserveLane] == 0
