"""Items whose times are log-normal: how near is a job to list scheduling, where the longest go first?

They sleep for as long as they say, so that 64 workers can be asked about on two CPUs. The bound is what list scheduling
would take: the longest item first, each to the worker that is free first, and nothing between two items. An item counts
as long as it has taken: on a busy machine nobody is woken in time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender, MPQueue
from benchmarks.handlers import nap, settle

QUESTION = "How near to list scheduling is a job whose longest items go first?"

COUNT, SIGMA = 300, 1.0
#: Workers, and seconds that an item in the middle takes.
MEDIANS = {2: 0.03, 64: 0.3}


def cases(sizes: Sizes) -> list[Case]:
    scale, repeats = sizes.pick(1.0, 0.5, 0.01), sizes.pick(3, 1, 1)
    return [
        _case(workers, median * scale, repeats, with_costs=with_costs)
        for workers, median in MEDIANS.items()
        for with_costs in (True, False)
    ]


def _case(workers: int, median: float, repeats: int, *, with_costs: bool) -> Case:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:
        assert isinstance(contender, MPQueue)
        contender.map(settle, range(4 * workers), 1)
        times = case.items(seed)
        with Stopwatch() as watch:
            job = contender.queue.run(times, nap, cost=times if with_costs else None)
        assert job.results == times
        took = [item.elapsed for item in job.items]
        contender.queue.clear_job(job.id)
        bound = list_scheduling(times, took, workers)
        return watch.measures(count=COUNT, bound=bound, ratio=watch.seconds / bound)

    how = "costs" if with_costs else "no costs"
    return Case(
        f"{how}, {workers} workers",
        f"{COUNT} log-normal items on {workers} workers, {how}",
        items=lambda seed: _times(seed, median),
        workers=workers,
        repeats=repeats,
        limit=180.0,  # 64 workers have to start
        measure=measure,
        warm=False,
        contenders=("mpqueue",),
    )


def _times(seed: int, median: float) -> list[float]:
    chance = random.Random(seed)
    return [median * chance.lognormvariate(0.0, SIGMA) for _ in range(COUNT)]


def list_scheduling(times: Sequence[float], took: Sequence[float], workers: int) -> float:
    """Seconds until the last item ends, the longest first by ``times``; what they ``took`` is a bit more."""
    free = [0.0] * workers
    for _, seconds in sorted(zip(times, took, strict=True), reverse=True):
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)
