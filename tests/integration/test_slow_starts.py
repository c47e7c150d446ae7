"""Workers that take long to start: because of what each process does first, or because the machine is busy."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mpqueue
from mpqueue import JobQueue, WorkerStartError
from tests.support import handlers as do
from tests.support.programs import is_running, run_program, write_program
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

#: Processes that burn CPU, for each CPU, and at most.
BURNERS, MOST_BURNERS = 20, 200


def begin_each_process_with(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """From now on, each Python process that is started runs this first; those that are no workers have been."""
    with JobQueue(1) as queue:
        queue.run([0], do.double)
    write_program(folder, body, "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(folder)]))


SLOW_STARTS = """
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import mpqueue
from tests.support.waiting import Gate, spend

gate = Gate(Path.cwd())


def begin():
    gate.announce("begins")
    spend(33)


def run(initializer=None):
    with mpqueue.JobQueue(1, initializer=initializer) as queue:
        return queue.run([-1, -2], abs).results


if __name__ == "__main__":
    with mpqueue.Pool(1) as pool:  # it starts processes that are no workers, too
        pool.map(abs, [-1])
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(run, begin)
        gate.wait_for("begins")
        os.environ["SECONDS_TO_START"] = "33"
        second = threads.submit(run)
        print(first.result(), second.result())
"""


@pytest.mark.long  # the scheduler's wait is that of tests/unit/test_scheduler_workers.py
@pytest.mark.holds(
    "wait: a new worker answers for the first time: its interpreter, its imports, preload=",
    "wait: the initializer of Pool and Executor",
)
def test_interpreters_and_initializers_may_take_more_than_half_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_each_process_with(
        tmp_path,
        monkeypatch,
        "import os, threading\nthreading.Event().wait(float(os.environ.get('SECONDS_TO_START', 0)))",
    )
    program = run_program(tmp_path, SLOW_STARTS, timeout=300.0)
    assert program.stdout == "[1, 2] [1, 2]\n"
    assert "no worker has come for 30 s: 1 worker is starting, and the jobs wait" in program.stderr
    assert "WorkerStartError" not in program.stderr


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Processes that burn CPU, which end after some minutes in any case."""
    count = min(MOST_BURNERS, BURNERS * (os.cpu_count() or 1))
    code = "import signal\nsignal.alarm(300)\nwhile True: pass"
    burners = [subprocess.Popen([sys.executable, "-ISc", code]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
        for burner in burners:
            burner.wait()


@pytest.mark.long  # all others would have to wait for the CPUs
@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="the system does not tell how busy it is")
def test_a_busy_machine_interrupts_no_job_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    at_last = tmp_path / "at last"
    begin_each_process_with(
        tmp_path, monkeypatch, f"import os\nwhile not os.path.exists({str(at_last)!r}):\n    pass\n"
    )
    with JobQueue(2) as queue, caplog.at_level(logging.WARNING):
        job = queue.create_job("job", range(3), do.double)
        with busy_machine():
            run = queue.start(job.id)
            wait_until(lambda: bool(caplog.messages), what="what is said of the slow starts")
        at_last.touch()
        assert run.result(300).results == [0, 2, 4]
    (said,) = caplog.messages
    assert "no worker has come for 30 s: 2 workers are starting, and the jobs wait; the machine is busy: load " in said
    assert said.endswith(f" on {os.cpu_count()} CPUs")


def test_closing_while_workers_start_slowly_leaves_none_of_them(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin_each_process_with(
        tmp_path,
        monkeypatch,
        f"""
        import os
        import threading
        open(os.path.join({str(tmp_path)!r}, f"{{os.getpid()}}.here"), "w").close()
        threading.Event().wait(600)
        """,
    )
    queue = JobQueue(2)
    run = queue.start(queue.create_job("job", range(3), do.double).id)
    pids = gate.wait_for_count(2)
    with caplog.at_level(logging.WARNING):
        queue.close(kill=True)
    assert not any(is_running(int(pid)) for pid in pids)
    assert str(run.result().status) == "cancelled"
    assert not caplog.messages


def by_executor() -> object:
    with mpqueue.Executor(2) as executor:
        return executor.submit(do.double, 1).result()


def by_pool() -> object:
    with mpqueue.Pool(2) as pool:
        return pool.map(do.double, range(3))


def by_map() -> object:
    return list(mpqueue.map(do.double, range(3), concurrency=2))


@pytest.mark.holds("error: WorkerStartError", "wait: any worker is there, or is starting")
@pytest.mark.usefixtures("shared_pool_ends")
@pytest.mark.parametrize("way", [by_executor, by_pool, by_map])
def test_starts_that_always_fail_end_the_job_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[], object]
) -> None:
    begin_each_process_with(tmp_path, monkeypatch, "import os\nos._exit(7)")
    with pytest.raises(WorkerStartError, match="no worker could be started") as raised:
        way()
    assert "exit code 7" in str(raised.value.__cause__)
