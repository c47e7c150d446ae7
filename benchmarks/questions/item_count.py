"""From how many items on a pool is fast: the fixed cost of a map, and how it spreads over its items."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.case import Case, Sizes

QUESTION = "How does the cost of an item depend on the number of items?"


def cases(sizes: Sizes) -> list[Case]:
    counts = sizes.pick((1, 10, 100, 1_000, 10_000, 100_000, 1_000_000), (1, 100, 10_000), (1, 10))
    return [
        Case(f"{count}", f"{count:,}", items=_numbers(count), x=count, repeats=5 if count <= 1_000 else 2)
        for count in counts
    ]


def _numbers(count: int) -> Callable[[int], list[int]]:
    return lambda seed: list(range(seed, seed + count))
