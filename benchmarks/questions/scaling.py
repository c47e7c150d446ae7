"""What more workers bring: on items that need a CPU, on items that only wait, and on none."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.case import Case, Sizes
from benchmarks.handlers import burn, doze, echo

QUESTION = "How does the time depend on the number of workers?"
ROUNDS = 2


def cases(sizes: Sizes) -> list[Case]:
    most = max(32, 2 * (os.cpu_count() or 1))
    counts = [2**power for power in range(most.bit_length()) if 2**power <= most]
    counts = sizes.pick(counts, [1, 2], [1, 2])
    busy, tiny, waiting = sizes.pick(1_000, 500, 10), sizes.pick(200_000, 20_000, 100), sizes.pick(50, 20, 2)
    turns = sizes.loop.turns(1e-3)
    found = []
    for workers in counts:
        works: tuple[tuple[str, Callable[[int], int], Callable[[int], list[int]]], ...] = (
            (f"{busy:,} of 1 ms", burn, _equal(turns, busy)),
            (f"{tiny:,} no-ops", echo, _equal(1, tiny)),
            (f"{waiting} a worker that wait 5 ms", doze, _equal(5, waiting * workers)),
        )
        for name, handler, items in works:
            case = f"{name}, {workers} workers"
            found.append(
                Case(case, case, handler=handler, items=items, x=workers, workers=workers, repeats=2, limit=20.0)
            )
    return found


def _equal(item: int, count: int) -> Callable[[int], list[int]]:
    return lambda seed: [item] * count  # noqa: ARG005
