"""`python -m benchmarks.chunk_price [--nodes]`: what a chunk and an item cost a program that has much to do.

Needs Linux. With ``--nodes``, the workers are those of a Dask cluster on this machine: then the thread that talks with
the nodes counts too, and only one of the two runs at a time.

Real workers, whose items take nothing and are timed one by one, as items of 50 ms are: so chunks follow each other
without a pause. A coordinator that sleeps between two chunks takes three to four times as long for each, since it has
to be woken and finds its caches cold; that does not matter, because then it has time. CPU time of its threads, and
the part of it that is in the scheduler; the best of several jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.handlers import echo
from mpqueue import JobQueue
from mpqueue._core.messages import Message
from mpqueue._core.scheduler import Scheduler

#: Items of a chunk, and jobs of each kind, of which the cheapest counts.
SIZES, JOBS, CHUNKS = (10, 60, 120, 240), 5, 1_500


def time_each() -> None:
    """In each worker, before a job's first item there: items are timed one by one, however short they are."""
    from mpqueue._worker import timing

    timing.next_size = lambda *_: 1
    timing.first_size = lambda *_: 1
    timing.WORTH_COUNTING = 0.0


def echo_one(item: Any, _: None) -> Any:
    """An item that takes nothing."""
    return echo(item)


class Clock:
    """What the scheduler has taken."""

    def __init__(self) -> None:
        self.seconds = 0.0
        handle = Scheduler.handle

        def timed(scheduler: Scheduler, message: Message, now: float) -> Any:
            began = time.perf_counter()
            try:
                return handle(scheduler, message, now)
            finally:
                self.seconds += time.perf_counter() - began

        Scheduler.handle = timed  # type: ignore[assignment, method-assign]


def program_seconds() -> float:
    """The CPU time of the coordinator's thread, and of the one that talks with nodes."""
    ours = [one.native_id for one in threading.enumerate() if one.name.startswith(("mpqueue-coord", "mpqueue-dask"))]
    return sum(int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) for thread in ours) / 1e9


def measure(queue: JobQueue, size: int, clock: Clock) -> tuple[float, float]:
    """Seconds that a chunk takes the program, and the scheduler of these."""
    before, clock.seconds = program_seconds(), 0.0
    job = queue.run(range(size * CHUNKS), echo_one, chunksize=size, setup=time_each)
    chunks = job.report().figures.sums.reports
    assert job.completed == size * CHUNKS
    queue.clear_job(job.id)
    return (program_seconds() - before) / chunks, clock.seconds / chunks


@contextlib.contextmanager
def opened(*, on_nodes: bool) -> Iterator[JobQueue]:
    """A queue of two workers."""
    if not on_nodes:
        with JobQueue(2, max_retries=0) as queue:
            yield queue
        return
    from benchmarks.dask_costs import cluster
    from mpqueue.backends import DaskBackend

    with cluster(2) as (address, *_), JobQueue(None, backend=DaskBackend(address), max_retries=0) as queue:
        yield queue


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunk_price")
    parser.add_argument("--nodes", action="store_true", help="of a Dask cluster on this machine")
    on_nodes = parser.parse_args().nodes
    print(f"{machine.describe()['cpu']}, load {machine.load()}")
    clock = Clock()
    others = []
    with opened(on_nodes=on_nodes) as queue:
        queue.run(range(1_000), echo_one, setup=time_each)
        for size in SIZES:
            whole, scheduler = min(measure(queue, size, clock) for _ in range(JOBS))
            others.append(whole - scheduler)
            print(f"{size:4} items: {whole * 1e6:6.1f} us a chunk, {scheduler * 1e6:6.1f} of these in the scheduler")
    item = (others[-1] - others[0]) / (SIZES[-1] - SIZES[0])
    print(
        f"outside of the scheduler: {(others[0] - SIZES[0] * item) * 1e6:.1f} us a chunk, {item * 1e6:.2f} us an item"
    )


if __name__ == "__main__":
    main()
