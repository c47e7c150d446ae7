"""Programs and handlers that give up their rights, or see another /proc: big data arrives all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import PATIENCE, run_program, write_program

pytestmark = pytest.mark.slow

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")

PREAMBLE = """
    import functools
    import os
    import sys

    import numpy as np

    import mpqueue
    from mpqueue import JobQueue

    NOBODY = 65534

    def array(number, count=100_000):
        return np.full(count, float(number))

    def give_up_rights():
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    def add(table, item):
        return item + table[0] + shared[0]

    def check(results, expected):
        assert len(results) == len(expected)
        for result, number in zip(results, expected):
            assert result is not None and (result == number).all(), (result, number)
            result[:] = 1
"""


@as_root
def test_a_program_that_gives_up_its_rights_gets_the_results_of_its_workers(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        PREAMBLE
        + """
    if __name__ == "__main__":
        shared = mpqueue.share(array(1))
        handler = functools.partial(add, array(2))
        with JobQueue(2, max_retries=0) as queue:
            check(queue.run(map(array, range(4)), handler).results, range(3, 7))
            job = queue.create_job("job", map(array, range(40)), handler, chunksize=1)
            run = queue.start("job")
            for item in run.as_completed():  # in the middle of it
                give_up_rights()
                break
            check(run.result().results, range(3, 43))
            check(queue.run(map(array, range(20)), handler).results, range(3, 23))
            assert queue.run(list("bystander"), str.upper).results == list("BYSTANDER")
    """,
    )


@as_root
def test_a_handler_that_gives_up_its_rights_gets_the_items_after_it(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        PREAMBLE
        + """
    def handle(table, item):
        if item[0] == 3 and os.geteuid() == 0:
            give_up_rights()
        return item + table[0]

    def late(table, shared, item):
        assert os.geteuid() == NOBODY
        return item + table[0] + shared[0]

    if __name__ == "__main__":
        with JobQueue(1, max_retries=0) as queue:
            early = functools.partial(handle, array(2))
            check(queue.run(map(array, range(20)), early, chunksize=1).results, range(2, 22))
            late = functools.partial(late, array(3), mpqueue.share(array(4)))
            check(queue.run(map(array, range(20)), late).results, range(7, 27))
            assert queue.run(list("bystander"), str.upper).results == list("BYSTANDER")
    """,
    )


def test_arrays_travel_where_proc_is_that_of_other_processes(tmp_path: Path) -> None:
    unshare = [shutil.which("unshare") or "unshare", "--pid", "--fork", "--kill-child"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no namespace of processes can be made here")
    program = write_program(
        tmp_path,
        PREAMBLE
        + """
    if __name__ == "__main__":
        shared = mpqueue.share(array(1))
        with JobQueue(2, max_retries=0) as queue:
            check(queue.run(map(array, range(20)), functools.partial(add, array(2))).results, range(3, 23))
            assert queue.run(list("bystander"), str.upper).results == list("BYSTANDER")
    """,
    )
    done = subprocess.run(
        [*unshare, sys.executable, str(program)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
