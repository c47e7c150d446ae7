"""Where a job's time went, added up from what its reports say: each second once."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue._core.state.timings import MOST_EVENTS, MOST_ROWS, Event, Sums
from tests.support.runs import START, WAITING, WORKING, Run


def parts(sums: Sums) -> dict[str, float]:
    """What is not zero of the workers' time."""
    found = {name: round(getattr(sums, name), 6) for name in (*WAITING, *WORKING)}
    return {name: seconds for name, seconds in found.items() if seconds}


def test_a_worker_s_time_is_divided_by_what_it_was_spent_on() -> None:
    run = Run(ready=False)
    run.timings.lane_ready(0, START + 1)
    run.chunk(1.5, 4, left=1.3, pickling=0.1, loading=0.2, setup=0.5, unpacking=0.1, handling=1.4, packing=0.25)
    sums = run.end(5).timings.sums
    assert parts(sums) == {
        "starting": 1.0,
        "idle": 0.2 + 1.0,  # before the first chunk was pickled, and after it
        "for_pickling": 0.1,
        "for_transfer": 0.2,
        "loading": 0.2,
        "setup": 0.5,
        "unpacking": 0.1,
        "handling": 1.4,
        "packing": 0.25,
        "overhead": 0.05,
    }


def test_between_two_chunks_a_worker_waits_for_what_the_parent_does_in_turn() -> None:
    run = Run()
    run.chunk(0, 1, way=0.1, decoding=0.2, waiting=0.3)
    run.chunk(2.5, 3, left=2.2, pickling=0.4)
    sums = run.end(3).timings.sums
    assert parts(sums) == {
        "handling": 1.5,
        "for_transfer": 0.1 + 0.3,
        "for_unpickling": 0.2,
        "for_parent": 0.3,
        "idle": 0.2,
        "for_pickling": 0.4,
    }


def test_a_chunk_that_lay_at_a_busy_worker_was_queued_and_nobody_waited() -> None:
    run = Run()
    run.chunk(0, 1, way=0.1, decoding=0.2)
    run.chunk(1, 2, left=0.4, pickling=0.1)
    sums = run.end(2).timings.sums
    assert parts(sums) == {"handling": 2.0}
    assert sums.queued == pytest.approx(0.6)
    assert sums.parent_pickling == pytest.approx(0.1)
    assert sums.parent_unpickling == pytest.approx(0.2)


def test_of_a_chunk_that_comes_home_in_parts_each_item_counts_once_and_so_does_its_way_out() -> None:
    run = Run()
    run.chunk(1, 2, items=3, left=1, pickling=0.5, size=70)
    run.chunk(2, 3, items=2, first=3, left=1, pickling=0.5, size=70)
    sums = run.end(3).timings.sums
    assert (sums.reports, sums.items, sums.bytes_out, sums.bytes_home) == (2, 5, 70, 140)
    rows = [(row.first, row.items, row.failures) for row in run.timings.spans()]
    assert rows == [(0, 3, 0), (3, 2, 0)]
    assert [row.busy for row in run.timings.spans()] == [1, 1]
    assert sums.parent_pickling == pytest.approx(0.5)


def test_what_a_dead_worker_had_in_hand_is_lost_and_its_absence_counted() -> None:
    run = Run(lanes=2)
    run.chunk(0, 1)
    run.timings.lane_gone(0, START + 3, worked=True, died=True, since=START + 2)  # it had waited for a retry
    run.timings.lane_gone(1, START + 3, worked=False, died=True)
    run.timings.lane_ready(0, START + 4)
    sums = run.end(5).timings.sums
    assert parts(sums) == {"handling": 1, "lost": 1, "replacing": 1 + 2, "idle": 1 + 3 + 1}
    assert sums.deaths == 2
    assert [(event.name, event.lane) for event in run.timings.events] == [
        ("worker died", 0),
        ("worker died", 1),
    ]


@pytest.mark.parametrize("ahead", [-1e5, 1e5])
def test_a_worker_on_another_machine_has_another_clock(ahead: float) -> None:
    """Its seconds count, its moments do not: its report counts as having come home at once."""
    run = Run()
    run.chunk(ahead + 1, ahead + 3, left=0.5, pickling=0.5, way=-ahead + 0.25, unpacking=0.5)
    assert run.timings.elsewhere
    sums = run.end(4).timings.sums
    assert parts(sums) == {"for_pickling": 0.5, "for_transfer": 0.75, "unpacking": 0.5, "handling": 1.5, "idle": 0.75}


def test_a_pause_is_timed_also_one_that_the_end_ends() -> None:
    run = Run(lanes=3)
    run.chunk(0, 1.5)
    run.timings.paused(START + 1)
    run.timings.resumed(START + 2)
    run.timings.resumed(START + 3)
    run.timings.paused(START + 4)
    run.chunk(3.5, 5, lane=1)
    seen = run.timings.until(START + 5, 0).sums
    assert (seen.paused, seen.held) == (2, 0.5 + 1 + 1 + 1 + 1)
    sums = run.end(6).timings.sums
    assert sums.paused == 3
    assert parts(sums) == {"handling": 3, "held": 2.5 + 2 + 3, "idle": 2 + 2.5 + 3}
    assert [event.name for event in run.timings.events] == ["paused", "resumed", "paused", "resumed"]


def test_as_of_now_the_job_looks_as_if_it_ended_and_goes_on_all_the_same() -> None:
    run = Run(lanes=2)
    run.chunk(0, 1)
    seen = run.timings.until(START + 4, 0)
    assert parts(seen.sums) == {"handling": 1, "idle": 3 + 4}
    assert run.timings.finished is None
    run.chunk(1, 5, lane=1)
    assert parts(run.end(5).timings.sums) == {"handling": 5, "idle": 4 + 1}
    assert parts(seen.sums) == {"handling": 1, "idle": 3 + 4}
    assert len(list(seen.spans())) == 1


def test_what_runs_now_is_no_idleness() -> None:
    run = Run(lanes=3)
    run.chunk(0, 1)
    seen = run.timings.until(START + 4, 0b011)
    assert parts(seen.sums) == {"handling": 1, "under_way": 3 + 4, "idle": 4}


def test_a_new_run_begins_anew() -> None:
    run = Run()
    run.chunk(0, 1)
    run.end(1)
    run.timings.begin(START + 10, 1, 0b1)
    assert parts(run.timings.until(START + 12, 0).sums) == {"idle": 2}
    assert not list(run.timings.spans())
    assert not run.timings.events


def test_a_long_job_keeps_few_rows_and_the_sums_stay_exact() -> None:
    count = 5 * MOST_ROWS // 2
    run = Run(range(count), lanes=3)
    for number in range(count):
        run.chunk(number, number + 0.5, lane=number % 3, unpacking=0.125, size=7)
    timings = run.end(count).timings
    spans = list(timings.spans())
    assert MOST_ROWS / 3 < len(spans) <= MOST_ROWS
    assert sum(span.items for span in spans) == timings.sums.items == count
    assert sum(span.handling for span in spans) == timings.sums.handling == 0.375 * count
    assert timings.sums.bytes_out == 7 * count
    assert (min(span.begun for span in spans), max(span.ended for span in spans)) == (START, START + count - 0.5)
    assert all(span.busy <= span.ended - span.begun for span in spans)
    longest = max(span.ended - span.begun for span in spans)
    assert longest <= 8 * 3 * count / MOST_ROWS, "early rows are about as fine as late ones"


def test_a_job_on_more_lanes_than_half_of_its_rows_keeps_one_row_for_each_at_least() -> None:
    lanes = MOST_ROWS // 2 + 100
    run = Run(range(3 * lanes), lanes=lanes)
    for number in range(3 * lanes):
        run.chunk(number, number + 0.5, lane=number % lanes)
    spans = list(run.end(3 * lanes).timings.spans())
    assert {span.lane for span in spans} == {*range(lanes)}
    assert len(spans) <= 2 * lanes
    assert sum(span.items for span in spans) == 3 * lanes


def test_events_are_kept_up_to_a_number() -> None:
    run = Run()
    for number in range(MOST_EVENTS + 5):
        run.timings.note(Event(number, "retry"))
    assert len(run.timings.events) == MOST_EVENTS


short = st.floats(0, 2)


@given(
    st.lists(st.tuples(st.integers(0, 2), short, short, short, short, short, short), max_size=20),
    st.booleans(),
)
def test_each_second_of_each_worker_is_counted_once(steps: list[tuple[float, ...]], ready: bool) -> None:
    """Whatever follows what: the parts are the whole, and none is negative."""
    run = Run(range(100), lanes=3, ready=ready)
    free = [0.0] * 3
    for at, (number, gap, work, pickling, way, decoding, early) in enumerate(steps):
        lane = int(number)
        if not ready and at % 3 == 0:
            run.timings.lane_ready(lane, START + free[lane])
        begun = free[lane] + gap
        left = max(0.0, begun - early)
        run.chunk(begun, begun + work, lane=lane, left=left, pickling=min(pickling, left), way=way, decoding=decoding)
        free[lane] = begun + work
        if at % 7 == 6:
            free[lane] += 0.5
            run.timings.lane_gone(lane, START + free[lane], worked=bool(at % 2), died=True)
    end = max(free) + 1
    sums = run.end(end).timings.sums
    spent = {entry.name: getattr(sums, entry.name) for entry in fields(Sums)}
    assert sum(spent[name] for name in (*WAITING, *WORKING)) == pytest.approx(3 * end)
    assert min(spent.values()) > -1e-9
