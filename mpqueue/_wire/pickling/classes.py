"""Classes sent by value, such as those of scripts and notebooks: in a worker, each job has its own class objects.

A class comes with each function that names it, and with its instances. The first pickle of a job with the class makes
it, in the job's `Scope`; later ones find it there, unchanged. So a job has the classes of its creation, and no other
job sees attributes that its setup or handler sets on a class. The classes that an initializer has brought are its
worker's own, for all jobs there. In the program a class is the program's own, and results from workers do not change
it.

Making a class runs code: an ``__init_subclass__``, a metaclass. That code may put the class into a registry, which must
have the class in use, so an existing class is not made again.

cloudpickle also makes classes with ``__slots__`` without them. Their instances would have a ``__dict__``, and their
pickles could not be unpickled if the class has none.

A `typing.NewType`, a `typing.ParamSpec` and a function of `functools.cache` are pickled as a name only, and cloudpickle
does not change that, except for a `typing.TypeVar`. Here they are sent by value too, if no importable module has them.
cloudpickle refuses a `weakref.WeakKeyDictionary`, which a function of `functools.singledispatch` has.
"""

from __future__ import annotations

import abc
import contextlib
import enum
import functools
import io
import pickle
import re
import threading
import typing
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, TypeAlias

from cloudpickle import cloudpickle

from mpqueue._os.process_handle import in_each_fork

#: Shows that a pickle may have a class.
_MARK = b"_class_setstate"
#: In place of a class's pickle: an earlier function, such as the job's handler, has brought it.
BROUGHT = _MARK
_find_mark = re.compile(_MARK).search  # also in memory that is no `bytes`
_MAKERS = (cloudpickle._make_skeleton_class, cloudpickle._make_skeleton_enum)  # noqa: SLF001
_fill: Callable[[type, Any], type] = cloudpickle._class_setstate  # noqa: SLF001

#: Classes sent by value, and in the program also those received by value, by their ids.
_known: weakref.WeakValueDictionary[str, type] = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID  # noqa: SLF001
_ids: weakref.WeakKeyDictionary[Any, str] = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS  # noqa: SLF001
_id_of: Callable[[Any], str] = cloudpickle._get_or_create_tracker_id  # noqa: SLF001
_track: Callable[[str, Any], Any] = cloudpickle._lookup_class_or_track  # noqa: SLF001
#: Classes that were made here and not filled yet. If filling fails, it is done when they come again.
_unfilled: weakref.WeakSet[Any] = weakref.WeakSet()
#: The most pickles of classes that a stream of calls keeps, and the most bytes of each; the least recently used goes
#: first.
_MAX_KEPT_CLASSES, _MAX_CLASS_BYTES = 64, 100_000


class BringsClasses:
    """An object that brings classes inside its own bytes: those with these ids need not come beside it."""

    classes: Sequence[str]


#: By their ids.
Classes: TypeAlias = dict[str, Any]


class Scope:
    """The classes that one job has in a worker, by their ids."""

    def __init__(self) -> None:
        self.classes: Classes = {}

    @property
    def root(self) -> Scope:
        """The scope of the whole job."""
        return self

    def find(self, tracker_id: str) -> Any:
        """The class of that id, or None."""
        return self.classes.get(tracker_id)

    def has_room_for(self, known: Classes) -> bool:
        """True if none of these classes is another one here."""
        return all(self.classes.get(each, kind) is kind for each, kind in known.items())

    def adopt(self, known: Classes) -> None:
        """Add these classes; existing ones stay."""
        self.classes = {**known, **self.classes}

    def bring(self, data: bytes) -> None:
        """Add the class that was pickled as these bytes, and the classes that it names."""
        load_classes(data, ())

    def load(self, unpickle: Callable[[], Any]) -> tuple[Any, Classes]:
        """Call ``unpickle`` in this scope; return its value, and the classes that another scope needs for it."""
        with in_scope(self):
            return unpickle(), {}

    def for_one_pickle(self) -> Scope:
        """The scope for one pickle's classes."""
        return self


class CallsScope(Scope):
    """The scope of a stream of calls, each with its own classes: two are the same if their bytes are."""

    def __init__(self) -> None:
        super().__init__()
        self.by_bytes: OrderedDict[bytes, Classes] = OrderedDict()

    def adopt(self, known: Classes) -> None:
        """Ignore these classes: calls in one pickle may be of several functions, if they bring no classes."""

    def for_one_pickle(self) -> Scope:
        """Return a new scope for one pickle's classes."""
        return _CallScope(self)


class _CallScope(Scope):
    def __init__(self, calls: CallsScope) -> None:
        super().__init__()
        self._calls = calls
        self._used: set[str] = set()

    @property
    def root(self) -> Scope:
        return self._calls

    def find(self, tracker_id: str) -> Any:
        self._used.add(tracker_id)
        return self.classes.get(tracker_id)

    def load(self, unpickle: Callable[[], Any]) -> tuple[Any, Classes]:
        before, self._used = self._used, set()
        try:
            loaded, _ = super().load(unpickle)
            return loaded, {each: self.classes[each] for each in self._used if each in self.classes}
        finally:
            self._used |= before

    def bring(self, data: bytes) -> None:
        by_bytes = self._calls.by_bytes
        known = by_bytes.get(data)
        if known is None or not self.has_room_for(known):
            _, known = self.load(lambda: load_classes(data, ()))
        self.adopt(known)
        if len(data) <= _MAX_CLASS_BYTES:
            by_bytes[data] = known
            by_bytes.move_to_end(data)
            if len(by_bytes) > _MAX_KEPT_CLASSES:
                by_bytes.popitem(last=False)


class _InThread(threading.local):
    scope: Scope | None = None
    is_guest = False  #: it has no scope of its own, and unpickles in the latest one


_thread = _InThread()
#: The scope of this worker's initializers, whose classes all jobs have.
of_initializers = Scope()
_latest: Scope | None = None  #: the scope that a job has entered last: for threads started by handlers
_of_program: set[str] = set()  #: ids of classes that this process has since it was forked
#: Of all scopes, the class that was made last: for the results of a queue inside a handler.
_made: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


@contextlib.contextmanager
def in_scope(scope: Scope | None) -> Iterator[None]:
    """Unpickle the block's classes in this scope; None: in the scope of the program, if this is its process."""
    before = enter(scope)
    try:
        yield
    finally:
        enter(before)


def enter(scope: Scope | None) -> Scope | None:
    """Make it this thread's scope, see `in_scope`; return the one before, to be entered again."""
    global _latest  # noqa: PLW0603 - see there
    before, _thread.scope = _thread.scope, scope
    if scope is not None and before is None:
        _latest = scope
    return before


def scope_here() -> Scope | None:
    """Return the scope of the current job; None in the program."""
    return _latest if _thread.scope is None else _thread.scope


def leave(scope: Scope | None) -> None:
    """Leave the scope: its job has ended."""
    global _latest  # noqa: PLW0603 - see there
    if _latest is scope:
        _latest = None


def _find(tracker_id: str) -> Any:
    """Return the class, type variable or cached function of that id, if there is one."""
    scope = scope_here()
    if scope is None:
        return _known.get(tracker_id)
    found = scope.find(tracker_id)
    if found is None:
        found = of_initializers.find(tracker_id)
    if found is None and _thread.is_guest:
        found = _made.get(tracker_id)
    return _known.get(tracker_id) if found is None and tracker_id not in _of_program else found


def _note_fork() -> None:
    """Note the classes that came with the fork: they are no job's, unlike those that a handler makes here."""
    _of_program.update(_known.keys())


in_each_fork(_note_fork)


def _keep(tracker_id: str, made: Any) -> Any:
    scope = scope_here()
    if scope is None:
        return _track(tracker_id, made)
    _ids[made] = tracker_id
    scope.classes[tracker_id] = _made[tracker_id] = made
    return made


def are_same(one: type, other: type) -> bool:
    """Tell whether two classes are one, perhaps in the scopes of two calls."""
    return one is other or (_ids.get(one) is not None and _ids.get(one) == _ids.get(other))


def may_bring_classes(data: bytes | memoryview) -> bool:
    """True if this pickle may have a class."""
    return _find_mark(data) is not None


def reduce_slotted(kind: type) -> tuple[Any, ...] | None:
    """Return the reduced form of a class with its own ``__slots__``, for `pickle.Pickler.reducer_override`.

    None if it has none, is sent by name, or has a metaclass that makes its slots; cloudpickle handles these.
    """
    if "__slots__" not in vars(kind) or cloudpickle._should_pickle_by_reference(kind):  # noqa: SLF001
        return None
    if issubclass(kind, enum.Enum) or typing.NamedTuple in vars(kind).get("__orig_bases__", ()):
        return None
    attributes = cloudpickle._extract_class_dict(kind)  # noqa: SLF001
    attributes.pop("__annotate_func__", None)  # it refers back to all attributes; Python makes it again
    # Their names as the class has them: private ones are mangled already, and stay so.
    slots = tuple(name for name, value in attributes.items() if _is_slot(kind, name, value))
    for name in (*slots, "__dict__"):
        attributes.pop(name, None)
    if isinstance(kind, abc.ABCMeta):
        registered = abc._get_dump(kind)[0]  # type: ignore[attr-defined]  # noqa: SLF001 - as cloudpickle does
        attributes["_abc_impl"] = [subclass() for subclass in registered]
    metaclass, name, bases, own, *rest = cloudpickle._class_getnewargs(kind)  # noqa: SLF001
    arguments = (metaclass, name, bases, {**own, "__slots__": slots}, *rest)
    return _MAKERS[0], arguments, (attributes, {}), None, None, _fill


def _is_slot(kind: type, name: str, value: Any) -> bool:
    if type(value) is MemberDescriptorType:
        return value.__objclass__ is kind and value.__name__ == name
    return type(value) is GetSetDescriptorType and name in {"__dict__", "__weakref__"}


def _goes_by_name(obj: Any, name: str) -> bool:
    found = cloudpickle._lookup_module_and_qualname(obj, name=name)  # noqa: SLF001
    return found is not None and not cloudpickle._is_registered_pickle_by_value(found[0])  # noqa: SLF001


def _reduce_new_type(kind: Any) -> str | tuple[Any, ...]:
    if _goes_by_name(kind, kind.__qualname__):
        return str(kind.__qualname__)
    return _make_new_type, (_id_of(kind), dict(vars(kind)))


def _make_new_type(tracker_id: str, attributes: dict[str, Any]) -> Any:
    made = object.__new__(typing.NewType)
    vars(made).update(attributes)
    return _find(tracker_id) or _keep(tracker_id, made)


def _reduce_parameters(parameters: Any) -> str | tuple[Any, ...]:
    if _goes_by_name(parameters, parameters.__name__):
        return str(parameters.__name__)
    options = {
        "bound": parameters.__bound__,
        "covariant": parameters.__covariant__,
        "contravariant": parameters.__contravariant__,
    }
    if getattr(parameters, "__infer_variance__", False):  # since Python 3.12
        options["infer_variance"] = True
    if hasattr(parameters, "has_default") and parameters.has_default():  # since 3.13
        options["default"] = parameters.__default__
    return _make_parameters, (_id_of(parameters), parameters.__name__, parameters.__module__, options)


def _make_parameters(tracker_id: str, name: str, module: str | None, options: dict[str, Any]) -> Any:
    made = typing.ParamSpec(name, **options)  # type: ignore[misc]
    made.__module__ = module  # type: ignore[assignment]
    return _find(tracker_id) or _keep(tracker_id, made)


def _reduce_cached(cached: Any) -> str | tuple[Any, ...]:
    attributes = dict(vars(cached))
    parameters = attributes.pop("cache_parameters", None)
    name = getattr(cached, "__qualname__", None)  # a partial object has none
    if parameters is None or "__wrapped__" not in attributes or (name is not None and _goes_by_name(cached, name)):
        return str(cached.__reduce__())
    if attributes.pop("__annotate__", None) is not None:  # since Python 3.14; cloudpickle sends its result
        attributes["__annotations__"] = cached.__wrapped__.__annotations__
    arguments = (_id_of(cached), cached.__wrapped__, parameters())
    return _make_cached, arguments, (attributes, {}), None, None, _fill_cached


def _make_cached(tracker_id: str, function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Make an empty cache, unless this job has that function already, or this process has sent it."""
    if (own := _find(tracker_id)) is not None:
        return own
    made: Any = functools.lru_cache(**parameters)(function)
    _unfilled.add(made)
    if scope_here() is None:
        _ids[made] = tracker_id
        return made
    return _keep(tracker_id, made)


def _fill_cached(cached: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> Any:
    if cached in _unfilled:
        vars(cached).update(state[0])
        _unfilled.discard(cached)
    return cached


def _reduce_property(kept: functools.cached_property[Any]) -> tuple[Any, ...]:
    """Reduce it without the lock that it has in Python 3.11; making it creates a new one."""
    return type(kept), (kept.func,), {name: value for name, value in vars(kept).items() if name != "lock"}


def _reduce_weak_keys(entries: weakref.WeakKeyDictionary[Any, Any]) -> tuple[Any, ...]:
    """Reduce it with entries added afterwards: they may refer back to it, as in `functools.singledispatch`."""
    return type(entries), (), None, None, iter(list(entries.items()))


#: Called for objects of exactly these types, so all others cost nothing. cloudpickle makes a function before it fills
#: it; if it is made twice meanwhile, say by a function that calls itself, pickle drops the second one.
REDUCERS: dict[type, Callable[[Any], str | tuple[Any, ...]]] = {
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_parameters,
    functools._lru_cache_wrapper: _reduce_cached,  # noqa: SLF001
    functools.cached_property: _reduce_property,
    weakref.WeakKeyDictionary: _reduce_weak_keys,
}


def load_classes(data: bytes | memoryview, buffers: Sequence[memoryview | bytearray]) -> Any:
    """Unpickle an object, and the classes that come with it. Raises errors of its own code."""
    if _MARK not in data if isinstance(data, bytes) else _find_mark(data) is None:
        return pickle.loads(data, buffers=buffers)
    file: Any = io.BytesIO(data) if isinstance(data, bytes) else io.BufferedReader(_Memory(data))
    thread, scope = _thread, scope_here()
    before = thread.scope, thread.is_guest
    thread.is_guest |= thread.scope is None
    thread.scope = None if scope is None else scope.for_one_pickle()
    try:
        return _Unpickler(file, buffers=buffers).load()
    finally:
        thread.scope, thread.is_guest = before


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is _fill:
            return _fill_made
        return functools.partial(_make_once, found) if any(found is make for make in _MAKERS) else found


def _make_once(make: Callable[..., type], *arguments: Any) -> type:
    *those, tracker_id, extra = arguments
    kind: Any = _find(tracker_id)
    if kind is None:
        kind = _keep(tracker_id, make(*those, None, extra))
        _unfilled.add(kind)
    return kind  # type: ignore[no-any-return]


def _fill_made(kind: type, state: Any) -> type:
    if kind in _unfilled:
        _fill(kind, state)
        _unfilled.discard(kind)
    return kind


def id_of(kind: Any) -> str | None:
    """Return the id of a class that was received or sent by value before."""
    return _ids.get(kind)


def id_of_reduced(reduced: Any) -> str | None:
    """Return the id of a class in its reduced form; None for one sent by name."""
    if type(reduced) is not tuple or len(reduced) < 6 or reduced[5] is not _fill:
        return None
    tracker_id: str = reduced[1][-2]
    return tracker_id


def load_class(tracker_id: str, data: bytes) -> Any:
    """Return the class of that id; journals keep pickles that name this function. Costs 1 us if it is here."""
    kind, scope = _find(tracker_id), scope_here()
    if kind is not None and (data == BROUGHT or kind not in _unfilled):
        return kind
    if data == BROUGHT:
        raise pickle.UnpicklingError("expected a class that the handler has brought, got another handler")
    if scope is None:
        load_classes(data, ())
    else:
        scope.bring(data)
    return _find(tracker_id)


class _Memory(io.RawIOBase):
    """A file over that memory, which is not copied."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        part = self._memory[self._at : self._at + len(into)]
        into[: len(part)] = part
        self._at += len(part)
        return len(part)
