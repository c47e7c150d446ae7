"""`max_memory_per_worker`, with real workers and real memory."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mpqueue import JobQueue, MemoryLimitError, RetryPolicy, SetupError
from tests.support import handlers as do
from tests.support import hogs, surroundings
from tests.support.hogs import MB
from tests.support.programs import PATIENCE, write_program
from tests.support.results import results_of
from tests.support.systems import LINUX_ONLY

pytestmark = pytest.mark.slow

AT_ONCE = RetryPolicy(max_retries=2, base_delay=0.0)


def sampler_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "sampler" in thread.name]


@pytest.mark.holds("error: MemoryLimitError", "fault: the worker dies: segfault, os._exit, SIGKILL, out of memory")
def test_an_item_that_takes_too_much_fails_and_nobody_else_does() -> None:
    handler = do.only(0, lambda item: hogs.take_and_hang(600))
    with JobQueue(2, retry=RetryPolicy(max_retries=1, base_delay=0.0), max_memory_per_worker="300MB") as queue:
        job = queue.run(range(50), handler)
    hog, *others = job.items
    assert (hog.status, hog.attempts) == ("failed", 2)
    assert isinstance(hog.exception, MemoryLimitError)
    assert isinstance(hog.exception, MemoryError)
    assert "more than max_memory_per_worker of 300 MB" in str(hog.exception)
    assert hog.peak_memory is not None
    assert hog.peak_memory > 300_000_000
    assert [(item.result, item.attempts) for item in others] == [(at, 1) for at in range(1, 50)]


@pytest.mark.long(but=["0.0"])
@pytest.mark.parametrize("seconds", [0.0, 0.06])
def test_a_worker_that_grows_from_item_to_item_is_replaced_and_nobody_is_charged(seconds: float) -> None:
    def handle(item: int) -> int:
        hogs.leak(25)
        threading.Event().wait(seconds)
        return do.return_pid(item)

    with JobQueue(2, max_memory_per_worker=200 * MB) as queue:
        job = queue.run(range(30), handle)
    assert (job.completed, job.retries) == (30, 0)
    assert {item.attempts for item in job.items} == {1}
    assert len(set(results_of(job))) >= 4


@pytest.mark.long
def test_shared_memory_is_nobody_s_own_and_does_not_count() -> None:
    array = np.ones(400 * MB, np.uint8)
    with JobQueue(1, max_retries=0, max_memory_per_worker="200MB") as queue:
        job = queue.run([array, array], hogs.sum_of)
        assert results_of(job) == [400 * MB] * 2


def test_an_item_that_died_of_memory_runs_again_in_a_new_worker_while_nothing_else_runs(tmp_path: Path) -> None:
    items = [*range(10), "hog", *range(11, 40)]
    with JobQueue(2, retry=AT_ONCE, max_memory_per_worker="300MB") as queue:
        job = queue.run(items, partial(hogs.log_stay, tmp_path, 500), chunksize=1)
    assert (job.completed, job.items[10].attempts) == (40, 2)
    stays = hogs.stays(tmp_path)
    (apart,) = (at for at, stay in enumerate(stays) if stay.item == "hog")
    assert all(before.ended <= stays[apart].begun for before in stays[:apart])
    assert all(after.begun >= stays[apart].ended for after in stays[apart + 1 :])
    assert stays[apart].pid not in {stay.pid for stay in stays[:apart]}
    assert any(one.ended > other.begun for one, other in pairwise(stays)), "the others side by side"


def test_a_setup_that_takes_too_much_fails_the_job() -> None:
    with JobQueue(1, max_retries=0, max_memory_per_worker="300MB") as queue:
        queue.create_job("job", [1], lambda item, state: item, setup=hogs.hog_setup)
        job = queue.start("job").result(30)
        assert isinstance(job.items[0].exception, SetupError)
        assert isinstance(job.items[0].exception.__cause__, MemoryLimitError)
        assert queue.run([1], do.succeed).results == [1]


@pytest.mark.long(but=["0.0"])
@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_workers_that_are_too_large_from_the_start_run_one_item_each(seconds: float) -> None:
    def handle(item: int) -> int:
        threading.Event().wait(seconds)
        return do.return_pid(item)

    with JobQueue(1, max_memory_per_worker="4MB") as queue:
        job = queue.run(range(4), handle)
    assert len(set(results_of(job))) == 4
    assert {item.attempts for item in job.items} == {1}


def test_the_sampler_runs_only_where_there_is_a_limit() -> None:
    with JobQueue(1) as queue:
        queue.run([1], do.succeed)
        assert sampler_threads() == []
    with JobQueue(1, max_memory_per_worker="1GB") as queue:
        queue.run([1], do.succeed)
        assert len(sampler_threads()) == 1
    assert sampler_threads() == []


# -- the machine -------------------------------------------------------------------------------------------------------


#: With a /proc/meminfo that is the file beside it.
ONE_AT_A_TIME = """
import os
from functools import partial
from itertools import pairwise
from pathlib import Path
from mpqueue import JobQueue
from tests.support import handlers as do, hogs
from tests.support.waiting import Gate

folder = Path.cwd()

def let_memory_be(megabytes):
    with open("meminfo", "r+b", buffering=0) as file:  # at once, since it may be read meanwhile
        file.write(b"MemTotal: 8000000 kB\\nMemAvailable: %07d kB\\n" % (megabytes * 1000))

let_memory_be(100)
gate = Gate(folder)
with JobQueue(2, max_memory_per_worker="1GB") as queue:
    queue.run(range(15), partial(hogs.log_stay, folder, 0))
    stays = hogs.stays(folder)
    assert len(stays) == 15
    assert all(one.ended <= other.begun for one, other in pairwise(stays))
    queue.create_job("both", ["a", "b"], do.block_until_told(gate))
    run = queue.start("both")
    let_memory_be(7000)
    gate.wait_for("a")
    gate.wait_for("b")
    gate.open()
    print(run.result(30).results)
"""


@LINUX_ONLY
def test_one_item_runs_at_a_time_while_memory_is_short_and_all_go_on_when_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n")
    program = [sys.executable, str(write_program(tmp_path, ONE_AT_A_TIME))]
    command = surroundings.inside(f"mount --bind {shlex.quote(str(tmp_path / 'meminfo'))} /proc/meminfo", program)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout == "['a', 'b']\n", done.stderr
