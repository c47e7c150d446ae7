"""Programs and handlers near the number of mappings that the kernel allows a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import run_program

pytestmark = pytest.mark.slow

#: What uses up all mappings but 600, and then checks that it still has many of these.
PREAMBLE = """
    import ctypes
    import mmap

    import numpy as np

    from mpqueue import JobQueue

    COUNT, LEFT = 1200, 600
    kept = []

    def use_up():
        limit = int(open("/proc/sys/vm/max_map_count").read())
        used = sum(1 for _ in open("/proc/self/maps"))
        pages = limit - used - LEFT
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        start = libc.mmap(None, pages * mmap.PAGESIZE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        for page in range(1, pages, 2):  # each that differs from its neighbours is a mapping of its own
            assert libc.mprotect(start + page * mmap.PAGESIZE, mmap.PAGESIZE, mmap.PROT_READ) == 0

    def check_that_much_is_left():
        more = [mmap.mmap(-1, mmap.PAGESIZE) for _ in range(LEFT // 2)]
        for one in more:
            one.close()

    def array(number):
        return np.full(5000, float(number))  # 40 kB, which goes through a segment of its own
"""


def test_results_beyond_the_number_of_mappings_that_are_left_all_arrive(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        PREAMBLE
        + """
    if __name__ == "__main__":
        use_up()
        with JobQueue(1, max_retries=0) as queue:
            job = queue.run(range(COUNT), array)
            assert not job.failures, job.failures[0]
            assert all((result == number).all() for number, result in enumerate(job.results))
            job.results[0][:] = 1  # they are ours to change
            check_that_much_is_left()
            assert queue.run(list("bystander"), str.upper).results == list("BYSTANDER")
    """,
    )


def test_items_that_a_handler_keeps_leave_its_worker_mappings_enough(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        PREAMBLE
        + """
    def keep(item):
        if not kept:
            use_up()
        kept.append(item)
        if len(kept) == COUNT:
            check_that_much_is_left()
            assert all((item == number).all() for number, item in enumerate(kept))
        return len(kept)

    if __name__ == "__main__":
        with JobQueue(1, max_retries=0) as queue:
            job = queue.run(map(array, range(COUNT)), keep, chunksize=1)
            assert not job.failures, job.failures[0]
            assert job.results == list(range(1, COUNT + 1))
    """,
    )
