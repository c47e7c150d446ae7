"""The facts of a job: how many items there will be, how fast it goes, and when it can't be said when it ends."""

from __future__ import annotations

import pytest

from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._options import JobOptions
from mpqueue._output.job_facts import (
    Total,
    Watch,
    count_statuses,
    ended_before,
    facts_of,
    left_of,
    total_of,
    unfinished,
)
from mpqueue._parent.running import LaneNow
from mpqueue._wire.memory.ledger import Phase
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, PROCESSING, RETRY, JobStatus
from tests.support.runs import START, Run


def make_book(items: int, *, sealed: bool = True) -> JobBook:
    book = JobBook(1, "job", make_table(range(items)), JobOptions(RetryPolicy()), None, sealed=sealed)
    book.status, book.epoch = JobStatus.RUNNING, 1
    return book


def test_the_rate_is_that_of_the_last_seconds_and_the_time_left_follows_it() -> None:
    book = make_book(100)
    watch = Watch(book)
    for second in range(61):  # ten items a second at first, then one
        book.completed = min(10 * second, 50) + max(0, second - 5) // 2
        watch.look(float(second), 0.0)
    facts = watch.look(60.0, 0.0)
    assert facts.rate is not None
    assert 0.4 < facts.rate < 0.6
    assert facts.eta is not None
    assert abs(facts.eta - (100 - book.completed) / facts.rate) < 0.01


def test_a_pause_slows_no_rate_and_has_no_end() -> None:
    book = make_book(100)
    watch = Watch(book)
    for second in range(6):
        book.completed = second
        watch.look(float(second), 0.0)
    running = watch.look(5.0, 0.0)
    book.status = JobStatus.PAUSED
    paused = watch.look(1000.0, 0.0)
    book.status = JobStatus.RUNNING
    watch.look(1000.0, 0.0)
    book.completed = 7
    again = watch.look(1002.0, 0.0)
    assert (running.rate, paused.eta, again.rate) == (1.0, None, 1.0)


def test_a_stage_that_gets_items_still_is_expected_to_get_one_for_each_input() -> None:
    head, first, second = make_book(10), make_book(10), make_book(3)
    pipeline = Pipeline(head, [first, second], [("a", None, False), ("b", None, False)])
    assert (total_of(first), total_of(second)) == (Total(10), Total(10))
    pipeline.has_spread = True
    assert total_of(second) == Total(None)
    second.sealed = True
    assert total_of(second) == Total(3)


def test_a_job_to_which_items_may_be_added_has_no_time_left() -> None:
    book = make_book(10, sealed=False)
    watch = Watch(book)
    book.completed = 5
    facts = watch.look(5.0, 0.0)
    assert (facts.total, facts.grows, facts.fraction, facts.rate, facts.eta) == (10, True, 0.5, 1.0, None)
    book.sealed = True
    assert watch.look(5.0, 0.0).eta == 5.0


def test_what_was_done_in_an_earlier_run_is_no_speed_of_this_one() -> None:
    book = make_book(10)
    watch = Watch(book)
    book.completed, book.retries = 8, 3
    assert watch.look(2.0, 0.0).rate == 4
    book.remember_run()
    book.timings.begin(10.0, 1, 1)
    book.epoch += 1
    assert watch.look(10.0, 0.0).rate is None
    book.completed, book.retries = 9, 4
    facts = watch.look(12.0, 0.5)
    assert (facts.already, facts.retries, facts.elapsed, facts.done, facts.rate) == (8, 1, 2.0, 9.5, 0.75)


def test_a_job_that_has_ended_was_as_fast_as_its_last_run_whenever_that_is_looked_at() -> None:
    book = make_book(10)
    book.completed = 4
    book.remember_run()
    book.completed, book.failed, book.status = 9, 1, JobStatus.COMPLETED_WITH_ERRORS
    book.timings.finish(3.0)
    facts = facts_of(book, 1000.0)
    assert (facts.elapsed, facts.rate, facts.eta) == (3.0, 2.0, 0.0)
    assert (left_of(book), ended_before(book)) == (0, 4)


def test_workers_are_said_to_start_until_one_is_there() -> None:
    run = Run(lanes=2, ready=False)
    watch = Watch(run.book)
    assert watch.look(START, 0.0).starting == 2
    run.timings.lane_ready(1, START + 1)
    assert watch.look(START + 1, 0.0).starting == 0


def test_what_has_not_ended_is_counted_by_status_and_the_items_of_stages_as_inputs() -> None:
    book, head, stage = make_book(6), make_book(4), make_book(3)
    Pipeline(head, [stage], [("a", None, False)])
    head.number, stage.number = 2, 3
    book.completed, book.failed = 1, 1
    book.table.status[0] = RETRY
    lanes = [
        LaneNow(0, LaneState.READY, 7, 1, Phase.RUNNING, [4]),
        LaneNow(1, LaneState.READY, 8, 3, Phase.RUNNING, [0, 1]),
        LaneNow(2, LaneState.READY, 9, 9, Phase.RUNNING, [0]),
    ]
    assert unfinished([book, head], lanes)._asdict() == {
        "completed": 0,
        "failed": 0,
        "retry": 1,
        "processing": 3,
        "pending": 4,
    }


@pytest.mark.parametrize(
    ("state", "job", "doing"),
    [
        (LaneState.READY, 1, "busy"),
        (LaneState.READY, None, "idle"),
        (LaneState.STARTING, None, "starting"),
        (LaneState.DYING, 1, "starting"),
        (LaneState.DOWN, None, "starting"),
        (LaneState.ABSENT, None, "absent"),
    ],
)
def test_a_worker_is_at_one_thing(state: LaneState, job: int | None, doing: str) -> None:
    assert LaneNow(0, state, None, job).doing == doing


def test_statuses_are_counted_once() -> None:
    counts = count_statuses(bytes([COMPLETED, COMPLETED, PROCESSING, 0]))
    assert counts._asdict() == {"completed": 2, "failed": 0, "retry": 0, "processing": 1, "pending": 1}
    assert counts.total == 4
