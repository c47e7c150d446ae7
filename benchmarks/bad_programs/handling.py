"""Programs whose handlers wait, fail, share a bottleneck, or have one item that takes longest; and a slow listener."""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.bad_programs.program import WORKERS, Program, Ran, spin, warm
from mpqueue import JobQueue, RetryPolicy, current_item


def fetch(number: int) -> int:
    """As a request over the network: it waits."""
    time.sleep(0.04)
    return number


def sleeping() -> Ran:
    """A downloader with a worker for each CPU."""
    return warm(range(100), fetch)


def more_at_a_time() -> Ran:
    """As many workers as the advice says."""
    return warm(range(100), fetch, workers=8 * WORKERS)


#: Elements of an array that fits in no cache, and of a block that fits in the nearest one.
LARGE, BLOCK = 4_000_000, 8_000


def with_temporaries(path: str, number: int) -> float:
    """As numpy is written first: each step goes through memory once more. See `bandwidth` for the lock."""
    with open(path) as memory:
        while not _is_free(memory):
            pass
        x = np.full(LARGE, float(number))
        for _ in range(3):
            x = x * 0.5 + 1.0
        return float(x[0])


def _is_free(memory: IO[str]) -> bool:
    try:
        fcntl.flock(memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def in_blocks(path: str, number: int) -> float:  # noqa: ARG001
    """The same in blocks, in place: it stays in a cache."""
    x = np.full(LARGE, float(number))
    for at in range(0, LARGE, BLOCK):
        part = x[at : at + BLOCK]
        for _ in range(3):
            part *= 0.5
            part += 1.0
    return float(x[0])


def bandwidth() -> Ran:
    """A handler whose numpy is bound by memory.

    Two CPUs do not use up what the memory of a server gives: measured, such a handler takes as long beside another one.
    So a lock that is polled is the memory here: it lets one worker on at a time, and the CPU of the other one is busy
    until then, as if it waited for its data.
    """
    return _with_file(with_temporaries, 40)


def blocks() -> Ran:
    """Less memory for each step."""
    return _with_file(in_blocks, 40)


def _compared(items: range, handler: Callable[[int], Any]) -> Ran:
    """With a job on one worker, to compare with."""
    with JobQueue(1) as queue:
        queue.run([0], handler)
        alone = queue.run(items[: len(items) // 3], handler, id="alone")
    return warm(items, handler)._replace(alone=alone)


def as_long_as_it_says(seconds: float) -> float:
    """An item says how long it takes."""
    return spin(seconds)


def giant_last_item() -> Ran:
    """One large file at the end of the list."""
    return warm([0.01] * 60 + [0.8], as_long_as_it_says)


def cut_up() -> Ran:
    """It is cut into eighty."""
    return warm([0.01] * 140, as_long_as_it_says)


def three_parts() -> Ran:
    """A large file cut into three parts, for two workers."""
    return warm([0.3, 0.3, 0.6], as_long_as_it_says)


def many_parts() -> Ran:
    """Cut into forty."""
    return warm([0.03] * 40, as_long_as_it_says)


def multiply(number: int) -> float:
    """A product of matrices, on as many threads as the library takes."""
    a = np.full((500, 500), float(number))
    for _ in range(4):
        a = a @ a
        a /= a[0, 0] or 1.0
    return float(a[0, 0])


def threads_times_workers() -> Ran:
    """Each worker's BLAS has four threads."""
    return warm(range(1, 61), multiply, per_worker={"threads": 4})


def one_thread_each() -> Ran:
    """One thread in each."""
    return warm(range(1, 61), multiply, per_worker={"threads": 1})


def quick(number: int) -> int:
    """3 ms of work."""
    spin(0.003)
    return number


def draw(_: Any) -> None:
    """A listener that draws, or writes to a database, each time."""
    time.sleep(0.01)


def slow_listener() -> Ran:
    """A listener that takes longer than an item."""
    return _until_told(draw)


def listener_seldom() -> Ran:
    """It is called ten times a second."""
    return _until_told(draw, progress_interval=0.1)


def _until_told(listener: Callable[[Any], object], **options: Any) -> Ran:
    return warm(range(300), quick, listener=listener, chunksize=1, **options)


def read_whole(number: int) -> int:
    """Reads all of a file into memory."""
    data = bytearray(260_000_000)
    data[::4096] = bytes(len(data[::4096]))
    spin(0.05)
    return len(data) + number


def swapping() -> Ran:
    """Two items at a time need more memory than there is.

    A machine that swaps is no place for other measurements, so this one is only said to have too little memory, and
    what the advice saves is not measured.
    """
    return warm(range(6), read_whole)


def reject(number: int) -> int:
    """Three of five items are wrong, and no try changes that."""
    spin(0.01)
    if number % 5 < 3:
        raise ValueError(f"expected a number, got record {number}")
    return number


def hopeless_retries() -> Ran:
    """Each of them is tried four times."""
    return warm(range(60), reject, retry=RetryPolicy(3, base_delay=0.0))


def given_up() -> Ran:
    """An error that comes again is named."""
    return warm(range(60), reject, retry=RetryPolicy(3, base_delay=0.0, give_up_on=(ValueError,)))


def flaky(number: int) -> int:
    """One item fails twice, as a request may."""
    spin(0.005)
    if number == 30 and current_item().attempt < 3:
        raise ConnectionError("try again")
    return number


def waits_for_retries() -> Ran:
    """Its retries wait for a second and for two."""
    return warm(range(60), flaky, retry=RetryPolicy(3, base_delay=1.0, jitter=0.0))


def prompt_retries() -> Ran:
    """A tenth of that."""
    return warm(range(60), flaky, retry=RetryPolicy(3, base_delay=0.1, jitter=0.0))


def all_in_a_lock(path: str, number: int) -> int:
    """Everything is done while the lock is held."""
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        spin(0.01)
    return number


def write_in_a_lock(path: str, number: int) -> int:
    """Only what needs it is done while the lock is held."""
    spin(0.009)
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        spin(0.001)
    return number


def lock() -> Ran:
    """A lock on a file around all of the handler."""
    return _with_file(all_in_a_lock, 90)


def short_lock() -> Ran:
    """A lock around the end of it."""
    return _with_file(write_in_a_lock, 90)


def _with_file(handler: Callable[[str, int], Any], items: int) -> Ran:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lock"
        path.touch()
        return _compared(range(items), partial(handler, str(path)))


PROGRAMS = (
    Program("sleeping", "waits", "use more workers than CPUs", sleeping, more_at_a_time),
    Program("bandwidth", "shared bottleneck", "memory bandwidth", bandwidth, blocks),
    Program("giant_last_item", "long items", "Cut it up", giant_last_item, cut_up),
    Program("three_parts", "long items", "Cut them smaller", three_parts, many_parts),
    Program("threads_times_workers", "threads", "'threads': 1", threads_times_workers, one_thread_each),
    Program("slow_listener", "listeners", "progress_interval", slow_listener, listener_seldom),
    Program("swapping", "memory", "lets 1 run at once", swapping, supply=450_000_000),
    Program("hopeless_retries", "failed tries", "give_up_on", hopeless_retries, given_up),
    Program("waits_for_retries", "waits for retries", "base_delay", waits_for_retries, prompt_retries),
    Program("lock", "shared bottleneck", "disk, network or a lock", lock, short_lock),
)
