"""How much of the time is the pool's own, for items that take from a microsecond to a second of CPU."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.case import Case, Sizes
from benchmarks.handlers import burn

QUESTION = "How near to the ideal are items of equal length, from 1 us to 1 s?"

#: (name, seconds, items of a full run, of a quick one)
WORKS = (
    ("1 us", 1e-6, 200_000, 50_000),
    ("10 us", 1e-5, 50_000, 20_000),
    ("100 us", 1e-4, 10_000, 5_000),
    ("1 ms", 1e-3, 2_000, 500),
    ("20 ms", 2e-2, 100, 30),
    ("1 s", 1.0, 0, 0),
)


def cases(sizes: Sizes) -> list[Case]:
    found = []
    for name, seconds, full, quick in WORKS:
        # of the longest ones two rounds over all workers
        count = sizes.pick(full or 2 * sizes.workers, quick, 6)
        if count and not (sizes.size == "smoke" and seconds > 0.1):
            turns = sizes.loop.turns(seconds)
            repeats = 1 if seconds >= 1 else 3
            found.append(
                Case(name, f"{count:,} of {name}", handler=burn, items=_equal(turns, count), x=seconds, repeats=repeats)
            )
    return found


def _equal(turns: int, count: int) -> Callable[[int], list[int]]:
    return lambda seed: [turns] * count  # noqa: ARG005
