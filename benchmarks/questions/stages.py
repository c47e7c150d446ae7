"""Arrays of 8 MB that go through several handlers, one after the other: from worker to worker, or by way of the parent?

The first handler makes an array, the second makes another one of it, the third reads something of each of its pages.
Beside that: one stage, which gets an array from here and brings another one home; and all three in one call, where no
array goes anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender
from benchmarks.handlers import all_three, double, fill, touch

QUESTION = "What does it cost to hand arrays from handler to handler?"

BYTES = 8_000_000
#: Those that have a way to chain calls.
CONTENDERS = ("mpqueue", "concurrent.futures", "loky", "dask", "ray")
Handlers = tuple[Callable[[Any], Any], ...]


def cases(sizes: Sizes) -> list[Case]:
    count, repeats = sizes.pick(40, 16, 3), sizes.pick(3, 3, 1)
    works: list[tuple[str, str, Handlers, Callable[[int, int], list[Any]]]] = [
        ("one stage", "in and out of one stage", (double,), _arrays),
        ("three stages", "through three stages", (fill, double, touch), _orders),
        ("three in one", "through three functions in one call", (all_three,), _orders),
    ]
    return [_case(name, f"{count} x 8 MB {title}", fns, make, count, repeats) for name, title, fns, make in works]


def _case(
    name: str, title: str, fns: Handlers, make: Callable[[int, int], list[Any]], count: int, repeats: int
) -> Case:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:
        items = case.items(seed)
        with Stopwatch() as watch:
            results = contender.through(fns, items)
            if len(fns) == 1 and fns[0] is double:
                results = [touch(array) for array in results]
        assert results == [_alone(fns, item) for item in items]
        return watch.measures(count=count)

    return Case(
        name,
        title,
        items=lambda seed: make(seed, count),
        repeats=repeats,
        chunksize=1,
        measure=measure,
        warm=False,
        contenders=CONTENDERS,
    )


def _arrays(seed: int, count: int) -> list[Any]:
    return [fill(order) for order in _orders(seed, count)]


def _orders(seed: int, count: int) -> list[int]:
    return [BYTES // 8 * 1_000_000 + (seed + at) % 1_000_000 for at in range(count)]


def _alone(fns: Sequence[Callable[[Any], Any]], item: Any) -> float:
    for fn in fns:
        item = fn(item)
    return item if isinstance(item, float) else touch(item)
