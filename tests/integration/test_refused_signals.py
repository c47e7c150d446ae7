"""Where the system refuses the calls by which processes are ended, they end all the same: workers are on a leash."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.programs import PATIENCE, is_running, start_program
from tests.support.refusing import CAN_REFUSE
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CAN_REFUSE, reason="system calls can be refused on Linux only"),
]

#: One job with an item that hangs while it holds the global lock; then one of which all items hang, prints the workers'
#: ids, and closes the queue or waits to be killed.
PROGRAM = """
import os, signal, subprocess, sys
from mpqueue import JobQueue
from tests.support import handlers as do, refusing
from tests.support.strength import workers_of
from tests.support.waiting import wait_until
from pathlib import Path

end, refused, hang = sys.argv[1:4]
strays = refused == "PIDFD_SIGNALS"  # they are looked for at the close, and ended one by one
if refused != "user":
    refusing.refuse(*map(vars(refusing).get, refused.split("+")))

def become_another_user():
    if refused == "user":
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)

def hang_with_a_child(item):
    if os.fork() == 0:
        do.hang_sleep(item)
    if strays:
        Path(f"gate/{subprocess.Popen(['sleep', '300'], start_new_session=True).pid}").touch()
    Path(f"gate/{os.getpid()}").touch()
    getattr(do, hang)(item)

os.mkdir("gate")
gate = os.open("gate", os.O_RDONLY)  # may be listed later, whoever this is by then
queue = JobQueue(3, max_retries=0)
first = workers_of(queue)
become_another_user()
job = queue.run(["left", "culprit", "right"], do.only("culprit", getattr(do, hang)), timeout=0.5, chunksize=1)
assert job.results == ["left", None, "right"], job.to_dict()
assert job.items[1].exception.__class__.__name__ == "ItemTimeoutError"
queue.create_job("hung", [1, 2], hang_with_a_child, chunksize=1)
queue.start("hung")
wait_until(lambda: len(os.listdir(gate)) == 2 + 2 * strays)
forked = os.fork()  # must not hold the leashes
if forked == 0:
    os.closerange(0, 3)
    do.hang_sleep(0)
print(forked, *first, *os.listdir(gate), flush=True)
if end == "close":
    queue.close(kill=True)
    print("closed", flush=True)
else:
    signal.pause()
"""


def group_of(pid: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] not in "ZX":
            found.append(int(name))
    return found


#: Root only: others can't become another user.
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.mark.long(but=["PIDFD_SIGNALS+PDEATHSIG+SIGKILL-hang_holding_gil-close", "user-hang_holding_gil-kill"])
@pytest.mark.parametrize(
    ("refused", "hang", "end"),
    [
        ("PIDFD_SIGNALS", "hang_holding_gil", "close"),
        ("PDEATHSIG", "hang_holding_gil", "kill"),
        ("PIDFD_SIGNALS+PDEATHSIG+SETSIG", "hang_holding_gil", "kill"),
        ("PIDFD_SIGNALS+PDEATHSIG+SIGKILL", "hang_holding_gil", "close"),
        pytest.param("user", "hang_holding_gil", "close", marks=AS_ROOT),
        pytest.param("user", "hang_holding_gil", "kill", marks=AS_ROOT),
    ],
)
def test_hung_workers_end_whatever_the_system_refuses(tmp_path: Path, refused: str, hang: str, end: str) -> None:
    with start_program(tmp_path, PROGRAM, end, refused, hang) as program:
        try:
            assert program.stdout is not None
            forked, *groups = [int(word) for word in program.stdout.readline().split()] or [0]
            if not groups:
                pytest.fail(program.communicate(timeout=PATIENCE)[1])
            if end == "kill":
                program.send_signal(signal.SIGKILL)
            program.wait(timeout=PATIENCE)
            wait_until(lambda: not [pid for group in groups for pid in group_of(group)], what="the workers' end")
            os.kill(forked, signal.SIGKILL)  # with it the resource trackers end, which have our pipes
            # Not communicate(): what came with the first line is in the buffer already, and that would pass it over.
            assert program.stderr is not None
            output, errors = program.stdout.read(), program.stderr.read()
            assert end == "kill" or output == "closed\n", errors
            assert "does not end" not in errors
        finally:
            program.kill()


@pytest.mark.holds("wait: a worker that was killed ends", "wait: close() waits for workers")
def test_a_worker_that_nothing_ends_costs_its_item_and_no_wait_without_an_end(tmp_path: Path) -> None:
    program = PROGRAM.partition("queue.create_job")[0] + "queue.close()\nprint(*first, flush=True)\nos._exit(0)"
    refused = "PIDFD_SIGNALS+PDEATHSIG+SETSIG+SIGKILL"
    with start_program(tmp_path, program, "close", refused, "hang_holding_gil") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        pids = [int(word) for word in running.stdout.readline().split()]
        assert pids, running.stderr.read()
        running.wait(timeout=PATIENCE)
        left = [pid for pid in pids if is_running(pid)]
        assert len(left) == 1
        os.kill(left[0], signal.SIGKILL)
        assert f"worker {left[0]} was killed and does not end; the queue goes on without it" in running.stderr.read()
