"""Fields of a value by name, as data for a column of an export or for a label."""

from __future__ import annotations

import inspect
from typing import Any

#: Attributes of these types, such as ``real``, hold nothing that a user has put there.
_WITHOUT_FIELDS = frozenset({str, bytes, int, float, bool, type(None)})


def field_of(value: Any, name: str, default: Any = None) -> Any:
    """The value's attribute of that name; ``default`` if it has none. Errors of a property are raised.

    A method is no field, so that texts have no field ``title`` or ``count``; a function that the object itself holds is
    one. Numbers and texts have no fields.
    """
    if type(value) in _WITHOUT_FIELDS or not name.isidentifier():
        return default
    found = getattr(value, name, default)
    if not callable(found):
        return found
    held = inspect.getattr_static(value, name, None)
    is_own = held is found or inspect.isdatadescriptor(held)
    return found if is_own and not isinstance(value, type) else default
