"""Numbers and texts without the class that they have in a program, as workers and files get them.

A member of a `StrEnum` or an `IntEnum` is a text or a number wherever a user gives one. A worker, or the next program,
may not know its class: only the script that defines it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Types whose values are returned as they are.
PLAIN = frozenset({str, int, float, bool, type(None)})
#: These functions run no code of a class.
_COPIES: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__index__, float: float.__float__}


def plain(value: Any) -> Any:
    """Return a text or number without its class, running none of its code. Any other value is returned unchanged."""
    if type(value) not in PLAIN:
        for kind, copy in _COPIES.items():
            if issubclass(type(value), kind):
                return copy(value)
    return value
