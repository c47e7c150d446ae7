"""The results that may wait to be pickled together: those that nothing can change before.

Handlers may return the same buffer, list or object each time, or something that refers to it. So a result waits only
where it can't be changed, or is a small list, tuple or dict of what can't, and `sys.getrefcount` says that nothing
refers to it. Everything else is pickled before the next item runs. That costs 20 ns a result, 100 to 150 ns where it
is one of these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

#: Types whose objects can't be changed: it makes no difference who refers to them.
FIXED = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS = frozenset({list, tuple, dict})
#: Larger or deeper lists, tuples and dicts are pickled at once: to look through them would take as long.
MOST, DEPTH = 16, 3


def run_up_to_held(results: Iterator[Any], out: list[Any], added: dict[int, Any]) -> Any:
    """Run items, whose results go to ``out``, up to one whose result must not wait: returns that.

    Nor must one that brings items along, which are in ``added``. Raises what an item raises, at the end StopIteration.
    """
    append, fixed = out.append, FIXED
    while True:
        result = next(results)
        if (type(result) in fixed or _is_own(result)) and not added:
            append(result)
        else:
            return result


def _is_own(result: Any, depth: int = 0) -> bool:
    """True for a small list, tuple or dict that is new, and so is each in it; all else in it is of `FIXED` types."""
    kind = type(result)
    if kind not in _CONTAINERS or len(result) > MOST or depth > DEPTH:
        return False
    # The loop below, and what it is in, refer to a part.
    is_new = sys.getrefcount(result) <= (_fresh + 1 if depth else _fresh)
    if not is_new and kind is not tuple:
        return False
    if kind is dict:
        for key in result:
            if type(key) not in FIXED:
                return False
    # Two loops: `items` would refer to a part as well. Neither is `issuperset`: few parts are quicker one by one.
    for part in result.values() if kind is dict else result:
        if type(part) not in FIXED and not (is_new and _is_own(part, depth + 1)):
            return False
    return True


def _count_fresh() -> int:
    """Return what `sys.getrefcount` says in `_is_own` of a list that is new: it differs between Pythons.

    Found by trying, in the very same code, after Python has made that quick.
    """
    global _fresh
    for _fresh in range(100):
        try:
            for _ in range(100):
                run_up_to_held(map(list, [()]), [], {})
        except StopIteration:  # it went to the list
            return _fresh
    raise AssertionError("expected new lists to be referred to less than 100 times")


#: A debugger may refer to it as well just now; in no Python that we know there are more than these.
_fresh = min(_count_fresh(), 3)
