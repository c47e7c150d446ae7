"""The coordinator's own part: what it does with what lies in an outbox, without threads or processes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._core.commands import AnnounceItems, Retrying
from mpqueue._core.messages import BellRung, LaneDied
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._parent.coordinator import Coordinator
from mpqueue._wire.frames import Ended, ReportFrame, dump_frame
from mpqueue._wire.memory.segments import BIG
from mpqueue._wire.pickling.payload import Packed, dump
from mpqueue.retry import RetryPolicy
from mpqueue.testing import FakeClock
from tests.support.systems import not_on_windows


class StubLane:
    """A lane with nothing but an outbox."""

    number = generation = 0
    pid = 1

    def __init__(self) -> None:
        self.outbox = b""
        self.was_killed = False
        self.early_later: Any = None

    def leave(self, data: bytes) -> None:
        self.outbox = data

    def take_early(self) -> bytes | None:
        early, self.outbox = self.outbox or None, b""
        return early

    def take_unsent(self) -> bytes:
        return b""

    def kill(self, *, dump_stack: bool = False) -> None:
        self.was_killed = True


@pytest.fixture
def lane() -> StubLane:
    return StubLane()


@pytest.fixture
def coordinator(lane: StubLane) -> Iterator[Coordinator]:
    made = Coordinator(Scheduler(1, random.Random(0)), FakeClock(), lambda _: None, None, "not started")
    pool: Any = SimpleNamespace(lane=lambda number: lane, start=lambda *_: None, retire=lambda _: None)
    made.open(pool)
    yield made
    made.inbox.close()


def report(**facts: Any) -> bytes:
    frame = ReportFrame(1, 0, 0, Packed(dump([]).data), {}, (), 0.0, Ended.DONE, final=False, **facts)
    return dump_frame(frame)


@not_on_windows("each segment is filled once")
def test_segments_that_come_back_with_an_early_report_are_used_again(coordinator: Coordinator, lane: StubLane) -> None:
    book = JobBook(1, "job", make_table([bytearray(2 * BIG)]), JobOptions(RetryPolicy()), None)
    exchange, stub = coordinator._traffic._exchange, lane
    held: Any = stub
    chunk = Chunk(1, book, range(1), Care.NONE, expected=0.0, sent_at=0.0)
    packed = exchange.pack_at_once(chunk, book.table.payloads, time.monotonic)
    assert packed is not None
    exchange.hand_over(held, packed)
    lane.leave(report(returned=packed.serials))
    coordinator.handle(BellRung(0, 0))
    assert lane.take_early() is None
    assert exchange._store is not None
    assert not exchange._store._lent
    assert len(exchange._store._free) == 1
    exchange.close()


def test_an_outbox_that_makes_no_sense_costs_the_worker_and_not_the_message(
    coordinator: Coordinator, lane: StubLane, caplog: pytest.LogCaptureFixture
) -> None:
    lane.leave(b"overwritten")
    coordinator.handle(LaneDied(0, 0, 1))
    assert lane.was_killed
    assert "makes no sense" in caplog.text
    assert coordinator.scheduler.books.lanes[0].generation == 1, "its death was heard of"


def test_subscribers_hear_of_no_items_where_all_are_tried_again(coordinator: Coordinator) -> None:
    book = JobBook(1, "job", make_table(["a", "b"]), JobOptions(RetryPolicy()), None)
    heard: list[Any] = []
    coordinator.subscribe_early(book, heard.append)
    again = Retrying(1, 0.1, Failure(ValueError("busy")))
    told = AnnounceItems(book, range(2), frozenset(), {0: again, 1: again}, 0, 0, book.status)
    coordinator._tell_items(told)
    assert heard == []
    coordinator._tell_items(told._replace(retrying={0: again}))
    assert heard == [[1]]
