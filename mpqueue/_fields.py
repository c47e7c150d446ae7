"""A value's fields by name, as data: shown by a column of an export, or by a label."""

from __future__ import annotations

import inspect
from typing import Any

#: What their attributes hold, such as ``real``, is nothing that a user has put there.
_WITHOUT_FIELDS = frozenset({str, bytes, int, float, bool, type(None)})


def field_of(value: Any, name: str, default: Any = None) -> Any:
    """The value's attribute of that name; ``default`` where it has none. Raises what a property raises.

    A method is no field, so that ``title`` and ``count`` are not found in each text. A function that the object itself
    holds is one. Numbers and texts have no fields.
    """
    if type(value) in _WITHOUT_FIELDS or not name.isidentifier():
        return default
    found = getattr(value, name, default)
    if not callable(found):
        return found
    held = inspect.getattr_static(value, name, None)
    is_own = held is found or inspect.isdatadescriptor(held)
    return found if is_own and not isinstance(value, type) else default
