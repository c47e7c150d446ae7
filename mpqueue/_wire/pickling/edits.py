"""Edits that a program has taken over without a reload: IPython's ``%autoreload`` changes what a module holds in place.

Such a module keeps its ``__spec__``. Two things together tell: the source of a name was edited in the module's file,
and what the module holds under that name has changed. An edit alone was not taken over; a change alone is what any
program does to its variables.

Runs no code of users: what they hold is compared by identity. Knows nothing of workers.
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator
from operator import attrgetter, is_
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, NamedTuple

_SCALARS = {int, float, complex, str, bytes, bool, type(None)}
_COLLECTIONS = {list, tuple, set, frozenset, dict}
_MOST_HELD, _DEEPEST_HELD = 100, 3
_WRAPPERS = {staticmethod, classmethod, property, FunctionType, BuiltinFunctionType, ModuleType} | {
    GetSetDescriptorType,
    MemberDescriptorType,
}
_OF_EVERY_MODULE = {"__spec__", "__loader__", "__builtins__"}
_code, _closure = attrgetter("__code__"), attrgetter("__closure__")

Stamp = tuple[int, int, int]


class _Space(NamedTuple):
    """The names of a module or of a class in it, and the objects that they stood for."""

    owner: str | None  #: the module's name to which the class belongs; None for the module itself
    live: Any  #: its ``__dict__``
    names: list[str]
    ids: list[int]
    held: list[Any]  #: those that are small, so that their addresses are not used again; others are the program's

    def has_changed(self) -> bool:
        """Whether a name stands for another object by now."""
        if len(self.held) < len(self.ids):
            return list(map(id, self.live.values())) != self.ids
        return len(self.live) != len(self.held) or not all(map(is_, self.live.values(), self.held))


class Contents:
    """What a module held at some moment: under its own names, in its classes, and in its functions."""

    def __init__(self, module: ModuleType) -> None:
        self._module = vars(module).get("__name__")
        self._spaces: list[_Space] = []
        self._functions: list[FunctionType] = []
        self._owners: list[str] = []  #: for each function, the module's name to which it belongs
        self._classes: set[int] = set()
        self._take_in(vars(module), None)
        # Whatever changes a function in place gives it other code, or another closure if it is a decorator's.
        self._codes = list(map(_code, self._functions))
        self._closures = list(map(_closure, self._functions))
        self._with_closure = [function for function in self._functions if function.__closure__ is not None]
        self._their_closures = [closure for closure in self._closures if closure is not None]

    def _take_in(self, live: Any, owner: str | None) -> None:
        items = list(live.items())
        held = [value for name, value in items if name in _OF_EVERY_MODULE or _is_light(value)]
        self._spaces.append(_Space(owner, live, [name for name, _ in items], [id(value) for _, value in items], held))
        for name, value in items:
            top = name if owner is None else owner
            functions = list(_functions_of(value))
            self._functions += functions
            self._owners += [top] * len(functions)
            if issubclass(type(value), type) and id(value) not in self._classes:
                self._classes.add(id(value))
                if vars(value).get("__module__") == self._module:
                    self._take_in(vars(value), top)

    def has_changed(self) -> bool:
        """Whether anything in it is another object by now. Costs 0.05 us for each name and each function."""
        return self.was_patched() or any(space.has_changed() for space in self._spaces)

    def was_patched(self) -> bool:
        """Whether its functions have been changed in place: others that hold them have the new ones too."""
        same = all(map(is_, map(_code, self._functions), self._codes))
        return not (same and all(map(is_, map(_closure, self._with_closure), self._their_closures)))

    def changed_names(self) -> set[str]:
        """The module's names under which something has changed."""
        found = set()
        for owner, function, code, closure in zip(
            self._owners, self._functions, self._codes, self._closures, strict=True
        ):
            if function.__code__ is not code or function.__closure__ is not closure:
                found.add(owner)
        for space in self._spaces:
            before = dict(zip(space.names, space.ids, strict=True))
            now = {name: id(value) for name, value in list(space.live.items())}
            differing = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
            if differing:
                found |= differing if space.owner is None else {space.owner}
        return found


def _functions_of(value: Any) -> Iterator[FunctionType]:
    kind = type(value)
    if kind is FunctionType:
        yield value
    elif kind is staticmethod or kind is classmethod:
        yield from _functions_of(value.__func__)
    elif kind is property:
        for each in (value.fget, value.fset, value.fdel):
            yield from _functions_of(each)


def _is_light(value: Any, depth: int = _DEEPEST_HELD) -> bool:
    kind = type(value)
    if issubclass(kind, type):
        return True
    if type(kind) is not type:  # the hash of such a class is users' code
        return False
    if kind in _SCALARS or kind in _WRAPPERS:
        return True
    if kind not in _COLLECTIONS or depth == 0 or len(value) > _MOST_HELD:
        return False
    parts = [*value.keys(), *value.values()] if kind is dict else list(value)
    return all(_is_light(part, depth - 1) for part in parts)


class KnownSource:
    """The text of a module's file as the program has it, which may be older than the file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._stamp: Stamp | None = None
        self._text = b""
        self.take_over()

    def take_over(self) -> None:
        """The program has the file as it is now."""
        self._stamp, self._text = _read(self._file)

    @property
    def is_current(self) -> bool:
        """Whether the file is still the one that the program has."""
        return self._stamp is not None and _stamp_of(self._file) == self._stamp

    def edited_names(self) -> set[str] | None:
        """The names whose source in the file is another one by now; None if that is unknown."""
        if self.is_current:
            return set()
        stamp, text = _read(self._file)
        if stamp is None or self._stamp is None:
            return None
        try:
            before, now = _bindings(self._text), _bindings(text)
        except (SyntaxError, ValueError, RecursionError):  # not Python, or half written
            return None
        return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}


def _stamp_of(file: str) -> Stamp | None:
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(file: str) -> tuple[Stamp | None, bytes]:
    """The file's text, and when it was written; None if it has none, or is being written."""
    stamp = _stamp_of(file)
    if stamp is None or not file.endswith((".py", ".pyw")):
        return None, b""
    try:
        text = _text(file, stamp)
    except OSError:
        return None, b""
    return (stamp, text) if _stamp_of(file) == stamp else (None, b"")


@functools.lru_cache(1024)
def _text(file: str, _stamp: Stamp) -> bytes:
    """One copy for all queues."""
    with open(file, "rb") as opened:
        return opened.read()


@functools.lru_cache(32)
def _bindings(text: bytes) -> dict[str, list[str]]:
    """For each name that a module binds, the statements that do; their form and comments do not count."""
    found: dict[str, list[str]] = {}
    for statement in ast.parse(text).body:
        written = ast.dump(statement)
        for name in set(_bound_by(statement)):
            found.setdefault(name, []).append(written)
    return found


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.alias):
        yield node.asname or node.name.partition(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from _bound_by(child)
