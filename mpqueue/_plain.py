"""Plain data: numbers and texts without their class, as workers and files get them, and the fields of a value by name.

A member of a `StrEnum` or an `IntEnum` is a text or a number wherever a user gives one. A worker, or the next program,
may not know its class: only the script that defines it does.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from pathlib import PurePath

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


#: Immutable types of the standard library that run no users' code. Loading their modules takes 6 ms and 1 MB.
STANDARD = {
    "decimal": ("Decimal",),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "uuid": ("UUID",),
}


def standard_types(types: Mapping[str, Sequence[str]] = STANDARD) -> list[type]:
    """Return those of these types of which there can be values: a module that is not imported has made none. 1 us."""
    loaded = ((sys.modules[module], names) for module, names in types.items() if module in sys.modules)
    # One that another thread is just importing has no values yet.
    return [kind for module, names in loaded for name in names if (kind := getattr(module, name, None)) is not None]


def is_path(value: object) -> TypeGuard[PurePath]:
    """True for a path of `pathlib`, which is loaded only to look at what may be one."""
    if not isinstance(value, os.PathLike):
        return False
    from pathlib import PurePath

    return isinstance(value, PurePath)


# -- Fields of a value by name, as data for a column of an export or for a label. --------------------------------------

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
