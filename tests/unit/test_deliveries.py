"""The way of results into a sink, on a thread for which there may be no room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._core.commands import AnnounceFinished
from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._parent import users_threads
from mpqueue._parent.deliveries import Deliveries, Delivery
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.unit.hand_run import Starts


class Outlet:
    """Notes what becomes of it."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def open(self) -> None:
        self.steps.append("opened")

    def put(self, indices: Sequence[int], size: int) -> None:
        self.steps.append(f"{len(indices)} of {size} bytes")

    def finish(self) -> None:
        self.steps.append("finished")

    def leave(self) -> str:
        self.steps.append("left")
        return "nothing"


@pytest.mark.parametrize("looks", [1, 3])
def test_a_sink_is_closed_once_there_is_room_for_its_thread_again(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_threads, "LINGER", 0.0)
    starts, due, ended = Starts(monkeypatch, 0), list[Callable[[], object]](), list[str]()
    coordinator: Any = SimpleNamespace(
        do_later=lambda call: call(),
        hold_back=lambda *_: None,
        inbox=SimpleNamespace(call_later=lambda _, call: due.append(call)),
    )
    deliveries = Deliveries(coordinator)
    outlet, job = Outlet(), JobBook(1, "job", make_table([1]), JobOptions(RetryPolicy()), None)
    job.delivery = delivery = Delivery(outlet)
    deliveries.start(job, [range(1)])
    starts.run(delivery.errands)
    starts.refused = 100
    deliveries.end(AnnounceFinished(job, JobStatus.COMPLETED, 1, 0, 0.0), lambda: ended.append("told"))
    for look in range(looks):
        starts.refused *= look + 1 < looks
        (call,) = due
        due.clear()
        call()
    starts.run(delivery.errands)
    assert outlet.steps == ["opened", "1 of 0 bytes", "finished"]
    assert ended == ["told"]
    assert not due
    assert deliveries.all_done
