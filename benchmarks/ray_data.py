"""What big items and results take in a queue on one machine, and in Ray's own pool, as times of one run.

    .venvs/bench/bin/python -m benchmarks.ray_data [--rounds 6] [--sizes 1 8 100]

Both have two workers and take turns. "Ray / queue" below 1 means that Ray is faster: first by the shortest time of all
rounds, then by the median of the CPU time of all processes, which also means something on a busy machine. Ray's arrays
are read-only, so the handler that writes in place copies first, for both.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import psutil

from benchmarks.processes import descendants
from mpqueue import JobQueue

#: Bytes of all items together, and the fewest items.
TOTAL, FEWEST = 128 << 20, 4


def _take(array: Any) -> int:
    return int(array[0])


def _read(array: Any) -> int:
    return int(array.max())


def _change(array: Any) -> int:
    array = array.copy()
    array += 1
    return int(array[0])


def _add(array: Any) -> Any:
    return array + 1


def _make(size: int) -> Any:
    return np.ones(size // 8)


def _cpu() -> float:
    spent = 0.0
    for process in (psutil.Process(), *descendants()):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent += times.user + times.system
    return spent


def _cost(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of all processes."""
    before, began = _cpu(), time.perf_counter()
    work()
    return time.perf_counter() - began, _cpu() - before


def _compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> str:
    ours(), theirs()  # so that both have memory to use again
    both: list[list[tuple[float, float]]] = [[], []]
    for number in range(rounds):
        for at, work in ((0, ours), (1, theirs)) if number % 2 else ((1, theirs), (0, ours)):
            both[at].append(_cost(work))
    (queue, queue_cpu), (ray, ray_cpu) = (
        (min(took for took, _ in costs), median(spent for _, spent in costs)) for costs in both
    )
    times = f"queue {queue * 1e3:5.0f} ms  Ray {ray * 1e3:5.0f} ms"
    return f"{times}  Ray / queue {ray / queue:.2f}, of CPU time {ray_cpu / queue_cpu:.2f}"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 100], help="MB of an array")
    options = parser.parse_args()
    import ray
    from ray.util.multiprocessing import Pool

    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=3 << 30
    )
    with JobQueue(2) as queue:
        pool = Pool(2)
        for megabytes in options.sizes:
            size = megabytes << 20
            arrays = [_make(size) for _ in range(max(FEWEST, TOTAL // size))]
            ways: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
                "in, not read": (_take, arrays),
                "in, read": (_read, arrays),
                "in place": (_change, arrays),
                "in and out": (_add, arrays),
                "out": (_make, [size] * len(arrays)),
            }
            for name, (call, items) in ways.items():

                def ours(call: Callable[[Any], Any] = call, items: Sequence[Any] = items) -> None:
                    job = queue.run(items, call)
                    assert len(job.results) == len(items)
                    queue.clear_job(job.id)

                def theirs(call: Callable[[Any], Any] = call, items: Sequence[Any] = items) -> None:
                    assert len(pool.map(call, items)) == len(items)

                print(
                    f"{len(arrays):4} x {megabytes:3} MB {name:12} {_compare(ours, theirs, options.rounds)}", flush=True
                )
    print(f"load {os.getloadavg()[0]:.1f}")
    ray.shutdown()


if __name__ == "__main__":
    main()
