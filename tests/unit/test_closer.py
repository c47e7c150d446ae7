"""How long the end of a queue waits, with an engine that only says what it was asked to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from mpqueue._parent.machinery import PATIENCE
from mpqueue._parent.surroundings.replies import SafeEvent
from mpqueue._queue.closer import Closer
from mpqueue.testing import FakeClock


def test_a_drain_waits_for_a_listener_half_a_minute_after_its_jobs_and_then_ends_all_at_once() -> None:
    clock, asked, cut_short = FakeClock(), list[dict[str, Any]](), SafeEvent()
    engine = SimpleNamespace(
        clock=clock,
        cut_short=cut_short,
        is_awaited_here=False,
        check_process=lambda: None,
        check_written=lambda: None,
        close_jobs=lambda **_: None,
        shutdown=lambda **how: asked.append(how),
        await_end=lambda by: None,
    )
    # A run that is not done: its last event has not been delivered.
    over = SimpleNamespace(wait=lambda seconds, unless: clock.advance(seconds))
    run = SimpleNamespace(_over=over, done=lambda: False, _end_bar=lambda: None)
    pages = SimpleNamespace(close=lambda: None)
    Closer(cast("Any", engine), cast("Any", [run]), cast("Any", pages)).drain(None, 10.0)
    assert clock.now() == 10.0 + PATIENCE == 40.0
    assert asked == [{"kill": True, "wait_for_listeners": False, "by": 10.0}]
