"""The timeline of workers and the pace of jobs, from looks that a test gives."""

from __future__ import annotations

import pytest

from mpqueue._core.state.lane_book import LaneState
from mpqueue._live_page.looks.speed import Pace
from mpqueue._live_page.looks.timeline import LOADING, RUNNING, STARTING, WINDOW, Stretch, Timeline
from mpqueue._parent.running import LaneNow
from mpqueue._wire.memory.ledger import Phase


def at_item(index: int, since: float, lane: int = 0, job: int = 1) -> LaneNow:
    return LaneNow(lane, LaneState.READY, 123, job, Phase.RUNNING, (index,), since)


def stretches(timeline: Timeline, lane: int = 0) -> list[tuple[float, float, str, int | None, int | None]]:
    return [(s.start, s.end, s.kind, s.job, s.item) for s in timeline.lanes[lane]]


def test_a_long_item_has_a_stretch_that_begins_when_it_did() -> None:
    timeline = Timeline()
    for now in (10.0, 10.5, 11.0, 12.0):
        timeline.look([at_item(7, 9.8)], now)
    assert stretches(timeline) == [(9.8, 12.0, RUNNING, 1, 7)]


def test_the_next_long_item_begins_where_the_last_one_ended() -> None:
    timeline = Timeline()
    timeline.look([at_item(7, 9.0)], 10.0)
    told = timeline.look([at_item(8, 10.05)], 10.1)
    assert stretches(timeline) == [(9.0, 10.05, RUNNING, 1, 7), (10.05, 10.1, RUNNING, 1, 8)]
    assert [stretch.item for _, stretch in told] == [7, 8]  # the first is longer than it was


def test_short_items_are_one_stretch() -> None:
    timeline = Timeline()
    for step in range(20):
        timeline.look([at_item(step, 10 + step / 10 - 0.01)], 10 + step / 10)
    assert stretches(timeline) == [(9.99, 11.9, RUNNING, 1, None)]


def test_a_lane_that_starts_loads_and_idles() -> None:
    timeline = Timeline()
    timeline.look([LaneNow(0, LaneState.STARTING, None)], 1.0)
    timeline.look([LaneNow(0, LaneState.READY, 5, 1, Phase.LOADING)], 1.1)
    timeline.look([LaneNow(0, LaneState.READY, 5, 1, Phase.LOADING)], 1.2)
    assert timeline.look([LaneNow(0, LaneState.READY, 5)], 1.3) == []
    assert [(kind, job) for _, _, kind, job, _ in stretches(timeline)] == [(STARTING, None), (LOADING, 1)]


def test_what_is_long_ago_is_forgotten() -> None:
    timeline = Timeline()
    timeline.look([at_item(1, 0.0)], 1.0)
    timeline.look([LaneNow(0, LaneState.READY, 5)], 2.0 + WINDOW)
    assert timeline.lanes[0] == type(timeline.lanes[0])()
    assert isinstance(Stretch(0, 0, RUNNING, None, None), Stretch)


def test_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    assert pace.rate is None
    for second in range(100):
        pace.look(second, 10 * min(second, 50) + 2 * max(0, second - 50), 0, running=True)
    assert pace.rate == pytest.approx(2.0)
    assert pace.eta(40) == pytest.approx(20.0)


def test_a_pause_and_a_retry_begin_anew() -> None:
    pace = Pace()
    pace.look(0, 0, 0, running=True)
    pace.look(1, 10, 0, running=True)
    pace.look(2, 10, 0, running=False)
    assert pace.eta(5) is None
    pace.look(100, 10, 0, running=True)
    pace.look(101, 15, 0, running=True)
    assert pace.eta(5) == 1.0
    pace.look(102, 3, 0, running=True)  # fewer are done: failed items run again
    assert pace.eta(5) is None


def test_slow_items_have_a_pace_too() -> None:
    pace = Pace()
    for tick in range(36_000):  # an hour of tenths of a second; an item every five minutes
        now = tick / 10
        pace.look(now, int(now // 300), 0, running=True)
    assert pace.rate == pytest.approx(1 / 300, rel=0.2)
    assert len(pace._samples) < 50


def test_an_item_that_was_nearly_done_and_failed_does_not_begin_anew() -> None:
    pace = Pace()
    pace.look(0, 0, 0, running=True)
    pace.look(1, 9, 0.9, running=True)
    pace.look(2, 9, 0.0, running=True)
    assert pace.rate == pytest.approx(4.5)
