"""Arrays in, out, and both, from 0.1 to 64 MB, fresh ones in each repeat.

Whoever gets an array reads something of each of its pages within the time measured, in the worker and here: an array
that is only mapped has not arrived yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.case import Case, Measures, Sizes, timed_map
from benchmarks.contenders import Contender
from benchmarks.handlers import double, fill, touch

QUESTION = "What does it cost to send arrays, to return them, or both?"

#: (MB, arrays of a full run, of a quick one)
WORKS = ((0.1, 400, 200), (1.0, 100, 0), (8.0, 40, 16), (64.0, 6, 0))


def cases(sizes: Sizes) -> list[Case]:
    found = []
    for way in ("in", "out", "both"):
        for megabytes, full, quick in WORKS:
            count = sizes.pick(full, quick, 3 if megabytes <= 1 else 0)
            if count:
                found.append(case(way, megabytes, count, sizes.pick(3, 3, 1)))
    return found


def case(
    way: str, megabytes: float, count: int, repeats: int, *, chunksize: int = 1, contenders: tuple[str, ...] = ()
) -> Case:
    """So many arrays, that way."""
    length = int(megabytes * 1e6 / 8)

    def arrays(seed: int) -> list[Any]:
        import numpy as np

        return [np.full(length, float(seed + at)) for at in range(count)]

    def orders(seed: int) -> list[int]:
        return [length * 1_000_000 + (seed + at) % 1_000_000 for at in range(count)]

    handler, items = {"in": (touch, arrays), "out": (fill, orders), "both": (double, arrays)}[way]
    return Case(
        f"{way} {megabytes:g} MB",
        f"{count} x {megabytes:g} MB {way}",
        handler=handler,
        items=items,
        expected=_each(handler),
        same=_all_equal,
        use=None if way == "in" else _touch_all,
        chunksize=chunksize,
        repeats=repeats,
        x=megabytes,
        contenders=contenders,
        measure=_timed_map,
    )


def _timed_map(contender: Contender, case: Case, seed: int) -> Measures:
    return timed_map(contender, case, 1 + seed)


def _each(handler: Callable[[Any], Any]) -> Callable[[Sequence[Any]], list[Any]]:
    return lambda items: [handler(item) for item in items]


def _touch_all(results: list[Any]) -> None:
    for array in results:
        touch(array)


def _all_equal(results: list[Any], expected: list[Any]) -> bool:
    import numpy as np

    return all(np.array_equal(result, wanted) for result, wanted in zip(results, expected, strict=True))
