"""How long a worker may take to start."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from mpqueue._engines.loky import worker_process
from mpqueue._engines.loky.worker_process import START_LIMIT, START_LOOK, StartProgress
from mpqueue._os.process_facts import ProcessUse

LOOKS = int(START_LIMIT / START_LOOK)


def looks(monkeypatch: pytest.MonkeyPatch, seen: Iterable[float | None]) -> list[str | None]:
    """What is said at each look at a process that has used so many seconds then."""
    uses = iter([None if cpu is None else ProcessUse(1, cpu, 0) for cpu in seen])
    monkeypatch.setattr(worker_process, "use_of", lambda pid: next(uses))
    progress = StartProgress(7)
    return [progress.look() for _ in seen]


def test_a_start_that_gets_on_may_take_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [look // (LOOKS - 1) * 0.01 for look in range(100 * LOOKS)]
    assert set(looks(monkeypatch, seen)) == {None}


def test_a_start_that_does_nothing_has_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    *before, last = looks(monkeypatch, [0.25] * (LOOKS + 1))
    assert set(before) == {None}
    assert last is not None
    assert last.startswith(
        "process 7 was given up while it started: for 300 s it did nothing, after 0.25 s of CPU time"
    )


def test_a_start_of_which_the_system_tells_nothing_has_five_minutes_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    *before, last = looks(monkeypatch, [None] * LOOKS)
    assert set(before) == {None}
    assert last is not None
    assert last.startswith("process 7 was given up while it started: for 300 s it did not answer")
