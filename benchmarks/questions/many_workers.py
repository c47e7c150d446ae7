"""Does one coordinator keep thousands of workers busy? The real scheduler, workers that only pretend, simulated time.

Items of 50 ms, all alike or log-normal, as many as take all workers 60 s; on nodes of a cluster items of 1 s, for 300
s, since a chunk lasts 10 s there. The coordinator is a server: each message takes it the CPU time that the scheduler
really takes for it, here and now, and what else a chunk and an item cost it, as measured on real workers; messages that
come meanwhile wait. So workers wait where it is too busy.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.case import Case, Measures, Sizes
from benchmarks.contenders import Contender

if TYPE_CHECKING:
    from mpqueue._core.messages import Message

QUESTION = "Does one coordinator keep thousands of workers busy?"
ROUNDS = 1

#: Seconds that an item takes on average, also on nodes; and by how much their logarithms differ where they are uneven.
ITEM, ITEM_ON_NODES, SPREAD = 0.05, 1.0, 1.0
#: Seconds that a frame, a report or a look at a worker is under way.
LATENCY = 1e-3
#: Seconds that a chunk, and an item, cost the coordinator outside of the scheduler: pickling, reading the answer. As
#: `benchmarks.chunk_price` measures them, rounded up; on nodes of a cluster with ``--nodes``.
CHUNK_OTHER, ITEM_OTHER = 69e-6, 0.3e-6
CHUNK_OTHER_ON_NODES = 300e-6


def cases(sizes: Sizes) -> list[Case]:
    here, seconds = sizes.pick((64, 1_024, 10_000), (64, 1_024, 10_000), (64,)), sizes.pick(60.0, 20.0, 0.5)
    on_nodes, longer = sizes.pick(10_000, 10_000, 64), sizes.pick(300.0, 100.0, 5.0)
    each = [(lanes, "", ITEM, seconds) for lanes in here] + [(on_nodes, " on nodes", ITEM_ON_NODES, longer)]
    return [
        Case(
            f"{lanes} {kind}{where}",
            f"{lanes:,} workers{where}, items of {item:g} s{'' if kind == 'even' else ' on average, log-normal'}",
            measure=_measure(lanes, kind == "uneven", item, int(lanes * seconds / item), on_nodes=bool(where)),
            started=False,
            x=lanes,
            contenders=("mpqueue",),
            repeats=1,
            limit=900.0,
        )
        for lanes, where, item, seconds in each
        for kind in ("even", "uneven")
    ]


def _measure(
    lanes: int, is_uneven: bool, item: float, count: int, *, on_nodes: bool
) -> Callable[[Contender, Case, int], Measures]:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        from mpqueue._core.commands import Capabilities
        from mpqueue._core.messages import ChunkSent, Message
        from mpqueue._engines.agent.node_pool import CAPABILITIES
        from tests.support.cluster import Cluster

        rng = random.Random(seed)
        middle = math.log(item) - SPREAD**2 / 2
        items = array("d", (rng.lognormvariate(middle, SPREAD) if is_uneven else item for _ in range(count)))
        engine, other = (CAPABILITIES, CHUNK_OTHER_ON_NODES) if on_nodes else (Capabilities(), CHUNK_OTHER)
        cluster = Cluster(lanes, latency=LATENCY, service=partial(_service, other), engine=engine)
        job = cluster.work(items)
        began = time.thread_time()
        gc.disable()  # it would look at the pretended workers, which a program does not have
        try:
            cluster.start(job)
            cluster.run_until_over(job)
        finally:
            gc.enable()
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


def _service(chunk: float, message: Message, taken: float) -> float:
    """What a message costs the coordinator."""
    from mpqueue._core.messages import ChunkReported, ChunkSent

    match message:
        case ChunkSent():
            return taken + chunk / 2
        case ChunkReported(first=first, done=done):
            return taken + chunk / 2 + ITEM_OTHER * (done - first)
        case _:
            return taken
