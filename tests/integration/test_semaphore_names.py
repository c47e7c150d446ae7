"""Semaphores have no names: nothing of them is left in /dev/shm, whoever is killed at whatever moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpqueue import JobQueue
from tests.support import handlers as do
from tests.support.programs import PATIENCE, write_program
from tests.support.small_shm import small_shm
from tests.support.strength import workers_of
from tests.support.systems import LINUX_ONLY

pytestmark = [pytest.mark.slow, LINUX_ONLY]

#: Starts workers, and kills its whole group, resource trackers and all, so many seconds later or at the job's end.
DIES = """
import os, signal, sys, threading
from mpqueue import JobQueue
from tests.support import handlers as do

queue = JobQueue(4)
queue.create_job("job", range(8), do.double)
if sys.argv[1] != "end":
    threading.Timer(float(sys.argv[1]), os.killpg, (0, signal.SIGKILL)).start()
print(queue.start("job").result().results, flush=True)
os.killpg(0, signal.SIGKILL)
"""

#: In a /dev/shm of its own: what is left there after each of these deaths.
WATCHES = """
import os, subprocess, sys
outputs = []
for delay in (0.0, 0.02, 0.05, 0.1, 0.2, "end"):
    command = [sys.executable, "dies.py", str(delay)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert done.returncode == -9, done
    outputs.append(done.stdout)
    assert os.listdir("/dev/shm") == [], (delay, os.listdir("/dev/shm"))
print(outputs[-1], end="")
"""


def test_nothing_is_left_of_a_program_that_is_killed_with_its_group_while_it_starts(tmp_path: Path) -> None:
    write_program(tmp_path, DIES, "dies.py")
    command = small_shm([sys.executable, str(write_program(tmp_path, WATCHES))], size="8m")
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "[0, 2, 4, 6, 8, 10, 12, 14]"


def test_neither_side_keeps_a_descriptor_of_the_semaphores() -> None:
    """A handler that writes into every descriptor would end the program by it."""
    with JobQueue(1) as queue:
        queue.run(["item"], do.succeed)
        for pid in (os.getpid(), *workers_of(queue)):
            folder = Path(f"/proc/{pid}/fd")
            names = [os.readlink(one) for one in folder.iterdir() if os.path.lexists(one)]
            assert names
            assert not [name for name in names if "mpqueue-locks" in name]
