"""However the parent ends, its workers end with it, and nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mpqueue._engines.loky.process import strays
from tests.support import lane_verbs
from tests.support.lanes import Lanes, new_lanes
from tests.support.programs import is_running, run_program, start_program
from tests.support.waiting import wait_until

__all__ = ["new_lanes"]

pytestmark = pytest.mark.slow

#: Two workers, one of which holds its global lock, with a forked child; prints the ids of all of them, and last that of
#: a program which left the group, or the child's again where a program of that kind can't be found.
BUSY = """
import os, sys, time, signal, threading
from mpqueue._engines.loky import loky_lane as lane
from mpqueue._engines.loky.loky_pool import on_exit
from tests.support.systems import IS_LINUX
from tests.support import handlers, lane_verbs
from tests.support.lanes import RECEIVER, Lanes
lane.RECEIVER = RECEIVER
lanes = Lanes(2)
child = lanes.call(handlers.leave_forked_child, 0)
stray = lanes.call(lane_verbs.leave_stray, lane=1) if IS_LINUX else child
lanes.send(handlers.hang_holding_gil, 0)
print(lanes.lane(0).pid, lanes.lane(1).pid, child, stray, flush=True)
"""


def read_pids(program: subprocess.Popen[str]) -> list[int]:
    assert program.stdout is not None
    return [int(word) for word in program.stdout.readline().split()]


def none_runs(pids: list[int]) -> bool:
    return not any(map(is_running, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_a_parent_that_is_killed(
    tmp_path: Path, new_lanes: Callable[..., Lanes], number: signal.Signals
) -> None:
    with start_program(tmp_path, BUSY + "signal.pause()") as program:
        *pids, stray = read_pids(program)
        program.send_signal(number)
        _, errors = program.communicate(timeout=30)
    wait_until(lambda: none_runs(pids), what="the workers' end")
    assert errors == ""
    # A program that left the worker's group, and no hook of Python's saw, lives on until the next pool is opened.
    strays.kill_orphans.cache_clear()
    new_lanes()
    wait_until(lambda: not is_running(stray), what="the stray's end")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT])
def test_nothing_stays_in_shared_memory_when_the_whole_group_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    """The resource trackers die with it, so nobody could clean up afterwards."""
    with start_program(tmp_path, BUSY + "signal.pause()") as program:
        *pids, stray = read_pids(program)
        os.killpg(program.pid, number)
        program.communicate(timeout=30)
    wait_until(lambda: none_runs(pids), what="the workers' end")
    if stray != pids[-1]:
        os.kill(stray, signal.SIGKILL)


#: The worker forks, and it and the program are dead before the child has run a line.
DYING_WHILE_IT_FORKS = """
import os, signal, time
from mpqueue import JobQueue

def fork(item):
    def die():
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    os.register_at_fork(after_in_parent=die)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # which has to go on, before the child can begin
    if os.fork() == 0:
        time.sleep(300)

if __name__ == "__main__":
    JobQueue(1).run([0], fork)
"""


def test_a_child_that_is_forked_while_everybody_dies_ends_too(tmp_path: Path) -> None:
    for _ in range(5):
        with start_program(tmp_path, DYING_WHILE_IT_FORKS) as program:
            program.communicate(timeout=10)  # until nobody has its output open
            assert program.returncode == -signal.SIGKILL


EXITS = [
    ("", 0, ""),
    ("sys.exit(3)", 3, ""),
    ("raise ValueError('the end')", 1, "ValueError: the end\n"),
    ("threading.Thread(target=time.sleep, args=(0.2,)).start()", 0, ""),
]


@pytest.mark.parametrize(("last", "code", "error"), EXITS, ids=["end", "exit", "raise", "thread"])
def test_an_exit_without_close_kills_and_does_not_hang(tmp_path: Path, last: str, code: int, error: str) -> None:
    done = run_program(tmp_path, BUSY + "on_exit(lambda: print('hook'))\n" + last, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.endswith(error)
    assert bool(done.stderr) == bool(error)
    first, second = done.stdout.splitlines()
    assert second == "hook"
    wait_until(lambda: none_runs([int(word) for word in first.split()]), what="the workers' end")


def test_an_exit_while_workers_start_does_not_hang(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        """
        from mpqueue._engines.loky import loky_lane as lane
        from tests.support.lanes import RECEIVER, Lanes
        lane.RECEIVER = RECEIVER
        lanes = Lanes(4, start=False)
        for number in range(4):
            lanes.pool.start(number, 0)
        """,
    )
    assert done.stderr == ""


def test_a_fork_of_the_parent_ends_without_doing_harm(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        BUSY
        + """
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads
for leave in (sys.exit, os._exit):
    pid = os.fork()
    if pid == 0:
        lanes.pool.close(kill=True)
        leave(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
process = multiprocessing.get_context("fork").Process(target=lanes.pool.close, kwargs={"kill": True})
process.start()
process.join()
assert process.exitcode == 0
assert lanes.call(handlers.double, 2, lane=1) == 4
lanes.kill()
lanes.replace()
lanes.pool.close(kill=False)
""",
    )
    assert done.stderr == ""


def test_ctrl_c_at_the_terminal_does_not_reach_workers_not_even_while_they_start(tmp_path: Path) -> None:
    program = """
        import os, signal, threading
        from mpqueue._engines.loky import loky_lane as lane
        from mpqueue._core.messages import LaneReady
        from tests.support import handlers
        from tests.support.lanes import RECEIVER, Lanes
        lane.RECEIVER = RECEIVER
        signal.signal(signal.SIGINT, lambda *_: None)
        lanes = Lanes(4, start=False)
        started = [threading.Event() for _ in range(4)]
        for number in range(4):
            lanes.pool.start(number, 0)
        ready = 0
        while ready < 4:
            os.killpg(0, signal.SIGINT)
            try:
                message = lanes.messages.get(timeout=0.002)
            except Exception:
                continue
            assert isinstance(message, LaneReady), message
            ready += 1
        for number in range(4):
            os.killpg(0, signal.SIGINT)
            assert lanes.call(handlers.double, 2, lane=number) == 4
        lanes.pool.close(kill=False)
        """
    with start_program(tmp_path, program) as running:
        _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, "")


def test_a_worker_has_no_terminal_to_stop_it(new_lanes: Callable[..., Lanes]) -> None:
    _, _, pid, group = new_lanes().call(lane_verbs.who_am_i)
    assert group == pid
