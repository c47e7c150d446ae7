"""What an item costs that does nothing: all of the time is the pool's own."""

from __future__ import annotations

from benchmarks.case import Case, Sizes

QUESTION = "What does it cost to run 500,000 items that do nothing?"


def cases(sizes: Sizes) -> list[Case]:
    count = sizes.pick(500_000, 500_000, 2_000)
    return [Case("noop", f"{count:,} no-ops", items=lambda seed: list(range(seed, seed + count)))]
