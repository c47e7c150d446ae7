"""What a million items weigh in the parent, beyond the list that the user has anyway: while they run, and when done.

The handler returns None, so the results weigh nothing but their place in the list.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks import memory
from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender, MPQueue
from benchmarks.handlers import nothing

QUESTION = "How much memory do many items take in the parent, and how soon are they sent?"


def cases(sizes: Sizes) -> list[Case]:
    counts = sizes.pick((10_000, 100_000, 1_000_000), (500_000,), (10_000,))
    return [
        Case(
            f"{count}", f"{count:,} items", handler=nothing, measure=_weigh(count), x=count, repeats=1,
            items=lambda seed: list(range(seed, seed + 100)),
        )
        for count in counts
    ]  # fmt: skip


def _weigh(count: int) -> Callable[[Contender, Case, int], Measures]:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        items = list(range(count))
        before = memory.resident()
        memory.forget_peak()
        measures: Measures = {}
        held: Any
        with Stopwatch() as watch:
            if isinstance(contender, MPQueue):
                started = time.perf_counter()
                held = contender.queue.create_job("many", items, nothing)
                measures["create"] = time.perf_counter() - started
                contender.queue.start("many").result()
            else:
                held = contender.map(nothing, items, case.chunk(count, contender.workers))
        highest, after = memory.peak(), memory.resident()
        if isinstance(contender, MPQueue):
            assert held.completed == count, "not all completed"
            contender.queue.clear_job("many")
        else:
            assert held == [None] * count, "not the expected results"
        return watch.measures(
            count=count,
            running_bytes=max(0, highest - before) / count,
            done_bytes=max(0, after - before) / count,
            **measures,
        )

    return measure
