"""A Ctrl-C at each moment of a call: the queue, its workers and its other callers go on."""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import as_completed, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpqueue import Executor, JobQueue, share
from tests.support import handlers as do
from tests.support.interruptions import Interruption
from tests.support.length import IS_LONG
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

#: Seconds that a thread that is never blocked needs at the very most.
PATIENCE = 300.0


#: The package, and what it calls of the standard library's locks and futures.
ALL = ("mpqueue.", "threading", "concurrent.futures.")


def interrupt_each_moment(call: Callable[[], Any], check: Callable[[int], None], where: tuple[str, ...] = ALL) -> None:
    """Interrupt the call at its first moment, its second and so on, until it ends before its moment comes."""
    went_through = 0
    for number in range(100_000):
        interruption = Interruption(number, where)
        with contextlib.suppress(KeyboardInterrupt):
            interruption.run(call)
        check(number)
        went_through = 0 if interruption.came else went_through + 1
        if went_through == 3 or (not IS_LONG and number == 300):  # what other threads do meanwhile moves the end
            return


def answers(queue: JobQueue, number: int) -> None:
    """The coordinator is not blocked: a call that needs it returns."""
    call = threading.Thread(target=queue.resume, args=("job",), daemon=True)
    call.start()
    call.join(PATIENCE)
    assert not call.is_alive(), f"interrupted at moment {number}"


@pytest.mark.parametrize("name", ["add_items", "pause and resume", "result", "done", "seal"])
def test_a_ctrl_c_at_any_moment_of_a_call_never_blocks_the_coordinator(name: str, gate: Gate) -> None:
    with JobQueue(1) as queue:
        job = queue.open_job("job", ["waits"], do.only("waits", do.block_until_told(gate)))
        run = queue.start("job")
        calls: dict[str, Callable[[], Any]] = {
            "add_items": lambda: queue.add_items("job", ["bystander"]),
            "pause and resume": lambda: pause_and_resume(queue),
            "result": lambda: wait_shortly(run),
            "done": run.done,
            "seal": lambda: queue.seal("job"),
        }
        interrupt_each_moment(calls[name], lambda number: answers(queue, number))
        queue.resume("job")
        queue.seal("job")
        gate.open()
        assert set(run.result(PATIENCE).results) <= {"waits", "bystander"}
        assert job.failed == 0


@pytest.mark.long(but=["create_job", "clear_job"])
@pytest.mark.parametrize("name", ["create_job", "replace", "clear_job", "open"])
def test_after_a_ctrl_c_at_any_moment_of_making_or_removing_a_job_its_id_is_usable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = list[object]()
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with JobQueue(1, journal=tmp_path / "journal.db" if name == "open" else None) as queue:
        calls: dict[str, Callable[[], Any]] = {
            "create_job": lambda: queue.create_job("job", ["a"], do.succeed),
            "replace": lambda: queue.create_job("job", ["a"], do.succeed, replace=True),
            "clear_job": lambda: queue.clear_job("job"),
            "open": lambda: queue.open_job("job", ["a"], do.succeed, replace=True),
        }

        def make_ready(number: int) -> None:
            make: Any = queue.open_job if name == "open" else queue.create_job
            job = make("job", ["bystander"], do.succeed, replace=True)
            if number % 50 == 0:
                run = queue.start("job")
                if name == "open":
                    queue.seal("job")
                assert run.result(PATIENCE).results == ["bystander"], f"interrupted at moment {number}"
            if name == "create_job":
                queue.clear_job("job")
                assert queue.get_job("job") is None
            assert not printed, f"interrupted at moment {number}: {printed}"
            del job

        make_ready(0)
        interrupt_each_moment(calls[name], make_ready)
    # Nothing notes any more what this thread pickles: the fixture of all tests sees to it that its memory is freed.
    pickle.dumps(share(np.zeros(100_000)))


def pause_and_resume(queue: JobQueue) -> None:
    queue.pause("job")
    queue.resume("job")


def wait_shortly(run: Any) -> None:
    with contextlib.suppress(TimeoutError):
        run.result(timeout=0.001)


#: The wait itself, and what it calls; the locks of `wait` and `as_completed` are the standard library's own.
WAITS: dict[str, tuple[Callable[[Any], object], tuple[str, ...]]] = {
    "result": (lambda future: future.result(PATIENCE), ALL),
    "exception": (lambda future: future.exception(PATIENCE), ALL),
    "wait": (lambda future: wait([future], PATIENCE), ("mpqueue.", "threading")),
    "as_completed": (lambda future: [*as_completed([future], PATIENCE)], ("mpqueue.", "threading")),
}


@pytest.mark.parametrize("how", WAITS)
def test_a_ctrl_c_at_any_moment_of_a_wait_for_a_future_never_blocks_the_thread_that_resolves_it(how: str) -> None:
    waiting, where = WAITS[how]
    with Executor(1) as executor:
        executor.submit(do.succeed, "first").result(PATIENCE)
        interrupt_each_moment(lambda: waiting(executor.submit(do.succeed, "victim")), lambda _: None, where)
        assert executor.submit(do.succeed, "bystander").result(PATIENCE) == "bystander"
