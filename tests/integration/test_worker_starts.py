"""How workers start, what they find, what is said when one can't be started, and how they end by themselves."""

from __future__ import annotations

import atexit
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mpqueue
from mpqueue import JobQueue, Pool
from mpqueue.testing import InlinePool
from tests.support import handlers as do
from tests.support.programs import is_running, run_program, write_program
from tests.support.small_shm import small_shm
from tests.support.strength import workers_of
from tests.support.systems import LINUX_ONLY
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

#: What the numerical libraries read to know how many threads to start.
THREAD_VARIABLES = [
    *(f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA", "NUMEXPR")),
    "VECLIB_MAXIMUM_THREADS",
]


def variable(name: str) -> str | None:
    return os.environ.get(name)


def test_workers_share_the_cpus_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr("loky.cpu_count", lambda **_: 4)
    with JobQueue(2) as queue:
        found = dict(zip(THREAD_VARIABLES, queue.run(THREAD_VARIABLES, variable).results, strict=True))
    assert found == dict.fromkeys(THREAD_VARIABLES, "2") | {"OMP_NUM_THREADS": "7"}
    with JobQueue(1, per_worker={"threads": 3}) as queue:
        assert {*queue.run(THREAD_VARIABLES, variable).results} == {"3"}


@pytest.mark.usefixtures("shared_pool_ends")
def test_there_is_a_worker_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loky.cpu_count", lambda *, only_physical_cores=False: 1 if only_physical_cores else 3)
    with JobQueue("physical") as queue:
        assert queue.concurrency == 1
    assert len(set(mpqueue.map(do.return_pid, range(20), concurrency="physical", chunksize=1))) == 1
    with Pool("physical") as pool:
        assert len(set(pool.map(do.return_pid, range(20), 1))) == 1
    with pytest.raises(TypeError, match="expected a number of workers, 'physical' or None, got 'logical'"):
        Pool("logical")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="which counts the cores of this machine"):
        JobQueue("physical", backend=InlinePool())


@pytest.mark.holds("wait: an idle worker ends by itself")
@pytest.mark.parametrize("limit", [None, 1], ids=["at the close", "worn out"])
def test_idle_workers_end_by_themselves(tmp_path: Path, limit: int | None) -> None:
    def touch_at_exit(item: str) -> str:
        atexit.register((tmp_path / item).touch)
        return item

    with JobQueue(1, max_retries=0, per_worker={"items": limit}) as queue:
        assert queue.run(["a", "b"], touch_at_exit).results == ["a", "b"]
    wait_until(lambda: {path.name for path in tmp_path.iterdir()} == {"a", "b"}, what="the workers' own end")


@pytest.mark.holds("wait: close() waits for workers", "wait: a worker that was killed ends")
@pytest.mark.parametrize("hang", [do.hang_holding_gil, do.stop_self, do.sigterm_ignore_and_hang])
def test_close_with_kill_ends_workers_that_hang_and_says_nothing(
    hang: Callable[[object], object], gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    queue = JobQueue(2)
    pids = workers_of(queue)
    queue.create_job("job", ["left", "right", "later"], do.announce(gate, hang), chunksize=1)
    run = queue.start("job")
    gate.wait_for("left", "right")
    queue.close(kill=True)
    assert not any(map(is_running, pids))
    assert run.result(300).results == [None] * 3
    assert not caplog.records


def open_descriptors() -> set[str]:
    return {number for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")}


@pytest.mark.parametrize("room", [1, 24])
def test_too_few_descriptors_for_a_worker_are_told_and_nothing_stays_open(
    caplog: pytest.LogCaptureFixture, room: int
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with JobQueue(1) as queue, caplog.at_level(logging.WARNING):
        workers_of(queue)
        before = open_descriptors()
        free = [number for number in range(1000) if str(number) not in before]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[room], hard))
        try:
            queue.resize(2)
            wait_until(lambda: "could not be started, trying again" in caplog.text, what="what is said")
            assert "Too many open files: starting a worker takes" in caplog.text
            assert queue.run([2], do.double).results == [4]
            wait_until(lambda: not open_descriptors() - before, what="no new descriptors")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(workers_of(queue)) == 2


NO_ROOM = """
    import os
    os.environ["MPQUEUE_PORTABLE"] = "1"  # where semaphores have names
    import logging
    from mpqueue import JobQueue
    from tests.support import handlers as do
    from tests.support.strength import workers_of
    from tests.support.waiting import wait_until

    class Heard(logging.Handler):
        texts = []
        def emit(self, record):
            self.texts.append(record.getMessage())

    logging.getLogger("mpqueue").addHandler(Heard())
    with JobQueue(1, max_retries=0) as queue:
        workers_of(queue)
        with open("/dev/shm/filler", "wb") as filler:
            for room in (0, 3 * 4096):
                free = os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize
                os.posix_fallocate(filler.fileno(), 0, free - room)
                queue.resize(2)
                wait_until(lambda: Heard.texts)
                assert "could not be started, trying again" in Heard.texts[0], Heard.texts
                assert "No space left" in Heard.texts[0], Heard.texts
                assert queue.run([2], do.double).results == [4]
                os.ftruncate(filler.fileno(), 0)
                assert len(workers_of(queue)) == 2
                queue.resize(1)
                Heard.texts.clear()
    os.unlink("/dev/shm/filler")
    wait_until(lambda: os.listdir("/dev/shm") == [])
"""


def test_no_room_for_semaphores_is_told_and_nothing_stays(tmp_path: Path) -> None:
    program = write_program(tmp_path, NO_ROOM)
    command = small_shm([sys.executable, str(program)], size="4m")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@LINUX_ONLY  # elsewhere semaphores have names, which a tracker removes
def test_a_resource_tracker_starts_only_for_a_job_that_needs_one_and_is_the_program_s(tmp_path: Path) -> None:
    """So what a worker names outlives the worker, even if the worker is killed, and goes with the program."""
    body = """
    import multiprocessing, os
    from multiprocessing import resource_tracker, shared_memory
    from mpqueue import JobQueue, RetryPolicy

    def share(item):
        return os.getpid(), shared_memory.SharedMemory(name=item, create=True, size=1).name

    def lock(item):
        multiprocessing.Lock()

    if __name__ == "__main__":
        tracker = resource_tracker._resource_tracker
        with JobQueue(1, max_retries=0) as queue:
            assert queue.run([1, 2], abs).results == [1, 2]
            assert tracker._pid is None
            ((worker, name),) = queue.run([f"tracked-{os.getpid()}"], share).results
            started = tracker._pid
            assert started is not None
            os.kill(worker, 9)
            assert len(queue.run([1, 2], lock).results) == 2
            assert tracker._pid == started
        shared_memory.SharedMemory(name).close()
        print(name)
    """
    ended = run_program(tmp_path, body)
    assert "leaked shared_memory" in ended.stderr
    wait_until(lambda: not Path("/dev/shm", ended.stdout.strip()).exists(), what="the tracker to remove the name")


def test_a_worker_collects_garbage_and_loads_nothing_that_only_some_handlers_need() -> None:
    def look(_: int) -> tuple[bool, set[str]]:
        import gc
        import sys

        return gc.isenabled(), {
            "psutil",
            "_hashlib",
            "argparse",
            "pytest",
            "pathlib",
            "decimal",
        } & sys.modules.keys()

    with JobQueue(1) as queue:
        assert queue.run([1], look).results == [(True, set())]
