"""Code of users' classes runs on threads of its job's own, never on the coordinator's; and delays its own job only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mpqueue import JobQueue, RetryPolicy
from tests.support import tracked
from tests.support.tracked import Stuck, Tracked, TrackedError, make_state, value_of, work_with

pytestmark = pytest.mark.slow

ONCE = RetryPolicy(max_retries=1, base_delay=0.01)


def items(count: int = 9) -> list[Tracked]:
    return [Tracked(value, "item") for value in range(count)]


def run_job(journal: str | None) -> None:
    with JobQueue(2, retry=ONCE, journal=journal) as queue:
        queue.on("job:progress", lambda event: event.completed)
        job = queue.create_job("job", items(), work_with, setup=make_state)
        run = queue.start("job")
        ended = [item.id for item in run.as_completed()]
        assert len(ended) == 9
        assert [item.result.value for item in job.items if item.result is not None] == [0, 1, 3, 4, 6, 7]
        assert all(isinstance(item.exception, TrackedError) for item in job.items if item.error)
        assert queue.retry_failed("job").result(60).failed == 3


def by_journal(tmp_path: Path) -> None:
    run_job(str(tmp_path / "run.db"))
    with JobQueue(2, journal=str(tmp_path / "run.db")) as queue:
        assert len(queue.load_job("job").items) == 9


def test_what_a_journal_keeps_is_not_pickled_on_the_coordinators_thread(tmp_path: Path) -> None:
    tracked.begin()
    by_journal(tmp_path)
    kept = {(what, thread) for what, thread in tracked.seen if what in ("result.__reduce__", "error.__reduce__")}
    assert kept
    assert not [thread for _, thread in kept if "coordinator" in thread]


@pytest.fixture
def stuck() -> Iterator[list[Stuck]]:
    """Items that can't be pickled before the test lets them, or is over."""
    tracked.begin()
    yield [Stuck(value) for value in range(4)]
    tracked.go_on.set()


def test_a_result_that_is_pickled_for_ever_is_not_in_the_journal(
    stuck: list[Stuck], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mpqueue._parent.users_code.asides.LOOK", 0.02)
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        job = queue.run(range(4), tracked.get_stuck, id="job", chunksize=4)
        assert [value_of(result) for result in job.results] == [0, 1, 2, 3]
    assert "takes too long to be pickled" in caplog.text
    with JobQueue(1, journal=path) as queue:
        assert {item.status for item in queue.load_job("job").items} == {"pending"}
        tracked.go_on.set()
        assert [value_of(result) for result in queue.run(range(4), tracked.get_stuck, id="job").results] == [0, 1, 2, 3]
