"""Containers and sandboxes: in each of them everything works, or what is missing is told at once, in one line.

One program does all that asks something of the system, in each place. The table says what comes of it there, which is
also what docs/how-to/platforms.md says.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import refusing, surroundings
from tests.support.length import long
from tests.support.programs import PATIENCE, run_program, write_program
from tests.support.refusing import ALL_OF_LINUX, CAN_REFUSE, Refused
from tests.support.surroundings import HIDDEN_PROCESSES, NO_PROC, NO_SHM, READ_ONLY_ROOT, READ_ONLY_SHM, TINY_SHM
from tests.support.systems import LINUX_ONLY

pytestmark = [pytest.mark.slow, LINUX_ONLY]

PROGRAM = """
import ast, os, signal, sys, threading
from tests.support import refusing
if __name__ == "__main__":
    refused, error = ast.literal_eval(sys.argv[1])
    if refused:
        refusing.refuse(*refused, error=error)

import mpqueue
import numpy as np
from mpqueue import JobQueue
from tests.support.waiting import wait_until

def double(item):
    return 2 * item

def die_at_first(item):
    if item == 1 and mpqueue.current_item().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item

def hang(item):
    threading.Event().wait(600 * item)

def until_cancelled(item):
    while not mpqueue.current_item().cancelled:
        threading.Event().wait(0.01)
    return "seen"

def work():
    journal = "journal.db" if os.access(".", os.W_OK) else None
    with JobQueue(2, journal=journal) as queue:
        job = queue.run(range(20), double, id="kept")
        for failure in job.failures:
            raise failure
        assert job.results == list(range(0, 40, 2))
        results = queue.run([np.full(250_000, float(number)) for number in range(2)], double, chunksize=1).results
        assert [(set(result), len(result)) for result in results] == [({0.0}, 250_000), ({2.0}, 250_000)]
        assert queue.run(range(3), die_at_first, chunksize=1).results == [0, 1, 2]
        job = queue.run([0, 1], hang, timeout=1.5, chunksize=1, max_retries=0)
        assert [type(item.exception).__name__ for item in job.items] == ["NoneType", "ItemTimeoutError"]
        job = queue.create_job("long", [1], until_cancelled)
        run = queue.start("long")
        wait_until(lambda: job.items[0].status == "processing")
        queue.pause("long")
        assert job.status == "paused"
        queue.resume("long")
        queue.cancel("long")
        assert (run.result().status, job.results) == ("cancelled", ["seen"])
    if journal is not None:
        with JobQueue(1, journal=journal) as queue:
            assert queue.load_job("kept").results == list(range(0, 40, 2))
    assert mpqueue.map(double, [1, 2], concurrency=1) == [2, 4]
    return "runs"

if __name__ == "__main__":
    try:
        print(work())
    except AssertionError:
        raise
    except Exception as error:
        while error.__cause__ is not None and not isinstance(error, OSError):
            error = error.__cause__
        print(f"{type(error).__name__}: {error}")
"""

#: A user whom no other test is.
SOMEBODY = 61_000


class Place(NamedTuple):
    """Where the program is run, and what comes of it: patterns of what it prints, and of its standard error."""

    refused: tuple[Refused, ...] = ()
    error: int = errno.EPERM
    mounts: str = ""
    limit: str = ""  #: an option of prlimit
    user: int = 0
    has_home: bool = True  #: a folder of its own that it may write to
    own_processes: bool = False
    environment: Mapping[str, str | None] = {}
    prints: str = "runs"
    warns: str = ""

    def command(self, program: Path) -> list[str]:
        """What runs it there."""
        is_moved = bool(self.mounts or self.user)
        seen_as = f"{surroundings.HOME}/{program.name}" if is_moved else str(program)
        command = [sys.executable, seen_as, repr((self.refused, self.error))]
        if self.refused and not CAN_REFUSE:
            pytest.skip("system calls can't be refused on this machine")
        if self.limit:
            command = ["prlimit", self.limit, *command]
        if self.user:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        if not is_moved:
            return command
        mounts = " && ".join(
            filter(None, (surroundings.at_home(program.parent), self.mounts, "" if self.has_home else "cd /"))
        )
        return surroundings.inside(mounts, command, processes=self.own_processes)


FEW_DESCRIPTORS = (
    r"OSError: \[Errno 24\] Too many open files: starting a worker takes 32 descriptors, \d+ are free, of the {} that "
    r"are allowed; raise the hard limit \(`ulimit -Hn`\), which only root can, or close files"
)
FEW_PROCESSES = (
    r"BlockingIOError: \[Errno 11\] can't start new thread: {}; this user may have {} in all: raise the limit with "
    r"`ulimit -u`, or the limit of the container \(`docker run --pids-limit`, pids.max of its control group\)"
)

PLACES = {
    "all refused as unknown": Place(ALL_OF_LINUX, errno.ENOSYS),
    "nothing of /proc and /dev/shm": Place(mounts=f"{NO_PROC} && {NO_SHM}"),
    "strict container": Place(
        mounts=f"{HIDDEN_PROCESSES} && {TINY_SHM} && {READ_ONLY_ROOT}",
        user=SOMEBODY,
        own_processes=True,
        environment={"HOME": None},
    ),
    "no memfd, nothing to write to": Place(
        ("memfd_create",),
        mounts=f"{READ_ONLY_SHM} && {READ_ONLY_ROOT}",
        has_home=False,
        prints=r"FileNotFoundError: \[Errno 2\] expected a folder where temporary files can be made, got none; set "
        r"TMPDIR to one \(.*\)",
        warns=".*",
    ),
    "12 descriptors": Place(
        limit="--nofile=12:12",
        prints=r"OSError: \[Errno 24\] Too many open files: a queue takes more descriptors than are free, of the 12 "
        r"that are allowed; raise the hard limit \(`ulimit -Hn`\), which only root can, or close files",
    ),
    "5 processes": Place(
        user=SOMEBODY + 1,
        limit="--nproc=5",
        prints=FEW_PROCESSES.format("a queue takes more threads than can be had", 5),
    ),
    "15 processes": Place(
        user=SOMEBODY + 2,
        limit="--nproc=15",
        prints=FEW_PROCESSES.format(r"starting a worker takes 12 threads and processes, \d+ can be had", 15),
        warns=".*",
    ),
}

#: Alone, or with an errno that others do not give.
MORE_PLACES = {
    "all refused": Place(ALL_OF_LINUX),
    "all refused, no /proc": Place(ALL_OF_LINUX, mounts=NO_PROC),
    "no record of openings' locks": Place((refusing.OPENING_LOCKS, refusing.OPENING_LOOKS), errno.EINVAL),
    "no memfd, read-only /dev/shm": Place(("memfd_create",), mounts=READ_ONLY_SHM),
    "no memfd, /dev/shm alone to write to": Place(("memfd_create",), mounts=READ_ONLY_ROOT, has_home=False),
    "no group": Place(
        ("setpgid",),
        prints=r"PermissionError: \[Errno 1\] expected to be allowed a process group of its own \(setpgid\), got .*",
        warns=".*",
    ),
    "no signals by number": Place(("kill",), errno.ENOSYS),
    "no /proc": Place(mounts=NO_PROC),
    "processes hidden": Place(mounts=HIDDEN_PROCESSES, user=SOMEBODY + 3, own_processes=True),
    "no /dev/shm": Place(mounts=NO_SHM),
    "tiny /dev/shm": Place(mounts=TINY_SHM),
    "read-only /dev/shm": Place(mounts=READ_ONLY_SHM),
    "read-only root": Place(mounts=READ_ONLY_ROOT),
    "nothing to write to": Place(mounts=f"{READ_ONLY_SHM} && {READ_ONLY_ROOT}", has_home=False),
    "no HOME": Place(environment={"HOME": None, "USER": None, "LOGNAME": None}),
    "another user": Place(user=SOMEBODY + 4, environment={"HOME": "/nowhere"}),
    "20 descriptors": Place(limit="--nofile=20:20", prints=FEW_DESCRIPTORS.format(20), warns=".*"),
    "64 descriptors": Place(limit="--nofile=64:64", warns="worker . could not be started, trying again: .*"),
    "25 processes": Place(
        user=SOMEBODY + 5, limit="--nproc=25", warns="worker . could not be started, trying again: .*"
    ),
} | {
    f"{call if isinstance(call, str) else f'{call[0]} {call[2]}'}: {errno.errorcode[error]}": Place((call,), error)
    for call in ALL_OF_LINUX
    for error in (errno.EPERM, errno.ENOSYS)
}


@pytest.mark.long(but=["strict container"])
@pytest.mark.parametrize("place", [*PLACES, *map(long, MORE_PLACES)])
def test_everything_runs_or_what_is_missing_is_told(tmp_path: Path, place: str) -> None:
    there = (PLACES | MORE_PLACES)[place]
    changed = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{surroundings.ROOT}", **there.environment}
    done = subprocess.run(
        there.command(write_program(tmp_path, PROGRAM)),
        env={name: value for name, value in (os.environ | changed).items() if value is not None},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert re.fullmatch(there.prints, done.stdout.strip()), done.stdout + done.stderr
    assert re.fullmatch(there.warns, done.stderr.strip(), re.DOTALL), done.stderr
    assert done.returncode == 0


@pytest.mark.long
@pytest.mark.skipif(not CAN_REFUSE, reason="system calls can't be refused on this machine")
def test_nothing_is_forked_where_a_fork_could_not_be_held(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        """
        from tests.support import refusing
        if __name__ == "__main__":
            refusing.refuse("pidfd_open")
        from mpqueue import JobQueue
        if __name__ == "__main__":
            with JobQueue(2, preload="json") as queue:
                print(queue.run([-1, 2], abs).results)
        """,
    )
    assert done.stdout == "[1, 2]\n"
    assert "preload: the system refuses what that takes" in done.stderr
    assert "workers start the ordinary way" in done.stderr
