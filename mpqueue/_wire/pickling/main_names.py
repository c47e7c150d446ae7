"""``__main__`` for the functions of a script in a worker.

They are sent by value, each pickle with the global variables that its functions read, so functions from different
pickles have separate variables. Programs with an initializer expect that it sets globals for later functions. So what
an initializer reads or sets of them is its worker's own: functions that come later get it in place of the program's
values. The same is true of attributes that it sets on the script's functions.

A job's handler and its setup share one namespace too (`together`): a setup may set globals that the handler reads.

The workers of `Pool` and `Executor` have imported the main module, if it can be imported: objects that they find there
are sent by name (`found_by_name`), and an initializer's namespace is that module's.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NewType, ParamSpec, TypeVar

from mpqueue._wire.pickling import context
from mpqueue._wire.pickling.classes import in_scope, of_initializers

if TYPE_CHECKING:
    from mpqueue._wire.pickling.script import Script

_NONE = object()
_CODE = (FunctionType, ModuleType, type, type(functools.cache(len)))

_space: dict[str, Any] | None = None  #: the namespace of this worker's initializers
_kept: set[str] = set()  #: the names in it that are the worker's own
_imported: Script | None = None  #: the main module, in a worker that has imported it
_attributes: dict[str, dict[str, Any]] = {}  #: by the names of functions in it: attributes that initializers have set


#: Names of a script's module; the second one if `multiprocessing` has started this process by spawn.
NAMES = ("__main__", "__mp_main__")
#: The part of a pickle that shows either name.
MARK = b"_main__"


class MainNames(dict[str, Any]):
    """A stand-in for the namespace of ``__main__`` in a pickle."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _namespace, (dict(self),)


class _Thread(threading.local):
    names: dict[str, Any] | None = None  #: for objects that this thread loads `together`
    made: list[dict[str, Any]] | None = None  #: the namespaces of functions that it loads `with_own`


_thread = _Thread()


def set_imported(script: Script) -> None:
    """Note that this process has imported the program's main module, so its names are the program's too."""
    global _imported  # noqa: PLW0603 - one for the process
    _imported = script


#: Types that are looked up by name; all others are no part of a module, or are sent by value anyway.
_NAMED = (FunctionType, type, type(functools.cache(len)), TypeVar, ParamSpec, NewType)


def finds_names() -> bool:
    """True if the receiver of this thread's pickles has imported the main module."""
    return context.script.get(_imported) is not None


def found_by_name(obj: Any) -> str | None:
    """The name by which the other side finds the object in the main module; None if it does not, or has no name."""
    script = context.script.get(_imported)
    if script is None or not isinstance(obj, _NAMED) or getattr(obj, "__module__", None) not in NAMES:
        return None
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if type(name) is not str or not script.has(name):
        return None
    found: Any = sys.modules["__main__"]
    for part in name.split("."):
        found = getattr(found, part, None)
    return name if found is obj else None


@contextmanager
def together(names: dict[str, Any] | None = None) -> Iterator[None]:
    """Give one namespace to all functions of ``__main__`` that are unpickled in the block: this one, or a new one."""
    before, _thread.names = _thread.names, {} if names is None else names
    try:
        yield
    finally:
        _thread.names = before


def names_of(handler: Any, setup: Any) -> dict[str, Any] | None:
    """Return the namespace that these functions, unpickled `together`, have in common; None if they have none."""
    found = [names for function in (handler, setup) if (names := _globals_of(function)) is not None]
    return found[0] if found and found[-1] is found[0] else None


def _globals_of(function: Any) -> dict[str, Any] | None:
    while type(function) in (functools.partial, MethodType):
        function = function.func if type(function) is functools.partial else function.__func__
    return function.__globals__ if type(function) is FunctionType and function.__module__ in NAMES else None


def _namespace(names: dict[str, Any]) -> dict[str, Any]:
    found = names if _thread.names is None else _thread.names
    if found is not names:
        found.update(names)
    if _thread.made is not None:
        _thread.made.append(found)
    return found


def namespaces() -> Iterator[dict[str, Any]]:
    """The dictionaries that are the globals of functions of ``__main__`` in this process."""
    main = sys.modules.get("__main__")
    if main is not None:
        yield vars(main)
    if (names := context.namespace.get()) is not None:
        yield names


def run_initializer(load: Callable[[], Callable[[], object]]) -> None:
    """Load an initializer and call it: what it reads and sets is this worker's own from then on, for all functions.

    A queue's ``preload`` function is one too; the initializer sees the globals that it has set.
    """
    global _space  # noqa: PLW0603 - a process is one worker
    if _space is None:
        _space = {}
        if _imported is not None:  # a function that reads the module's name would bring the program's
            _space = vars(sys.modules["__main__"])
            _kept.add("__name__")
    with in_scope(of_initializers):
        with together(_space):
            initializer = load()
        before, marks = dict(_space), _marks(_space)
        try:
            initializer()
        finally:
            _kept.update(
                name
                for name, value in _space.items()
                if not name.startswith("__") and (before.get(name) is not value or not isinstance(value, _CODE))
            )
            for name, now in _marks(_space).items():
                then = marks.get(name, {})
                new = {mark: value for mark, value in now.items() if then.get(mark, _NONE) is not value}
                _attributes.setdefault(name, {}).update(new)


def _marks(names: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the attributes of the functions in a namespace, by their names."""
    return {name: dict(vars(value)) for name, value in names.items() if isinstance(value, FunctionType)}


def has_own() -> bool:
    """True in a worker that has run an initializer."""
    return _space is not None


@contextmanager
def with_own() -> Iterator[None]:
    """Give the functions of ``__main__`` that are unpickled in the block what is this worker's own. If `has_own`."""
    assert _space is not None
    own = {name: _space[name] for name in _kept if name in _space}
    made: list[dict[str, Any]] = []
    before, _thread.made = _thread.made, made
    try:
        yield
    finally:
        _thread.made = before
        for names in made:
            names.update(own)
            for name, attributes in _attributes.items():
                if isinstance(function := names.get(name), FunctionType):
                    vars(function).update(attributes)
