"""How workers start, what they find, and what is said when one can't be started."""

from __future__ import annotations

import itertools
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import mpqueue
from mpqueue import JobQueue, Pool
from mpqueue._core.messages import LaneDied
from mpqueue._engines.loky import loky_lane as lane_module
from mpqueue._engines.loky.process import start_progress, warden
from mpqueue._wire.means import THREAD_VARIABLES
from mpqueue.errors import WorkerStartError
from mpqueue.testing import InlinePool
from tests.support import handlers, lane_verbs
from tests.support.lanes import Lanes, lanes, new_lanes
from tests.support.programs import is_running, write_program
from tests.support.small_shm import small_shm
from tests.support.systems import LINUX_ONLY
from tests.support.waiting import wait_until

__all__ = ["lanes", "new_lanes"]

pytestmark = pytest.mark.slow


def test_workers_share_the_cpus_unless_the_user_says_otherwise(
    new_lanes: Callable[..., Lanes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr("mpqueue._engines.loky.loky_pool.count_cpus", lambda: 4)
    found = new_lanes(2).call(lane_verbs.environment)
    assert {name: found[name] for name in THREAD_VARIABLES} == dict.fromkeys(THREAD_VARIABLES, "2") | {
        "OMP_NUM_THREADS": "7"
    }
    found = new_lanes(1, threads_per_worker=3).call(lane_verbs.environment)
    assert {found[name] for name in THREAD_VARIABLES} == {"3"}


@pytest.mark.usefixtures("shared_pool_ends")
def test_there_is_a_worker_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loky.cpu_count", lambda *, only_physical_cores=False: 1 if only_physical_cores else 3)
    with JobQueue("physical") as queue:
        assert queue.concurrency == 1
    assert len(set(mpqueue.map(handlers.return_pid, range(20), concurrency="physical", chunksize=1))) == 1
    with Pool("physical") as pool:
        assert len(set(pool.map(handlers.return_pid, range(20), 1))) == 1
    with pytest.raises(TypeError, match="expected a number of workers, 'physical' or None, got 'logical'"):
        Pool("logical")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="which counts the cores of this machine"):
        JobQueue("physical", backend=InlinePool())


def test_one_cpu_is_a_workers_share_of_the_machine(lanes: Lanes) -> None:
    assert lanes.call(lane_module.count_cpus) == 1


def test_a_recycled_worker_ends_by_itself_and_nobody_is_told(lanes: Lanes, tmp_path: Path) -> None:
    lanes.call(lane_verbs.touch_at_exit, tmp_path / "ended")
    pid = lanes.lane().pid
    lanes.pool.recycle(0)
    assert lanes.pool.lane(0) is None
    lanes.start_again()
    wait_until((tmp_path / "ended").exists, what="the worker to end by itself")
    wait_until(lambda: not is_running(pid), what="the worker's end")
    assert lanes.messages.empty()
    assert lanes.call(handlers.double, 2) == 4


def test_a_recycled_worker_that_does_not_end_is_killed(lanes: Lanes) -> None:
    lanes.call(handlers.leave_thread, 0)
    pid = lanes.lane().pid
    lanes.pool.recycle(0)
    wait_until(lambda: not is_running(pid), what="the worker's end")
    assert lanes.messages.empty()


def open_for_good() -> set[str]:
    """The descriptors of this process, but for those that some thread closes within a few looks."""
    looks = []
    for _ in range(5):
        looks.append({number for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")})
        threading.Event().wait(0.01)
    return set.intersection(*looks)


@pytest.mark.parametrize("room", [1, 8, 16, 24, 30])
def test_too_few_descriptors_are_told_and_nothing_stays_open(lanes: Lanes, room: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lanes.kill()
    lanes.pool.retire(0)
    wait_until(lambda: not lanes.pool._wardens and lanes.threads() <= 3, what="nothing of the lane")
    before = open_for_good()
    free = itertools.islice((number for number in itertools.count() if str(number) not in before), room, None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(free), hard))
    try:
        error = lanes.failed_start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(error, OSError)
    assert "Too many open files" in str(error)
    assert not open_for_good() - before
    lanes.start_again()


def test_a_worker_that_can_not_load_its_code_says_why(
    new_lanes: Callable[..., Lanes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_program(tmp_path, MODULE, "raises_in_the_worker.py")
    monkeypatch.setattr(lane_module, "RECEIVER", ("raises_in_the_worker", "receive"))
    error = new_lanes(start=False).failed_start()
    assert isinstance(error, LookupError)
    assert "not here" in str(error)


def test_a_worker_that_dies_before_it_answers_is_a_failed_start(
    new_lanes: Callable[..., Lanes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_program(tmp_path, MODULE.replace("raise LookupError('not here')", "os._exit(7)"), "dies_in_the_worker.py")
    monkeypatch.setattr(lane_module, "RECEIVER", ("dies_in_the_worker", "receive"))
    error = new_lanes(start=False).failed_start()
    assert isinstance(error, WorkerStartError)
    assert "exit code 7" in str(error)


def test_a_start_that_does_nothing_for_too_long_is_given_up(
    new_lanes: Callable[..., Lanes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module, name in ((warden, "START_LOOK"), (start_progress, "START_LOOK"), (start_progress, "START_LIMIT")):
        monkeypatch.setattr(module, name, 0.5)
    monkeypatch.syspath_prepend(tmp_path)
    write_program(tmp_path, MODULE.replace("raise LookupError('not here')", "threading.Event().wait()"), "waits.py")
    monkeypatch.setattr(lane_module, "RECEIVER", ("waits", "receive"))
    lanes = new_lanes(start=False)
    error = lanes.failed_start()
    assert isinstance(error, TimeoutError)
    assert re.search(r"was given up while it started: for 0\.5 s it did (nothing|not answer)", str(error))
    wait_until(lambda: not lanes.pool._wardens, what="nothing of the lane")


MODULE = f"""
import os
import threading
if os.getpid() != {os.getpid()}:
    raise LookupError('not here')
def receive(frame):
    return frame
"""


def test_no_room_for_semaphores_is_told_and_nothing_stays(tmp_path: Path) -> None:
    program = write_program(
        tmp_path,
        """
        import os
        from mpqueue._engines.loky import loky_lane as lane
        from mpqueue._os.memory import locks
        from tests.support.lanes import RECEIVER, Lanes
        from tests.support.waiting import wait_until
        lane.RECEIVER = RECEIVER
        locks.AVAILABLE = False  # semaphores have names
        lanes = Lanes(1)
        lanes.kill()
        lanes.pool.retire(0)
        wait_until(lambda: not lanes.pool._wardens)
        free = os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize
        with open("/dev/shm/filler", "wb") as filler:
            for room in (0, 3 * 4096, 12 * 4096):
                os.ftruncate(filler.fileno(), 0)
                os.posix_fallocate(filler.fileno(), 0, free - room)
                error = lanes.failed_start()
                assert isinstance(error, OSError) and "No space left" in str(error), error
                assert os.listdir("/dev/shm") == ["filler"]
            os.ftruncate(filler.fileno(), 0)
            lanes.start_again()
        lanes.pool.close(kill=True)
        """,
    )
    done = subprocess.run(
        small_shm([sys.executable, str(program)], size="1m"), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_close_ends_idle_workers_by_themselves(lanes: Lanes, tmp_path: Path) -> None:
    lanes.call(lane_verbs.touch_at_exit, tmp_path / "ended")
    lanes.pool.close(kill=False)
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize("hang", [handlers.hang_holding_gil, handlers.sigterm_ignore_and_hang, handlers.stop_self])
def test_close_kills_what_runs_and_answers_every_call(
    new_lanes: Callable[..., Lanes], caplog: pytest.LogCaptureFixture, hang: Callable[[object], object]
) -> None:
    lanes = new_lanes(2)
    calls = [lanes.send(hang, 0), lanes.send(handlers.double, 1), lanes.send(hang, 0, lane=1)]
    pids = [lanes.lane(number).pid for number in (0, 1)]
    lanes.pool.close(kill=False)
    assert not any(map(is_running, pids))
    assert all(call.done() for call in calls)
    assert not caplog.records
    assert lanes.messages.empty()
    lanes.pool.close(kill=True)


@LINUX_ONLY
def test_close_takes_along_what_left_the_group(lanes: Lanes) -> None:
    stray = lanes.call(lane_verbs.leave_stray)
    lanes.pool.close(kill=False)
    wait_until(lambda: not is_running(stray), what="the stray's end")


@pytest.mark.parametrize("kill", [True, False])
def test_close_while_workers_start_leaves_nothing(new_lanes: Callable[..., Lanes], kill: bool) -> None:
    lanes = new_lanes(start=False)
    for number in range(4):
        lanes.pool.start(number, 0)
    lanes.pool.close(kill=kill)
    lanes.pool.start(0, 1)
    assert lanes.pool.lane(0) is None


def test_close_can_be_called_where_answers_arrive(lanes: Lanes) -> None:
    """A finalizer may run on any thread, also on one that close would have to wait for."""
    closed = threading.Event()

    def close(_: object) -> None:
        lanes.pool.close(kill=True)
        closed.set()

    lanes.send(handlers.double, 1).add_done_callback(close)
    assert closed.wait(30)


def test_close_from_several_threads_at_once(lanes: Lanes) -> None:
    threads = [threading.Thread(target=lanes.pool.close, kwargs={"kill": bool(number % 2)}) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_death_after_close_began_is_not_told(lanes: Lanes) -> None:
    lanes.send(handlers.kill_self, 0)
    lanes.take(LaneDied)
    lanes.pool.close(kill=True)
    assert lanes.messages.empty()
