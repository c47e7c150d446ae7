"""Dead workers: who pays, and that nobody else notices."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.commands import AnnounceRecords, Command, ObserveLane, SendChunk, StartLane
from mpqueue._core.messages import ChunkReported, LaneBroken, LaneDied, LaneObserved, RecordsLeft, TimePassed
from mpqueue._core.rules.limits import ANSWER_LIMIT
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, Verdict, Why
from mpqueue._core.state.pending import Care
from mpqueue._wire.frames import Ended, RecordFrame
from mpqueue._wire.memory.ledger import NOWHERE, Claim, Phase
from mpqueue.errors import ItemTimeoutError, ResultPicklingError, SetupError, WorkerCrashedError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import Auditor, audited
from tests.support.fake_lanes import (
    FakeLanes,
    attempts,
    begun,
    crash,
    errors,
    hang,
    spoil,
    statuses,
    succeed,
)
from tests.support.fake_worker import Item, Try

AT_ONCE = RetryPolicy(base_delay=0.0)


def careful_chunks(fleet: FakeLanes) -> list[list[int]]:
    """The items of each careful chunk that was sent so far."""
    return [[*chunk.indices] for chunk in fleet.chunks if chunk.careful]


def start_chunk(fleet: FakeLanes, items: int) -> JobBook:
    """A job whose items are in one chunk, of which the first runs."""
    job = fleet.started([succeed(10.0)] * items, chunksize=items)
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


def test_what_had_killed_two_workers_has_a_lane_to_itself_in_the_next_life_of_its_program(fleet: FakeLanes) -> None:
    job = fleet.started([succeed(0.01), crash(0.01, times=2), succeed(0.01)], retry=AT_ONCE)
    fleet.run_while(lambda: attempts(job)[1] < 2)
    job.table.reset_waiting()  # a journal has no more of it
    after = FakeLanes(1)
    Auditor(after).restored = {1: (job.completed, job.failed)}
    again = JobBook(1, "job", job.table, job.options, job.handler)
    again.go_on()
    after.run_all(again)
    assert careful_chunks(after) == [[1]]
    assert statuses(again) == ["completed"] * 3


@pytest.mark.parametrize(
    ("exitcode", "signal", "text", "why"),
    [
        (0, None, "exit code 0", "exit code 0"),
        (3, None, "exit code 3", "exit code 3"),
        (-9, "SIGKILL", "SIGKILL", "SIGKILL"),
        (None, None, "the system does not tell how", "how is not known"),
    ],
)
def test_every_end_of_a_worker_has_words_in_the_error_and_among_what_happened_to_its_job(
    fleet: FakeLanes, exitcode: int | None, signal: str | None, text: str, why: str
) -> None:
    job = fleet.started([succeed(10.0)] * 2, chunksize=2, retry=RetryPolicy(max_retries=0))
    fleet.run_until(0.1)
    worker = fleet.workers[0]
    assert worker is not None
    worker.die(exitcode=exitcode, signal=signal)  # type: ignore[arg-type]
    fleet.run_until_over(job)
    error = job.table.failures[0].error
    assert isinstance(error, WorkerCrashedError)
    assert (error.exitcode, error.signal, error.pid) == (exitcode, signal, 1000)
    assert text in str(error)
    [death] = [event for event in job.timings.events if event.name == "worker died"]
    assert (death.lane, death.item, death.why) == (0, 0, why)
    assert job.timings.sums.deaths == 1
    assert fleet.books.deaths == {"crash": 1}


@pytest.mark.parametrize(
    ("phase", "lo", "hi", "charged", "carefully"),
    [
        pytest.param(Phase.RUNNING, 2, 3, [2], [], id="it runs one item"),
        pytest.param(Phase.RUNNING, 1, 4, [], [[1, 2, 3]], id="it runs one of several"),
        pytest.param(Phase.UNPACKING, 0, 5, [], [[0, 1, 2, 3, 4]], id="it unpickles them"),
        pytest.param(Phase.IDLE, 5, 5, [], [[0, 1, 2, 3, 4]], id="it is to answer"),
        pytest.param(Phase.LOADING, 0, 0, [], [], id="it loads the handler"),
        pytest.param(None, 0, 0, [], [], id="it has not begun"),
    ],
)
def test_for_a_death_pays_the_item_that_alone_was_claimed_and_suspects_go_out_carefully(
    fleet: FakeLanes, phase: Phase | None, lo: int, hi: int, charged: list[int], carefully: list[list[int]]
) -> None:
    job = start_chunk(fleet, 5)
    if phase is None:
        fleet.workers[0].claim = Claim(0, Phase.IDLE, 0, 0, 0.0)  # type: ignore[union-attr]
        fleet.kill(0)
        fleet.step()
    else:
        die_with(fleet, phase, lo, hi)
    assert fleet.counts[StartLane] == 1 + (phase is not None), "another worker at once where items are to blame"
    assert [at for at, tries in enumerate(attempts(job)) if tries] == charged
    assert [event.item for event in job.timings.events if event.name == "worker died"] == [*charged, None][:1]
    fleet.run_until_over(job)
    assert careful_chunks(fleet)[:1] == carefully
    assert attempts(job) == [1 + (at in charged) for at in range(5)]


def test_what_was_sent_home_early_does_not_run_again(fleet: FakeLanes) -> None:
    job = fleet.started([succeed(0.01), succeed(0.01), crash(1.0, times=1), succeed(0.01)], chunksize=4, retry=AT_ONCE)
    fleet.run_until(0.5)
    assert job.completed == 2
    fleet.run_until_over(job)
    assert (begun(fleet).count(0), begun(fleet).count(1)) == (1, 1)
    assert attempts(job) == [1, 1, 2, 1]


def test_a_message_of_a_worker_that_is_gone_means_nothing(fleet: FakeLanes) -> None:
    job = fleet.started([crash(0.01, times=1), succeed(0.01)], chunksize=2, retry=AT_ONCE)
    fleet.run_until(0.15)
    fleet.handle(ChunkReported(0, 1, 1, 0, 2, ["a", "b"], {}, (), 0.0, Ended.DONE))
    assert job.completed == 0
    fleet.run_until_over(job)
    assert job.table.results == [0, 1]


# -- workers that cannot answer ----------------------------------------------------------------------------------------


def test_a_worker_that_dies_before_it_answers_charges_the_culprit_alone_in_the_end(fleet: FakeLanes) -> None:
    job = fleet.run([succeed(), spoil(), succeed()], chunksize=3, retry=AT_ONCE)
    assert (statuses(job), attempts(job)) == (["completed", "failed", "completed"], [1, 4, 1])
    assert "before it could answer" in str(job.table.failures[1].error)


def test_one_that_was_killed_when_it_was_through_charges_nobody(fleet: FakeLanes) -> None:
    job = start_chunk(fleet, 3)
    fleet.books.lanes[0].verdict = Verdict(Why.TIMEOUT, 1, 2)
    die_with(fleet, Phase.IDLE, 3, 3)
    assert job.pending.take(9)[0] == range(3), "they go out together"


def test_of_two_that_die_together_nobody_is_charged_and_what_each_ran_goes_out_with_nothing_beside_it() -> None:
    fleet = FakeLanes(2, fate_of=lambda _: "one")
    job = fleet.started([succeed(10.0)] * 4, chunksize=2)
    fleet.run_until(0.1)
    die_with(fleet, Phase.IDLE, 2, 2)
    assert job.next_care is Care.ALONE
    fleet.step()
    assert fleet.counts[StartLane] == 4, "others at once: one of the items is to blame"
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
    job = fleet.started([succeed(10.0)] * 3, chunksize=3, timeout=50.0, retry=AT_ONCE)
    fleet.run_until(0.1)
    fleet.books.lanes[0].verdict = verdict
    die_with(fleet, Phase.RUNNING, 1, 2)
    assert job.next_care is Care.NONE, "nobody is suspected"
    fleet.run_until_over(job)
    assert attempts(job) == charged


# -- a report of which the beginning is missing ------------------------------------------------------------------------


def leave(fleet: FakeLanes) -> None:
    """Let the worker do nothing more of its chunk: the test reports in its place."""
    worker = fleet.workers[0]
    assert worker is not None
    worker.turn += 1
    worker._run = None


def test_an_answer_whose_beginning_never_came_home_gives_its_items_back(fleet: FakeLanes) -> None:
    job = start_chunk(fleet, 4)
    leave(fleet)
    fleet.handle(ChunkReported(0, 1, 1, 2, 4, [2, 3], {}, (), 0.0, Ended.DONE))
    fleet.run_until_over(job)
    assert (job.status, attempts(job)) == (JobStatus.COMPLETED, [1] * 4)


@pytest.mark.parametrize("failing", [(), (0, 2)])
def test_what_is_said_of_items_that_the_chunk_has_no_more_does_not_count(
    fleet: FakeLanes, failing: tuple[int, ...]
) -> None:
    job = start_chunk(fleet, 4)
    (chunk,) = fleet.books.lanes[0].chunks
    fleet.drop(job, 2, 3)
    fleet.run_while(lambda: chunk.end != 2)
    leave(fleet)
    of_each = range(4)
    failures = {at: Failure(ValueError()) for at in failing}
    report = ChunkReported(0, 1, 1, 0, 4, [*"abcd"], failures, (), 0.0, Ended.DONE)
    output = dict.fromkeys(of_each, ("out", ""))
    fleet.handle(report._replace(output=output, peaks=dict.fromkeys(of_each, 1 << 20)))
    assert report.results == [], "whoever takes one from the books is the last to hold it"
    assert (attempts(job), job.table.results) == ([1, 1, 0, 0], [None if failing else "a", "b", None, None])
    assert (sorted(job.table.output), list(job.table.peak)[:4]) == ([0, 1], [1 << 10, 1 << 10, 0, 0])
    fleet.run_until_over(job)
    assert list(job.table.peak)[:2] == [0 if failing else 1 << 10, 1 << 10], "of a second try no peak is known"


# -- timeouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_blind", [False, True])
def test_a_try_lasted_as_long_as_its_timeout_also_where_its_worker_died_otherwise_or_says_nothing(
    is_blind: bool,
) -> None:
    fleet = FakeLanes(1, is_blind=is_blind)
    job = fleet.started([hang(times=1)], timeout=3.0, retry=AT_ONCE)
    fleet.run_until(1.0)
    fleet.books.lanes[0].verdict = Verdict(Why.TIMEOUT, 1, 0, since=fleet.now - 3.0)
    die_with(fleet, Phase.PACKING, 0, 1)  # it went on until it was killed
    fleet.run_until_over(job)
    (tried,) = job.table.history[0]
    assert isinstance(tried.exception, ItemTimeoutError)
    assert tried.duration == pytest.approx(3.0)


def test_the_timeout_holds_for_an_item_behind_a_setup_that_may_take_longer(fleet: FakeLanes) -> None:
    job = fleet.run([hang()], timeout=1.0, setup_timeout=60.0, load=lambda lane, time: Try(1.5), retry=AT_ONCE)
    assert job.table.history[0][0].duration == pytest.approx(1.0)
    assert fleet.now == pytest.approx(4 * (0.1 + 1.5 + 1.0))


def test_items_that_run_under_one_mark_have_their_timeout_each() -> None:
    fleet = audited(1)
    job = fleet.run([succeed(0.001)] * 500, timeout=0.004)
    assert attempts(job) == [1] * 500
    assert fleet.counts[LaneDied] == 0


@pytest.mark.parametrize(
    ("items", "tries"),
    [
        pytest.param([succeed(3.01)], [1], id="the last of its chunk"),
        pytest.param([succeed(3.01), succeed(1.0)], [1, 1], id="another one runs by then"),
        pytest.param([crash(3.01, times=1)], [2], id="its worker has crashed"),
    ],
)
def test_an_item_that_ends_between_the_verdict_and_the_kill_is_charged_for_its_own_end_only(
    items: list[Item], tries: list[int]
) -> None:
    fleet = audited(1, kill_seconds=0.05)
    job = fleet.run(items, chunksize=2, timeout=3.0, retry=AT_ONCE)
    assert attempts(job) == tries


@pytest.mark.parametrize(("items", "timeout"), [([succeed(1000.0)], None), ([succeed(5.0)] * 200, 100.0)])
def test_a_lane_is_looked_at_only_to_see_that_it_is_still_there(
    fleet: FakeLanes, items: list[Item], timeout: float | None
) -> None:
    fleet.run(items, timeout=timeout)
    assert fleet.counts[ObserveLane] <= 1000 / ANSWER_LIMIT + 12
    assert fleet.counts[TimePassed] <= 4 * len(items) + 1000 / ANSWER_LIMIT + 12
    assert len(fleet.books.timers) <= 4


@pytest.mark.parametrize("timeout", [5e-324, 1e-12, 1e-7])
def test_a_timeout_shorter_than_anybody_can_wait_ends_the_item_and_costs_few_looks(
    fleet: FakeLanes, timeout: float
) -> None:
    job = fleet.run([succeed(0.01)] * 2, timeout=timeout, retry=RetryPolicy(max_retries=0))
    assert errors(job) == [ItemTimeoutError] * 2
    assert fleet.counts[ObserveLane] < 50


# -- poison ------------------------------------------------------------------------------------------------------------


def test_two_timeouts_make_no_poison() -> None:
    fleet = FakeLanes(1)
    job = fleet.run([hang(times=2), *[succeed(0.001)] * 50], timeout=1.0, retry=AT_ONCE)
    assert attempts(job)[0] == 3
    assert careful_chunks(fleet) == []


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
    lose_results(fleet, ["first"])
    assert careful_chunks(fleet) == [[1, 2]]
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
    lose_results(fleet, [])
    lose_results(fleet, ["first"])
    assert careful_chunks(fleet) == [[0, 1, 2], [2]]
    assert statuses(job)[:2] == ["completed", "failed"]
    assert errors(job)[1] is ResultPicklingError
    assert len(fleet.warnings) == 1


def test_what_an_early_report_loses_runs_again_by_itself_when_the_chunk_is_over() -> None:
    fleet = FakeLanes(1)
    job = start_chunk(fleet, 3)
    lose_results(fleet, [], final=False)
    fleet.run_while(lambda: not careful_chunks(fleet))
    assert careful_chunks(fleet) == [[1, 2]], "the first one came home once more with the rest"
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
    job = fleet.started([succeed(0.5)] * 4, chunksize=2, timeout=timeout, retry=AT_ONCE)
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
    fleet.run_all(job)
    assert statuses(job) == ["completed", "completed", "failed", "completed"]
    assert attempts(job) == [1, 1, 2, 1]
    assert "was killed while it ran the item: it sent what is no message" in job.table.failures[2].message
    assert all("it sent what is no message" in warning for warning in fleet.warnings)


def break_line(fleet: FakeLanes, delay: float, generation: int | None = None) -> None:
    """So many seconds after a chunk was sent its line breaks; ``generation``: of that worker only."""

    def watch(_: object, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, SendChunk) and generation in (None, command.generation):
                broken = LaneBroken(command.lane, command.generation, "it sent what is no message")
                fleet.call_at(fleet.now + delay, functools.partial(fleet.handle, broken))

    fleet.watchers.append(watch)


def test_setup_that_breaks_its_line_fails_the_job_in_the_end() -> None:
    fleet = FakeLanes(1)
    break_line(fleet, 0.2)
    job = fleet.run([succeed()], load=lambda *_: Try(0.5), retry=RetryPolicy(1, base_delay=0.0))
    assert errors(job) == [SetupError]


@pytest.mark.parametrize("delay", [0.0, 0.2], ids=["before its setup", "in its setup"])
def test_a_line_that_an_earlier_job_broke_costs_the_next_job_nothing(delay: float) -> None:
    fleet = FakeLanes(1)
    fleet.run([succeed(0.1)])
    (lane,) = fleet.books.lanes
    first = lane.generation
    break_line(fleet, delay, first)
    job = fleet.run([succeed()] * 3, load=lambda *_: Try(0.5), retry=RetryPolicy(0))
    assert (statuses(job), attempts(job)) == (["completed"] * 3, [1] * 3)
    assert lane.generation == first + 1


def test_a_worker_that_is_killed_says_why(fleet: FakeLanes) -> None:
    job = fleet.run([hang(times=1)], timeout=2.0)
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
