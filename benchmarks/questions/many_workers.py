"""Does one coordinator keep thousands of workers busy? The real scheduler, workers that only pretend, simulated time.

Items of 50 ms, all alike or log-normal, as many as take all workers 60 s. The coordinator is a server: each message
takes it the CPU time that the scheduler really takes for it, here and now, and what else a chunk and an item cost it,
as measured on real workers; messages that come meanwhile wait. So workers wait where it is too busy.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.case import Case, Measures, Sizes
from benchmarks.contenders import Contender

if TYPE_CHECKING:
    from mpqueue._core.messages import Message

QUESTION = "Does one coordinator keep thousands of workers busy?"
ROUNDS = 1

#: Seconds that an item takes on average, and of how many the logarithms differ by where they are uneven.
ITEM, SPREAD = 0.05, 1.0
#: Seconds that a frame, a report or a look at a worker is under way.
LATENCY = 1e-3
#: Seconds that a chunk, and an item, cost the coordinator outside of the scheduler: pickling, reading the answer. As
#: `benchmarks.chunk_price` measures them, rounded up.
CHUNK_OTHER, ITEM_OTHER = 69e-6, 0.3e-6


def cases(sizes: Sizes) -> list[Case]:
    seconds = sizes.pick(60.0, 20.0, 0.5)
    return [
        Case(
            f"{lanes} {kind}",
            f"{lanes:,} workers, items of 50 ms{'' if kind == 'even' else ' on average, log-normal'}",
            measure=_measure(lanes, kind == "uneven", int(lanes * seconds / ITEM)),
            started=False,
            x=lanes,
            contenders=("mpqueue",),
            repeats=1,
            limit=900.0,
        )
        for lanes in sizes.pick((64, 1_024, 10_000), (64, 1_024, 10_000), (64,))
        for kind in ("even", "uneven")
    ]


def _measure(lanes: int, is_uneven: bool, count: int) -> Callable[[Contender, Case, int], Measures]:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        from mpqueue._core.messages import ChunkSent, Message
        from tests.support.cluster import Cluster

        rng = random.Random(seed)
        middle = math.log(ITEM) - SPREAD**2 / 2
        items = array("d", (rng.lognormvariate(middle, SPREAD) if is_uneven else ITEM for _ in range(count)))
        cluster = Cluster(lanes, latency=LATENCY, service=_service)
        job = cluster.work(items)
        began = time.thread_time()
        cluster.start(job)
        cluster.run_until_over(job)
        assert job.completed == count, "not all completed"
        chunks = cluster.counts[ChunkSent]
        return {
            "utilisation": cluster.utilisation,
            "busy": cluster.busy,
            "scheduler": sum(cluster.steps) / cluster.elapsed,
            "step": statistics.median(cluster.steps),
            "longest": max(cluster.steps),
            "chunk": sum(cluster.steps) / chunks,
            "chunks": chunks,
            "items": count / chunks,
            "aim": cluster.books.aim,
            "simulated": cluster.elapsed,
            "seconds": time.thread_time() - began,
            "messages": {kind.__name__: number for kind, number in cluster.counts.items() if issubclass(kind, Message)},
        }

    return measure


def _service(message: Message, taken: float) -> float:
    """What a message costs the coordinator."""
    from mpqueue._core.messages import ChunkReported, ChunkSent

    match message:
        case ChunkSent():
            return taken + CHUNK_OTHER / 2
        case ChunkReported(first=first, done=done):
            return taken + CHUNK_OTHER / 2 + ITEM_OTHER * (done - first)
        case _:
            return taken
