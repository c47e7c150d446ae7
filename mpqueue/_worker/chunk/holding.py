"""Whether a handler keeps a hold on what it returns: then it may change that before it is pickled.

Results are pickled together, when a report is due. A handler that fills the same buffer each time would have changed
the results before by then. So the first result of each job in each worker is looked at, which costs 2 us and up to 30:
if something else refers to it, or to what is directly in it, each result is pickled as soon as it is returned.
"""

from __future__ import annotations

import enum
import gc
import sys
import types
from collections.abc import Iterator
from typing import Any

#: What can't be changed, so that it makes no difference who refers to it.
_FIXED = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type, enum.Enum),
    *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
)
#: The same of modules that a worker need not import for this.
_FIXED_MODULES = {"datetime", "decimal", "fractions", "pathlib", "uuid", "zoneinfo"}
#: So many parts of a result, and of the item, are looked at.
MOST = 200


def is_held(results: list[Any], at: int, item: Any) -> bool:
    """True where something refers to the result at that position, beside this list and the item.

    Or to one of the values or attributes that are directly in it, or to the array that it is a view of.
    """
    try:
        return not _is_fixed(results[at]) and _is_held(results, at, item)
    except Exception:  # whatever its class does
        return True


def _is_held(results: list[Any], at: int, item: Any) -> bool:
    of_item = {id(part) for part in _parts(item)}
    if id(results[at]) in of_item:
        return False
    if type(results[at]) not in (tuple, frozenset) and _count(results, at) > _FRESH:
        return True
    parts = [*{id(part): part for part in _within(results[at])[:MOST]}.values()]
    parts = [part for part in parts if not _is_fixed(part) and id(part) not in of_item]
    while parts:
        # What it is in holds it too.
        if _count([parts.pop()], 0) > _FRESH + 1:
            return True
    return False


def _count(holder: list[Any], at: int) -> int:
    return sys.getrefcount(holder[at])


#: What that is for what only the list refers to.
_FRESH = _count([object()], 0)


def _is_fixed(value: Any) -> bool:
    kind = type(value)
    if issubclass(kind, _FIXED) or kind.__module__ in _FIXED_MODULES:
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, (numpy.generic, numpy.dtype))


def _within(value: Any) -> list[Any]:
    """What is directly in it."""
    if type(value).__module__.partition(".")[0] == "numpy":
        return [value.base] if getattr(value, "base", None) is not None else []
    attributes = getattr(value, "__dict__", None)
    own = [*attributes.values()] if type(attributes) is dict else []
    return own + gc.get_referents(value)


def _parts(item: Any) -> Iterator[Any]:
    """The item, and what it refers to, and so on: the nearest first."""
    found, seen = [item], {id(item)}
    for part in found:
        yield part
        if len(found) < MOST and not issubclass(type(part), _FIXED):
            new = [other for other in gc.get_referents(part)[:MOST] if id(other) not in seen]
            seen.update(map(id, new))
            found += new
