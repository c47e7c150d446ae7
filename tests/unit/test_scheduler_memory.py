"""Memory: who is charged, who is replaced, what runs apart, and how little runs where the machine has little left."""

from __future__ import annotations

import pytest

from mpqueue._core.commands import KillLane, RecycleLane
from mpqueue._core.messages import MemoryRead, WorkerMemory
from mpqueue._core.rules.dispatch import APART_ALONE, APART_WAIT_S
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.pending import Care
from mpqueue._core.state.resources import SCARCE_PART, SHORT_PART
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue.errors import MemoryLimitError, SetupError
from mpqueue.retry import RetryPolicy
from tests.support.auditor import audited
from tests.support.fake_lanes import (
    LOOK_SECONDS,
    MEMORY,
    FakeLanes,
    attempts,
    errors,
    hog,
    leak,
    statuses,
    succeed,
)
from tests.support.fake_worker import Item, Outcome, Try

AT_ONCE = RetryPolicy(base_delay=0.0)
NEVER = RetryPolicy(max_retries=0)
MOST = 100


def limited(lanes: int = 1, most: int | None = MOST) -> FakeLanes:
    """Lanes whose workers may have so much memory, watched."""
    return audited(lanes, max_memory=most)


def running(fleet: FakeLanes, job: JobBook) -> list[int]:
    """The items of the job that are in workers now."""
    return [index for lane in fleet.books.lanes for chunk in lane.chunks if chunk.job is job for index in chunk.indices]


# -- within an item ----------------------------------------------------------------------------------------------------


def test_a_try_that_died_of_memory_is_followed_by_one_that_runs_apart() -> None:
    fleet = limited(3)
    job = fleet.started([hog(500, 60.0), *[succeed(0.2)] * 300], retry=AT_ONCE)
    fleet.run_while(lambda: job.table.attempts[0] == 0)
    fleet.run_while(lambda: 0 not in running(fleet, job))
    assert running(fleet, job) == [0]
    (lane,) = (lane for lane in fleet.books.lanes if lane.chunks)
    assert lane.chunks[0].care is Care.APART
    assert lane.tries == 1
    fleet.run_until_over(job)
    assert attempts(job) == [4, *[1] * 300]


def test_of_those_that_have_to_run_apart_the_one_of_the_highest_priority_goes_first() -> None:
    fleet = limited(2)
    low, high = (fleet.job([hog(500)], retry=RetryPolicy(1, base_delay=0.0), priority=at) for at in range(2))
    fleet.run_all(low, high)
    assert [job for job, _ in fleet.begun][2:] == [high, low]


def test_what_had_to_run_apart_when_its_job_ran_before_does_so_again() -> None:
    fleet = FakeLanes(2)
    job = fleet.job([succeed(1.0)] * 3, chunksize=1)
    job.go_on({0: Care.APART})
    fleet.start(job)
    fleet.run_while(lambda: 0 not in running(fleet, job))
    fleet.advance(0.5)
    assert running(fleet, job) == [0]


def test_what_waits_to_run_apart_does_not_wait_for_ever() -> None:
    fleet = limited(3)
    endless = fleet.job([succeed(1e6)])
    job = fleet.job([hog(500, 60.0), *[succeed(0.2)] * 30], retry=AT_ONCE)
    fleet.start(endless, job)
    fleet.run_until_over(job, limit=10 * APART_WAIT_S, at_rest=False)
    assert (statuses(job)[0], attempts(job)) == ("failed", [4, *[1] * 30])
    fleet.cancel(endless, kill=True)


def test_an_item_that_runs_apart_and_never_ends_does_not_hold_up_others_for_ever() -> None:
    fleet = limited(2)
    last_straw = Item((Try(0.0, Outcome.HANG),), needs=50)
    job = fleet.job([leak(60, 0.5), last_straw], max_lanes=1, chunksize=1)
    other = fleet.job([succeed(0.5)] * 200)
    fleet.start(job)
    fleet.run_while(lambda: not any(chunk.care is Care.APART for lane in fleet.books.lanes for chunk in lane.chunks))
    begun = fleet.now
    fleet.start(other)
    fleet.run_while(lambda: not running(fleet, other))
    assert fleet.now == pytest.approx(begun + APART_ALONE, abs=1.0)
    assert running(fleet, job) == [1]
    fleet.run_until_over(other, limit=1000.0, at_rest=False)
    assert attempts(other) == [1] * 200
    fleet.cancel(job, kill=True)


def test_what_runs_apart_still_does_when_its_job_is_cancelled() -> None:
    fleet = FakeLanes(2)
    job, other = fleet.job([succeed(1.0)]), fleet.job([succeed(1.0)])
    job.go_on({0: Care.APART})
    fleet.start(job)
    fleet.run_while(lambda: running(fleet, job) != [0])
    fleet.advance(0.5)
    fleet.cancel(job)
    fleet.start(other)
    fleet.advance(0.25)
    assert (running(fleet, job), running(fleet, other)) == ([0], [])
    fleet.run_until_over(other)


def test_each_that_has_to_run_apart_waits_for_what_runs_by_itself() -> None:
    fleet, begun = FakeLanes(2), list[float]()
    failing = Try(1.0, Outcome.FAILURE, ValueError("no"))
    one, other = (
        fleet.job([Item((failing, Try(0.0, last)))], retry=AT_ONCE) for last in (Outcome.HANG, Outcome.RESULT)
    )
    fleet.start(one, other)
    fleet.run_until(0.5)
    for lane in fleet.books.lanes:
        lane.chunks[0].job.pending.handle_with(0, Care.APART)
    fleet.item_watchers.append(lambda *_: begun.append(fleet.now))
    fleet.run_until_over(other, at_rest=False)
    assert begun[1] - begun[0] == pytest.approx(APART_ALONE + APART_WAIT_S, abs=1.0)
    fleet.cancel(one, kill=True)


def test_a_job_of_one_lane_that_is_busy_for_ever_holds_up_no_other() -> None:
    fleet = limited(2)
    job = fleet.job([hog(500, 60.0), succeed(1e6)], retry=RetryPolicy(base_delay=1.0), max_lanes=1)
    other = fleet.job([succeed(0.5)] * 200)
    fleet.start(job, other)
    fleet.run_until_over(other, limit=1000.0, at_rest=False)
    assert attempts(other) == [1] * 200
    fleet.cancel(job, kill=True)


def test_a_higher_priority_goes_before_an_item_that_has_to_run_apart() -> None:
    fleet = limited(2)
    job = fleet.job([hog(500, 60.0)], retry=RetryPolicy(base_delay=3.0))
    urgent = fleet.job([succeed(0.5)] * 50, priority=1)
    fleet.start(job)
    fleet.run_while(lambda: job.table.attempts[0] == 0)
    fleet.run_all(urgent)
    assert attempts(job) == [1]
    fleet.run_until_over(job)


def test_a_setup_with_too_much_fails_the_job_and_says_so() -> None:
    fleet = limited()
    job = fleet.started([succeed(0.1)], load=lambda lane, time: Try(5.0), retry=NEVER)
    fleet.run_while(lambda: fleet.workers[0] is None)
    worker = fleet.workers[0]
    assert worker is not None
    worker.kept = 500
    fleet.run_until_over(job)
    error = job.table.failures[0].error
    assert isinstance(error, SetupError)
    assert isinstance(error.__cause__, MemoryLimitError)
    assert "in setup" in str(error.__cause__)


# -- between items -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0001, 0.4], ids=["between two looks", "during some"])
def test_a_worker_that_grows_is_replaced_and_nobody_is_charged(seconds: float) -> None:
    fleet = limited(2)
    job = fleet.run([leak(7, seconds)] * 400)
    assert (statuses(job), attempts(job)) == (["completed"] * 400, [1] * 400)
    assert fleet.counts[RecycleLane] >= 5
    assert fleet.counts[KillLane] == 0


def test_the_last_straw_is_not_charged_and_runs_again_apart() -> None:
    fleet = limited()
    job = fleet.run([leak(70, 0.01), hog(50, 3.0)], chunksize=1)
    assert (statuses(job), attempts(job)) == (["completed"] * 2, [1, 1])
    assert fleet.counts[KillLane] == 1


def test_an_item_that_runs_apart_is_charged_though_its_own_part_is_the_smaller_one() -> None:
    fleet = limited(most=15)
    job = fleet.started([hog(8, 3.0)], retry=NEVER)
    fleet.run_until_over(job, limit=60.0)
    assert (statuses(job), attempts(job)) == (["failed"], [1])
    assert fleet.counts[KillLane] == 2


def test_the_error_says_how_much_it_was_and_how_much_it_may_be() -> None:
    fleet = limited(most=100_000_000)
    job = fleet.run([hog(500_000_000)], retry=NEVER)
    had = "500 MB of private memory, more than per_worker['memory'] of 100 MB; it was killed"
    assert job.table.failures[0].message == f"the item's worker had {had}"


@pytest.mark.parametrize(
    ("phase", "items", "killed"),
    [
        (Phase.RUNNING, 1, 1),
        (Phase.PACKING, 1, 1),
        (Phase.LOADING, 0, 1),
        (Phase.UNPACKING, 1, 1),
        (Phase.UNPACKING, 0, 0),
        (Phase.IDLE, 0, 0),
    ],
)
def test_what_has_too_much_at_two_looks_in_a_row_is_ended_where_it_is_at_something(
    phase: Phase, items: int, killed: int
) -> None:
    fleet = FakeLanes(1)
    fleet.books.max_memory = MOST
    fleet.start(fleet.job([succeed(1e3)]))
    fleet.run_until(1.0)
    claim = Claim(1, phase, 0, items, 0.5)

    def looked(used: int) -> int:
        fleet.handle(MemoryRead([WorkerMemory(0, 1, used, MOST - 1, claim)]))
        return fleet.counts[KillLane]

    assert [looked(used) for used in (MOST + 1, MOST, MOST + 1)] == [0, 0, 0]
    assert looked(MOST + 1) == killed


@pytest.mark.parametrize(
    ("phase", "base", "killed"), [(Phase.RUNNING, 50, 1), (Phase.RUNNING, 51, 0), (Phase.PACKING, 0, 0)]
)
def test_an_item_that_takes_the_larger_part_itself_is_ended_at_the_first_look_wherever_it_is_in_its_chunk(
    phase: Phase, base: int, killed: int
) -> None:
    fleet = FakeLanes(1)
    fleet.books.max_memory = MOST
    fleet.started([succeed(1e3)] * 3, chunksize=3)
    fleet.run_until(1.0)
    fleet.handle(MemoryRead([WorkerMemory(0, 1, MOST + 1, base, Claim(1, phase, 1, 2, 0.5))]))
    assert fleet.counts[KillLane] == killed


def test_what_a_worker_had_from_the_start_does_not_count_where_that_alone_is_too_much() -> None:
    fleet = FakeLanes(1)
    fleet.books.max_memory = MOST
    fleet.start(fleet.job([succeed(1e3)]))
    fleet.run_until(1.0)
    for used, killed in ((2 * MOST + 5, 0), (2 * MOST + 5, 0), (2 * MOST + 6, 0), (2 * MOST + 6, 1)):
        fleet.handle(MemoryRead([WorkerMemory(0, 1, used, MOST + 5, Claim(1, Phase.RUNNING, 0, 1, 0.5))]))
        assert fleet.counts[KillLane] == killed


def test_a_last_straw_that_is_soon_over_is_left_to_end() -> None:
    fleet = limited()
    job = fleet.run([leak(70, 0.01), hog(50, LOOK_SECONDS * 0.9)], chunksize=1)
    assert attempts(job) == [1, 1]
    assert fleet.counts[KillLane] == 0


def test_a_worker_that_is_large_and_idle_is_replaced() -> None:
    fleet = limited()
    job, endless = fleet.job([leak(200, 0.01)]), fleet.job([succeed(1e6)], max_lanes=1)
    fleet.run_all(job)
    fleet.start(endless)
    fleet.run_until(fleet.now + 1.0)
    assert fleet.books.lanes[0].generation == 2
    fleet.cancel(endless, kill=True)


@pytest.mark.parametrize("seconds", [0.001, 0.2], ids=["between two looks", "during many"])
def test_workers_that_are_too_large_before_they_run_anything_run_one_item_each_and_one_warning_says_so(
    seconds: float,
) -> None:
    fleet = limited(1, most=5)
    job, _ = fleet.job([succeed(seconds)] * 5), fleet.stream()
    fleet.run_until(2.0)
    fleet.start(job)
    fleet.run_until_over(job, limit=60.0)
    assert attempts(job) == [1] * 5
    (warning,) = fleet.warnings
    assert "replaced after one item" in warning


def test_an_item_in_a_worker_that_was_too_large_before_is_charged_for_what_it_takes_itself() -> None:
    fleet = limited(1, most=5)
    job = fleet.started([hog(4, 0.2), hog(40, 0.2)], retry=NEVER, chunksize=1)
    fleet.run_until_over(job, limit=60.0)
    assert statuses(job) == ["completed", "failed"]
    assert errors(job)[1] is MemoryLimitError


# -- the machine -------------------------------------------------------------------------------------------------------


def test_one_lane_works_while_the_machine_has_little_memory_and_all_when_it_has_enough() -> None:
    fleet = limited(4)
    job = fleet.started([succeed(0.2)] * 400)
    fleet.run_until(1.0)
    assert len(running(fleet, job)) == 4
    fleet.let_memory_be(int(MEMORY * SHORT_PART) - 1)
    fleet.advance(0.5)
    assert len(running(fleet, job)) == 1
    done = job.completed
    fleet.advance(5.0)
    assert job.completed > done + 10
    fleet.let_memory_be(int(MEMORY * SHORT_PART * 1.2))
    fleet.advance(0.5)
    assert len(running(fleet, job)) == 1, "not enough yet: it would be short again at once"
    fleet.let_memory_be(MEMORY)
    assert len(running(fleet, job)) == 4
    fleet.run_until_over(job)
    assert attempts(job) == [1] * 400


@pytest.mark.parametrize(("room", "most"), [(1, 1), (2, 2)])
def test_lanes_hold_chunks_in_advance_where_there_is_room_for_all_of_them(room: int, most: int) -> None:
    fleet, held = FakeLanes(2, latency=0.01), list[int]()
    fleet.books.headroom.lanes = room
    fleet.watchers.append(lambda _, __: held.extend(len(lane.chunks) for lane in fleet.books.lanes))
    fleet.run([succeed(0.001)] * 1000)
    assert max(held) == most


def test_where_next_to_nothing_is_left_the_largest_gives_way_uncharged_and_runs_apart() -> None:
    fleet = limited(3, most=1000)
    job = fleet.started([hog(100, 5.0), hog(300, 5.0), hog(200, 5.0), succeed(0.1)], retry=NEVER)
    fleet.run_until(1.0)
    fleet.let_memory_be(int(MEMORY * SCARCE_PART) - 1)
    assert fleet.counts[KillLane] == 1
    fleet.run_while(lambda: 1 in running(fleet, job))
    fleet.let_memory_be(MEMORY)
    fleet.run_while(lambda: 1 not in running(fleet, job))
    assert running(fleet, job) == [1]
    fleet.run_until_over(job)
    assert (statuses(job), attempts(job)) == (["completed"] * 4, [1] * 4)
    assert fleet.counts[KillLane] == 1


def test_a_machine_with_next_to_nothing_left_still_ends_all_jobs_and_charges_nobody() -> None:
    fleet = limited(3, most=1000)
    job = fleet.started([hog(100, 3.0)] * 9, retry=NEVER)
    fleet.run_until(1.0)
    fleet.let_memory_be(0)
    fleet.run_until_over(job, limit=600.0)
    assert (statuses(job), attempts(job)) == (["completed"] * 9, [1] * 9)
    assert fleet.counts[KillLane] == 2


def test_what_other_items_under_the_same_mark_took_is_not_charged_to_the_one_that_is_cut_off() -> None:
    fleet = limited(most=80)
    job = fleet.run([succeed(0.00005), *[leak(20, 0.0)] * 4, succeed(3.0)], chunksize=6, retry=NEVER)
    assert (statuses(job), attempts(job)) == (["completed"] * 6, [1] * 6)
