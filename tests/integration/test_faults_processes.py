"""Handlers that use their process as if it were their own: nobody else notices, and closing is not held up."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, JobStatus, RetryPolicy, WorkerCrashedError, current_item
from tests.support import handlers as do
from tests.support.programs import is_running, run_program
from tests.support.recorder import Recorder
from tests.support.results import results_of
from tests.support.strength import workers_of
from tests.support.systems import LINUX_ONLY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

ONCE = RetryPolicy(max_retries=1, base_delay=0.01)

#: What a handler does beside its work, and what it returns for the culprit (None: the item).
MISDEEDS: dict[str, tuple[do.Handler, Any]] = {
    "prints 10 MB": (do.print_much, None),
    "closes its standard streams": (do.close_standard_streams, None),
    "replaces sys.stdout": (do.replace_stdout, None),
    "changes its folder": (do.change_cwd, None),
    "installs signal handlers": (do.install_signal_handlers, None),
    "ignores SIGINT": (do.ignore_sigint, None),
    "leaves a thread behind": (do.leave_thread, None),
    "leaves a daemon thread behind": (do.leave_daemon_thread, None),
    "starts a multiprocessing.Process": (do.start_process, "culpritculprit"),
    "starts a multiprocessing.Pool": (do.start_pool, "culpritculprit"),
    "starts a ProcessPoolExecutor": (do.start_executor, "culpritculprit"),
    "runs a command that fails": (do.run_false, 1),
}


@pytest.mark.parametrize("what", MISDEEDS)
def test_works_where_a_handler(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    bad, result = MISDEEDS[what]
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(["left", "culprit", "right"], do.only("culprit", bad), chunksize=3)
        assert job.results == ["left", "culprit" if result is None else result, "right"], job.failures
        recorder.check(job)
        assert queue.run(range(100), do.double).results == list(range(0, 200, 2))
        assert len(workers_of(queue)) == 1
    out, err = capfd.readouterr()
    if what == "prints 10 MB":
        assert (len(out), len(err)) == (5 * 2**20, 5 * 2**20)


def test_worker_whose_handler_took_all_signals_is_still_timed_out_and_ended() -> None:
    def handle(item: str) -> str:
        do.install_signal_handlers(item)
        return str(do.at_first(do.hang_sleep)(item))

    with JobQueue(1, retry=ONCE, timeout=1) as queue:
        job = queue.run(["a"], handle)
    assert (job.results, job.items[0].attempts) == (["a"], 2)


@pytest.mark.parametrize("leave", [do.leave_child, do.leave_forked_child])
def test_children_left_behind_die_with_the_worker_and_hold_nothing_up(leave: Callable[[Any], int]) -> None:
    with JobQueue(1, max_retries=0) as queue:
        (child,) = results_of(queue.run(["a"], leave))
        assert queue.run(["a", "b"], do.succeed).results == ["a", "b"]
        assert is_running(child)
    wait_until(lambda: not is_running(child), what="the child's end")


def test_crash_of_a_worker_with_a_child_is_noticed_and_takes_it_along(tmp_path: Path) -> None:
    def handle(item: str) -> None:
        if current_item().attempt == 1:
            (tmp_path / "child").write_text(str(do.leave_forked_child(item)))
            os.kill(os.getpid(), signal.SIGKILL)

    with JobQueue(1, retry=ONCE) as queue:
        job = queue.run(["a"], handle)
        assert isinstance(job.items[0].history[0].exception, WorkerCrashedError)
        assert job.status is JobStatus.COMPLETED
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not is_running(child), what="the child's end")


@LINUX_ONLY
def test_a_process_that_has_the_sockets_of_a_dead_worker_holds_nothing_up(tmp_path: Path) -> None:
    def handle(item: str) -> str:
        if current_item().attempt == 1:
            links = [(int(fd), f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
            sockets = [fd for fd, link in links if os.path.lexists(link) and os.readlink(link).startswith("socket:")]
            child = subprocess.Popen(["sleep", "300"], env={}, start_new_session=True, pass_fds=sockets)
            (tmp_path / "child").write_text(str(child.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with JobQueue(1, retry=ONCE) as queue:
        job = queue.run(["a"], handle)
    child = int((tmp_path / "child").read_text())
    assert is_running(child)
    os.kill(child, signal.SIGKILL)
    assert isinstance(job.items[0].history[0].exception, WorkerCrashedError)
    assert job.results == ["a"]


@LINUX_ONLY
def test_child_in_a_session_of_its_own_ends_when_the_queue_closes() -> None:
    def handle(item: str) -> int:
        return subprocess.Popen(["sleep", "300"], start_new_session=True).pid

    with JobQueue(1) as queue:
        (child,) = results_of(queue.run(["a"], handle))
    wait_until(lambda: not is_running(child), what="the child's end")


def test_fork_that_returns_twice_counts_once(capfd: pytest.CaptureFixture[str]) -> None:
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(["left", "culprit", "right"], do.only("culprit", do.fork_and_return_twice), chunksize=3)
        recorder.check(job)
        assert results_of(job)[1] > 0
        assert queue.run(range(10), do.double).completed == 10


def test_each_worker_begins_with_the_folder_and_the_path_of_the_parent(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        """
        import os, sys
        import mpqueue
        with mpqueue.JobQueue(1) as queue:
            (folder,) = queue.run([1], lambda item: os.getcwd()).results
            (path,) = queue.run([1], lambda item: sys.path).results
        print(folder == os.getcwd(), path == sys.path)
        """,
    )
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_threads_left_behind_do_not_hold_up_recycling() -> None:
    with JobQueue(1, per_worker={"items": 1}) as queue:
        assert queue.run(list("abc"), do.leave_thread).results == ["a", "b", "c"]
