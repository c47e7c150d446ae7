"""Code of users' classes runs on threads of its job's own, never on the coordinator's; and delays its own job only."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import Executor, JobQueue, JobRun, RetryPolicy
from mpqueue.errors import ItemPicklingError, TooManyFailuresError
from mpqueue.testing import close_shared_pool
from tests.support import handlers as do
from tests.support import tracked
from tests.support.front_ends import FRONT_ENDS, FrontEnd
from tests.support.length import long
from tests.support.results import errors_in_place
from tests.support.strength import workers_of
from tests.support.tracked import Stuck, Tracked, TrackedError, make_state, value_of, work_beside, work_with
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

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
        assert queue.retry_failed("job").result(300).failed == 3


@pytest.mark.parametrize("has_journal", [False, True], ids=["without a journal", "with a journal"])
def test_code_of_users_classes_never_runs_on_the_coordinators_thread(has_journal: bool, tmp_path: Path) -> None:
    with collections_put_off():
        run_job(str(tmp_path / "run.db") if has_journal else None)
        if has_journal:
            with JobQueue(2, journal=str(tmp_path / "run.db")) as queue:
                assert len(queue.load_job("job").items) == 9
    check_threads()


@pytest.mark.long
@pytest.mark.usefixtures("shared_pool_ends")
@pytest.mark.parametrize("front_end", [one for one in FRONT_ENDS if "joblib" not in one.name], ids=str)
def test_nor_that_of_calls(front_end: FrontEnd) -> None:
    handler = partial(work_beside, mpqueue.share(Tracked(0, "shared")))
    with collections_put_off(), front_end.open(max_retries=0) as call:
        for number in (9, 200):
            with contextlib.suppress(TrackedError):
                errors_in_place(call(handler, items(number)))
    check_threads()


class Incomparable(type):
    """A metaclass whose classes have no hash, as one with an `__eq__` of its own has."""

    __hash__ = None  # type: ignore[assignment]


class Unsendable(metaclass=Incomparable):
    """No pickler takes it, since it looks for its class in a table."""


def test_an_argument_whose_class_has_no_hash_fails_its_own_call_only() -> None:
    with Executor(1, max_retries=0) as executor:
        assert [*executor.map(abs, range(100))] == [*range(100)]  # so short that calls are sent together
        good = [executor.submit(abs, -1) for _ in range(300)]
        bad = [executor.submit(id, Unsendable()) for _ in range(300)]
        assert {type(future.exception(300)) for future in bad} == {TypeError}
        assert {future.result(300) for future in good} == {1}


@contextlib.contextmanager
def collections_put_off() -> Iterator[None]:
    """The collector would run on any thread that there is."""
    tracked.begin()
    gc.disable()
    try:
        yield
        close_shared_pool(kill=True)
    finally:
        gc.enable()


def check_threads() -> None:
    assert any(what == "item.__reduce__" for what, _ in tracked.seen)
    assert any(what == "result.__setstate__" for what, _ in tracked.seen)
    assert not sorted((what, thread) for what, thread in tracked.seen if "coordinator" in thread)


@pytest.fixture
def stuck() -> Iterator[list[Stuck]]:
    """Items that can't be pickled before the test lets them, or is over."""
    tracked.begin()
    yield [Stuck(value) for value in range(4)]
    tracked.go_on.set()


@pytest.mark.parametrize("lanes", [1, 2])
def test_items_that_are_slow_to_pickle_delay_their_own_job_only(lanes: int, stuck: list[Stuck]) -> None:
    with JobQueue(lanes) as queue:
        queue.create_job("slow", stuck, value_of)
        run = queue.start("slow")
        assert tracked.arrived.wait(300)
        assert queue.run(range(20), do.double).results == [2 * value for value in range(20)]
        assert not run.done()
        tracked.go_on.set()
        assert run.result(300).results == [0, 1, 2, 3]


def cancel(queue: JobQueue, run: JobRun) -> None:
    queue.cancel("slow")
    assert run.result(300).cancelled
    assert queue.run([1], do.double).results == [2]


def cancel_and_kill(queue: JobQueue, run: JobRun) -> None:
    queue.cancel("slow", kill=True)
    assert run.result(300).cancelled
    assert queue.run([1], do.double).results == [2]


def close(queue: JobQueue, run: JobRun) -> None:
    queue.close(kill=True)
    assert run.result(300).cancelled


def crash(queue: JobQueue, run: JobRun) -> None:
    (pid,) = workers_of(queue)
    os.kill(pid, signal.SIGKILL)
    assert queue.run([1], do.double).results == [2]
    tracked.go_on.set()
    assert run.result(300).results == [0, 1, 2, 3]


@pytest.mark.parametrize("happens", [cancel, cancel_and_kill, close, crash])
def test_whatever_happens_while_items_are_pickled(
    happens: Callable[[JobQueue, JobRun], None], stuck: list[Stuck]
) -> None:
    with JobQueue(1) as queue:
        queue.create_job("slow", stuck, value_of)
        run = queue.start("slow")
        assert tracked.arrived.wait(300)
        happens(queue, run)


def test_the_end_of_a_cancelled_job_does_not_wait_for_an_item_that_is_pickled_for_ever(
    stuck: list[Stuck], tmp_path: Path, gate: Gate
) -> None:
    tracked.go_on.set()
    with JobQueue(2, journal=tmp_path / "run.db", retry=RetryPolicy(max_retries=0)) as queue:
        queue.create_job("slow", [0, *stuck], do.only(0, do.block_until_told(gate, do.fail)), chunksize=1)
        tracked.arrived.clear()
        tracked.go_on.clear()
        run = queue.start("slow")
        gate.wait_for(0)
        assert tracked.arrived.wait(300)
        queue.cancel("slow")
        gate.open()
        # The error of the first is pickled behind the second, which would be given up after 30 to 45 s.
        assert run.result(25).cancelled
        assert queue.run([1], do.double).results == [2]


@pytest.mark.holds("wait: a result is pickled for the journal, and written")
def test_a_result_that_is_slow_to_pickle_is_announced_once_it_is_in_the_journal(
    stuck: list[Stuck], tmp_path: Path
) -> None:
    path, told = str(tmp_path / "run.db"), set[str]()
    with JobQueue(1, journal=path) as queue:
        queue.on("job:progress", lambda event: told.add(event.job_id))
        queue.create_job("slow", range(4), tracked.get_stuck, chunksize=4)
        run = queue.start("slow")
        assert tracked.arrived.wait(300)
        assert queue.run(range(20), do.double).results == [2 * value for value in range(20)]
        assert not run.done()
        assert "slow" not in told
        tracked.go_on.set()
        assert [value_of(result) for result in run.result(300).results] == [0, 1, 2, 3]
    with JobQueue(1, journal=path) as queue:
        assert [item.status for item in queue.load_job("slow").items] == ["completed"] * 4


@pytest.mark.holds("wait: an item is pickled in your program")
@pytest.mark.long
def test_an_item_that_is_pickled_for_ever_fails_and_a_result_s_job_says_why_it_waits(
    stuck: list[Stuck], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After three quarters of a minute; see tests/unit/test_picklers.py for that time."""
    with JobQueue(1, journal=tmp_path / "run.db") as recorded, JobQueue(1) as queue:
        recorded.create_job("slow", range(4), tracked.get_stuck, chunksize=4)
        run = recorded.start("slow")
        job = queue.run([{"id": 1}, {"id": 2, "stuck": stuck[2]}, {"id": 3}], tracked.id_of, chunksize=1)
        assert job.results == [1, None, 3]
        assert isinstance(job.items[1].exception, ItemPicklingError)
        assert "item 2 of type dict can't be pickled: it takes too long" in str(job.items[1].error)
        assert queue.run([1], do.double).results == [2]
        wait_until(lambda: "is announced once it is in the journal" in caplog.text)
        assert not run.done()
        tracked.go_on.set()
        assert [value_of(result) for result in run.result(300).results] == [0, 1, 2, 3]


def kill_job(queue: JobQueue, run: JobRun) -> None:
    queue.cancel("slow", kill=True)
    assert [value_of(result) for result in run.result(300).results] == [0, 1, 2, 3]
    assert queue.run([1], do.double).results == [2]


def kill_queue(queue: JobQueue, run: JobRun) -> None:
    queue.close(kill=True)
    assert run.done()


@pytest.mark.holds("wait: the same after cancel(kill=True), close(kill=True) or the program's end")
@pytest.mark.parametrize("kill", [kill_job, long(kill_queue)])  # it has five seconds
def test_a_job_that_is_killed_does_not_wait_for_a_result_that_is_pickled_for_ever(
    kill: Callable[[JobQueue, JobRun], None],
    stuck: list[Stuck],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        queue.create_job("slow", range(4), tracked.get_stuck, chunksize=4)
        run = queue.start("slow")
        assert tracked.arrived.wait(300)
        kill(queue, run)
    assert "takes too long to be pickled" in caplog.text
    assert "made a mistake" not in caplog.text
    with JobQueue(1, journal=path) as queue:
        # The first was pickled by then; what comes after the second was not.
        assert [item.status for item in queue.load_job("slow").items] == ["completed", *["pending"] * 3]
        tracked.go_on.set()
        again = queue.run(range(4), tracked.get_stuck, id="slow")
        assert [value_of(result) for result in again.results] == [0, 1, 2, 3]


def test_a_map_with_too_many_failures_does_not_wait_for_a_result_that_is_pickled_for_ever(
    stuck: list[Stuck], path: Path
) -> None:
    with pytest.raises(TooManyFailuresError, match="more than max_failures=0"):
        mpqueue.map(
            tracked.get_stuck_or_fail, [1, -1], journal=path, concurrency=1, chunksize=1, max_retries=0, max_failures=0
        )


class Asking:
    """An item that asks its queue something when it is pickled."""

    queue: JobQueue | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        assert self.queue is not None
        self.queue.create_job("another", [1], do.double)
        self.queue.cancel("another")
        return int, (self.queue.get_stats().total,)


def test_an_item_may_call_its_queue_while_it_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    with JobQueue(1) as queue:
        monkeypatch.setattr(Asking, "queue", queue)
        assert queue.run([Asking()], do.succeed).results == [2]
