"""Pipelines: how items flow from stage to stage, and what is held back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mpqueue._core.commands import Command
from mpqueue._core.messages import Message
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pipeline import Pipeline
from mpqueue.errors import JobStateError, SetupError
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, FAILED, PENDING, JobStatus
from tests.support.auditor import Auditor, audited
from tests.support.fake_lanes import FakeLanes, begun, crash, fail, statuses, succeed
from tests.support.fake_worker import Item, Outcome, Try

NO_RETRY = RetryPolicy(max_retries=0)


def through(*stages: Item) -> Item:
    """An item of the first of these stages, which brings that of the next, and so on."""
    first, *rest = stages
    return replace(first, returns=through(*rest)) if rest else first


def spread(item: Item, *items: Item) -> Item:
    """An item that yields these for the next stage."""
    return replace(item, yields=items)


def pipeline_of(head: JobBook) -> Pipeline:
    """The stages of that job."""
    assert head.pipeline is not None
    return head.pipeline


def test_items_flow_before_the_stage_before_has_ended() -> None:
    fleet = audited(2)
    head = fleet.stages([through(succeed(1), succeed(1)) for _ in range(4)], [None, None])
    first, second = pipeline_of(head).jobs
    fleet.start(head)
    fleet.run_while(lambda: not second.completed)
    assert first.completed < 4
    fleet.run_until_over(head)
    assert statuses(head) == ["completed"] * 4
    assert [first.status, second.status, head.status] == [JobStatus.COMPLETED] * 3


def test_what_one_input_has_yielded_travels_together() -> None:
    fleet = FakeLanes(2)
    head = fleet.stages([spread(succeed(1), *[succeed(0.001)] * 100)], [None, None], chunksize=20)
    fleet.run_all(head)
    assert [len(chunk.indices) for chunk in fleet.chunks][:6] == [1, *[20] * 5]  # what is stolen at the end comes after


def test_a_pipeline_has_as_many_lanes_as_a_job_of_the_same_priority() -> None:
    fleet = audited(4)
    head = fleet.stages([through(succeed(1.0), succeed(1.0))] * 60, [None] * 2)
    fleet.start(head, fleet.job([succeed(1.0)] * 60))
    fleet.run_until(5.0)
    stages = pipeline_of(head).jobs
    for _ in range(20):
        fleet.advance(0.7)
        assert sum(lane.job in stages for lane in fleet.books.lanes) == 2


@pytest.mark.parametrize("cancelled", [True, False])
def test_nothing_comes_to_a_stage_that_is_being_cancelled(cancelled: bool) -> None:
    second = pipeline_of(FakeLanes(1).stages([through(succeed(), succeed())], [None, None])).jobs[1]
    second.cancelled = cancelled
    second.take_arrivals([((0,), succeed())])
    assert len(second.table) == len(second.pending) == (not cancelled)


@pytest.mark.parametrize("kept", [0, 7])
def test_a_stage_to_which_much_comes_forgets_what_has_passed_on(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """It knows how many there were, and has those that failed, those that run, and the last ones."""
    monkeypatch.setattr("mpqueue._core.state.item_table.ROWS_KEPT", kept)
    fleet = audited(2)
    slow, odd = succeed(50.0), [fail(0.01), *[succeed(0.01)] * 30, fail(0.01, times=1)]
    head = fleet.stages([spread(succeed(), *odd) for _ in range(3)] + [through(succeed(), slow)], [None] * 2)
    second = pipeline_of(head).jobs[1]
    table = second.table
    fleet.start(head)
    fleet.run_while(lambda: second.completed + second.failed < 96)
    assert (len(table), list(table.status).count(FAILED), second.completed) == (97, 3, 93)
    assert [bytes(table.status).count(code) for code in (COMPLETED, FAILED, PENDING)] == [93, 3, 1]
    ids = [table.id_of(index) for index in range(97)]
    (running,) = table.unfinished()
    assert ids[running] == 3
    assert [ids[index] for index in range(97) if table.status[index] == FAILED] == [0, 1, 2]
    assert len([one for one in ids if one is not None]) <= 4 + kept
    assert len(table.times()) <= 3 + kept
    assert table.cpu_gone + sum(table.cpu) == pytest.approx(sum(head.table.cpu))
    columns: list[Any] = [table.status, table.attempts, table.elapsed, table.cpu, table.payloads, table.results]
    for column in columns:
        assert column.kept <= 5 + kept
    assert max(len(table.history), len(table.failures)) <= 3 + kept
    tries, seconds = table.tries_gone
    assert tries + sum(map(len, table.history.values())) == 15
    assert seconds == pytest.approx(0.01 * tries)
    fleet.run_until_over(head)
    assert [head.completed, head.failed, second.completed] == [1, 3, 94]


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("most", [1, 3])
def test_a_bounded_number_waits_between_stages(lanes: int, most: int) -> None:
    fleet = audited(lanes)
    head = fleet.stages([through(succeed(0.001), succeed(0.3), succeed(0.01))] * 40, [None] * 3, most=most)
    jobs, seen = pipeline_of(head).jobs, set[int]()

    def look(message: Message, commands: list[Command]) -> None:
        seen.update(len(job.table) - job.completed - job.failed for job in jobs[1:])

    fleet.watchers.append(look)
    fleet.run_all(head)
    assert max(seen) == most


def test_a_stage_that_can_run_nowhere_fails_what_comes_to_it() -> None:
    fleet = audited(2)
    head = fleet.stages([succeed(1)] * 6, [None, lambda *_: Try(0.1, Outcome.FAILURE)], retry=NO_RETRY)
    fleet.run_all(head)
    assert [type(head.table.failures[index].error.__cause__) for index in range(6)] == [SetupError] * 6


@pytest.mark.parametrize("lanes", [1, 3])
def test_ordered_stages_get_their_items_in_the_order_of_the_inputs(lanes: int) -> None:
    fleet = audited(lanes)
    seconds = [3.0, 0.1, 0.2, 5.0, 0.0, 0.1, 0.3, 2.0] * 5
    items = [
        through(succeed(one), crash(times=1) if at % 7 == 0 else succeed(), succeed(0.01))
        for at, one in enumerate(seconds)
    ]
    items[9] = fail()
    head = fleet.stages(items, [None] * 3, ordered=True, most=2)
    jobs = pipeline_of(head).jobs
    fleet.run_all(head)
    assert head.completed == 39
    for job in jobs[1:]:
        came = [job.table.id_of(index) for index in range(len(job.table))]
        assert came == [index for index in range(40) if index != 9]
    assert lanes > 1 or begun(fleet, jobs[2]) == [*range(39)]


def test_few_inputs_begin_behind_one_that_an_ordered_stage_waits_for() -> None:
    fleet = FakeLanes(2)
    head = fleet.stages([through(succeed(at or 100), succeed()) for at in range(9)], [None] * 2, ordered=True, most=2)
    fleet.start(head)
    fleet.run_until(90.0)
    assert pipeline_of(head).jobs[0].completed == 1
    fleet.run_until_over(head)


@pytest.mark.parametrize(("ordered", "ahead"), [([False, True, True], 1), ([False, False, True], 3)])
def test_inputs_that_fail_behind_one_that_an_ordered_stage_waits_for_are_not_counted(
    ordered: list[bool], ahead: int
) -> None:
    fleet = FakeLanes(2)
    given = [through(succeed(100), succeed(), succeed()), *[fail(1.0)] * 20, *[through(succeed(), succeed())] * 20]
    head = fleet.stages(given, [None] * 3, ordered=ordered, most=2, retry=NO_RETRY)
    fleet.start(head)
    fleet.run_until(90.0)
    first = pipeline_of(head).jobs[0]
    assert (first.failed, first.completed) == (20, ahead)
    fleet.run_until_over(head)


@pytest.mark.parametrize("lanes", [1, 3])
def test_an_ordered_stage_on_one_lane_runs_in_order_also_what_a_worker_hands_back(lanes: int) -> None:
    fleet, began = audited(lanes), list[int]()
    # The pace changes, so that chunks reach their time limit, and their workers hand back the rest.
    items = [through(succeed(0.0), succeed(0.001 if at % 60 < 40 else 0.006)) for at in range(600)]
    head = fleet.stages(items, [None] * 2, ordered=True, max_lanes=1)
    last = pipeline_of(head).jobs[1]

    def look(chunk: Chunk, lo: int, hi: int) -> None:  # the rest of a stretch may be cut off
        if chunk.job is last:
            began.append(chunk.indices[lo])

    fleet.item_watchers.append(look)
    fleet.run_all(head)
    assert head.completed == 600
    assert began == sorted(set(began))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_done_to_one_is_done_to_all(which: int) -> None:
    fleet = FakeLanes(2)
    auditor = Auditor(fleet)
    head = fleet.stages([through(succeed(1), succeed(1))] * 6, [None] * 2)
    fleet.start(head)
    fleet.advance(2.5)
    one = head.family[which]
    fleet.pause(one)
    assert [job.paused for job in head.family] == [True] * 3
    fleet.advance(10)
    assert 0 < head.completed < 6
    fleet.resume(one)
    fleet.advance(1)
    fleet.cancel(one)
    with pytest.raises(JobStateError, match="got one that is being cancelled"):
        fleet.pause(one)
    fleet.run_until_over(head)
    assert [job.status for job in head.family] == [JobStatus.CANCELLED] * 3
    auditor.check_runs()


def test_nobody_else_seals_a_stage_nor_tries_it_again() -> None:
    fleet = FakeLanes(1)
    head = fleet.stages([succeed()], [None] * 2)
    fleet.start(head)
    with pytest.raises(JobStateError, match="got a stage of a pipeline"):
        fleet.seal(pipeline_of(head).jobs[1])
    fleet.run_until_over(head)
    for job in head.family:
        with pytest.raises(JobStateError, match="got one with stages"):
            fleet.retry_failed(job)


@pytest.mark.slow
def test_an_input_that_runs_again_may_begin_although_fewer_may_be_on_their_way_by_then() -> None:
    """An ordered stage waits for it; what came before it was slow, so the stage would get less in advance by now."""
    fleet, late = FakeLanes(2, latency=1e-4), 100

    def item(number: int) -> Item:
        first = fail(0.001, times=1) if number == late else succeed(0.001)
        return through(first, succeed(5.0 if late - 20 <= number < late else 0.001))

    retry = RetryPolicy(max_retries=1, base_delay=60.0)
    head = fleet.stages([item(number) for number in range(3000)], [None, None], ordered=True, retry=retry)
    fleet.start(head)
    fleet.run_until_over(head, limit=1000.0)
    assert head.completed == 3000
