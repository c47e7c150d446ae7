"""How workers end, whatever they have done before: each end is noticed, and what they leave holds nothing up."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loky import process_executor
from loky.backend.synchronize import Condition

from mpqueue import ItemTimeoutError, JobQueue, RetryPolicy, WorkerCrashedError
from tests.support import handlers as do
from tests.support.programs import is_running, run_program
from tests.support.strength import workers_of
from tests.support.systems import LINUX_ONLY
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

ITEMS = ["left", "culprit", "right"]
ONCE = RetryPolicy(max_retries=1, base_delay=0.01)


def test_a_stopped_worker_is_killed_without_being_woken_to_say_where_it_is() -> None:
    with JobQueue(1, max_retries=0, timeout=1) as queue:
        job = queue.run(ITEMS, do.only("culprit", do.stop_self), chunksize=3)
    assert job.results == ["left", None, "right"]
    assert isinstance(job.items[1].exception, ItemTimeoutError)
    assert job.items[1].exception.stack is None


@LINUX_ONLY
def test_a_program_that_left_the_group_ends_with_a_worker_that_dies(tmp_path: Path) -> None:
    def leave_program_and_die(item: str) -> None:
        stray = subprocess.Popen(["sleep", "300"], start_new_session=True)
        (tmp_path / "stray").write_text(str(stray.pid))
        do.kill_self(item)

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(ITEMS, do.only("culprit", leave_program_and_die), chunksize=3)
        assert job.results == ["left", None, "right"]
        stray = int((tmp_path / "stray").read_text())
        wait_until(lambda: not is_running(stray), what="the program's end")


def test_a_flag_that_a_dead_worker_has_locked_holds_nothing_up(gate: Gate) -> None:
    """docs/adr/0004: the thread that sets it gets the lock back, and ends."""

    def die_with_each_lock(item: str) -> None:
        for lock in [thing for thing in gc.get_objects() if isinstance(thing, Condition)]:
            lock.acquire()
        gate.pass_through(item)
        do.kill_self(item)

    with JobQueue(1, retry=ONCE) as queue:
        queue.create_job("job", ITEMS, do.only("culprit", do.at_first(die_with_each_lock)), chunksize=3)
        run = queue.start("job")
        gate.wait_for("culprit")
        for _ in range(50):
            queue.pause("job")
            queue.resume("job")
        gate.open()
        job = run.result(300)
        assert job.results == ITEMS
        assert job.items[1].attempts == 2
        wait_until(lambda: not [each for each in threading.enumerate() if each.name.startswith("mpqueue-flags")])


@contextlib.contextmanager
def children_ignored() -> Iterator[None]:
    """The kernel keeps no exit codes, neither here nor, since that is inherited, in the workers."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_exit_codes_reach_handlers_although_the_program_ignores_its_children() -> None:
    with children_ignored(), JobQueue(1, max_retries=0) as queue:
        assert queue.run(ITEMS, do.only("culprit", do.run_false), chunksize=3).results == ["left", 1, "right"]
        job = queue.run(ITEMS, do.only("culprit", do.exit_with(3)), chunksize=3)
        assert job.results == ["left", None, "right"]
        assert isinstance(job.items[1].exception, WorkerCrashedError)
        assert job.items[1].exception.exitcode in {3, None}


def reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # loky was faster
        os.waitpid(pid, 0)


def test_a_death_is_told_although_somebody_else_has_waited_for_the_process() -> None:
    with JobQueue(1, max_retries=0) as queue:
        thieves = [threading.Thread(target=reap, args=(pid,)) for pid in workers_of(queue)]
        for thief in thieves:
            thief.start()
        job = queue.run(ITEMS, do.only("culprit", do.exit_with(3)), chunksize=3)
        for thief in thieves:
            thief.join()
    assert job.results == ["left", None, "right"]
    assert isinstance(job.items[1].exception, WorkerCrashedError)
    assert job.items[1].exception.exitcode in {3, None}


NO_CHILD = """
    import os
    os.environ["MPQUEUE_PORTABLE"] = "1"  # where a process ends the worker's group, the kernel does not
    import mpqueue

    def wait(item):
        try:
            return os.wait()
        except ChildProcessError:
            return "none"

    with mpqueue.JobQueue(1) as queue:
        print(*queue.run(range(2), wait).results)
"""


def test_a_handler_finds_no_child_of_its_worker_to_wait_for(tmp_path: Path) -> None:
    assert run_program(tmp_path, NO_CHILD).stdout == "none none\n"


def test_loky_s_thread_does_not_wait_for_a_process_whose_handle_is_closed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows it looks at each handle again once one of them has told something, and fails at a closed one."""
    start, wait, waited_for = threading.Thread.start, process_executor.wait, list[Any]()
    waits = threading.Event()

    def start_first(thread: threading.Thread) -> None:
        start(thread)
        if "ExecutorManager" in type(thread).__name__:
            waits.wait(300)  # before the starter goes on

    def wait_noting(ends: list[Any]) -> list[Any]:
        waited_for.extend(ends)
        waits.set()
        return wait(ends)  # type: ignore[no-any-return]

    monkeypatch.setattr(threading.Thread, "start", start_first)
    monkeypatch.setattr(process_executor, "wait", wait_noting)
    with JobQueue(1) as queue:
        assert queue.run(ITEMS, str).results == ITEMS
        queue.close(kill=True)
    assert waited_for
    assert not [end for end in waited_for if isinstance(end, int)], "sentinels of processes"
