"""The round trip: one item, on workers that are there already and have nothing else to do."""

from __future__ import annotations

import statistics
import time

from benchmarks.case import Case, Measures, Sizes
from benchmarks.contenders import Contender
from benchmarks.handlers import echo

QUESTION = "How long does one item take on a warm pool?"


def cases(sizes: Sizes) -> list[Case]:
    trips = sizes.pick(200, 50, 3)

    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        taken = []
        for number in range(trips):
            started = time.perf_counter()
            result = contender.one(echo, number)
            taken.append(time.perf_counter() - started)
            assert result == number, "not the expected result"
        return {"seconds": statistics.median(taken), "best": min(taken), "worst": max(taken)}

    return [Case("one item", f"one item (median of {trips})", items=lambda seed: [seed], measure=measure)]
