"""Dead workers: who pays, and that nobody else notices."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.commands import AnnounceRecords, Command, ObserveLane, SendChunk
from mpqueue._core.messages import ChunkReported, LaneBroken, LaneDied, LaneObserved, RecordsLeft, TimePassed
from mpqueue._core.rules.overdue import ANSWER_LIMIT
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, Verdict, Why
from mpqueue._core.state.pending import Care
from mpqueue._wire.frames import Ended, RecordFrame
from mpqueue._wire.memory.ledger import NOWHERE, Claim, Phase
from mpqueue.errors import ItemTimeoutError, ResultPicklingError, SetupError, WorkerCrashedError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import Auditor
from tests.support.fake_lanes import (
    FakeLanes,
    Watcher,
    attempts,
    crash,
    errors,
    fail,
    hang,
    packed,
    spoil,
    statuses,
    succeed,
)
from tests.support.fake_worker import Packing, Try

AT_ONCE = RetryPolicy(base_delay=0.0)


@pytest.fixture
def fleet() -> FakeLanes:
    """One lane, watched."""
    fleet = FakeLanes(1)
    Auditor(fleet)
    return fleet


def careful_chunks(fleet: FakeLanes) -> list[list[int]]:
    """The items of each careful chunk that is sent from now on."""
    sent: list[list[int]] = []

    def watch(_: object, commands: list[object]) -> None:
        sent.extend(
            list(command.chunk.indices)
            for command in commands
            if isinstance(command, SendChunk) and command.chunk.careful
        )

    fleet.watchers.append(watch)  # type: ignore[arg-type]
    return sent


def start_chunk(fleet: FakeLanes, items: int) -> JobBook:
    """A job whose items are in one chunk, of which the first runs."""
    job = fleet.job([succeed(10.0)] * items, chunksize=items)
    fleet.start(job)
    fleet.run_until(0.1)
    return job


def die_with(fleet: FakeLanes, phase: Phase, lo: int, hi: int) -> None:
    """The worker dies by itself, and this is what its ledger says."""
    worker = fleet.workers[0]
    assert worker is not None
    worker.claim = Claim(worker.claim.chunk, phase, lo, hi, fleet.now)
    worker.die(exitcode=-11, signal="SIGSEGV")
    fleet.step()


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_a_crash_is_charged_to_the_item_that_ran_and_retried(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(0.01), crash(0.01, times=1), succeed(0.01)], chunksize=3)
    fleet.start(job)
    fleet.run_until_over(job)
    assert statuses(job) == ["completed"] * 3
    assert attempts(job) == [1, 2, 1]
    (tried,) = job.table.history[1]
    assert isinstance(tried.exception, WorkerCrashedError)
    assert tried.duration == pytest.approx(0.01)


def test_an_item_that_always_crashes_fails_after_its_tries(fleet: FakeLanes) -> None:
    job = fleet.job([crash(), succeed()])
    fleet.start(job)
    fleet.run_until_over(job)
    assert (statuses(job), attempts(job)) == (["failed", "completed"], [4, 1])


def test_what_had_killed_two_workers_has_a_lane_to_itself_in_the_next_life_of_its_program(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(0.01), crash(0.01, times=2), succeed(0.01)], retry=AT_ONCE)
    fleet.start(job)
    fleet.run_while(lambda: attempts(job)[1] < 2)
    job.table.reset_waiting()  # a journal has no more of it
    after = FakeLanes(1)
    Auditor(after).restored = {1: (job.completed, job.failed)}
    again = JobBook(1, "job", job.table, job.options, job.handler)
    again.go_on()
    sent = careful_chunks(after)
    after.start(again)
    after.run_until_over(again)
    assert sent == [[1]]
    assert statuses(again) == ["completed"] * 3


def test_a_crash_says_how_the_worker_ended(fleet: FakeLanes) -> None:
    job = fleet.job([crash()], retry=RetryPolicy(max_retries=0))
    fleet.start(job)
    fleet.run_until_over(job)
    error = job.table.failures[0].error
    assert isinstance(error, WorkerCrashedError)
    assert (error.exitcode, error.signal, error.pid) == (-11, "SIGSEGV", 1000)
    assert "SIGSEGV" in str(error)


@pytest.mark.parametrize(
    ("exitcode", "signal", "text"),
    [(0, None, "exit code 0"), (-9, "SIGKILL", "SIGKILL"), (None, None, "the system does not tell how")],
)
def test_every_end_of_a_worker_has_words(fleet: FakeLanes, exitcode: int | None, signal: str | None, text: str) -> None:
    job = fleet.job([succeed(10.0)], retry=RetryPolicy(max_retries=0))
    fleet.start(job)
    fleet.run_until(1.0)
    worker = fleet.workers[0]
    assert worker is not None
    worker.die(exitcode=exitcode, signal=signal)  # type: ignore[arg-type]
    fleet.run_until_over(job)
    assert text in str(job.table.failures[0].error)


def test_the_worker_is_replaced_at_once(fleet: FakeLanes) -> None:
    job = fleet.job([crash(times=1)], retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert fleet.now == pytest.approx(0.1 + 0.1)


def test_a_single_claim_names_the_culprit_and_the_rest_goes_out_as_before(fleet: FakeLanes) -> None:
    sent = careful_chunks(fleet)
    job = start_chunk(fleet, 5)
    die_with(fleet, Phase.RUNNING, 2, 3)
    assert attempts(job) == [0, 0, 1, 0, 0]
    assert statuses(job) == ["pending", "pending", "retry", "pending", "pending"]
    fleet.run_until_over(job)
    assert sent == []
    assert attempts(job) == [1, 1, 2, 1, 1]


def test_a_claim_of_several_charges_nobody_and_sends_them_out_carefully(fleet: FakeLanes) -> None:
    sent = careful_chunks(fleet)
    job = start_chunk(fleet, 5)
    die_with(fleet, Phase.RUNNING, 1, 4)
    assert attempts(job) == [0] * 5
    assert sorted(job.pending._suspects) == [1, 2, 3]
    fleet.run_until_over(job)
    assert sent[0] == [1, 2, 3]
    assert attempts(job) == [1] * 5


def test_of_several_tiny_items_the_one_that_crashes_is_found(fleet: FakeLanes) -> None:
    job = fleet.job([*[succeed(20e-6)] * 60, crash(20e-6), *[succeed(20e-6)] * 60], retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert statuses(job)[60] == "failed"
    assert job.completed == 120
    assert attempts(job) == [1] * 60 + [4] + [1] * 60


def test_a_crash_while_unpickling_is_found_too(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(), packed(Packing.DEADLY), succeed()], chunksize=3, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert (statuses(job), attempts(job)) == (["completed", "failed", "completed"], [1, 4, 1])
    assert errors(job)[1] is WorkerCrashedError


def test_what_was_sent_home_early_does_not_run_again(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(0.01), succeed(0.01), crash(1.0, times=1), succeed(0.01)], chunksize=4, retry=AT_ONCE)
    runs: list[int] = []
    fleet.item_watchers.append(lambda chunk, lo, hi: runs.extend(chunk.indices[lo:hi]))
    fleet.start(job)
    fleet.run_until(0.5)
    assert job.completed == 2
    fleet.run_until_over(job)
    assert (runs.count(0), runs.count(1)) == (1, 1)
    assert attempts(job) == [1, 1, 2, 1]


def test_what_had_finished_and_was_not_sent_runs_again_uncharged(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(0.01), crash(0.01, times=1)], chunksize=2, retry=AT_ONCE)
    runs: list[int] = []
    fleet.item_watchers.append(lambda chunk, lo, hi: runs.extend(chunk.indices[lo:hi]))
    fleet.start(job)
    fleet.run_until_over(job)
    assert runs.count(0) == 2
    assert attempts(job) == [1, 2]


def test_a_chunk_that_had_not_begun_goes_back_uncharged(fleet: FakeLanes) -> None:
    job = start_chunk(fleet, 3)
    worker = fleet.workers[0]
    assert worker is not None
    worker.claim = Claim(0, Phase.IDLE, 0, 0, 0.0)
    worker.die()
    fleet.run_until_over(job)
    assert attempts(job) == [1] * 3


def test_a_worker_killed_while_idle_costs_nobody_anything(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(1.0)])
    fleet.start(job)
    fleet.run_until_over(job)
    fleet.kill(0)
    again = fleet.job([succeed(1.0)])
    fleet.start(again)
    fleet.run_until_over(again)
    assert attempts(again) == [1]


def test_a_worker_killed_from_outside_while_busy_costs_the_item_a_try(fleet: FakeLanes) -> None:
    job = start_chunk(fleet, 2)
    fleet.advance(1.0)
    fleet.kill(0)
    fleet.run_until_over(job)
    assert attempts(job) == [2, 1]


def test_bystanders_on_other_lanes_never_notice() -> None:
    fleet = FakeLanes(2)
    Auditor(fleet)
    bad, good = fleet.job([crash(0.05)] * 3, retry=AT_ONCE), fleet.job([succeed(0.5)] * 4)
    fleet.start(bad, good)
    fleet.run_until_over(bad, good)
    assert bad.failed == 3
    assert attempts(good) == [1] * 4
    assert good.table.history == {}


def test_a_message_of_a_worker_that_is_gone_means_nothing(fleet: FakeLanes) -> None:
    job = fleet.job([crash(0.01, times=1), succeed(0.01)], chunksize=2, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until(0.15)
    fleet.handle(ChunkReported(0, 1, 1, 0, 2, ["a", "b"], {}, (), 0.0, Ended.DONE))
    assert job.completed == 0
    fleet.run_until_over(job)
    assert job.table.results == [0, 1]


# -- workers that cannot answer ----------------------------------------------------------------------------------------


def test_a_worker_that_dies_before_it_answers_charges_the_culprit_alone_in_the_end(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(), spoil(), succeed()], chunksize=3, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert (statuses(job), attempts(job)) == (["completed", "failed", "completed"], [1, 4, 1])
    assert "before it could answer" in str(job.table.failures[1].error)


def test_one_such_death_charges_nobody(fleet: FakeLanes) -> None:
    job = start_chunk(fleet, 3)
    die_with(fleet, Phase.IDLE, 3, 3)
    fleet.run_until_over(job)
    assert attempts(job) == [1] * 3


def test_one_that_was_killed_when_it_was_through_charges_nobody(fleet: FakeLanes) -> None:
    job = start_chunk(fleet, 3)
    fleet.books.lanes[0].verdict = Verdict(Why.TIMEOUT, 1, 2)
    die_with(fleet, Phase.IDLE, 3, 3)
    assert job.pending.take(9)[0] == range(3), "they go out together"


def test_of_two_that_die_together_nobody_is_charged_and_what_each_ran_goes_out_with_nothing_beside_it() -> None:
    fleet = FakeLanes(2, fate_of=lambda _: "one")
    job = fleet.job([succeed(10.0)] * 4, chunksize=2)
    fleet.start(job)
    fleet.run_until(0.1)
    die_with(fleet, Phase.IDLE, 2, 2)
    assert job.next_care is Care.ISOLATED
    fleet.run_until_over(job)
    assert attempts(job) == [1] * 4


@pytest.mark.parametrize(
    ("verdict", "charged"),
    [
        (Verdict(Why.TIMEOUT, 1, 1), [1, 2, 1]),
        (Verdict(Why.TIMEOUT, 1, 3), [1, 1, 1]),
        (Verdict(Why.TIMEOUT, 2, 1), [1, 1, 1]),
        (Verdict(Why.CANCEL, 1, 1), [1, 1, 1]),
    ],
)
def test_where_nobody_knows_what_a_killed_worker_ran_only_the_item_that_was_at_its_limit_is_charged(
    verdict: Verdict, charged: list[int]
) -> None:
    fleet = FakeLanes(1, is_blind=True)
    job = fleet.job([succeed(10.0)] * 3, chunksize=3, timeout=50.0, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until(0.1)
    fleet.books.lanes[0].verdict = verdict
    die_with(fleet, Phase.RUNNING, 1, 2)
    assert job.next_care is Care.NONE, "nobody is suspected"
    fleet.run_until_over(job)
    assert attempts(job) == charged


# -- a report of which the beginning is missing ------------------------------------------------------------------------


def test_an_answer_whose_beginning_never_came_home_gives_its_items_back(fleet: FakeLanes) -> None:
    job = start_chunk(fleet, 4)
    worker = fleet.workers[0]
    assert worker is not None
    worker.turn += 1
    worker._run = None
    fleet.handle(ChunkReported(0, 1, 1, 2, 4, [2, 3], {}, (), 0.0, Ended.DONE))
    fleet.run_until_over(job)
    assert (job.status, attempts(job)) == (JobStatus.COMPLETED, [1] * 4)


def test_what_is_said_of_items_that_the_chunk_has_no_more_does_not_count(fleet: FakeLanes) -> None:
    job = start_chunk(fleet, 4)
    (chunk,) = fleet.books.lanes[0].chunks
    fleet.drop(job, 2, 3)
    fleet.run_while(lambda: chunk.end != 2)
    of_each = range(4)
    failures = {at: Failure(ValueError()) for at in of_each if at % 2 == 0}
    report = ChunkReported(0, 1, 1, 0, 4, [*"abcd"], failures, (), 0.0, Ended.DONE)
    output = dict.fromkeys(of_each, ("out", ""))
    fleet.handle(report._replace(output=output, peaks=dict.fromkeys(of_each, 1 << 20)))
    assert report.results == [], "whoever takes one from the books is the last to hold it"
    assert (attempts(job)[:4], job.table.results[:4]) == ([1, 1, 0, 0], [None, "b", None, None])
    assert (sorted(job.table.output), list(job.table.peak)[:4]) == ([0, 1], [1 << 10, 1 << 10, 0, 0])


# -- timeouts ----------------------------------------------------------------------------------------------------------


def test_an_item_that_hangs_is_killed_at_its_timeout_and_retried(fleet: FakeLanes) -> None:
    job = fleet.job([hang(times=1)], timeout=3.0, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert (statuses(job), attempts(job)) == (["completed"], [2])
    assert fleet.now == pytest.approx(0.1 + 3.0 + 0.1)
    (tried,) = job.table.history[0]
    assert isinstance(tried.exception, ItemTimeoutError)
    assert tried.exception.stack == "where it was"
    assert "3 s" in str(tried.exception)


@pytest.mark.parametrize("is_blind", [False, True])
def test_a_try_lasted_as_long_as_its_timeout_also_where_its_worker_died_otherwise_or_says_nothing(
    is_blind: bool,
) -> None:
    fleet = FakeLanes(1, is_blind=is_blind)
    job = fleet.job([hang(times=1)], timeout=3.0, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until(1.0)
    fleet.books.lanes[0].verdict = Verdict(Why.TIMEOUT, 1, 0, since=fleet.now - 3.0)
    die_with(fleet, Phase.PACKING, 0, 1)  # it went on until it was killed
    fleet.run_until_over(job)
    (tried,) = job.table.history[0]
    assert isinstance(tried.exception, ItemTimeoutError)
    assert tried.duration == pytest.approx(3.0)


def test_the_timeout_holds_for_each_item_of_a_chunk_also_for_the_last(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(2.0), succeed(2.0), hang()], chunksize=3, timeout=3.0, retry=RetryPolicy(max_retries=0))
    fleet.start(job)
    fleet.run_until_over(job)
    assert statuses(job) == ["completed", "completed", "failed"]
    assert fleet.now == pytest.approx(0.1 + 2.0 + 2.0 + 3.0, abs=0.01)


def test_loading_and_setup_are_not_in_the_timeout(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(2.0)], timeout=3.0, load=lambda lane, time: Try(60.0))
    fleet.start(job)
    fleet.run_until_over(job)
    assert attempts(job) == [1]


def test_the_timeout_holds_for_an_item_behind_a_setup_that_may_take_longer(fleet: FakeLanes) -> None:
    job = fleet.job([hang()], timeout=1.0, setup_timeout=60.0, load=lambda lane, time: Try(1.5), retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert job.table.history[0][0].duration == pytest.approx(1.0)
    assert fleet.now == pytest.approx(4 * (0.1 + 1.5 + 1.0))


def test_a_hanging_item_among_tiny_ones_is_found(fleet: FakeLanes) -> None:
    job = fleet.job([*[succeed(20e-6)] * 100, hang(), *[succeed(20e-6)] * 100], timeout=1.0, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert job.completed == 200
    assert errors(job)[100] is ItemTimeoutError
    assert attempts(job) == [1] * 100 + [4] + [1] * 100


def test_items_that_run_under_one_mark_have_their_timeout_each() -> None:
    fleet = FakeLanes(1)
    Auditor(fleet)
    job = fleet.job([succeed(0.001)] * 500, timeout=0.004)
    fleet.start(job)
    fleet.run_until_over(job)
    assert attempts(job) == [1] * 500
    assert fleet.counts[LaneDied] == 0


def test_a_verdict_on_an_item_that_has_ended_meanwhile_charges_nobody() -> None:
    fleet = FakeLanes(1, kill_seconds=0.05)
    Auditor(fleet)
    job = fleet.job([succeed(3.01), succeed(10.0)], chunksize=2, timeout=3.0, retry=RetryPolicy(max_retries=0))
    fleet.start(job)
    fleet.run_until(0.1 + 3.0 + 0.05)
    assert fleet.counts[LaneDied] == 1
    fleet.run_until(4.0)
    assert job.table.history == {}
    assert job.failed == 0


def test_an_item_that_ends_between_the_verdict_and_the_kill_keeps_its_result() -> None:
    fleet = FakeLanes(1, kill_seconds=0.05)
    Auditor(fleet)
    job = fleet.job([succeed(3.01)], timeout=3.0)
    fleet.start(job)
    fleet.run_until_over(job)
    assert (statuses(job), attempts(job)) == (["completed"], [1])
    assert job.table.history == {}


def test_a_worker_that_crashes_by_itself_just_before_the_kill_is_charged_once() -> None:
    fleet = FakeLanes(1, kill_seconds=0.05)
    Auditor(fleet)
    job = fleet.job([crash(3.01, times=1)], timeout=3.0, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert attempts(job) == [2]


def test_without_limits_a_lane_is_looked_at_only_to_see_that_it_is_still_there(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(10_000.0)])
    fleet.start(job)
    fleet.run_until_over(job)
    assert fleet.counts[TimePassed] <= 10_000 / ANSWER_LIMIT + 10
    assert fleet.counts[ObserveLane] <= 10_000 / ANSWER_LIMIT + 10


@pytest.mark.parametrize("timeout", [5e-324, 1e-12, 1e-7])
def test_a_timeout_shorter_than_anybody_can_wait_ends_the_item_and_costs_few_looks(
    fleet: FakeLanes, timeout: float
) -> None:
    job = fleet.job([succeed(0.01)] * 2, timeout=timeout, retry=RetryPolicy(max_retries=0))
    fleet.start(job)
    fleet.run_until_over(job)
    assert errors(job) == [ItemTimeoutError] * 2
    assert fleet.counts[ObserveLane] < 50


def test_a_long_timeout_costs_few_looks(fleet: FakeLanes) -> None:
    job = fleet.job([succeed(5.0)] * 200, timeout=100.0)
    fleet.start(job)
    fleet.run_until_over(job)
    assert fleet.counts[ObserveLane] <= 1000 / ANSWER_LIMIT + 12
    assert len(fleet.books.timers) <= 4


def test_a_failing_neighbour_is_told_apart_from_a_crashing_one(fleet: FakeLanes) -> None:
    job = fleet.job([fail(times=1), crash(times=1), hang(times=1)], chunksize=3, timeout=1.0, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert attempts(job) == [2, 2, 2]
    kinds = [type(job.table.history[index][0].exception) for index in range(3)]
    assert kinds == [ValueError, WorkerCrashedError, ItemTimeoutError]


# -- poison ------------------------------------------------------------------------------------------------------------


def lanes_of(fleet: FakeLanes, poison: JobBook, index: int) -> list[tuple[int, int]]:
    """For each chunk from now on with that item: how many items are in it, and how many chunks on its lane by then."""
    seen: list[tuple[int, int]] = []

    def watch(_: object, commands: list[object]) -> None:
        sent = [command for command in commands if isinstance(command, SendChunk)]
        seen.extend(
            (len(command.chunk.indices), len(fleet.books.lanes[command.lane].chunks))
            for command in sent
            if command.chunk.job is poison and index in command.chunk.indices
        )

    fleet.watchers.append(watch)  # type: ignore[arg-type]
    return seen


def test_an_item_that_killed_two_workers_goes_alone_from_then_on() -> None:
    fleet = FakeLanes(2)
    Auditor(fleet)
    job = fleet.job([*[succeed(0.001)] * 400, crash(0.001), *[succeed(0.001)] * 400], retry=AT_ONCE, chunksize=5)
    seen = lanes_of(fleet, job, 400)
    fleet.start(job)
    fleet.run_until_over(job)
    assert statuses(job) == [*["completed"] * 400, "failed", *["completed"] * 400]
    assert attempts(job) == [*[1] * 400, 4, *[1] * 400]
    assert seen[-2:] == [(1, 1), (1, 1)]


def test_nothing_is_sent_behind_an_item_that_goes_alone(fleet: FakeLanes) -> None:
    job = fleet.job([crash(0.01, times=2), *[succeed(0.001)] * 100], retry=AT_ONCE)
    fleet.start(job)
    fleet.run_while(lambda: job.table.attempts[0] < 2)
    fleet.run_while(lambda: not fleet.books.lanes[0].chunks)
    held = fleet.books.lanes[0].chunks
    assert [list(chunk.indices) for chunk in held] == [[0]]
    fleet.run_while(lambda: held and 0 in held[0].indices and len(held) == 1)
    assert job.table.attempts[0] == 3
    fleet.run_until_over(job)
    assert attempts(job) == [3, *[1] * 100]


def test_two_timeouts_make_no_poison() -> None:
    fleet = FakeLanes(1)
    careful = careful_chunks(fleet)
    job = fleet.job([hang(times=2), *[succeed(0.001)] * 50], timeout=1.0, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until_over(job)
    assert attempts(job)[0] == 3
    assert careful == []


# -- results that can't be had -----------------------------------------------------------------------------------------


def lose_results(
    fleet: FakeLanes,
    results: list[object],
    *,
    final: bool = True,
    error: BaseException | None = None,
) -> None:
    """The chunk at hand comes home with these results; the next one, and what is behind it, can't be unpickled."""
    (lane,) = fleet.books.lanes
    why = Failure(error or ResultPicklingError("the result can't be unpickled: gone"))
    fleet.handle(
        ChunkReported(
            0,
            lane.generation,
            lane.chunks[0].number,
            first=lane.chunks[0].reported,
            done=lane.chunks[0].reported + len(results),
            results=results,
            failures={},
            stretches=(),
            busy=0.1,
            ended=Ended.DONE,
            final=final,
            unreadable=why,
        )
    )


def test_items_whose_results_are_lost_run_again_each_by_itself_uncharged_and_that_is_told() -> None:
    fleet = FakeLanes(1)
    job = start_chunk(fleet, 3)
    sent = careful_chunks(fleet)
    lose_results(fleet, ["first"])
    assert sent == [[1, 2]]
    assert statuses(job)[0] == "completed"
    assert attempts(job) == [1, 0, 0]
    (warning,) = fleet.warnings
    assert "run again, each by itself: the result can't be unpickled: gone" in warning


def test_an_item_whose_result_is_lost_with_its_worker_runs_again_uncharged_each_time() -> None:
    fleet = FakeLanes(1)
    job = start_chunk(fleet, 3)
    for _ in range(3):
        lose_results(fleet, [], error=WorkerCrashedError("the worker ended before its result could be taken"))
    assert attempts(job) == [0, 0, 0]
    fleet.run_until_over(job)
    assert statuses(job) == ["completed"] * 3
    assert attempts(job) == [1, 1, 1]


def test_an_item_whose_result_is_lost_a_second_time_fails_and_those_behind_it_run_again() -> None:
    fleet = FakeLanes(1)
    job = start_chunk(fleet, 3)
    sent = careful_chunks(fleet)
    lose_results(fleet, [])
    lose_results(fleet, ["first"])
    assert sent == [[0, 1, 2], [2]]
    assert statuses(job)[:2] == ["completed", "failed"]
    assert errors(job)[1] is ResultPicklingError
    assert len(fleet.warnings) == 1


def test_what_an_early_report_loses_runs_again_by_itself_when_the_chunk_is_over() -> None:
    fleet = FakeLanes(1)
    job = start_chunk(fleet, 3)
    sent = careful_chunks(fleet)
    lose_results(fleet, [], final=False)
    fleet.run_while(lambda: not sent)
    assert sent == [[1, 2]], "the first one came home once more with the rest"
    assert attempts(job) == [1, 0, 0]


# -- what no worker says -----------------------------------------------------------------------------------------------


CLAIMS = st.builds(
    Claim,
    st.sampled_from([NOWHERE, 0, 1, 2, 3, 4, 77]),
    st.sampled_from(Phase),
    st.integers(0, 6),
    st.integers(0, 6),
    st.sampled_from([0.0, 1.0, 1e10]),
    st.just(0.5),
)


@given(CLAIMS, st.booleans(), st.sampled_from([None, 2.0]))
@settings(max_examples=100)
def test_whatever_the_ledger_says_the_job_ends_and_every_item_with_it(
    claim: Claim, broken: bool, timeout: float | None
) -> None:
    fleet = FakeLanes(1)
    job = fleet.job([succeed(0.5)] * 4, chunksize=2, timeout=timeout, retry=AT_ONCE)
    fleet.start(job)
    fleet.run_until(0.3)
    (lane,) = fleet.books.lanes
    fleet.handle(LaneObserved(0, lane.generation, claim))
    worker = fleet.workers[0]
    assert worker is not None
    worker.claim = claim
    if broken:
        fleet.handle(LaneBroken(0, lane.generation, "it sent what is no message"))
    else:
        worker.die(exitcode=-11, signal="SIGSEGV")
    fleet.run_until_over(job)
    assert statuses(job) == ["completed"] * 4


@pytest.mark.parametrize("seconds", [0.1, 1e-6])
def test_an_item_that_breaks_its_line_each_time_is_found_and_charged_each_time(seconds: float) -> None:
    fleet = FakeLanes(1)
    job = fleet.job([succeed(seconds)] * 4, chunksize=4, retry=RetryPolicy(1, base_delay=0.0))

    def spoil_line(chunk: Chunk, lo: int, hi: int) -> None:
        if 2 in chunk.indices[lo:hi]:
            (lane,) = fleet.books.lanes
            fleet.call_at(fleet.now, lambda: fleet.handle(LaneBroken(0, lane.generation, "it sent what is no message")))

    fleet.item_watchers.append(spoil_line)
    fleet.start(job)
    fleet.run_until_over(job)
    assert statuses(job) == ["completed", "completed", "failed", "completed"]
    assert attempts(job) == [1, 1, 2, 1]
    assert "was killed while it ran the item: it sent what is no message" in job.table.failures[2].message
    assert all("it sent what is no message" in warning for warning in fleet.warnings)


def test_setup_that_breaks_its_line_fails_the_job_in_the_end() -> None:
    fleet = FakeLanes(1)
    job = fleet.job([succeed()], load=lambda *_: Try(0.5), retry=RetryPolicy(1, base_delay=0.0))
    fleet.watchers.append(break_while_loading(fleet))
    fleet.start(job)
    fleet.run_until_over(job)
    assert errors(job) == [SetupError]


@pytest.mark.parametrize("delay", [0.0, 0.2], ids=["before its setup", "in its setup"])
def test_a_line_that_an_earlier_job_broke_costs_the_next_job_nothing(delay: float) -> None:
    fleet = FakeLanes(1)
    spoiler = fleet.job([succeed(0.1)])
    fleet.start(spoiler)
    fleet.run_until_over(spoiler)
    (lane,) = fleet.books.lanes
    first = lane.generation

    def watch(_: object, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, SendChunk) and command.generation == first:
                broken = LaneBroken(command.lane, command.generation, "it read the end of its line")
                fleet.call_at(fleet.now + delay, functools.partial(fleet.handle, broken))

    fleet.watchers.append(watch)
    job = fleet.job([succeed()] * 3, load=lambda *_: Try(0.5), retry=RetryPolicy(0))
    fleet.start(job)
    fleet.run_until_over(job)
    assert statuses(job) == ["completed"] * 3
    assert attempts(job) == [1] * 3
    assert lane.generation == first + 1


def break_while_loading(fleet: FakeLanes) -> Watcher:
    """Whenever a chunk has been sent, its line breaks while the handler is loaded."""

    def watch(_: object, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, SendChunk):
                broken = LaneBroken(command.lane, command.generation, "it sent what is no message")
                fleet.call_at(fleet.now + 0.2, functools.partial(fleet.handle, broken))

    return watch


@pytest.mark.parametrize(
    ("exitcode", "signal", "words"),
    [(3, None, "exit code 3"), (-9, "SIGKILL", "SIGKILL"), (None, None, "how is not known")],
)
def test_a_death_is_among_what_happened_to_its_job_with_the_item_that_ran(
    fleet: FakeLanes, exitcode: int | None, signal: str | None, words: str
) -> None:
    job = start_chunk(fleet, 2)
    worker = fleet.workers[0]
    assert worker is not None
    worker.die(exitcode=exitcode, signal=signal)  # type: ignore[arg-type]
    fleet.run_until_over(job)
    [death] = [event for event in job.timings.events if event.name == "worker died"]
    assert (death.lane, death.item, death.why) == (0, 0, words)
    assert job.timings.sums.deaths == 1
    assert fleet.books.deaths == {"crash": 1}


def test_a_worker_that_is_killed_says_why(fleet: FakeLanes) -> None:
    job = fleet.job([hang(times=1)], timeout=2.0)
    fleet.start(job)
    fleet.run_until_over(job)
    assert [event.why for event in job.timings.events if event.name == "worker died"] == ["killed: timeout"]
    assert fleet.books.deaths == {"timeout": 1}


def test_what_a_worker_has_logged_is_handed_on_with_its_report_or_after_its_death(fleet: FakeLanes) -> None:
    announced: list[AnnounceRecords] = []
    fleet._actions[AnnounceRecords] = announced.append
    job = start_chunk(fleet, 2)
    spoke = [job.spoke]
    lane = fleet.books.lanes[0]
    chunk, records = lane.chunks[0].number, [RecordFrame({"msg": "said"}, 0, 1)]
    fleet.handle(RecordsLeft(0, lane.generation, chunk + 7, records))
    fleet.handle(RecordsLeft(0, lane.generation + 1, chunk, records))
    assert announced == [], "of no chunk or worker that is there"
    fleet.handle(RecordsLeft(0, lane.generation, chunk, records))
    assert announced == [AnnounceRecords(job, 0, records)]
    spoke.append(job.spoke)
    job.spoke = False
    report = ChunkReported(0, lane.generation, chunk, 0, 1, [0], {}, (), 0.1, Ended.DONE, final=False)
    fleet.handle(report)
    spoke.append(job.spoke)
    fleet.handle(report._replace(first=1, done=1, results=[], records=records))
    assert len(announced) == 2
    assert [*spoke, job.spoke] == [False, True, False, True]
