"""What a report of each item costs: the parent's CPU time per item, with a listener and without.

mpqueue has an event for that, ``job:progress``; with other libraries, the caller loops over results as they arrive.
"""

from __future__ import annotations

from typing import Any

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender
from benchmarks.handlers import echo

QUESTION = "What does an item cost the parent, without and with a listener?"


def cases(sizes: Sizes) -> list[Case]:
    count = sizes.pick(200_000, 100_000, 1_000)

    def items(seed: int) -> list[int]:
        return list(range(seed, seed + count))

    def listening(contender: Contender, case: Case, seed: int) -> Measures:
        work, heard = items(seed), 0

        def tell(_: Any) -> None:
            nonlocal heard
            heard += 1

        with Stopwatch() as watch:
            contender.each(echo, work, case.chunk(count, contender.workers), tell)
        _await(lambda: heard >= count)
        assert heard == count, f"heard of {heard} items, not of {count}"
        return watch.measures(count=count)

    return [
        Case("without", f"{count:,} no-ops", items=items),
        Case("with", f"{count:,} no-ops, with a listener", items=items, measure=listening),
    ]


def _await(condition: Any) -> None:
    """Nobody is told after the call has returned; a second for those who do it all the same."""
    import time

    for _ in range(100):
        if condition():
            return
        time.sleep(0.01)
