"""Items whose length changes underway, so that no size of chunk is right for all of them."""

from __future__ import annotations

from benchmarks.case import UNEVEN, Case, Sizes
from benchmarks.handlers import burn

QUESTION = "What if items grow longer underway?"


def cases(sizes: Sizes) -> list[Case]:
    return [
        Case(
            "drifting",
            "9,000 of 10 us, then 1 ms, one of 400 ms",
            handler=burn,
            items=lambda seed: drifting(sizes),  # noqa: ARG005
            chunks_per_worker=UNEVEN,
        ),
        Case(
            "growing",
            "200 items from 1 us to 100 ms",
            handler=burn,
            items=lambda seed: growing(sizes),  # noqa: ARG005
            chunks_per_worker=UNEVEN,
            repeats=2,
        ),
    ]


def drifting(sizes: Sizes) -> list[int]:
    """10,000 items: 9,000 short ones, 1,000 longer ones, and near the end one that is longer than 399 others.

    After it come as many as take as long as it does alone: it stands at the last place from which those who take the
    items in turn can be as fast as the ideal.
    """
    turns, scale = sizes.loop.turns, sizes.pick(1, 1, 100)
    short, longer, after = [turns(10e-6)] * (9_000 // scale), [turns(1e-3)] * (999 // scale), 400 // scale
    return [*short, *longer[after:], turns(0.4 / scale), *longer[:after]]


def growing(sizes: Sizes) -> list[int]:
    """Each item longer than the one before by the same factor, 1 us to 100 ms."""
    count = sizes.pick(200, 100, 20)
    longest = sizes.pick(1e-1, 1e-1, 1e-3)
    return [sizes.loop.turns(1e-6 * (longest / 1e-6) ** (at / (count - 1))) for at in range(count)]
