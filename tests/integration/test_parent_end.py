"""However the parent is killed, its workers end with it, and what they have left behind too."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.programs import is_running, run_program, start_program
from tests.support.systems import LINUX_ONLY
from tests.support.this_system import IS_LINUX
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: Two workers, one of which holds its global lock (on Linux), and a forked child; prints the ids of all of them, and
#: last that of a program which left the group, or the child's again where a program of that kind can't be found.
BUSY = """
import signal, subprocess
from pathlib import Path
from mpqueue import JobQueue
from tests.support import handlers as do
from tests.support.strength import workers_of
from tests.support.this_system import IS_LINUX
from tests.support.waiting import Gate

def leave_stray(item):
    quiet = subprocess.DEVNULL
    command = ["sleep", "300"]
    return subprocess.Popen(command, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet).pid

gate = Gate(Path("."))
queue = JobQueue(2)
workers = workers_of(queue)
(child,) = queue.run([0], do.leave_forked_child).results
(stray,) = queue.run([0], leave_stray).results if IS_LINUX else [child]
queue.create_job("job", ["hangs"], do.announce(gate, do.hang_holding_gil if IS_LINUX else do.hang_sleep))
queue.start("job")
gate.wait_for("hangs")
print(*workers, child, stray, flush=True)
signal.pause()
"""

NEXT = """
from mpqueue import JobQueue
with JobQueue(1) as queue:
    print(queue.run([-1], abs).results)
"""


@pytest.mark.holds("fault: kill -9 of your program", "promise: Closing leaves nothing")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    with start_program(tmp_path, BUSY) as program:
        assert program.stdout is not None
        *pids, stray = [int(word) for word in program.stdout.readline().split()]
        assert len(pids) == 3
        program.send_signal(number)
        _, errors = program.communicate(timeout=300)
    wait_until(lambda: not any(map(is_running, pids)), what="the workers' end")
    if IS_LINUX:  # elsewhere semaphores have names: the trackers remove them, and say so
        assert errors == ""
    # A program that left the worker's group, and no hook of Python's saw, lives on until the next queue starts workers.
    assert run_program(tmp_path, NEXT).stdout == "[1]\n"
    wait_until(lambda: not is_running(stray), what="the stray's end")


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


@LINUX_ONLY  # elsewhere no process is left that could end it
def test_a_child_that_is_forked_while_everybody_dies_ends_too(tmp_path: Path) -> None:
    for _ in range(5):
        with start_program(tmp_path, DYING_WHILE_IT_FORKS) as program:
            program.communicate(timeout=300)  # until nobody has its output open
            assert program.returncode == -signal.SIGKILL
