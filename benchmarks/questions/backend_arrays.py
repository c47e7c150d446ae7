"""Arrays on a cluster's engine: by that engine's own ways, and by a queue on it. In, out, and both; and one for all.

As in `arrays`, who gets an array reads something of each of its pages within the time measured.
"""

from __future__ import annotations

from typing import Any

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender
from benchmarks.handlers import touch
from benchmarks.questions import arrays

QUESTION = "How does a queue on a cluster's engine compare with that engine alone, for arrays?"

#: An engine's own ways, and a queue on it.
CONTENDERS = ("mpqueue", "mpqueue on ray", "ray", "ray, a task each")
#: (MB, arrays of a full run, of a quick one)
WORKS = ((1.0, 100, 30), (8.0, 24, 8))
#: MB of an array that all items share, and how many items.
SHARED, READERS = 100, 8


def cases(sizes: Sizes) -> list[Case]:
    found = []
    for way in ("in", "out", "both"):
        for megabytes, full, quick in WORKS:
            count = sizes.pick(full, quick, 3)
            found.append(arrays.case(way, megabytes, count, 4, chunksize=max(1, count // 8), contenders=CONTENDERS))
    found.append(
        Case(
            "shared",
            f"{SHARED} MB that {READERS} items share",
            items=lambda seed: [seed + at for at in range(READERS)],
            repeats=4,
            limit=30.0,
            measure=_time_shared,
            contenders=CONTENDERS,
        )
    )
    return found


def touch_and_add(array: Any, item: int) -> float:
    """Read something of each page of what is shared."""
    return touch(array) + item


def _time_shared(contender: Contender, case: Case, seed: int) -> Measures:
    import numpy as np

    items, big = case.items(seed), np.full(SHARED * 125_000, 1.0)
    pages = touch(big)
    with Stopwatch() as watch:
        results = contender.map_with(touch_and_add, big, items, 1)
    assert results == [pages + item for item in items], "not the expected results"
    return watch.measures(count=len(items))
