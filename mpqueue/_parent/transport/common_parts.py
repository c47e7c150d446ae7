"""Whether calls that are sent together have a part in common that may be changed: in one pickle it would be one object.

The standard library pickles each call by itself, so what one call changes no other sees. Calls are pickled together
where that makes no difference, since it takes a tenth of the time.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import pathlib
import uuid
from collections.abc import Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

from mpqueue._parent.transport.harmless import is_plain_array
from mpqueue._wire.pickling.packed_functions import PackedFunction, ScriptFunction, is_importable, writes_its_closure
from mpqueue._worker.handlers.called import Call

#: Types whose objects can't be changed: it makes no difference who refers to them.
_FIXED = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, type(...), dt.date, dt.datetime, dt.time, dt.timedelta}
    | {dt.timezone, decimal.Decimal, pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, uuid.UUID}
)
_CONTAINERS = frozenset({tuple, list, dict, set, frozenset})
_UNCHANGEABLE = frozenset({tuple, frozenset})  #: only what is in them counts
#: As what is called: they bring nothing, or what a function of a module would keep from call to call as well.
_FUNCTIONS = frozenset({FunctionType, PackedFunction, ScriptFunction, type})
_METHODS = frozenset({MethodType, BuiltinFunctionType, MethodWrapperType})
#: So many parts of a call are looked at: to look at more would take longer than to pickle it by itself.
_MOST = 256


def have_parts_in_common(items: Sequence[Any]) -> bool:
    """True where these are calls, and two may have something in common that can be changed.

    Also where that can't be seen, inside an object of any class; and where a function that is pickled by value is sent
    together with another one, which may name the same class. 0.7 us a call, and 0.1 us for each part of it; runs no
    code of anyone's.
    """
    if len(items) == 1 or type(items[0]) is not Call:
        return False
    first: dict[int, int] = {}  #: by the id of a part, the call that has it
    before = items[0].function
    for at, (function, args, kwargs) in enumerate(items):
        if function is not before:
            if _goes_by_value(function) or _goes_by_value(before):
                return True
            before = function
        parts: list[Any] = [args]
        if kwargs:
            parts.append(kwargs)
        if type(function) not in _FUNCTIONS or (type(function) is FunctionType and function.__closure__):
            parts += _brought(function)
        if _may_share(parts, at, first):
            return True
    return False


def _goes_by_value(function: Any) -> bool:
    """Whether it is in the pickle itself, rather than apart or by its name."""
    if type(function) is ScriptFunction:
        return function.goes_anew is not False
    return type(function) is FunctionType and not is_importable(function)


def _may_share(parts: list[Any], at: int, first: dict[int, int]) -> bool:
    """Whether one of the parts, or what they consist of, is another call's, or may be."""
    for looked_at, part in enumerate(parts):  # which grows meanwhile
        kind = type(part)
        if kind in _FIXED:
            continue
        if kind not in _UNCHANGEABLE and first.setdefault(id(part), at) != at:
            return True
        if kind not in _CONTAINERS:
            if not is_plain_array(part):
                return True
        elif looked_at + len(part) > _MOST:
            return True
        else:
            parts += part
            if kind is dict:
                parts += part.values()
    return False


def _brought(function: Any) -> list[Any]:
    """What such a callable brings to its call, beside the arguments."""
    kind = type(function)
    if kind in _METHODS:
        owner = function.__self__
        return [] if owner is None or issubclass(type(owner), type | ModuleType) else [owner]
    if kind is FunctionType:
        return [function] if writes_its_closure(function.__code__) else []
    if issubclass(kind, functools.partial):
        own = [] if kind is functools.partial else [function]
        return [*own, *function.args, *function.keywords.values(), *_brought(function.func)]
    return [] if kind in _FUNCTIONS else [function]
