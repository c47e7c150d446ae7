"""How soon a hung item, Ctrl-C and the death of the program are over. Only mpqueue is asked: it alone promises any."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.case import Case, Measures, Sizes
from benchmarks.contenders import Contender

QUESTION = "How soon is it over: a hung item after its timeout, Ctrl-C, a killed program?"

TIMEOUT = 0.5

#: Two workers that sleep for minutes; each leaves its process id in a file of that name.
PROGRAM = """
import os, sys, time
from pathlib import Path
from mpqueue import JobQueue

folder = sys.argv[1]

def sleep(item):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(300)

with JobQueue(2) as queue:
    queue.create_job("job", [1, 2], sleep, chunksize=1)
    queue.start("job").result()
"""


def hang(item: int) -> int:
    """Sleep for minutes."""
    time.sleep(300)
    return item


def cases(sizes: Sizes) -> list[Case]:  # noqa: ARG001
    return [
        Case(name, title, measure=measure, started=False, warm=False, contenders=("mpqueue",), limit=60.0)
        for name, title, measure in (
            ("timeout", "a hung item, after its timeout", after_timeout),
            ("ctrl-c", "the program, after Ctrl-C", after_interrupt),
            ("killed", "the workers, after kill -9 of the program", after_kill),
        )
    ]


def after_timeout(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
    from mpqueue import ItemTimeoutError, JobQueue

    with JobQueue(2) as queue:
        queue.run([1], abs)
        started = time.perf_counter()
        job = queue.run([1], hang, timeout=TIMEOUT, max_retries=0)
        seconds = time.perf_counter() - started - TIMEOUT
        assert isinstance(job.items[0].exception, ItemTimeoutError), job.items[0].error
    return {"seconds": seconds}


def after_interrupt(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
    with tempfile.TemporaryDirectory() as folder:
        program, _ = _busy_program(folder)
        started = time.perf_counter()
        os.killpg(program.pid, signal.SIGINT)
        program.wait()
        return {"seconds": time.perf_counter() - started}


def after_kill(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
    with tempfile.TemporaryDirectory() as folder:
        program, workers = _busy_program(folder)
        started = time.perf_counter()
        program.kill()
        program.wait()
        while any(_is_alive(pid) for pid in workers):
            time.sleep(0.001)
        return {"seconds": time.perf_counter() - started}


def _busy_program(folder: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    """The program, once both of its workers are in an item; and their process ids."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, folder], start_new_session=True, stderr=subprocess.DEVNULL
    )
    while len(found := os.listdir(folder)) < 2:
        assert program.poll() is None, "the program has ended"
        time.sleep(0.01)
    return program, [int(name) for name in found]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
