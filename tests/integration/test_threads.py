"""One queue, many threads."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import (
    Job,
    JobExistsError,
    JobNotFoundError,
    JobQueue,
    JobRun,
    JobStateError,
    JobStatus,
    QueueClosedError,
    Rerun,
)
from mpqueue.backends import LokyBackend
from mpqueue.testing import InlinePool
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.waiting import Gate
from tests.support.wrapped_engine import WrappedEngine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

THREADS = 16
#: How often two calls begin together, of which either may be the quicker one.
TURNS = 10


def in_threads(count: int, work: Callable[[int], Any] | Sequence[Callable[[], Any]]) -> list[Any]:
    """Do the work in so many threads, or each its own, which begin together."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait(300)
        return work(number) if callable(work) else work[number]()

    with ThreadPoolExecutor(count) as executor:
        return list(executor.map(begin, range(count)))


def test_jobs_without_an_id_get_different_ones_in_all_threads() -> None:
    with JobQueue(2) as queue:
        jobs = in_threads(THREADS, lambda number: queue.run([number], do.double))
        assert len({job.id for job in jobs}) == THREADS
        assert sorted(job.results[0] for job in jobs) == [2 * number for number in range(THREADS)]


def test_one_of_many_threads_that_create_or_start_the_same_job_does_so() -> None:
    def is_done(call: Callable[[], object], error: type[Exception]) -> bool:
        try:
            call()
        except error:
            return False
        return True

    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        create = partial(queue.create_job, "job", range(10), do.succeed)
        assert in_threads(THREADS, lambda _: is_done(create, JobExistsError)).count(True) == 1
        (job,) = queue.jobs()
        assert in_threads(THREADS, lambda _: is_done(partial(queue.start, job), JobStateError)).count(True) == 1
    recorder.check(job)


def test_threads_that_create_and_clear_jobs_do_not_disturb_each_other() -> None:
    def work(number: int) -> int:
        done = 0
        for turn in range(30):
            job_id = f"{turn % 3}"
            with contextlib.suppress(JobExistsError):
                queue.create_job(job_id, [1], do.succeed)
            with contextlib.suppress(JobNotFoundError):
                queue.clear_job(job_id)
                done += 1
        return done

    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns at every moment
    try:
        with JobQueue(1) as queue:
            assert sum(in_threads(8, work)) > 0
            assert queue.run([1], do.double).results == [2]
    finally:
        sys.setswitchinterval(switch_interval)


class Pausing:
    """A key for items; the thread that asks for the first one waits until it may go on."""

    def __init__(self) -> None:
        self.asked, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, item: object) -> str:
        self.asked.set()
        assert self.may_go_on.wait(300)
        return str(item)


@contextlib.contextmanager
def creating(queue: JobQueue, items: Sequence[Any]) -> Iterator[Future[Job]]:
    """Meanwhile a job is just being created of these items."""
    key = Pausing()
    with ThreadPoolExecutor(1) as executor:
        rerun = Rerun(update=True, key=key)
        creates = executor.submit(queue.create_job, "job", items, do.only(items[0], do.fail), rerun=rerun)
        assert key.asked.wait(300)
        try:
            yield creates
        finally:
            key.may_go_on.set()


def test_a_job_that_is_just_being_created_is_not_there_yet_for_clear_job(tmp_path: Path) -> None:
    with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
        with creating(queue, [1, 2]) as creates, pytest.raises(JobNotFoundError):
            queue.clear_job("job")
        creates.result(300)
        assert queue.start("job").result(300).results == [None, 2]


def test_a_job_that_is_just_being_created_again_is_neither_cleared_nor_retried_nor_pruned(tmp_path: Path) -> None:
    with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
        queue.run(_items(*"abc"), do.only(_items("a")[0], do.fail), id="job", rerun=Rerun(key=str))
    with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
        with creating(queue, _items(*"ab")) as creates:
            for call in (queue.clear_job, queue.retry_failed, queue.prune):
                with pytest.raises(JobStateError, match="got one that is being created"):
                    call("job")
            pruned = queue.prune(older_than=0)
            assert (pruned.jobs, pruned.items) == (0, 0)
        assert creates.result(300).failed == 1
        assert queue.retry_failed("job").result(300).failed == 1


class FailsAtOne:
    """A handler. While it is loaded, `loading` is called, where there is one."""

    loading: Callable[[], object] | None = None

    def __call__(self, item: int) -> int:
        if item == 1:
            raise ValueError(item)
        return item

    def __getstate__(self) -> str:
        return "loaded"

    def __setstate__(self, state: str) -> None:
        if FailsAtOne.loading is not None:
            FailsAtOne.loading()


def test_a_job_that_is_just_being_read_for_a_retry_is_neither_cleared_nor_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_go_on = threading.Event(), threading.Event()

    def load_slowly() -> None:
        asked.set()
        assert may_go_on.wait(300)

    with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
        queue.run([1, 2], FailsAtOne(), id="job")
        queue.run([3], do.only(3, do.fail), id="other")
    monkeypatch.setattr(FailsAtOne, "loading", load_slowly)
    with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue, ThreadPoolExecutor(1) as executor:
        retrying = executor.submit(lambda: queue.retry_failed("job"))
        assert asked.wait(300)
        for call in (queue.clear_job, queue.prune, queue.retry_failed):
            with pytest.raises(JobStateError, match="got one that is being read from the journal"):
                call("job")
        with pytest.raises(JobStateError, match="got one that is being read from the journal"):
            queue.create_job("job", [1, 2], do.succeed, replace=True)
        with pytest.raises(JobExistsError):
            queue.create_job("job", [1, 2], do.succeed)
        assert queue.prune(older_than=0).jobs == 1  # the other one
        may_go_on.set()
        assert retrying.result(300).result(300).failed == 1
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        assert [(job.id, job.completed, job.failed) for job in queue.jobs()] == [("job", 1, 1)]


def _items(*names: str) -> list[dict[str, Any]]:
    return [{"id": name} for name in names]


@pytest.fixture
def journal_with_a_gone_item(tmp_path: Path) -> Path:
    """A journal whose job had the items a, b and c, and then a and b."""
    path = tmp_path / "run.db"
    for names in ("abc", "ab"):
        with JobQueue(1, journal=path) as queue:
            queue.run(_items(*names), do.succeed, id="job", rerun=Rerun(update=True))
    return path


def test_a_job_that_is_created_while_it_is_pruned_runs_items_again_that_come_back(
    journal_with_a_gone_item: Path,
) -> None:
    for _ in range(TURNS):
        with JobQueue(1, journal=journal_with_a_gone_item) as queue:
            pruned, job = in_threads(
                2,
                [
                    queue.prune,
                    lambda: queue.create_job("job", _items(*"abc"), do.succeed, rerun=Rerun(update=True)),
                ],
            )
            assert job.completed == 3 - pruned.items
            assert queue.start("job").result(300).results == _items(*"abc")
        with JobQueue(1, journal=journal_with_a_gone_item) as queue:
            assert queue.load_job("job").results == _items(*"abc")
            queue.run(_items(*"ab"), do.succeed, id="job", rerun=Rerun(update=True))


def test_a_job_that_runs_again_while_it_is_pruned_is_either_pruned_or_runs(tmp_path: Path) -> None:
    for turn in range(TURNS):
        job_id = f"job {turn}"

        def retry(job_id: str = job_id) -> int | None:
            try:
                return queue.retry_failed(job_id).result(300).failed
            except JobNotFoundError:
                return None

        with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
            queue.run([1], do.succeed, id=f"old {turn}")
            queue.run([1, 2], do.only(1, do.fail), id=job_id)
            pruned, failed = in_threads(2, [lambda: queue.prune(older_than=0), retry])
            left = [job.id for job in queue.jobs()]
            assert (pruned.jobs, left) in ((2, []), (1, [job_id]))  # the first also where it had run by then
            assert failed == 1 or not left
            queue.prune(older_than=0)


def _close_for_a_key(queue: JobQueue, item: object) -> str:
    queue.close()
    return "key"


CLOSED_DURING: dict[str, Callable[[JobQueue], object]] = {
    "create_job": lambda queue: queue.create_job(
        "new", [1], do.succeed, rerun=Rerun(key=partial(_close_for_a_key, queue))
    ),
    "replace": lambda queue: queue.create_job(
        "job", [1], do.fail, replace=True, rerun=Rerun(update=True, key=partial(_close_for_a_key, queue))
    ),
    "retry_failed": lambda queue: queue.retry_failed("job"),
}


@pytest.mark.parametrize("use", CLOSED_DURING)
def test_a_queue_that_is_closed_during_a_call_refuses_it(
    use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
        queue.run([1], FailsAtOne(), id="job")
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        monkeypatch.setattr(FailsAtOne, "loading", queue.close)
        with pytest.raises(QueueClosedError):
            CLOSED_DURING[use](queue)
        monkeypatch.undo()
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        assert [(job.id, job.failed) for job in queue.jobs()] == [("job", 1)]


#: What is there afterwards where the call was quicker than the close.
BESIDE_CLOSE: dict[str, tuple[Callable[[JobQueue], object], list[tuple[str, int]]]] = {
    "create_job": (lambda queue: queue.create_job("new", [1], do.succeed), [("job", 1), ("new", 0)]),
    "clear_job": (lambda queue: queue.clear_job("job"), []),
    "prune": (lambda queue: queue.prune(older_than=0), []),
    "prune that job": (lambda queue: queue.prune("job", older_than=0), []),
}


@pytest.mark.long(but=["create_job"])
@pytest.mark.parametrize("use", BESIDE_CLOSE)
def test_a_call_beside_a_close_is_carried_out_or_refused(use: str, tmp_path: Path) -> None:
    call, after = BESIDE_CLOSE[use]
    for turn in range(TURNS):
        path = tmp_path / f"{turn}.db"
        with JobQueue(1, journal=path, max_retries=0, backend=InlinePool()) as queue:
            queue.run([1], do.fail, id="job")

        def use_it() -> bool:
            try:
                call(queue)
            except QueueClosedError:
                return False
            return True

        with JobQueue(1, journal=path) as queue:
            is_done, _ = in_threads(2, [use_it, queue.close])
        with JobQueue(1, journal=path) as queue:
            assert [(job.id, job.failed) for job in queue.jobs()] == (after if is_done else [("job", 1)])


def test_several_threads_may_iterate_over_one_run_wait_for_it_and_close_its_queue() -> None:
    def use(number: int) -> tuple[int, JobStatus]:
        seen = len({item.id for item in run.as_completed()}) if number % 2 else 1000
        queue.close()
        return seen, run.result(300).status

    queue = JobQueue(2)
    queue.create_job("job", range(1000), do.double)
    run = queue.start("job")
    assert in_threads(THREADS, use) == [(1000, JobStatus.COMPLETED)] * THREADS
    assert run.job.completed == 1000


REMOVALS: dict[str, Callable[[JobQueue], object]] = {
    "cleared": lambda queue: queue.clear_job("job"),
    "replaced": lambda queue: queue.create_job("job", [3], do.succeed, replace=True),
}
STARTS: dict[str, Callable[[JobQueue], JobRun]] = {
    "start": lambda queue: queue.start("job"),
    "retry_failed": lambda queue: queue.retry_failed("job"),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("removal", REMOVALS)
def test_of_a_start_and_a_removal_at_the_same_time_one_is_refused(
    start: str, removal: str, tmp_path: Path, gate: Gate
) -> None:
    begins, may_go_on = threading.Event(), threading.Event()
    waits = tmp_path / "waits"

    def send_slowly() -> None:
        begins.set()
        may_go_on.wait(300)

    def fail(item: int) -> None:
        if waits.exists():
            gate.pass_through(item)
        raise ValueError(item)

    engine = WrappedEngine(InlinePool())
    with JobQueue(1, max_retries=0, backend=engine) as queue, ThreadPoolExecutor(3) as pool:
        job = queue.create_job("job", [1, 2], fail)
        if start == "retry_failed":
            queue.start("job").result(300)
        status = job.status
        waits.touch()
        engine.calls["send"] = send_slowly
        other = pool.submit(queue.run, [1], do.succeed)
        assert begins.wait(300)  # the coordinator is at something else
        run, removes = pool.submit(STARTS[start], queue), pool.submit(REMOVALS[removal], queue)
        may_go_on.set()
        started, removed = run.exception(300), removes.exception(300)
        gate.open()
        assert other.result(300).completed == 1
        if started is None:
            assert isinstance(removed, JobStateError)
            assert run.result().result(300) is job
            REMOVALS[removal](queue)
        else:
            assert isinstance(started, JobNotFoundError | JobStateError)
            assert removed is None
            assert job.status is status
        assert queue.get_job("job") is not job


# --- one thread closes it after another -------------------------------------------------------------------------------

#: How a queue is closed once more.
SECOND_ENDS: dict[str, Callable[[JobQueue], object]] = {
    "close": lambda queue: queue.close(),
    "kill": lambda queue: queue.close(kill=True),
    "leave": lambda queue: queue.__exit__(None, None, None),
    "leave by an error": lambda queue: queue.__exit__(ValueError, ValueError(), None),
    "leave later": lambda queue: asyncio.run(queue.__aexit__(None, None, None)),
    "drain": lambda queue: queue.drain(60),
    "drain later": lambda queue: asyncio.run(queue.adrain(60)),
}


@pytest.mark.parametrize("first", ["close", "without waiting", "kill"])
def test_a_queue_that_is_closed_already_has_ended_when_a_second_close_returns(first: str, tmp_path: Path) -> None:
    for second, end in SECOND_ENDS.items():
        closing, may_go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def close_slowly(closing: threading.Event = closing, may_go_on: threading.Event = may_go_on) -> None:
            closing.set()
            assert may_go_on.wait(300)

        engine = WrappedEngine(InlinePool(), {"close": close_slowly})
        with ThreadPoolExecutor(2) as executor:
            queue = JobQueue(1, journal=tmp_path / "run.db", backend=engine)
            queue.run([1, 2], do.double, id=second)
            if first == "without waiting":
                queue.close(wait=False)
            else:
                executor.submit(queue.close, kill=first == "kill")
            assert closing.wait(300)
            begun = threading.Event()

            def end_again() -> None:
                begun.set()  # noqa: B023 - over in this turn
                end(queue)  # noqa: B023
                ended.set()  # noqa: B023

            ending = executor.submit(end_again)
            assert begun.wait(300)
            assert not ended.wait(0.02), second
            may_go_on.set()
            ending.result(300)
            with JobQueue(1, journal=tmp_path / "run.db") as again:
                assert again.load_job(second).results == [2, 4]


def test_a_close_by_a_signal_handler_does_not_wait_for_the_close_that_waits_for_it(tmp_path: Path) -> None:
    heard: list[int] = []

    def close_again(*_: object) -> None:
        queue.close()
        queue.close(kill=True)
        queue.drain(0)
        heard.append(1)

    previous = signal.signal(signal.SIGUSR1, close_again)
    engine = WrappedEngine(InlinePool(), {"close": lambda: signal.raise_signal(signal.SIGUSR1)})
    try:
        with JobQueue(1, journal=tmp_path / "run.db", backend=engine) as queue:
            queue.run([1], do.double)
        assert heard
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_close_in_a_listener_does_not_wait_for_the_close_that_waits_for_it() -> None:
    closing, closed = threading.Event(), threading.Event()

    def close_again(_: object) -> None:
        assert closing.wait(300)
        queue.close()
        queue.close(kill=True)
        queue.drain(0)
        closed.set()

    engine = WrappedEngine(LokyBackend(), {"close": closing.set})
    with JobQueue(1, backend=engine) as queue:
        queue.on("job:finished", close_again)
        queue.create_job("job", [1], do.double)
        queue.start("job")
        with ThreadPoolExecutor(1) as executor:
            executor.submit(queue.close, kill=True).result(300)
    assert closed.wait(300)
