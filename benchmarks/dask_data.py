"""What big items and results take on Dask, in a queue and in Dask's own ways, as times of one run.

    .venvs/bench/bin/python -m benchmarks.dask_data [--size 1000000] [--count 100] [--rounds 5] [--apart]

The cluster is that of `dask_costs`. Each round asks the same of all; the best of all rounds counts, since whatever
disturbs a measurement makes it longer. "Dask / queue" below 1 means that Dask is faster.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from distributed import Client

import mpqueue
from benchmarks.dask_costs import cluster
from mpqueue import JobQueue
from mpqueue._engines.agent import node_pool
from mpqueue.backends import DaskBackend


def _take(array: Any) -> int:
    return len(array)


def _give(size: int, item: int) -> Any:
    return np.full(size, item % 100, np.uint8)


def _take_and_give(array: Any) -> Any:
    return array + 1


def _look(shared: Any, item: int) -> int:
    return int(shared[item])


def _works(size: int, count: int, client: Client, queue: JobQueue) -> dict[str, tuple[Callable[[], object], ...]]:
    """By name: the queue's way and Dask's."""
    arrays = [_give(size, item) for item in range(count)]
    model = _give(100_000_000, 1)

    def in_both(call: Callable[..., Any], items: Any) -> tuple[Callable[[], object], ...]:
        return lambda: queue.run(items, call), lambda: client.gather(client.map(call, items, pure=False))

    def share() -> None:
        queue.run(range(8), partial(_look, mpqueue.share(model)), chunksize=1)

    def scatter() -> None:
        held = client.scatter(model, hash=False)
        client.gather([client.submit(_look, held, item, pure=False) for item in range(8)])

    return {
        "in": in_both(_take, arrays),
        "out": in_both(partial(_give, size), range(count)),
        "in and out": in_both(_take_and_give, arrays),
        "100 MB shared, 8 items": (share, scatter),
    }


def _have_none() -> None:
    """No segment for agents to try."""


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes of an array")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--apart", action="store_true", help="as if the workers were on another machine")
    options = parser.parse_args()
    if options.apart:
        node_pool.make_anchor = _have_none  # type: ignore[assignment]
    with (
        cluster(options.threads) as (address, _, _),
        Client(address, set_as_default=False) as client,
        JobQueue(options.threads, backend=DaskBackend(address)) as queue,
    ):
        client.wait_for_workers(1)
        queue.run(range(10), abs, chunksize=1)
        works = _works(options.size, options.count, client, queue)
        best = {name: [float("inf")] * len(ways) for name, ways in works.items()}
        for _ in range(options.rounds):
            for name, ways in works.items():
                best[name] = [min(took, _time(way)) for took, way in zip(best[name], ways, strict=True)]
    print(f"{options.count} arrays of {options.size} bytes, load {os.getloadavg()[0]:.1f}")
    for name, (ours, theirs) in best.items():
        print(f"{name:24} queue {ours:7.3f} s  Dask {theirs:7.3f} s  Dask / queue {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
