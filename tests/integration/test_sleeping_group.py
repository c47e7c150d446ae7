"""A whole program is stopped, workers and all, and goes on: nobody is late for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.programs import PATIENCE, start_program
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

TIMEOUT = 3.0

#: Prints the workers' ids once both items run, then how these ended.
PROGRAM = """
import os
from pathlib import Path
from mpqueue import JobQueue
from tests.support import handlers as do
from tests.support.strength import workers_of
from tests.support.waiting import Gate, wait_until

os.mkdir("gate")
gate = Gate(Path("gate").absolute())

def work(item):
    if item == "hung":
        gate.announce(item)
        do.hang_sleep(item)
    return do.block_until_told(gate)(item)

with JobQueue(2, max_retries=0) as queue:
    workers = workers_of(queue)
    job = queue.create_job("job", ["near its end", "hung"], work, timeout={timeout}, chunksize=1)
    run = queue.start("job")
    gate.wait_for("near its end", "hung")
    print(*workers, flush=True)
    run.result()
    print(job.results[0], type(job.items[1].exception).__name__, flush=True)
"""


def test_time_in_which_nobody_could_run_does_not_count(tmp_path: Path) -> None:
    with start_program(tmp_path, PROGRAM.format(timeout=TIMEOUT)) as program:
        try:
            assert program.stdout is not None
            workers = [int(word) for word in program.stdout.readline().split()]
            for pid in (*workers, program.pid):
                os.kill(pid, signal.SIGSTOP)
            (tmp_path / "gate" / "open").touch()  # what is near its end ends as soon as it runs again
            pass_time(TIMEOUT + 0.5)
            program.send_signal(signal.SIGCONT)
            pass_time(0.3)
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
            output, errors = program.communicate(timeout=PATIENCE)
            assert output == "near its end ItemTimeoutError\n", errors
        finally:
            program.kill()


def pass_time(seconds: float) -> None:
    """Let so much time pass, of which the program has to make nothing."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, what="time to pass")
