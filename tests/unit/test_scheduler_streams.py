"""Streams: jobs whose items come while they run, and one of whose items may be cancelled on its own."""

from __future__ import annotations

import pytest

from mpqueue._core.messages import ItemsAdded
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.pending import Care
from mpqueue.status import JobStatus
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, attempts, succeed


def test_items_that_ended_before_it_began_or_fail_at_once_count_and_do_not_run() -> None:
    fleet = FakeLanes(1)
    stream = fleet.stream()
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


def test_a_stream_whose_waiting_items_were_all_dropped_keeps_no_lane_from_others() -> None:
    fleet = audited(1, start_seconds=1.0)
    stream, other = fleet.stream(), fleet.job([succeed(1.0)])
    fleet.add(stream, [succeed()] * 2)
    fleet.drop(stream, 0)
    fleet.drop(stream, 1)
    fleet.start(other)
    fleet.run_until_over(other, at_rest=False)
    assert fleet.now == pytest.approx(2.0)
