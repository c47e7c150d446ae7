"""`share`: one copy of an object for all workers and jobs.

The object is pickled once, its big buffers into a segment that every worker maps. What travels with items and handlers
is a name; a worker unpickles the object when it meets the name first, and keeps it until the parent drops it.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from mpqueue._wire.payload import Packed, dump_code, is_whole, load
from mpqueue._wire.segments import Segment
from mpqueue.errors import ItemPicklingError, shown

T = TypeVar("T")

Token = tuple[int, int]  #: the sharing process, and a number there

_numbers = itertools.count(1)

#: What this process shared or has met, by token. A worker keeps what it met, see `keep` and `drop`.
_known: weakref.WeakValueDictionary[Token, Shared[Any]] = weakref.WeakValueDictionary()
_kept: dict[Token, Shared[Any]] = {}

#: Tokens of this process whose objects are gone, in that order; only ever appended to.
dropped: list[Token] = []


class Shared(Generic[T]):
    """An object that workers share; ``value`` is the object itself, in the parent and in every worker.

    Stands in for it in simple uses too: attributes, indexing, iteration, calls and numpy functions go to the object.
    Each worker has a private view of the buffers: what it changes there, it changes for itself.
    """

    def __init__(
        self, token: Token, packed: Packed, segment: Segment | None = None, loaded: list[T] | None = None
    ) -> None:
        self._token = token
        self._packed = packed
        self._segment = segment  # lives as long as this object
        self._loaded = loaded or []
        self._for_others: Packed | None = None
        _known[token] = self

    @property
    def value(self) -> T:
        """The object. The first call in a worker unpickles it there."""
        if not self._loaded:
            self._loaded.append(load(self._packed))
        return self._loaded[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _meet, (self._token, self._whole() if is_whole() else self._packed)

    def _whole(self) -> Packed:
        """All of it in one pickle, for workers on other machines; made once."""
        if self._packed.segment is None:
            return self._packed
        if self._for_others is None:
            self._for_others = dump_code(load(self._packed), whole=True)[0]
        return self._for_others

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.value, name)

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.value)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)  # type: ignore[call-overload, no-any-return]

    def __contains__(self, entry: object) -> bool:
        return entry in self.value  # type: ignore[operator]

    def __bool__(self) -> bool:
        return bool(self.value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.value(*args, **kwargs)  # type: ignore[operator]

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        import numpy as np

        return np.asarray(self.value, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<Shared {self._packed.size} bytes{f': {self._loaded[0]!r}' if self._loaded else ''}>"


def share(obj: T) -> Shared[T]:
    """Share an object (a model, a table, an array) that many items or jobs use: it goes over once, not once an item.

    Costs one pickling and one copy of its buffers, and that much memory while the returned object, or an item or a
    handler that holds it, lives. Workers see the object as it was at this call. Raises
    `ItemPicklingError` where it can't be pickled.
    """
    try:
        packed, segment = dump_code(obj)
    except Exception as error:
        raise ItemPicklingError(
            f"share: expected an object that can be pickled, got {shown(obj)} of type {type(obj).__name__} "
            f"({shown(error)})"
        ) from error
    token = (os.getpid(), next(_numbers))
    shared = Shared(token, packed, segment, [obj])
    weakref.finalize(shared, dropped.append, token).atexit = False
    return shared


def _meet(token: Token, packed: Packed) -> Shared[Any]:
    """Unpickling: the same object again, where this process has it."""
    shared = _known.get(token)
    if shared is None:
        shared = Shared[Any](token, packed)
        if token[0] != os.getpid():
            _kept[token] = shared
    return shared


def forget(tokens: Iterable[Token]) -> None:
    """The parent has dropped these: so does this worker, unless something of its own holds them."""
    for token in tokens:
        _kept.pop(token, None)
