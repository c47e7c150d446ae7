"""What batches carry besides arrays: 8 MB of each kind in, out, and both, fresh ones in each repeat.

Whoever gets one reads something of it within the time measured, in the worker and here. Kinds whose library is not
installed are left out.
"""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.case import Case, Measures, Sizes, timed_map
from benchmarks.contenders import Contender
from benchmarks.handlers import KINDS, give_back, make_kind, touch_kind

QUESTION = "What does it cost to send bytes, tensors, images and other big objects, to return them, or both?"

#: Objects of a full run, of a quick one.
FULL, QUICK = 20, 8


def cases(sizes: Sizes) -> list[Case]:
    count = sizes.pick(FULL, QUICK, 3)
    kinds = [kind for kind, library in KINDS.items() if importlib.util.find_spec(library) is not None]
    return [_case(kind, way, count, sizes.pick(3, 3, 1)) for kind in kinds for way in ("in", "out", "both")]


def _case(kind: str, way: str, count: int, repeats: int) -> Case:
    def orders(seed: int) -> list[tuple[str, int]]:
        return [(kind, (seed + at) % 250) for at in range(count)]

    def objects(seed: int) -> list[Any]:
        return [make_kind(order) for order in orders(seed)]

    handler, items = {"in": (touch_kind, objects), "out": (make_kind, orders), "both": (give_back, objects)}[way]
    return Case(
        f"{kind} {way}",
        f"{count} x 8 MB, {kind}, {way}",
        handler=handler,
        items=items,
        expected=partial(_each, handler),
        same=operator.eq if way == "in" else _all_equal,
        use=None if way == "in" else _touch_all,
        chunksize=1,
        repeats=repeats,
        measure=_timed_map,
    )


def _timed_map(contender: Contender, case: Case, seed: int) -> Measures:
    return timed_map(contender, case, 1 + seed)


def _each(handler: Any, items: Sequence[Any]) -> list[Any]:
    return [handler(item) for item in items]


def _touch_all(results: list[Any]) -> None:
    for result in results:
        touch_kind(result)


def _all_equal(results: list[Any], expected: list[Any]) -> bool:
    return [touch_kind(result) for result in results] == [touch_kind(wanted) for wanted in expected]
