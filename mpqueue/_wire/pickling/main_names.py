"""``__main__`` for the functions of a script in a worker.

They are sent by value, each pickle with the global variables that its functions read, so functions from different
pickles would have separate variables. Programs with an initializer expect otherwise: it sets globals for later
functions, or attributes of the script's classes and functions. So a worker that has run one keeps one namespace for all
functions from ``__main__``; data in it, and those attributes, are then the worker's own: values sent with later
functions do not replace them.

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
from typing import TYPE_CHECKING, Any, NamedTuple, NewType, ParamSpec, TypeVar

from mpqueue._wire.pickling.classes import CommonScope, Scope, in_scope, is_redefined, known_classes

if TYPE_CHECKING:
    from mpqueue._wire.pickling.script import Script

_CODE = (FunctionType, ModuleType, type)
_NONE = object()
_NO_NAMES: frozenset[str] = frozenset()

_shared: dict[str, Any] | None = None  #: the worker's, once it has run an initializer
_common: CommonScope | None = None  #: its classes then
_kept: frozenset[str] = frozenset()  #: the names in it that are the worker's own
#: Attributes of the script's classes, and of functions in it, by name, that are the worker's own.
_kept_attributes: dict[type | str, frozenset[str]] = {}


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
    packed: dict[str, Any] | None = None  #: for objects that it pickles together
    #: The main module imported by the receiver of its pickles; in a worker that has imported it, the default.
    script: Script | None = None


_thread = _Thread()


class GoingTo:
    """A block in which this thread pickles for processes that have imported that main module (None: have not)."""

    __slots__ = ("_before", "_script")

    def __init__(self, script: Script | None) -> None:
        self._script = self._before = script

    def __enter__(self) -> None:
        self._before, _thread.script = _thread.script, self._script

    def __exit__(self, *_: object) -> None:
        _thread.script = self._before


def set_imported(script: Script) -> None:
    """Note that this process has imported the program's main module, so its names are the program's too."""
    _Thread.script = script


#: Types that are looked up by name; all others are no part of a module, or are sent by value anyway.
_NAMED = (FunctionType, type, type(functools.cache(len)), TypeVar, ParamSpec, NewType)


def finds_names() -> bool:
    """True if the receiver of this thread's pickles has imported the main module."""
    return _thread.script is not None


def found_by_name(obj: Any) -> str | None:
    """The name by which the other side finds the object in the main module; None if it does not, or has no name."""
    script = _thread.script
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
def together() -> Iterator[None]:
    """Give one namespace to all functions of ``__main__`` that are unpickled in the block."""
    before, _thread.names = _thread.names, {}
    try:
        yield
    finally:
        _thread.names = before


class PackedTogether:
    """A block in which functions unpickled `together`, such as a journal's, are pickled with one namespace."""

    __slots__ = ("_names",)

    def __init__(self, handler: Any, setup: Any) -> None:
        found = [names for function in (handler, setup) if (names := _globals_of(function)) is not None]
        self._names = found[0] if found and found[-1] is found[0] else None

    def __enter__(self) -> None:
        _thread.packed = self._names

    def __exit__(self, *_: object) -> None:
        _thread.packed = None


def _globals_of(function: Any) -> dict[str, Any] | None:
    while type(function) in (functools.partial, MethodType):
        function = function.func if type(function) is functools.partial else function.__func__
    return function.__globals__ if type(function) is FunctionType and function.__module__ in NAMES else None


def new_scope() -> Scope:
    """Return the scope of a new job in this worker."""
    return Scope() if _common is None else _common


def _namespace(names: dict[str, Any]) -> dict[str, Any]:
    found = _thread.names if _shared is None else _shared
    if found is None:
        return names
    found.update(names)
    return found


def namespaces() -> Iterator[dict[str, Any]]:
    """The dictionaries that are the globals of functions of ``__main__`` in this process."""
    main = sys.modules.get("__main__")
    if main is not None:
        yield vars(main)
    if _shared is not None:
        yield _shared
    if _thread.packed is not None:
        yield _thread.packed


def run_initializer(load: Callable[[], Callable[[], object]]) -> None:
    """Load an initializer and call it; all later functions see the globals that it has set.

    A queue's ``preload`` function is one too; the initializer sees the globals that it has set.
    """
    global _shared, _common, _kept
    if _shared is None or _common is None:
        _shared, _common = {}, CommonScope()
        if _Thread.script is not None:  # a function that reads the module's name would bring the program's
            _shared, _kept = vars(sys.modules["__main__"]), frozenset({"__name__"})
    with in_scope(_common):
        _run_initializer(load, _shared)


def _run_initializer(load: Callable[[], Callable[[], object]], shared: dict[str, Any]) -> None:
    global _kept, _kept_attributes  # noqa: PLW0603 - as above
    initializer = load()
    before, attributes = dict(shared), _attributes()
    try:
        initializer()
    finally:
        _kept |= frozenset(
            name
            for name, value in shared.items()
            if not name.startswith("__") and (before.get(name) is not value or not isinstance(value, _CODE))
        )
        _kept_attributes = {
            owner: set_
            for owner, now in _attributes().items()
            if owner not in _kept
            and (set_ := _kept_attributes.get(owner, _NO_NAMES) | _set_meanwhile(attributes.get(owner, {}), now))
        }


def _attributes() -> dict[type | str, dict[str, Any]]:
    """Return the attributes of the script's classes and functions."""
    assert _shared is not None
    found: dict[type | str, dict[str, Any]] = {
        name: dict(vars(value)) for name, value in _shared.items() if isinstance(value, FunctionType)
    }
    found.update((kind, dict(vars(kind))) for kind in known_classes() if kind.__module__ in NAMES)
    return found


def _set_meanwhile(before: dict[str, Any], now: dict[str, Any]) -> frozenset[str]:
    return frozenset(
        name for name, value in now.items() if not name.startswith("__") and before.get(name, _NONE) is not value
    )


class Own(NamedTuple):
    """The script's global variables and attributes that are the worker's own."""

    values: dict[str, Any]
    attributes: dict[type | str, dict[str, Any]]


def own_values() -> Own | None:
    """Return the worker's own values; call it before functions are unpickled, and `put_back` afterwards."""
    if _shared is None:
        return None
    attributes = {}
    for owner, kept in _kept_attributes.items():
        now = _dict_of(owner)
        attributes[owner] = {name: now[name] for name in kept if name in now}
    return Own({name: _shared[name] for name in _kept if name in _shared}, attributes)


def _dict_of(owner: type | str) -> Any:
    assert _shared is not None
    found = _shared.get(owner) if isinstance(owner, str) else owner
    return vars(found) if isinstance(found, type | FunctionType) else {}


def put_back(own: Own) -> None:
    """Undo changes to the worker's own values by unpickled functions; a cached function keeps its cache."""
    if _shared is None:
        return
    _shared.update({name: value for name, value in own.values.items() if not is_redefined(value, _shared.get(name))})
    for owner, attributes in own.attributes.items():
        now = _dict_of(owner)
        for name, value in attributes.items():
            if now.get(name, _NONE) is value:
                continue
            if isinstance(owner, type):
                type.__setattr__(owner, name, value)  # without its metaclass
            elif isinstance(function := _shared.get(owner), FunctionType):
                setattr(function, name, value)
