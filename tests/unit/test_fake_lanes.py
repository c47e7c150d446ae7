"""The fake engine itself: that it notices what it is there to notice."""

from __future__ import annotations

from typing import Any

import pytest

from mpqueue._core.commands import ObserveLane
from mpqueue._core.rules import stealing
from mpqueue._core.state.books import Books, TimerKind
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, crash, fail, succeed
from tests.support.invariants import check_invariants


def history(seed: int) -> list[str]:
    """What happens in a fleet, as text."""
    fleet, lines = FakeLanes(3, latency=0.001, seed=seed), list[str]()

    def write(message: object, commands: list[Any]) -> None:
        lines.append(f"{fleet.now} {type(message).__name__} {[type(command).__name__ for command in commands]}")

    fleet.watchers.append(write)
    fleet.run([*[succeed(0.001)] * 200, fail(times=2), crash(times=1), succeed(3.0)])
    return lines


def test_the_same_calls_give_the_same_history() -> None:
    assert history(1) == history(1)


def test_a_scheduler_that_goes_round_in_circles_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = FakeLanes(1)

    def spin(books: Books) -> None:
        books.timers.add(books.now, TimerKind.STEAL_CHECK)

    monkeypatch.setattr(stealing, "consider", spin)
    fleet.start(fleet.job([succeed(1.0)]))
    with pytest.raises(AssertionError, match="round in circles"):
        fleet.run_until(2.0)


def test_looks_that_only_follow_from_each_other_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = FakeLanes(1)

    def look(books: Books) -> None:
        books.commands.append(ObserveLane(0, 1))

    fleet.start(fleet.job([succeed(1.0)]))
    fleet.run_until_ready()
    monkeypatch.setattr(stealing, "consider", look)
    with pytest.raises(AssertionError, match="looks without end"):
        fleet.step()


def test_a_lost_item_is_noticed() -> None:
    fleet = FakeLanes(1)
    job = fleet.started([succeed(1.0)] * 3)
    check_invariants(fleet.books)
    job.pending.take(1)
    with pytest.raises(AssertionError, match="lost"):
        check_invariants(fleet.books)


def test_an_item_that_is_there_twice_is_noticed() -> None:
    fleet = FakeLanes(1)
    job = fleet.started([succeed(1.0)] * 3)
    job.pending.add_due(2)
    with pytest.raises(AssertionError, match="in two places"):
        check_invariants(fleet.books)


def test_an_item_that_begins_while_its_job_is_paused_is_noticed() -> None:
    fleet = audited(1)
    job = fleet.started([succeed(1.0)] * 3, chunksize=3)
    fleet.run_until(0.5)
    fleet.pause(job)
    worker = fleet.workers[0]
    assert worker is not None
    worker.flags = (-1, False, False)
    worker._run.started = 5.0  # type: ignore[union-attr]  # its 50 ms are not over
    with pytest.raises(AssertionError, match="while paused"):
        fleet.run_until(2.0)
