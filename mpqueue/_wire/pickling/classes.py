"""Classes that come by value, as those of scripts and notebooks do: a process makes each of them once.

In a pickle of cloudpickle's, a class is made without attributes first, and filled afterwards. That happens each time it
comes; then the class that is known by the same id is used, and the one that was made is dropped. But to make a class
runs code: an ``__init_subclass__``, a metaclass. What that code puts into a registry must be the class that is used.
"""

from __future__ import annotations

import functools
import io
import pickle
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from cloudpickle import cloudpickle

#: Says that a class may come in a pickle.
_MARK = re.compile(b"_class_setstate")
_MAKERS = (cloudpickle._make_skeleton_class, cloudpickle._make_skeleton_enum)  # noqa: SLF001
_fill: Callable[[type, Any], type] = cloudpickle._class_setstate  # noqa: SLF001

#: The classes that came by value or were sent so, by their ids.
_known: weakref.WeakValueDictionary[str, type] = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID  # noqa: SLF001
#: Those that were made here and not filled yet. If that fails, they are filled when they come again.
_unfilled: weakref.WeakSet[type] = weakref.WeakSet()


def load_classes(
    data: bytes | memoryview,
    buffers: Sequence[memoryview | bytearray],
    *,
    update: bool,
    nested: tuple[Any, Any] = (None, None),
) -> Any:
    """Unpickle an object, and the classes that come with it. Raises whatever its own code raises.

    ``update``: classes that are here already get the attributes that come; by default they stay as they are.
    ``nested``: where the pickle names the first of these functions, the second is called.
    """
    if _MARK.search(data) is None:
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


def _fill_known(kind: type, state: Any) -> type:
    filled = _fill(kind, state)
    _unfilled.discard(kind)
    return filled


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
