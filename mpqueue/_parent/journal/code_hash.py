"""Whether a handler is still the code that it was: a hash of what it does, not of where it stands.

Moving a function, or changing a comment in it, changes nothing; what it calls is not looked at. A hint, no more:
another version of Python compiles to other code, so its hash begins with the version, and only equal ones compare.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def hash_code(*functions: Any) -> str:
    """The hash of these functions together; None stands for one that is not there."""
    digest = hashlib.blake2b(digest_size=16)
    for function in functions:
        for part in _parts(function):
            digest.update(repr(part).encode(errors="replace"))
        digest.update(b"\0")
    return f"{_VERSION}:{digest.hexdigest()}"


def differs(one: str | None, other: str | None) -> bool:
    """True where both are hashes of the same version of Python, and not equal."""
    if one is None or other is None or one.partition(":")[0] != other.partition(":")[0]:
        return False
    return one != other


def _parts(function: Any) -> Iterator[Any]:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.ismethod(function):
        function = function.__func__
    function = inspect.unwrap(function) if callable(function) else function
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) and function is not None and not inspect.isbuiltin(function):
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004 - the method itself
        yield getattr(type(function), "__qualname__", "")
    if isinstance(code, CodeType):
        yield from _parts_of_code(code)
    else:
        yield getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def _parts_of_code(code: CodeType) -> Iterator[Any]:
    yield code.co_code, code.co_names, code.co_varnames, code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts_of_code(constant)
        else:
            # a set's order changes from process to process
            yield sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
