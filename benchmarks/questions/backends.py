"""The same items on a cluster's engine: by its own map, and by a queue on it, whose chunks hold as many as do it good.

Beside both, the queue on its default engine, on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.case import Case, Sizes
from benchmarks.handlers import burn

QUESTION = "How does a queue on a cluster's engine compare with that engine alone?"

#: (name, seconds, items of a full run, of a quick one)
WORKS = (("20 ms", 2e-2, 400, 30), ("1 ms", 1e-3, 2_000, 500), ("10 us", 1e-5, 5_000, 2_000))
#: An engine's own map, and a queue on it.
CONTENDERS = ("mpqueue", "mpqueue on dask", "dask", "mpqueue on ray", "ray", "ray, a task each")


def cases(sizes: Sizes) -> list[Case]:
    found = []
    for name, seconds, full, quick in WORKS:
        count = sizes.pick(full, quick, 6)
        items = _equal(sizes.loop.turns(seconds), count)
        title = f"{count:,} of {name}"
        found.append(Case(name, title, handler=burn, items=items, x=seconds, repeats=2, contenders=CONTENDERS))
    return found


def _equal(turns: int, count: int) -> Callable[[int], list[int]]:
    return lambda seed: [turns] * count  # noqa: ARG005
