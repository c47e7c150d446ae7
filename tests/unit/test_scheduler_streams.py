"""Streams: jobs whose items come while they run, and one of whose items may be cancelled on its own."""

from __future__ import annotations

import pytest

from mpqueue._core.messages import ItemsAdded
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.pending import Care
from mpqueue.errors import ItemCancelledError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import Auditor
from tests.support.fake_lanes import FakeLanes, attempts, crash, errors, fail, statuses, succeed


@pytest.fixture
def fleet() -> FakeLanes:
    """One lane, watched."""
    fleet = FakeLanes(1)
    Auditor(fleet)
    return fleet


def test_a_stream_runs_what_comes_and_ends_when_it_is_sealed(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [succeed(0.5)] * 2)
    fleet.advance(10.0)
    assert (stream.completed, stream.status) == (2, JobStatus.RUNNING)
    fleet.add(stream, [succeed(0.5)])
    fleet.seal(stream)
    assert stream.status == "running"
    fleet.run_until_over(stream)
    assert (stream.completed, stream.status) == (3, JobStatus.COMPLETED)


def test_items_that_ended_before_it_began_or_fail_at_once_count_and_do_not_run() -> None:
    fleet = FakeLanes(1)
    stream = fleet.stream()
    fleet.start(stream)
    table = stream.table
    fleet.add(stream, [succeed(0.5)])
    recalled = table.add(["a", "b", "c"])
    table.take_over(recalled, ["A", "B", None])
    fleet.handle(ItemsAdded(stream, recalled, None))
    fleet.handle(ItemsAdded(stream, table.add(["d"]), Failure(ValueError())))
    fleet.add(stream, [succeed(0.5)])
    for care in (Care.ALONE, Care.APART):
        fleet.handle(ItemsAdded(stream, table.add([succeed(0.5)]), care))
    fleet.seal(stream)
    fleet.run_until_over(stream)
    assert (stream.completed, stream.failed, stream.status) == (7, 1, JobStatus.COMPLETED_WITH_ERRORS)
    assert attempts(stream)[5:] == [1, 1, 1]
    assert [table.take(index)[0] for index in recalled] == ["A", "B", None]


def test_an_empty_stream_ends_when_it_is_sealed(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.advance(10.0)
    assert stream.status == "running"
    fleet.seal(stream)
    assert stream.status is JobStatus.COMPLETED


def test_a_stream_s_failed_items_are_retried(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [fail(times=1), succeed()])
    fleet.seal(stream)
    fleet.run_until_over(stream)
    assert (statuses(stream), attempts(stream)) == (["completed"] * 2, [2, 1])


def test_items_added_to_a_cancelled_stream_do_not_run(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [succeed(5.0)] * 2)
    fleet.run_until(1.0)
    fleet.cancel(stream)
    fleet.add(stream, [succeed()])
    fleet.run_until_over(stream)
    assert statuses(stream) == ["completed", "pending", "pending"]


def test_an_item_that_waits_can_be_dropped(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [succeed(1.0)] * 4)
    fleet.run_until(0.5)
    fleet.drop(stream, 2)
    assert errors(stream)[2] is ItemCancelledError
    fleet.seal(stream)
    fleet.run_until_over(stream)
    assert statuses(stream) == ["completed", "completed", "failed", "completed"]
    assert attempts(stream)[2] == 0


def test_the_lane_goes_on_when_all_that_was_next_was_dropped(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [succeed(1.0)] * 10)
    for index in range(1, 9):
        fleet.drop(stream, index)
    fleet.seal(stream)
    fleet.run_until_over(stream)
    assert (stream.completed, stream.failed) == (2, 8)


def test_an_item_that_waits_for_its_retry_can_be_dropped(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [fail()])
    fleet.run_until(1.0)
    fleet.drop(stream, 0)
    fleet.seal(stream)
    assert (stream.status, statuses(stream)) == (JobStatus.COMPLETED_WITH_ERRORS, ["failed"])


def test_an_item_that_runs_is_left_alone(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [succeed(1.0)])
    fleet.run_until(0.5)
    fleet.drop(stream, 0)
    fleet.seal(stream)
    fleet.run_until_over(stream)
    assert statuses(stream) == ["completed"]


def test_with_kill_an_item_that_runs_ends_and_its_neighbours_run_again_uncharged(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [succeed(5.0)] * 3)
    fleet.run_until(1.0)
    fleet.drop(stream, 0, kill=True)
    fleet.seal(stream)
    fleet.run_until_over(stream)
    assert (statuses(stream), attempts(stream)) == (["failed", "completed", "completed"], [0, 1, 1])
    assert errors(stream)[0] is ItemCancelledError


@pytest.mark.parametrize("deed", [fail(1.01), crash(1.01), succeed(1.01)])
def test_an_item_that_ends_by_itself_just_before_the_kill_ends_once(deed: object) -> None:
    fleet = FakeLanes(1, kill_seconds=0.05)
    Auditor(fleet)
    stream = fleet.stream(retry=RetryPolicy(base_delay=0.5))
    fleet.start(stream)
    fleet.add(stream, [deed])  # type: ignore[list-item]
    fleet.run_until(1.1)
    fleet.drop(stream, 0, kill=True)
    fleet.seal(stream)
    fleet.run_until_over(stream)
    assert stream.completed + stream.failed == 1


def test_an_item_that_has_ended_stays_as_it_is(fleet: FakeLanes) -> None:
    stream = fleet.stream()
    fleet.start(stream)
    fleet.add(stream, [succeed()])
    fleet.advance(1.0)
    fleet.drop(stream, 0, kill=True)
    assert statuses(stream) == ["completed"]
    assert stream.failed == 0


def test_a_stream_whose_waiting_items_were_all_dropped_keeps_no_lane_from_others() -> None:
    fleet = FakeLanes(1, start_seconds=1.0)
    Auditor(fleet)
    stream, other = fleet.stream(), fleet.job([succeed(1.0)])
    fleet.start(stream)
    fleet.add(stream, [succeed()] * 2)
    fleet.drop(stream, 0)
    fleet.drop(stream, 1)
    fleet.start(other)
    fleet.run_until_over(other, at_rest=False)
    assert fleet.now == pytest.approx(2.0)
