"""When does one thread that decides everything become the limit? The real scheduler, and workers that only pretend.

Chunks of one length on 2 to 10,000 lanes, each a single item, so that the scheduler's own time a chunk can be told:
`Scheduler.handle` is timed, the pretended workers are not; in CPU time, which other programs make no longer. A step
takes one message in, and each chunk has two or three of them. What the rest of the coordinator's work on a chunk
costs (pickling a frame, loky's pipe, reading the answer) is measured on real workers, and added.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender, MPQueue
from benchmarks.handlers import echo

QUESTION = "How many workers can one coordinator feed, and with chunks how long?"
ROUNDS = 3

#: Seconds that the pretended chunks take.
CHUNK = 0.02
#: Seconds that a frame is under way.
LATENCY = 1e-4


def cases(sizes: Sizes) -> list[Case]:
    found = [
        Case(
            f"{lanes} lanes",
            f"{lanes:,} lanes",
            measure=_simulate(lanes, max(sizes.pick(8, 4, 2) * lanes, sizes.pick(4_000, 1_000, 50))),
            started=False,
            x=lanes,
            contenders=("mpqueue",),
            repeats=1,
            limit=300.0,
        )
        for lanes in sizes.pick((2, 8, 64, 128, 256, 512, 1_024, 10_000), (2, 64, 256, 1_024), (2, 64))
    ]
    real = Case("real", "2 real lanes", measure=_real(sizes.pick(5_000, 2_000, 50)), contenders=("mpqueue",))
    return [*found, real]


def _simulate(lanes: int, chunks: int) -> Callable[[Contender, Case, int], Measures]:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        from tests.support.fake_lanes import FakeLanes, succeed

        fleet = FakeLanes(lanes, latency=LATENCY)
        handle, taken, messages = fleet.scheduler.handle, 0.0, 0

        def timed(message: object, now: float) -> object:
            nonlocal taken, messages
            started = time.thread_time()
            commands = handle(message, now)  # type: ignore[arg-type]
            taken += time.thread_time() - started
            messages += 1
            return commands

        first = fleet.job([succeed(CHUNK)] * (2 * lanes), chunksize=1)
        fleet.start(first)
        fleet.run_until_over(first)
        job = fleet.job([succeed(CHUNK)] * chunks, chunksize=1)
        fleet.scheduler.handle = timed  # type: ignore[method-assign, assignment]
        began = fleet.now
        fleet.start(job)
        fleet.run_until_over(job)
        assert job.completed == chunks, "not all completed"
        return {
            "handle": taken / chunks,
            "step": taken / messages,
            "messages": messages / chunks,
            "simulated": fleet.now - began,
        }

    return measure


def _real(chunks: int) -> Callable[[Contender, Case, int], Measures]:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        assert isinstance(contender, MPQueue)
        items = list(range(chunks))
        with Stopwatch() as watch:
            job = contender.queue.run(items, echo, chunksize=1)
        assert job.results == items, "not the expected results"
        contender.queue.clear_job(job.id)
        return watch.measures(count=chunks)

    return measure
