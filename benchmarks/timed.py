"""`python -m benchmarks.timed`: what it costs that each job is timed, and what `profile` adds. Needs Linux.

The same workers run the same items in three ways, which take turns: with the times left out, as it is, and with a
profile. What counts is the CPU time of the program and its workers, which other programs disturb least; each
turn is compared with those beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

from benchmarks import machine
from benchmarks.busy import calibrate
from benchmarks.handlers import burn, echo
from mpqueue import JobQueue

#: Each way, and the one with which it is compared.
WAYS = {"none": None, "timed": "none", "profiled": "timed"}


#: Turns of a loop that take about 20 ms.
COUNTED = 400_000


class NoTimes:
    """What takes the place of a chunk's times in workers that leave them out."""

    loading = setup = unpacking = handling = packing = 0.0

    def __init__(self, begun: float, *, own_process: bool) -> None: ...

    def take(self, _now: float, _packing: float) -> None:
        """Nothing was looked at, so nothing is told, and the parent adds nothing up."""


def leave_times_out() -> None:
    """In each worker, before a job's first item there: its next chunks are not timed."""
    from mpqueue._worker import main as worker

    worker.ChunkTimes = NoTimes  # type: ignore[misc,assignment]


def take_times() -> None:
    """They are again."""
    from mpqueue._worker import main as worker
    from mpqueue._worker.timing import ChunkTimes

    worker.ChunkTimes = ChunkTimes  # type: ignore[misc]


def burn_one(turns: int, _: None) -> int:
    """An item that takes its time."""
    return burn(turns)


def count_one(turns: int, _: None) -> int:
    """One that takes its time in Python's own steps, between which another thread may have its turn."""
    total = 0
    for turn in range(turns):
        total += turn & 7
    return total


def echo_one(item: Any, _: None) -> Any:
    """One that takes none."""
    return echo(item)


class Workers:
    """A queue's, and the CPU time of all processes."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        queue.run(range(100), echo_one, setup=take_times)
        self._pids = queue._host.worker_pids(timeout=30)  # noqa: SLF001 - no public name tells them

    def run(self, way: str, handler: Any, items: list[int]) -> float:
        """CPU seconds an item."""
        before = self._cpu()
        setup = leave_times_out if way == "none" else take_times
        job = self._queue.run(items, handler, setup=setup, profile=way == "profiled")
        spent = self._cpu() - before
        assert job.completed == len(items)
        timed = job.report().figures.sums.reports
        # A worker's first chunk is in its hands before `setup` says how.
        assert (timed <= len(self._pids)) == (way == "none"), timed
        return spent / len(items)

    def _cpu(self) -> float:
        # The CPU clock of another process, as clock_getcpuclockid(3) makes it.
        return time.process_time() + sum(time.clock_gettime((~pid << 3) | 2) for pid in self._pids)


def compare(
    workers: Workers, ways: list[str], seconds: float, handler: Any, items: list[int]
) -> dict[str, list[float]]:
    """CPU seconds an item of each way, a figure a round, for so many seconds."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways:
        workers.run(way, handler, items)
    turn, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            found[way].append(workers.run(way, handler, items))
        turn += 1
    return found


def show(title: str, found: dict[str, list[float]]) -> None:
    """Minimum and median of each way, and by how much it is above another, as the median of the rounds."""
    print(f"\n{title}, {min(map(len, found.values()))} rounds")
    for way, row in found.items():
        before = WAYS[way]
        text = f"  {way:8} {min(row) * 1e6:9.3f} us at best  {statistics.median(row) * 1e6:9.3f} us median"
        if before in found:
            differences = [one / other - 1 for one, other in zip(row, found[before], strict=True)]
            low, middle, high = statistics.quantiles(differences, n=4)
            best = min(row) / min(found[before]) - 1
            text += f"  {middle:+7.2%} to {before} (half of the rounds {low:+.2%} to {high:+.2%}; at best {best:+.2%})"
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each kind of items (60)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="(one for each usable CPU)")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS], help="(all)")
    parser.add_argument("--only", choices=("20ms", "1ms", "no-ops"), help="one kind of items only")
    args = parser.parse_args()
    print(f"{machine.describe()['cpu']}, {args.workers} workers, load {machine.load()}")
    turns = calibrate(args.workers).turns(0.001)
    with JobQueue(args.workers, max_retries=0) as queue:
        workers = Workers(queue)
        if args.only in (None, "20ms"):
            show(
                "pure Python of 20 ms, 60 a round", compare(workers, args.ways, args.seconds, count_one, [COUNTED] * 60)
            )
        if args.only in (None, "1ms"):
            show("items of 1 ms, 200 a round", compare(workers, args.ways, args.seconds, burn_one, [turns] * 200))
        if args.only in (None, "no-ops"):
            show("no-ops, 100,000 a round", compare(workers, args.ways, args.seconds, echo_one, [0] * 100_000))


if __name__ == "__main__":
    main()
