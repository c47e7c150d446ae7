"""Whether a handler is still the code that it was: a hash of what it does, not of where it stands.

It covers the code, what was bound to it (arguments of a `functools.partial`, variables of a closure, defaults), and the
global variables it uses that are plain data. Moving a function, or changing a comment in it, changes nothing; functions
that it calls by their global names are not looked at. A hint, no more: another version of Python compiles to other
code, so a hash begins with the version, and only equal ones compare.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from mpqueue._parent.journal.items.identity import encode_plain

#: Of Python, and of what is covered here.
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}/2"


def hash_code(*functions: Any) -> str:
    """The hash of these functions together; None stands for one that is not there."""
    digest = hashlib.blake2b(digest_size=16)
    for function in functions:
        for part in _parts(function, set()):
            digest.update(part if isinstance(part, bytes) else repr(part).encode(errors="replace"))
        digest.update(b"\0")
    return f"{_VERSION}:{digest.hexdigest()}"


def differs(one: str | None, other: str | None) -> bool:
    """True where both are hashes of the same version of Python, and not equal."""
    if one is None or other is None or one.partition(":")[0] != other.partition(":")[0]:
        return False
    return one != other


def _parts(function: Any, seen: set[int]) -> Iterator[Any]:
    while isinstance(function, functools.partial):
        yield from _bound(
            [*function.args, *(part for pair in sorted(function.keywords.items()) for part in pair)], seen
        )
        function = function.func
    if inspect.ismethod(function):
        function = function.__func__
    function = inspect.unwrap(function) if callable(function) else function
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) and function is not None and not inspect.isbuiltin(function):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - the method itself
        code = getattr(function, "__code__", None)
        yield getattr(function, "__qualname__", "")
    if isinstance(code, CodeType):
        yield from _parts_of_code(code)
        yield from _surroundings(function, code, seen)
    else:
        yield getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def _surroundings(function: Any, code: CodeType, seen: set[int]) -> Iterator[Any]:
    """What the function brings along, and the plain global data that its code names."""
    if id(function) in seen:
        return
    seen.add(id(function))
    yield from _bound([*(getattr(function, "__defaults__", None) or ())], seen)
    yield from _bound([each for pair in sorted((function.__kwdefaults__ or {}).items()) for each in pair], seen)
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield from _bound([cell.cell_contents], seen)
        except ValueError:  # it is empty
            continue
    space = getattr(function, "__globals__", {})
    for name in sorted(_names_in(code)):
        form = encode_plain(space[name]) if name in space else None
        if form is not None:
            yield name, form


def _bound(values: list[Any], seen: set[int]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, FunctionType | functools.partial) or inspect.ismethod(value):
            yield from _parts(value, seen)
        else:
            yield encode_plain(value) or type(value).__qualname__


def _names_in(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def _parts_of_code(code: CodeType) -> Iterator[Any]:
    yield code.co_code, code.co_names, code.co_varnames, code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts_of_code(constant)
        else:
            # a set's order changes from process to process
            yield sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
