"""`share`: one copy of an object for all workers and jobs.

The object is pickled once, its big buffers into a segment that every worker maps. Items and handlers only have its
name; a worker unpickles the object when it first meets the name, and keeps it until the parent drops it.

If workers are on another machine, an engine brings the object there before the first frame that names it:
`context.noted` has the names in a pickle; `parts_of` makes the data to send; a process there can `lend` it to its
workers, which map one copy (`take_in`). For workers on the parent's own machine that process is the parent
(`lend_own`), and there is no copy.

An object that a handler shares is the worker's, and so is its memory, which is freed with the handler's own objects. So
a result contains the object itself, see `context.leaving`; the process that receives it shares it anew, once it sends
it on.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from mpqueue._os.process_handle import process_name
from mpqueue._wire.memory.segments import CommonSegment
from mpqueue._wire.pickling import beside
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.classes import Classes, Scope, may_bring_classes, scope_here
from mpqueue._wire.pickling.payload import (
    Packed,
    dump_code,
    lend_parts,
    load,
    load_parts,
    view_parts,
)
from mpqueue.errors import ItemPicklingError, shown

T = TypeVar("T")

Token = tuple[str, int]  #: the sharing process, and a number there

_numbers = itertools.count(1)
#: Objects that this process has shared or met, by token. A worker keeps those that it met, see `keep` and `drop`.
_known: weakref.WeakValueDictionary[Token, Shared[Any]] = weakref.WeakValueDictionary()
_kept: dict[Token, Shared[Any]] = {}

#: Tokens of this process's dropped objects, in that order; only ever appended to.
dropped: list[Token] = []


class Shared(Generic[T]):
    """An object that workers share; ``value`` is the object itself, in the parent and in every worker.

    In simple uses it acts like the object: attributes, indexing, iteration, calls and numpy functions go to the object.
    Each worker has a private view of the buffers: its changes affect no other process.
    """

    def __init__(self, token: Token, packed: Packed | None = None, loaded: list[T] | None = None) -> None:
        self._token = token
        self._sent = packed  #: None: it has not been sent from here yet, and is loaded
        self._segments: list[CommonSegment] = []  # they live as long as this object
        self._loaded = loaded or []
        self._for_others: Packed | None = None
        #: the pickle and its buffers, if they were carried here, or are mapped already
        self._parts: tuple[bytes | memoryview, Sequence[bytearray | memoryview]] | None = None
        self._lent: Packed | None = None  #: the same, by a copy on this machine: it was brought to this worker
        self._brings_classes: bool | None = None  #: None: not known yet
        #: If it does, the object by the scope of a job, and the classes that a call needs for it.
        self._variants: weakref.WeakKeyDictionary[Scope, list[tuple[Classes, T]]] = weakref.WeakKeyDictionary()
        self._inner: tuple[Shared[Any], ...] = ()  #: the shared objects that it names
        _known[token] = self

    @property
    def value(self) -> T:
        """The object. The first call in a worker unpickles it there; the first of each job, if it brings classes."""
        if not self._loaded:
            self._loaded.append(load_parts(*self._view()))
            self._parts = None
        return self._loaded[0]

    def _view(self) -> tuple[bytes | memoryview, Sequence[bytearray | memoryview]]:
        return view_parts(self._lent or self._packed) if self._parts is None else self._parts

    def _value_in(self, scope: Scope) -> T:
        """Return the object, made with the classes of that scope."""
        if self._brings_classes is None:
            self._brings_classes = may_bring_classes(self._view()[0])
        if not self._brings_classes:
            return self.value
        variants = self._variants.setdefault(scope.root, [])
        for known, value in variants:
            if scope.has_room_for(known):
                return value
        value, known = scope.load(lambda: load_parts(*self._view()))
        variants.append((known, value))
        return value

    @property
    def _packed(self) -> Packed:
        """The pickle, made by the first call. Raises `ItemPicklingError`."""
        if self._sent is None:
            self._pack(self._loaded[0])
            weakref.finalize(self, dropped.append, self._token).atexit = False
        assert self._sent is not None
        return self._sent

    def _pack(self, obj: T) -> None:
        try:
            inner = list[Shared[Any]]()
            # Jobs of all queues may have it.
            packed, segment = within(lambda: dump_code(obj), (beside.script, None), (beside.noted, inner))
        except Exception as error:
            raise ItemPicklingError(
                f"share: expected an object that can be pickled, got {shown(obj)} of type {type(obj).__name__} "
                f"({shown(error)})"
            ) from error
        # Two threads may do this at once: both pickles are good.
        self._segments += [] if segment is None else [segment]
        self._inner = tuple(inner)
        self._sent = packed

    def _goes_itself(self) -> bool:
        """Tell whether the object itself is sent, since its name would find nothing here later."""
        if beside.leaving.get():
            return self._sent is None or self._token[0] == process_name()
        return self._sent is None and beside.whole.get() and beside.noted.get() is None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._goes_itself():
            return _share_later, (self.value,)
        noted = beside.noted.get()
        if noted is not None and self._packed.segment is not None:  # otherwise all of it is in its name
            noted += [*self._inner, self]
        by_name = noted is not None or self._lent is not None or not beside.whole.get()
        return _meet, (self._token, self._packed if by_name else self._whole())

    def _whole(self) -> Packed:
        """Return the object in one pickle, for workers on other machines; made once."""
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
        size = "" if self._sent is None else f" {self._sent.size} bytes"
        return f"<Shared{size}{f': {shown(self._loaded[0])}' if self._loaded else ''}>"


def share(obj: T) -> Shared[T]:
    """Share an object (a model, a table, an array) that many items or jobs use: it is sent once, not with each item.

    Costs one pickling and one copy of its buffers, and that much memory while the returned object, or an item or a
    handler that holds it, lives. Workers see the object as it was at this call. A handler may share an object too, and
    return it: the program gets a copy, which is shared again when it is sent on. Raises `ItemPicklingError` if it can't
    be pickled.
    """
    shared = _share_later(obj)
    _ = shared._packed
    return shared


def _share_later(obj: T) -> Shared[T]:
    """Make a shared object while unpickling; this process shares it as soon as it is sent on.

    Journals keep pickles that name this function.
    """
    return Shared((process_name(), next(_numbers)), loaded=[obj])


class _SharedInScope(Shared[T]):
    """A shared object with the classes of one scope. Keeps alive the `Shared` that all scopes have."""

    def __init__(self, shared: Shared[T], scope: Scope) -> None:
        vars(self).update(vars(shared))
        self._loaded = []
        self._shared, self._scope = shared, scope

    @property
    def value(self) -> T:
        if not self._loaded:
            self._loaded.append(self._shared._value_in(self._scope))
        return self._loaded[0]


def _meet(token: Token, packed: Packed) -> Shared[Any]:
    """Return, while unpickling, the object that this process has for the token, or a new one."""
    shared, scope = _meet_any(token, packed), scope_here()
    if scope is None or shared._loaded or shared._brings_classes is False:
        return shared
    return _SharedInScope(shared, scope)


def _meet_any(token: Token, packed: Packed) -> Shared[Any]:
    shared = _known.get(token)
    if shared is None:
        shared = Shared[Any](token, packed)
        if token[0] != process_name():
            _kept[token] = shared
    return shared


def size_of(shared: Shared[Any]) -> int:
    """Return the bytes of the pickled object."""
    return shared._packed.size


def token_of(shared: Shared[Any]) -> Token:
    """Return the token of the shared object, which no other has in any process."""
    return shared._token


class Parts(NamedTuple):
    """The parts of a shared object for a worker that can't map this process's memory."""

    token: Token
    packed: Packed  #: from the sharing process
    data: bytes
    buffers: Sequence[Any]


def parts_of(shared: Shared[Any]) -> Parts:
    """Return the parts of the object. Copies nothing big: the buffers are the segment's."""
    data, buffers = view_parts(shared._packed)
    return Parts(shared._token, shared._packed, bytes(data), [memoryview(buffer) for buffer in buffers])


class Lent(NamedTuple):
    """A shared object for a worker on the same machine as its parent, which has a copy of it."""

    token: Token
    packed: Packed  #: from the sharing process
    copy: Packed


def lend(parts: Parts) -> tuple[Lent, CommonSegment | None]:
    """Make a copy for workers on this machine, in a process between them and the sharing one.

    It lasts while the segment is referenced; None: all of it is in the message, as always without segments.
    """
    copy, segment = lend_parts(parts.data, [memoryview(buffer) for buffer in parts.buffers])
    return Lent(parts.token, parts.packed, copy), segment


def lend_own(shared: Shared[Any]) -> Lent:
    """Lend the shared object to workers on the sharing process's machine: they map its segment."""
    return Lent(shared._token, shared._packed, shared._packed)


def take_in(lent: Lent) -> Shared[Any]:
    """Take in a lent object, in a worker; a reference to the returned one keeps it for the whole process.

    It is mapped now, since a handler may drop the right to do that.
    """
    shared = _known.get(lent.token)
    if shared is None:
        shared = Shared[Any](lent.token, lent.packed)
        shared._lent = lent.copy
    if shared._lent is lent.copy and not shared._loaded and shared._parts is None:
        with contextlib.suppress(OSError):  # otherwise at its first use
            shared._parts = view_parts(lent.copy)
    return shared


def forget(tokens: Iterable[Token]) -> None:
    """Forget shared objects that the parent has dropped, unless other objects of the worker hold them."""
    for token in tokens:
        _kept.pop(token, None)
