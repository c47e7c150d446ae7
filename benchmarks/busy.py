"""Items that keep a CPU busy for a known time: the checksum of how many bytes takes so long, on this machine, today.

The bytes (turns) are fixed before the first measurement, so every contender gets the same work, whatever disturbs it.
How long that work really takes where all CPUs are busy is measured again in each round, by the contender named "ideal".

A checksum, since it takes the same CPU time in every process, within 1%. An empty loop of Python's does not: on an
AMD EPYC 9005 it took 8% more in the workers of one pool than in those of another, always the same ones, and which of
them depended on how the loop was written. It is where its few objects happen to lie that decides.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass

from benchmarks.handlers import burn

SHORT, LONG = 1_000, 20_000_000


@dataclass(frozen=True, slots=True)
class Loop:
    """Seconds of CPU time that `burn` takes: ``call + turns / rate``."""

    rate: float
    call: float

    def turns(self, seconds: float) -> int:
        """The turns that take so long."""
        return max(0, round((seconds - self.call) * self.rate))


def calibrate(workers: int) -> Loop:
    """Measure the loop in as many processes as there will be workers, at the same time; the best of each counts."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(workers), context.SimpleQueue()
    processes = [context.Process(target=_measure, args=(barrier, answers)) for _ in range(workers)]
    for process in processes:
        process.start()
    measured = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    short = sum(short for short, _ in measured) / workers
    long = sum(long for _, long in measured) / workers
    rate = (LONG - SHORT) / (long - short)
    return Loop(rate, max(0.0, short - SHORT / rate))


def _measure(barrier: object, answers: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    short = min(_time_calls(SHORT, 2_000) for _ in range(15))
    long = min(_time_calls(LONG, 1) for _ in range(15))
    answers.put((short, long))  # type: ignore[attr-defined]


def _time_calls(turns: int, calls: int) -> float:
    started = time.thread_time()
    for _ in range(calls):
        burn(turns)
    return (time.thread_time() - started) / calls
