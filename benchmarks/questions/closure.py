"""A handler that brings a table of 100 MB along, another one each time: sent once, or with every chunk?"""

from __future__ import annotations

from typing import Any

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender
from benchmarks.handlers import closed_over, look_up, weigh, weigh_with
from benchmarks.memory import most_of_each

QUESTION = "What does a handler with a 100 MB object of its own cost, and what do the workers hold of it?"

#: Those that can send a function that was made inside another one.
SEND_CLOSURES = ("mpqueue", "mpqueue.map", "mpqueue.Pool", "loky", "joblib", "dask", "ray")


def cases(sizes: Sizes) -> list[Case]:
    megabytes = sizes.pick(100, 100, 1)
    count = sizes.pick(2_000, 500, 20)
    numbers = list(range(count))

    def table(seed: int) -> Any:
        import numpy as np

        return np.arange(megabytes * 125_000, dtype=float) + seed

    def bound(contender: Contender, case: Case, seed: int) -> Measures:
        big = table(seed)
        chunksize = case.chunk(count, contender.workers)
        with Stopwatch() as watch:
            results = contender.map_with(look_up, big, numbers, chunksize)
        assert results == [float(seed + number) for number in numbers], "not the expected results"
        return watch.measures(count=count)

    def closed(contender: Contender, case: Case, seed: int) -> Measures:
        handler = closed_over(table(seed))
        chunksize = case.chunk(count, contender.workers)
        with Stopwatch() as watch:
            results = contender.map(handler, numbers, chunksize)
        assert results == [float(seed + number) for number in numbers], "not the expected results"
        return watch.measures(count=count)

    def weight(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        rounds = list(range(4 * contender.workers))
        before = most_of_each(contender.map(weigh, rounds, 1))
        held = most_of_each(contender.map_with(weigh_with, table(seed), rounds, 1 if contender.name != "ray" else 4))
        return {"megabytes": (held - before) / 1e6}

    works = sizes.pick("100 MB", "100 MB", "1 MB")
    # One chunk a worker, since some send the table with every chunk.
    return [
        Case("bound", f"{count:,} items, {works} bound by partial", measure=bound, warm=False, chunks_per_worker=1),
        Case(
            "closure",
            f"{count:,} items, {works} in a closure",
            measure=closed,
            warm=False,
            chunks_per_worker=1,
            contenders=SEND_CLOSURES,
        ),
        Case("weight", "MB that the workers hold of it", measure=weight, warm=False, repeats=1),
    ]
