"""What the log says once: results that are None, jobs that were never started, event loops that are held up."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mpqueue
from mpqueue import JobQueue, JobRun
from tests.support import handlers as do
from tests.support.programs import run_program
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers", "shared_pool_ends")]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Takes what the log has said since it was called last."""

    def take() -> list[str]:
        found = [one.getMessage() for one in caplog.records if one.name == "mpqueue"]
        assert {one.levelno for one in caplog.records} <= {logging.WARNING}
        caplog.clear()
        return found

    return take


Said = Callable[[], list[str]]


def test_results_before_the_start(said: Said) -> None:
    with JobQueue(1) as queue:
        job = queue.create_job("early", ["a", "b"], do.succeed)
        assert [job.results, job.results] == [[None, None]] * 2
        (text,) = said()
        assert text == (
            "job 'early': its results are None, since it has not been started: queue.start(job).result() runs it"
        )
        queue.start(job).result()
        assert job.results == ["a", "b"]
    assert not said()


def test_results_of_failed_items_where_nobody_looks_at_failures(said: Said) -> None:
    with JobQueue(1, max_retries=0) as queue:
        early = queue.create_job("early", ["a", "b"], do.only("b", do.fail))
        assert early.results == [None, None]
        assert len(said()) == 1
        queue.start(early).result()
        assert [early.results, early.results] == [["a", None]] * 2
        assert not said()
        queue.clear_job(early)
        del early
        gc.collect()
        (text,) = said()
    assert text == (
        "job 'early': 1 of its 2 results were None, since these items failed: job.failures says why, and "
        "job.raise_for_failures() raises"
    )


def test_a_program_that_stumbles_over_the_results_of_failed_items_is_told_at_its_end(tmp_path: Path) -> None:
    ran = run_program(
        tmp_path,
        """
        from mpqueue import JobQueue

        with JobQueue(1, max_retries=0) as queue:
            job = queue.run([4, 0, 2], lambda number: 8 / number)
        print(sum(job.results))
        """,
        check=False,
    )
    assert ran.returncode == 1
    assert "unsupported operand" in ran.stderr
    assert ran.stderr.count("job 'job-1': 1 of its 3 results were None, since these items failed") == 1


@pytest.mark.parametrize(
    "look", [lambda job: job.failures, lambda job: job.failure_groups(), lambda job: job.failed, lambda job: job.items]
)
@pytest.mark.parametrize("first", [True, False])
def test_nothing_is_said_of_failures_to_those_who_look_at_them(
    look: Callable[[Any], Any], said: Said, *, first: bool
) -> None:
    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["a", "b"], do.only("b", do.fail))
        if first:
            assert look(job)
        assert job.results == ["a", None]
        if not first:
            assert look(job)
        queue.clear_job(job)
        del job
        gc.collect()
    assert not said()


def test_jobs_that_were_never_started_when_the_queue_is_closed(said: Said) -> None:
    queue = JobQueue(1)
    queue.run(["a"], do.succeed)
    for name in "abcdef":
        queue.create_job(name, ["a"], do.succeed)
    queue.cancel("f")
    queue.close()
    queue.close()
    (text,) = said()
    assert text.startswith("mpqueue: the queue is closed, and 5 jobs were never started: 'a', 'b', 'c', 'd', 'e'; ")


@pytest.mark.parametrize("end", [lambda queue: queue.close(kill=True), lambda queue: queue.drain(0)])
def test_nothing_is_said_of_such_jobs_where_the_queue_is_cut_short(end: Callable[[JobQueue], None], said: Said) -> None:
    queue = JobQueue(1)
    queue.create_job("a", ["a"], do.succeed)
    end(queue)
    assert not said()


WAITS: list[tuple[Callable[[JobQueue, JobRun], object], str, str]] = [
    (
        lambda queue, _: queue.run(["b"], do.succeed),
        "queue.run()",
        "await queue.start(queue.create_job(...))",
    ),
    (
        lambda queue, _: queue.run_stages(["b"], [do.succeed]),
        "queue.run_stages()",
        "await queue.start_stages(...)",
    ),
    (lambda _, run: run.result(timeout=0.01), "run.result()", "await run"),
    (lambda _, run: run.exception(timeout=0.01), "run.exception()", "await run"),
]


@pytest.mark.parametrize(("wait", "call", "instead"), WAITS)
def test_an_event_loop_that_is_held_up(
    wait: Callable[[JobQueue, JobRun], object], call: str, instead: str, gate: Gate, said: Said
) -> None:
    async def hold_up(queue: JobQueue, run: JobRun) -> None:
        for _ in range(2):
            with suppress(TimeoutError):
                wait(queue, run)

    with JobQueue(2) as queue:
        run = queue.start(queue.create_job("job", ["a"], do.block_until_told(gate)))
        with suppress(TimeoutError):
            wait(queue, run)
        assert not said(), "there was no loop"
        asyncio.run(hold_up(queue, run))
        gate.open()
    assert said() == [f"{call} holds up the event loop of this thread until the job has ended; {instead} does not"]


def test_map_in_an_event_loop_names_amap(said: Said) -> None:
    async def hold_up() -> None:
        mpqueue.map(do.succeed, ["a"])
        mpqueue.map(do.succeed, ["b"])

    mpqueue.testing.close_shared_pool()
    asyncio.run(hold_up())
    (text,) = said()
    assert text.startswith("mpqueue.map() holds up the event loop")
    assert text.endswith("; await mpqueue.amap(...) does not")


def test_nothing_is_said_where_the_loop_goes_on(said: Said) -> None:
    async def go_on() -> None:
        async with JobQueue(1) as queue:
            run = queue.start(queue.create_job("a", ["a"], do.succeed))
            with suppress(TimeoutError):
                run.result(timeout=0)
            assert (await run).results == ["a"]
            assert run.result().completed == 1, "it has ended"
            await asyncio.to_thread(queue.run, ["a"], do.succeed)
            await mpqueue.amap(do.succeed, ["a"])

    asyncio.run(go_on())
    assert not said()


def test_nothing_is_said_in_a_notebook_whose_cells_run_in_a_loop(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    async def cell() -> None:
        with JobQueue(1) as queue:
            queue.run(["a"], do.succeed)

    asyncio.run(cell())
    assert not said()
