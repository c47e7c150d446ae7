"""Classes that come by value, as those of scripts and notebooks do: a process makes each of them once.

In a pickle of cloudpickle's, a class is made without attributes first, and filled afterwards. That happens each time it
comes; then the class that is known by the same id is used, and the one that was made is dropped. But to make a class
runs code: an ``__init_subclass__``, a metaclass. What that code puts into a registry must be the class that is used.

A class comes with each function that names it and with its instances, and has the attributes that it has in the
program. What a setup or a handler has made of them in a worker stays until the program changes them, or until a job
begins where no other is at work (`forget_attributes`).

cloudpickle also makes classes with ``__slots__`` without them. Their instances would have a ``__dict__``, and what they
are pickled as could not be unpickled where the class has none.

What a `typing.NewType`, a `typing.ParamSpec` and a function of `functools.cache` are pickled as is only a name, and
cloudpickle leaves that as it is, save for a `typing.TypeVar`. Here they go by value too, where no module to import has
them. It refuses a `weakref.WeakKeyDictionary`, which a function of `functools.singledispatch` has.
"""

from __future__ import annotations

import abc
import enum
import functools
import hashlib
import io
import marshal
import pickle
import re
import typing
import weakref
from collections.abc import Callable, Sequence
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

from cloudpickle import cloudpickle

#: Says that a class may come in a pickle.
_MARK = b"_class_setstate"
_find_mark = re.compile(_MARK).search  # also in memory that is no `bytes`
_MAKERS = (cloudpickle._make_skeleton_class, cloudpickle._make_skeleton_enum)  # noqa: SLF001
_fill: Callable[[type, Any], type] = cloudpickle._class_setstate  # noqa: SLF001

_CODE = (FunctionType, classmethod, staticmethod, property)
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
_SEQUENCES = frozenset({tuple, list, set, frozenset})
_DIGEST_SIZE = 64  #: bytes
_NONE = object()

#: The classes that came by value or were sent so, by their ids.
_known: weakref.WeakValueDictionary[str, type] = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID  # noqa: SLF001
_ids: weakref.WeakKeyDictionary[Any, str] = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS  # noqa: SLF001
_id_of: Callable[[Any], str] = cloudpickle._get_or_create_tracker_id  # noqa: SLF001
_track: Callable[[str, Any], Any] = cloudpickle._lookup_class_or_track  # noqa: SLF001
#: Those that were made here and not filled yet. If that fails, they are filled when they come again.
_unfilled: weakref.WeakSet[type] = weakref.WeakSet()


def may_bring_classes(data: bytes | memoryview) -> bool:
    """True where a class may come in this pickle."""
    return _find_mark(data) is not None


def known_classes() -> list[type]:
    """Those that came by value or were sent so."""
    known: list[Any] = list(_known.values())  # functions with a cache, too
    return [kind for kind in known if isinstance(kind, type)]


def reduce_slotted(kind: type) -> tuple[Any, ...] | None:
    """What a class with ``__slots__`` of its own is pickled as, for `pickle.Pickler.reducer_override`.

    None: it has none, goes by name, or is made by a metaclass that gives it its slots; cloudpickle knows how.
    """
    if "__slots__" not in vars(kind) or cloudpickle._should_pickle_by_reference(kind):  # noqa: SLF001
        return None
    if issubclass(kind, enum.Enum) or typing.NamedTuple in vars(kind).get("__orig_bases__", ()):
        return None
    attributes = cloudpickle._extract_class_dict(kind)  # noqa: SLF001
    attributes.pop("__annotate_func__", None)  # leads back to all attributes; Python makes it again
    # Their names as they are in the class: private ones are mangled already, and stay so.
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
    return _track(tracker_id, made)


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
    return _track(tracker_id, made)


def _reduce_cached(cached: Any) -> str | tuple[Any, ...]:
    attributes = dict(vars(cached))
    parameters = attributes.pop("cache_parameters", None)
    name = getattr(cached, "__qualname__", None)  # a partial object has none
    if parameters is None or "__wrapped__" not in attributes or (name is not None and _goes_by_name(cached, name)):
        return str(cached.__reduce__())
    if attributes.pop("__annotate__", None) is not None:  # since Python 3.14; cloudpickle sends what it returns
        attributes["__annotations__"] = cached.__wrapped__.__annotations__
    arguments = (_id_of(cached), cached.__wrapped__, parameters())
    return _make_cached, arguments, (attributes, {}), None, None, _fill_cached


def _make_cached(tracker_id: str, function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """An empty cache, but in the process that it was sent from: a function that comes may read other globals by now."""
    own = _known.get(tracker_id)
    if own is not None:
        return own
    made: Any = functools.lru_cache(**parameters)(function)
    _ids[made] = tracker_id
    return made


def _fill_cached(cached: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> Any:
    if _known.get(_ids[cached]) is not cached:
        vars(cached).update(state[0])
    return cached


def is_redefined(own: Any, new: Any) -> bool:
    """Of a cached function that came here, and what its name stands for now: is that another function by now?"""
    if type(own) is not functools._lru_cache_wrapper or (tracker_id := _ids.get(own)) is None:  # noqa: SLF001
        return False
    return type(new) is not functools._lru_cache_wrapper or _ids.get(new) != tracker_id  # noqa: SLF001


def _reduce_property(kept: functools.cached_property[Any]) -> tuple[Any, ...]:
    """Without the lock that it has in Python 3.11; making it gives it one."""
    return type(kept), (kept.func,), {name: value for name, value in vars(kept).items() if name != "lock"}


def _reduce_weak_keys(entries: weakref.WeakKeyDictionary[Any, Any]) -> tuple[Any, ...]:
    """With its entries, put in afterwards, since they may lead back to it: `functools.singledispatch` has one."""
    return type(entries), (), None, None, iter(list(entries.items()))


#: Asked for objects of just these types, so all others cost nothing. cloudpickle makes a function before it fills it,
#: and what is made a second time meanwhile, as by a function that calls itself, is dropped by pickle.
REDUCERS: dict[type, Callable[[Any], str | tuple[Any, ...]]] = {
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_parameters,
    functools._lru_cache_wrapper: _reduce_cached,  # noqa: SLF001
    functools.cached_property: _reduce_property,
    weakref.WeakKeyDictionary: _reduce_weak_keys,
}


def load_classes(
    data: bytes | memoryview,
    buffers: Sequence[memoryview | bytearray],
    *,
    update: bool,
    nested: tuple[Any, Any] = (None, None),
) -> Any:
    """Unpickle an object, and the classes that come with it. Raises whatever its own code raises.

    ``update``: classes that are here already get the attributes that come and are new; else they stay as they are.
    ``nested``: where the pickle names the first of these functions, the second is called.
    """
    if _MARK not in data if isinstance(data, bytes) else _find_mark(data) is None:
        return pickle.loads(data, buffers=buffers)
    file: Any = io.BytesIO(data) if isinstance(data, bytes) else io.BufferedReader(_Memory(data))
    return _Unpickler(file, buffers, update, nested).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, buffers: Sequence[Any], update: bool, nested: tuple[Any, Any]) -> None:
        super().__init__(file, buffers=buffers)
        self._fill = _fill_known if update else _fill_new
        self._nested, self._instead = nested

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is _fill:
            return self._fill
        if any(found is make for make in _MAKERS):
            return functools.partial(_make_once, found)
        return self._instead if found is self._nested else found


def _make_once(make: Callable[..., type], *arguments: Any) -> type:
    *_, tracker_id, _ = arguments
    kind = None if tracker_id is None else _known.get(tracker_id)
    if kind is None:
        kind = make(*arguments)
        _unfilled.add(kind)
    return kind


#: How attributes came that are data, by class and name: to be compared with what comes next.
_came: weakref.WeakKeyDictionary[type, dict[str, bytes | weakref.ref[Any]]] = weakref.WeakKeyDictionary()


def forget_attributes() -> None:
    """All attributes of classes that come next replace those that are here."""
    _came.clear()


def _fill_known(kind: type, state: Any) -> type:
    attributes, *rest = state
    before, came = _came.get(kind, {}), {}
    for name, value in [*attributes.items()]:
        if name[:2] == "__" or type(value) in _CODE or (form := _form(value)) is None:
            continue
        came[name] = form
        if name in before and _is_of_here(vars(kind).get(name, _NONE), before[name], form):
            del attributes[name]
    filled = _fill(kind, (attributes, *rest))
    _unfilled.discard(kind)
    _came[kind] = came
    return filled


def _form(value: Any) -> bytes | weakref.ref[Any] | None:
    """Plain data as bytes, so that it is known again when it has been changed in place; else the object."""
    try:
        if _is_plain(value):
            written = marshal.dumps(value, 2)  # the last version in which the same data makes the same bytes
            return written if len(written) <= _DIGEST_SIZE else hashlib.blake2b(written).digest()
        return weakref.ref(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in _SEQUENCES:
        return all(map(_is_plain, value))
    return kind in _ATOMS or (kind is dict and all(map(_is_plain, value)) and all(map(_is_plain, value.values())))


def _is_of_here(now: Any, before: bytes | weakref.ref[Any], form: bytes | weakref.ref[Any]) -> bool:
    """Whether an attribute is to stay as it is: the program has not changed it, as far as can be seen."""
    if now is _NONE:
        return False
    if type(before) is bytes and type(form) is bytes:
        return before == form
    # Objects are others each time that they come. One that was put in its place here is not replaced by them.
    return type(before) is weakref.ref and type(form) is weakref.ref and before() is not now


def _fill_new(kind: type, state: Any) -> type:
    return _fill_known(kind, state) if kind in _unfilled else kind


class _Memory(io.RawIOBase):
    """A file of that memory, which is not copied."""

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
