"""What is particular to executors of other libraries: how they break, and what they do with calls of the dead."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import pytest
from distributed.cfexecutor import ClientExecutor

import mpqueue
from mpqueue import JobQueue, RetryPolicy, WorkerCrashedError, WorkerStartError
from mpqueue.backends import ExecutorBackend
from tests.support import handlers as do
from tests.support.programs import run_program
from tests.support.results import results_of
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

SOON = RetryPolicy(max_retries=2, base_delay=0.0)


class Strange(ProcessPoolExecutor):
    """Says that it is broken by an error of its own, as executorlib's does."""

    def __init__(self) -> None:
        super().__init__(2, get_context("spawn"))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As its parent, but for the errors."""
        outcome: Future[Any] = Future()

        def answer(future: Future[Any]) -> None:
            if future.cancelled():
                outcome.cancel()
                outcome.set_running_or_notify_cancel()
            elif (error := future.exception()) is not None:
                outcome.set_exception(OSError("the socket is gone") if isinstance(error, BrokenExecutor) else error)
            else:
                outcome.set_result(future.result())

        try:
            super().submit(fn, *args, **kwargs).add_done_callback(answer)
        except BrokenExecutor:
            outcome.set_exception(OSError("the socket is gone"))
        return outcome


class Forgetful(ThreadPoolExecutor):
    """Has lost its workers after some calls, and does not say so, as ipyparallel's does."""

    def __init__(self, calls: int) -> None:
        super().__init__(1)
        self._left = calls

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As its parent, for so many calls."""
        self._left -= 1
        return super().submit(fn, *args, **kwargs) if self._left >= 0 else Future()


def test_an_item_that_always_kills_its_worker_costs_its_neighbours_nothing() -> None:
    with JobQueue(None, backend=ExecutorBackend(Strange, workers=2), retry=SOON) as queue:
        job = queue.run(range(5), do.only(2, do.kill_self))
        assert [item.attempts for item in job.items] == [1, 1, 3, 1, 1]
        assert isinstance(job.items[2].exception, WorkerCrashedError)
        assert results_of(queue.run(range(20), do.double)) == [2 * item for item in range(20)]
    wait_until(lambda: not active_children(), what="the end of the executors that broke")


@pytest.mark.long
def test_loky_s_own_executor_is_made_anew_and_shut_down(tmp_path: Path) -> None:
    script = """
        import os, loky
        from mpqueue import JobQueue
        from mpqueue.backends import ExecutorBackend

        def work(item):
            if item == 2:
                os._exit(3)
            return item

        for kill in (False, True):
            backend = ExecutorBackend(lambda: loky.get_reusable_executor(2), workers=2)
            queue = JobQueue(None, backend=backend, max_retries=0)
            job = queue.run(range(5), work)
            print(job.completed, job.failed, queue.run([3], work).results)
            queue.close(kill=kill)
    """
    assert run_program(tmp_path, script).stdout == 2 * "4 1 [3]\n"


@pytest.mark.long
def test_an_executor_that_repeats_calls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"DaskBackend\(client\)"):
        ExecutorBackend(ClientExecutor(None))
    with mpqueue.Executor(1) as executor, pytest.raises(TypeError, match="max_retries=3"):
        ExecutorBackend(executor)
    with (
        JobQueue(1, backend=ExecutorBackend(lambda: mpqueue.Executor(1), workers=1)) as queue,
        pytest.raises(WorkerStartError, match="make it with max_retries=0"),
    ):
        queue.run([1], do.double)
    called = tmp_path / "called"
    with JobQueue(1, backend=ExecutorBackend(lambda: mpqueue.Executor(1, max_retries=0)), retry=SOON) as queue:
        job = queue.run([1], lambda item: (called.open("a").write("x"), os._exit(3)))
    assert (job.items[0].attempts, job.failed) == (3, 1)
    assert len(called.read_text()) == 4, "once among others, and three times by itself"


def test_a_call_that_is_forgotten_counts_as_lost_after_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    made = iter((Forgetful(2), ThreadPoolExecutor(1)))
    backend = ExecutorBackend(lambda: next(made), workers=1, answer_limit=1.0)
    with JobQueue(None, backend=backend, retry=SOON) as queue:
        assert results_of(queue.run(range(3), do.double)) == [0, 2, 4]
        assert results_of(queue.run(range(3), do.double)) == [0, 2, 4]
    assert "has not answered a call within 1 s: it counts as lost" in caplog.text


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1.0, ValueError), ("1", TypeError), (True, TypeError)])
def test_a_limit_of_answers_is_a_number_of_seconds(limit: Any, error: type[Exception]) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(error, match="answer_limit: expected"):
        ExecutorBackend(executor, answer_limit=limit)


class Rude(ThreadPoolExecutor):
    """Its calls can't be cancelled, and its end fails, as those of Parsl's may."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As its parent."""
        future = super().submit(fn, *args, **kwargs)
        future.cancel = self._refuse  # type: ignore[method-assign]
        return future

    def _refuse(self) -> bool:
        raise NotImplementedError("no cancelling")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As its parent, and then it fails."""
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        raise NotImplementedError("no end")


def test_a_queue_is_closed_although_its_executor_can_neither_cancel_nor_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(tmp_path)
    queue = JobQueue(1, backend=ExecutorBackend(lambda: Rude(1), workers=1))
    run = queue.start(queue.create_job("job", range(3), do.block_until_told(gate), chunksize=1))
    gate.wait_for(0)
    threading.Timer(0.2, gate.open).start()
    queue.close(kill=True)
    assert run.done()
    assert "Rude could not be shut down: NotImplementedError('no end')" in caplog.text
