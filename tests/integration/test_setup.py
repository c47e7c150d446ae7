"""``setup=``: once a worker and job, its state, its end; and what becomes of a job whose setup does not work."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import (
    JobQueue,
    JobStatus,
    RemoteError,
    SetupError,
    WorkerCrashedError,
    current_item,
    share,
)
from mpqueue.errors import RemoteTraceback, type_name_of
from mpqueue.events import JOB_PROGRESS
from mpqueue.testing import InlinePool
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.strength import workers_of
from tests.support.systems import KILLED_ITSELF_WORD
from tests.support.waiting import Gate

pytestmark = pytest.mark.usefixtures("forked_workers")


def note(folder: Path, *words: object) -> None:
    """Add a file to the folder: something happened, in any process."""
    name = " ".join(map(str, words))
    with contextlib.suppress(FileExistsError):
        (folder / f"{name} #{len(list(folder.iterdir()))} {os.getpid()}").touch(exist_ok=False)


def notes(folder: Path) -> list[str]:
    """What was noted, without the numbers that make the names unique; sorted."""
    return sorted(path.name.split(" #")[0] for path in folder.iterdir())


def add(item: int, state: int) -> int:
    return item + state


def return_state(item: Any, state: Any) -> Any:
    return state


# --- that works -----------------------------------------------------------------------------------------------------


def test_each_job_has_a_setup_of_its_own() -> None:
    with JobQueue(1) as queue:
        assert queue.run([1, 2], add, setup=lambda: 10).results == [11, 12]
        assert queue.run([1, 2], add, setup=lambda: 20).results == [21, 22]
        assert queue.run([1, 2], do.double).results == [2, 4]


def test_state_need_not_be_picklable() -> None:
    def handle(item: int, state: Any) -> bool:
        with state:
            return True

    with JobQueue(2) as queue:
        assert queue.run(range(4), handle, setup=threading.Lock).results == [True] * 4


@pytest.mark.slow
@pytest.mark.parametrize("ends_by", ["itself", "cancel", "failures"])
def test_generator_yields_the_state_and_is_finished_at_the_end_of_the_job(ends_by: str, tmp_path: Path) -> None:
    gate, log = Gate(tmp_path / "gate"), tmp_path / "log"
    log.mkdir()

    def setup() -> Iterator[int]:
        note(log, "begin", os.getpid())
        yield 10
        note(log, "end", os.getpid())

    def handle(item: int, state: int) -> int:
        if ends_by == "cancel":
            gate.pass_through(item)
        if ends_by == "failures":
            raise ValueError(item)
        return item + state

    with JobQueue(1, max_retries=0) as queue:
        queue.create_job("job", range(3), handle, setup=setup)
        run = queue.start("job")
        if ends_by == "cancel":
            gate.wait_for(0)
            run.cancel()
            gate.open()
        job = run.result()
        (worker,) = workers_of(queue)
        assert notes(log) == [f"begin {worker}", f"end {worker}"]
    if ends_by == "itself":
        assert job.results == [10, 11, 12]


@pytest.mark.slow
def test_workers_that_are_replaced_finish_their_setups(tmp_path: Path) -> None:
    def setup() -> Iterator[int]:
        note(tmp_path, "begin", os.getpid())
        yield 10
        note(tmp_path, "end", os.getpid())

    with JobQueue(1, per_worker={"items": 2}) as queue:
        job = queue.run(range(5), lambda item, state: os.getpid(), setup=setup, chunksize=1)
    workers = set(job.results)
    assert len(workers) == 3
    assert sorted(notes(tmp_path)) == sorted(f"{what} {pid}" for what in ("begin", "end") for pid in workers)


def test_context_manager_function_yields_the_state_and_is_finished(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def setup() -> Iterator[int]:
        note(tmp_path, "begin")
        try:
            yield 10
        finally:
            note(tmp_path, "end")

    with JobQueue(1) as queue:
        assert queue.run([1, 2], add, setup=setup).results == [11, 12]
        workers_of(queue)
        assert notes(tmp_path) == ["begin", "end"]


def test_other_context_managers_are_the_state_themselves(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("content")

    def handle(item: int, state: Any) -> str:
        state.seek(0)
        return str(state.read())

    with JobQueue(1) as queue:
        assert queue.run([1, 2], handle, setup=path.open).results == ["content"] * 2


def test_coroutine_functions_may_be_setup_and_share_the_event_loop_with_the_handler() -> None:
    import asyncio

    async def setup() -> Any:
        return asyncio.get_running_loop()

    async def handle(item: int, state: Any) -> bool:
        return asyncio.get_running_loop() is state

    with JobQueue(1) as queue:
        assert queue.run(range(3), handle, setup=setup).results == [True] * 3


def test_end_of_a_setup_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def setup() -> Iterator[int]:
        yield 10
        raise OSError("the end went wrong")

    with JobQueue(1) as queue:
        job = queue.run([1, 2], add, id="job", setup=setup)
        assert queue.run([1], do.succeed).results == [1]
    assert (job.status, job.results) == (JobStatus.COMPLETED, [11, 12])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "job 'job'" in record.getMessage()
    assert "the end went wrong" in record.getMessage()


def test_current_item_in_setup_tells_the_worker_and_the_job_but_no_item() -> None:
    def setup() -> tuple[Any, ...]:
        item = current_item()
        return item.job_id, item.worker, item.id, item.attempt, item.paused, item.cancelled

    with JobQueue(1) as queue:
        assert queue.run(["item"], return_state, id="job", setup=setup).results == [("job", 0, None, 0, False, False)]


# --- that fails -----------------------------------------------------------------------------------------------------


def yields_nothing() -> Iterator[int]:
    yield from ()


def run_with_bystander(queue: JobQueue, handler: Callable[..., Any], setup: Callable[[], Any] | None) -> Recorder:
    """Run ``job`` while another one, the bystander, has the same workers."""
    recorder = Recorder(queue)
    queue.create_job("bystander", range(100), do.double)
    queue.create_job("job", list("abc"), handler, setup=setup)
    runs = [queue.start("bystander"), queue.start("job")]
    for run in runs:
        run.result(300)
    bystander = runs[0].job
    assert bystander.results == [2 * item for item in range(100)]
    assert {item.attempts for item in bystander.items} == {1}
    recorder.check(bystander)
    recorder.check(runs[1].job)
    return recorder


def check_failed(recorder: Recorder, queue: JobQueue, cause: type[BaseException], message: str) -> None:
    """The job has failed with `SetupError`, once, and charged to no item."""
    job = queue.get_job("job")
    assert job is not None
    assert (job.status, job.completed, job.failed) == (JobStatus.COMPLETED_WITH_ERRORS, 0, 3)
    errors = {item.exception for item in job.items}
    assert len(errors) == 1, "one error, told once"
    (error,) = errors
    assert type(error) is SetupError
    assert type(error.__cause__) is cause
    assert re.search(message, str(error.__cause__))
    raised = type_name_of(error.__cause__)
    said = f"SetupError: setup failed in every worker; the last one raised {raised}"
    assert (job.items[0].error or "").startswith(said)
    assert {item.attempts for item in job.items} == {0}
    in_worker = isinstance(error.__cause__.__cause__, RemoteTraceback)
    assert [raised in (item.traceback or "") for item in job.items] == [in_worker] * 3
    report = job.report()
    assert [(raised in text, bool(trace)) for text, trace in report.figures.failures] == [(True, in_worker)]
    assert report.figures.items is None, "no item has run"
    assert not report.figures.slowest
    assert all("died" in text for text in report.advice), "nothing but that is worth a word"
    assert len(recorder.of(JOB_PROGRESS, "job")) == 3
    assert recorder.retries("job") == []


#: Where it fails and how; what the cause is, and on how many workers it is tried.
FAILURES: dict[str, tuple[Callable[..., Any], Any, type[BaseException], str, int]] = {
    "setup raises": (return_state, partial(do.fail, None), ValueError, "cannot do", 2),
    "setup raises oddly": (return_state, partial(do.raise_two_argument_error, None), RemoteError, "two: arguments", 1),
    "setup exits": (return_state, partial(do.sys_exit, None), RemoteError, "SystemExit: 3", 1),
    "setup ends its worker": (
        return_state,
        partial(do.exit_zero, None),
        WorkerCrashedError,
        "ended with exit code 0",
        1,
    ),
    "setup is killed": (return_state, partial(do.kill_self, None), WorkerCrashedError, KILLED_ITSELF_WORD, 1),
    "setup yields nothing": (
        return_state,
        yields_nothing,
        RuntimeError,
        "expected a generator that yields the state once, got one that",
        1,
    ),
    "setup can't be loaded": (return_state, do.WhenUnpickled(do.fail), ValueError, "cannot do", 1),
    "handler can't be loaded": (do.WhenUnpickled(do.exit_with(3)), None, WorkerCrashedError, "exit code 3", 2),
}


@pytest.mark.slow
@pytest.mark.holds("error: SetupError", "fault: setup fails in every worker")
@pytest.mark.parametrize("how", FAILURES)
def test_job_ends_at_once_where_setup_fails_in_every_worker(how: str) -> None:
    handler, setup, cause, message, workers = FAILURES[how]
    with JobQueue(workers, max_retries=0) as queue:
        recorder = run_with_bystander(queue, handler, setup)
        check_failed(recorder, queue, cause, message)
        assert len(workers_of(queue)) == workers


@pytest.mark.slow
@pytest.mark.holds("wait: setup, its end, loading the handler")
def test_setup_that_hangs_past_its_timeout_is_killed() -> None:
    with JobQueue(2, max_retries=0, per_worker={"setup_timeout": 1.0}) as queue:
        recorder = run_with_bystander(queue, return_state, partial(do.hang_holding_gil, None))
        check_failed(recorder, queue, TimeoutError, "setup ran longer than setup_timeout of 1 s")
        assert len(workers_of(queue)) == 2


@pytest.mark.holds("fault: setup fails in every worker")
@pytest.mark.parametrize("bad", [do.fail, do.segfault], ids=["raises", "crashes"])
def test_workers_where_setup_fails_sit_the_job_out_with_one_warning(
    bad: do.Handler, caplog: pytest.LogCaptureFixture, gate: Gate
) -> None:
    def setup() -> str:
        worker = current_item().worker
        if worker == 1:
            gate.wait_for(0, 2)
            return "state"
        gate.announce(worker)
        return str(bad("setup"))

    def handle(item: int, state: str) -> int:
        return current_item().worker

    with JobQueue(3, max_retries=0) as queue:
        job = queue.run(range(30), handle, id="job", setup=setup, chunksize=1)
        assert len(workers_of(queue)) == 3
    assert job.status is JobStatus.COMPLETED
    assert job.results == [1] * 30
    assert {item.attempts for item in job.items} == {1}
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "job 'job': setup failed on worker" in warning
    assert "the job continues on 2 other workers" in warning


def test_an_initializer_that_ran_in_the_program_leaves_it_as_it_was() -> None:
    """What is unpickled here later is the program's, not a job's."""
    data = pickle.dumps(share([1, 2]))
    with JobQueue(1, backend=InlinePool(), initializer=dict) as queue:
        assert queue.run([-1], abs).results == [1]
    assert type(pickle.loads(data)) is type(share(0))
