"""One item that takes a second, among many that take next to nothing: who waits behind it?"""

from __future__ import annotations

from benchmarks.case import UNEVEN, Case, Sizes
from benchmarks.handlers import burn

QUESTION = "Does anything wait behind one long item near the beginning?"
#: Where the long item is, as a fraction of all.
LONG_AT = 0.02


def cases(sizes: Sizes) -> list[Case]:
    count = sizes.pick(20_000, 20_000, 100)
    short, long = sizes.loop.turns(20e-6), sizes.loop.turns(sizes.pick(1.0, 1.0, 0.01))

    def items(seed: int) -> list[int]:  # noqa: ARG001
        made = [short] * count
        made[int(count * LONG_AT)] = long
        return made

    title = f"{count:,} of 20 us, one of 1 s early"
    return [Case("skewed", title, handler=burn, items=items, chunks_per_worker=UNEVEN)]
