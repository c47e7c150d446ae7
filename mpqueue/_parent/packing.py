"""Pickles a chunk's items, and finds those that can't be pickled.

Items that run no code are pickled on the coordinator's thread, see `dump_without_user_code`. All others are
pickled on their job's own thread, where a slow or endless one delays no other job.

Calls that share a mutable part are each pickled separately: the standard library pickles each call by itself, so that
no call sees another one's changes. All others are pickled together, which takes a tenth of the time.
"""

from __future__ import annotations

import array
import builtins
import contextlib
import copyreg
import datetime as dt
import functools
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.lane_book import Chunk
from mpqueue._parent.inbox import take_traceback, text_of
from mpqueue._parent.users_threads import PickleTask
from mpqueue._plain import standard_types
from mpqueue._wire.frames import Several
from mpqueue._wire.memory.segments import HeldSegment, SegmentRef, SegmentStore
from mpqueue._wire.memory.shared import Shared
from mpqueue._wire.parcels import Parcel
from mpqueue._wire.pickling import beside, main_names, packed_functions, rebuilding
from mpqueue._wire.pickling.beside import Buffers, Pickled, within
from mpqueue._wire.pickling.packed_functions import PackedFunction, is_importable
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue._wire.pickling.payload import NotPlainError, Packed, dump, dump_with
from mpqueue._wire.pickling.reducers import PLAIN, PROTOCOL, reduce_array
from mpqueue._worker.handlers.called import Call
from mpqueue.errors import ItemPicklingError, shown


class PackedItems(NamedTuple):
    """A chunk's items: one pickle of the list of them, or one each; or why some can't be pickled."""

    items: Packed | list[Packed] | Several
    failures: dict[int, Failure]  #: by position; then there are no items
    apart: bool = False  #: all together take too long: each has to be sent by itself
    shared: Sequence[Shared[Any]] = ()  #: the shared objects that they name
    seconds: float = 0.0
    held: Sequence[HeldSegment] = ()  #: the segments of other workers that they are in

    @property
    def refused(self) -> bool:
        """True if there is nothing to send."""
        return bool(self.failures) or self.apart

    @property
    def size(self) -> int:
        """Bytes in total."""
        if isinstance(self.items, Packed):
            return self.items.size
        each = self.items.each if isinstance(self.items, Several) else self.items
        return sum(len(one) if isinstance(one, bytes) else one.size for one in each)

    @property
    def segments(self) -> list[SegmentRef]:
        """The segments of this process that they are in."""
        if self.held:
            return []
        if isinstance(self.items, Packed):
            return [] if self.items.segment is None else [self.items.segment]
        each = self.items.each if isinstance(self.items, Several) else self.items
        return [one.segment for one in each if not isinstance(one, bytes) and one.segment is not None]

    @property
    def serials(self) -> list[int]:
        """The serials of these segments."""
        return [ref.serial for ref in self.segments]


def pack_at_once(chunk: Chunk, items: list[Any], store: SegmentStore | None) -> Packed | list[Packed] | Several | None:
    """Return the pickled items, if that runs no users' code; else None. On the coordinator's thread."""
    if chunk.careful:
        return _pack_each_at_once(items, store)
    if not have_parts_in_common(items):
        return dump_without_user_code(items, store)
    each = _pack_each_at_once(items, store)
    return None if each is None else Several(each)


def _pack_each_at_once(items: Sequence[Any], store: SegmentStore | None) -> list[Packed] | None:
    packed: list[Packed] = []
    for item in items:
        one = dump_without_user_code(item, store)
        if one is None:
            give_back(packed, store)
            return None
        packed.append(one)
    return packed


def pack_parcels(parcels: Sequence[Parcel], *, careful: bool) -> PackedItems:
    """Return items that workers have pickled already."""
    held = [parcel.held for parcel in parcels if parcel.held is not None]
    each = [parcel.packed for parcel in parcels]
    items = [Packed(one) if isinstance(one, bytes) else one for one in each] if careful else Several(each)
    return PackedItems(items, {}, held=held)


def give_back(packed: Sequence[Packed], store: SegmentStore | None) -> None:
    """Free the segments of items that were not sent."""
    if store is not None:
        store.take_back([one.segment.serial for one in packed if one.segment is not None])


class Packing(PickleTask[PackedItems]):
    """The pickling of a chunk's items if it runs the code of their classes. On the thread of their job."""

    ends_with_job = True

    def __init__(
        self,
        chunk: Chunk,
        items: list[Any],
        store: SegmentStore | None,
        now: Callable[[], float],
        *,
        notes: bool = False,
    ) -> None:
        self._ids = [chunk.job.table.id_of(index) for index in chunk.indices]
        self._careful = chunk.careful
        self._items = items
        self._store = store
        self._now = now
        self._notes = notes  #: shared objects have to be brought to the worker
        self._handler: PackedHandler = chunk.job.handler
        self._at = -1  #: the position that is being pickled; -1: all together
        self._over = threading.Lock()  #: taken, for good, by the thread that decides the outcome

    @property
    def step(self) -> int:
        """The position of the item that is being pickled (implements `PickleTask`)."""
        return self._at

    def run(self) -> PackedItems | None:
        """Pickle the items; None if this was cut short (implements `PickleTask`)."""
        if self._over.locked():
            self._items = []  # here, where any code may run
            return None
        began, noted = self._now(), list[Shared[Any]]()
        classes = {} if self._handler.classes is None else self._handler.classes
        settings: list[tuple[ContextVar[Any], Any]] = [(beside.script, self._handler.script), (beside.moment, classes)]
        if self._notes:
            settings.append((beside.noted, noted))
        packed, failures = within(self._pack, *settings)
        self._items = []
        made = PackedItems(packed, failures, shared=noted, seconds=self._now() - began)
        if not self._over.acquire(blocking=False):
            if self._store is not None:
                self._store.take_back(made.serials)
            return None
        return made

    def cut_short(self) -> PackedItems | None:
        """Fail the item being pickled; if several are, each has to be sent by itself (implements `PickleTask`)."""
        items = self._items
        if not self._over.acquire(blocking=False):
            return None
        if not self._careful and len(items) > 1:
            return PackedItems([], {}, apart=True)
        at = max(0, self._at)
        which = shown(self._ids[at]) if pickle_without_user_code([self._ids[at]]) else f"at position {at} of its chunk"
        name = type.__dict__["__name__"].__get__(type(items[at]))  # its metaclass may return another name
        refusal = ItemPicklingError(f"item {which} of type {name} can't be pickled: it takes too long")
        return PackedItems([], {at: Failure(refusal, charged=False)})

    def takes_long(self) -> PackedItems | None:
        """Cut it short (implements `PickleTask`)."""
        return self.cut_short()

    def _pack(self) -> tuple[Packed | list[Packed] | Several, dict[int, Failure]]:
        share = not self._careful and have_parts_in_common(self._items)
        if not (self._careful or share):
            with contextlib.suppress(BaseException):
                return dump(self._items, self._store), {}
        # If they can't be pickled together but each alone, their code has returned different values.
        packed, failures = list[Packed](), dict[int, Failure]()
        for at, item in enumerate(self._items):
            self._at = at
            try:
                packed.append(dump(item, self._store))
            except BaseException as error:
                refusal = ItemPicklingError(
                    f"item {shown(self._ids[at])} of type {type(item).__name__} can't be pickled: {text_of(error)}"
                )
                refusal.__cause__ = error
                failures[at] = Failure(refusal, take_traceback(error), charged=False)
        if failures:
            give_back(packed, self._store)
            packed = []
        return Several(packed) if share else packed, failures


# -- calls that are sent together --------------------------------------------------------------------------------------

# Types by their ids: a class has a metaclass, which may have its own hash, or none.

#: Immutable types: it makes no difference who refers to their objects.
_FIXED = {id(kind) for kind in (type(None), bool, int, float, complex, str, bytes, range, type(...))}
_FIXED |= {id(kind) for kind in (dt.date, dt.datetime, dt.time, dt.timedelta, dt.timezone)}
_CONTAINERS = {id(kind) for kind in (tuple, list, dict, set, frozenset)}
_UNCHANGEABLE = {id(tuple), id(frozenset)}  #: only their contents count
#: As the called object: they bring no data, or data that a function of a module would keep between calls as well.
_FUNCTIONS = {id(FunctionType), id(PackedFunction), id(type)}
_METHODS = {id(MethodType), id(BuiltinFunctionType), id(MethodWrapperType)}
#: The most parts of a call that are looked at: looking at more would take longer than pickling it by itself.
_MOST = 256


def have_parts_in_common(items: Sequence[Any]) -> bool:
    """True if these are calls, and two may share a mutable object.

    Also if that can't be seen, inside an object of any class; and if a function that is pickled by value is sent
    together with another one, which may name the same class. 0.9 us per call, and 0.1 us per part of it; runs no code
    of the objects.
    """
    if len(items) == 1 or type(items[0]) is not Call:
        return False
    first: dict[int, int] = {}  #: by the id of a part, the call that has it
    before = items[0].function
    for at, (function, args, kwargs) in enumerate(items):
        if function is not before:
            if _goes_by_value(function) or _goes_by_value(before):
                return True
            before = function
        parts: list[Any] = [args]
        if kwargs:
            parts.append(kwargs)
        if id(type(function)) not in _FUNCTIONS or (type(function) is FunctionType and function.__closure__):
            parts += _brought(function)
        if _may_share(parts, at, first):
            return True
    return False


def _goes_by_value(function: Any) -> bool:
    """Tell whether a function is in the pickle itself, so that it brings classes or may bring them."""
    if type(function) is PackedFunction:
        return bool(function.classes)
    return type(function) is FunctionType and not is_importable(function)


def _may_share(parts: list[Any], at: int, first: dict[int, int]) -> bool:
    """Tell whether one of the parts, or of their contents, is or may be part of another call too."""
    for looked_at, part in enumerate(parts):  # it grows meanwhile
        kind = id(type(part))
        if kind in _FIXED:
            continue
        if kind not in _CONTAINERS and not is_plain_array(part):
            if kind in map(id, standard_types()):
                continue
            return True
        if kind not in _UNCHANGEABLE and first.setdefault(id(part), at) != at:
            return True
        if kind in _CONTAINERS:
            if looked_at + len(part) > _MOST:
                return True
            parts += part
            if type(part) is dict:
                parts += part.values()
    return False


def _brought(function: Any) -> list[Any]:
    """Return the objects that such a callable brings to its call, beside the arguments."""
    kind = type(function)
    if id(kind) in _METHODS:
        owner = function.__self__
        return [] if owner is None or issubclass(type(owner), type | ModuleType) else [owner]
    if kind is FunctionType:
        return [function]
    if issubclass(kind, functools.partial):
        own = [] if kind is functools.partial else [function]
        return [*own, *function.args, *function.keywords.values(), *_brought(function.func)]
    return [] if id(kind) in _FUNCTIONS else [function]


# -- Pickling that runs no user's code: built-in types, a few of the standard library's, and numpy's arrays and
# numbers.
#
# For the coordinator's thread, where no users' code may run.

#: Checks an object of a known type: whether it holds only what its type defines.
Check = Callable[[Any], bool]


def _always(_: Any) -> bool:
    return True


def _is_imported(function: Any) -> bool:
    """True for a function that is pickled by its name, which leads to it on the other side."""
    return type(function.__module__) is str and function.__module__ not in main_names.NAMES


def _is_own_array(array: Any) -> bool:
    dtype = array.dtype
    return id(dtype) in _own_dtypes or _is_own_dtype(dtype)


def _is_own_dtype(dtype: Any) -> bool:
    return dtype.isbuiltin != 2 and not dtype.hasobject and dtype.metadata is None


#: Pickled by value. Their contents are checked in turn.
_TYPES = (
    complex,
    range,
    slice,
    type(...),
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    dt.timezone,
    functools.partial,
    io.BytesIO,
    array.array,
    packed_functions.PackedFunction,
    Call,
)
#: Python's own single registration.
_reduce_complex: Any = vars(copyreg)["pickle_complex"]
_registered = copyreg.dispatch_table.get
_known: dict[int, Check] = {id(kind): _always for kind in _TYPES}
_known |= {id(FunctionType): _is_imported, id(BuiltinFunctionType): _always}
#: Pickled by name: those types, and the functions that rebuild them.
_MAKERS = (
    builtins.getattr,
    rebuilding.bytes_io,
    rebuilding.number_array,
    packed_functions.unpack,
)
_named = {id(named) for named in (*_TYPES, *_MAKERS)}
#: Numpy's singleton dtypes, which most arrays have.
_own_dtypes: set[int] = set()


class _Numpy:
    """Numpy's part of both tables, added once it has been imported."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.array: Any = None  #: its type, once the tables have numpy's part
        self._kept: list[Any] = []  #: objects known by their identities, which must not be reused

    def learn(self) -> bool:
        """True if the tables have new entries."""
        np = sys.modules.get("numpy")
        if np is None or self.array is not None:
            return False
        with self._lock:
            try:
                self._learn(np)
            except AttributeError:  # it is just being imported
                return False
        return True

    def _learn(self, np: Any) -> None:
        dtypes = [np.dtype(code) for code in np.typecodes["All"]]
        scalars = {dtype.type for dtype in dtypes if dtype.kind not in "OV"}
        samples = [np.zeros(2), np.zeros((4, 4))[::2, ::2], np.float64(1.0), dtypes[0]]
        makers = [sample.__reduce_ex__(PROTOCOL)[0] for sample in samples]
        self._kept = [np.ndarray, np.dtype, *scalars, *makers, *dtypes]
        _own_dtypes.update(id(dtype) for dtype in dtypes if _is_own_dtype(dtype))
        _named.update(map(id, [np.ndarray, np.dtype, *scalars, *makers]))
        _known.update((id(type(dtype)), _is_own_dtype) for dtype in dtypes)
        _known.update((id(scalar), _always) for scalar in scalars)
        _known[id(np.ndarray)] = _is_own_array
        self.array = np.ndarray


_numpy = _Numpy()
#: Types of the standard library that are in both tables.
_standard: list[type] = []


def _learn() -> bool:
    """Add the types of modules that have been imported meanwhile; True if there are any."""
    new = [kind for kind in standard_types() if id(kind) not in _known]
    _standard.extend(new)
    _named.update(map(id, new))
    _known.update((id(kind), _always) for kind in new)
    return _numpy.learn() or bool(new)


def is_plain_array(obj: Any) -> bool:
    """True for a numpy array that holds no other objects."""
    if _numpy.array is None:
        _numpy.learn()
    return type(obj) is _numpy.array and _is_own_array(obj)


def _is_known(obj: Any) -> bool:
    kind = type(obj)
    check = _known.get(id(kind))
    if check is not None:
        # A program may have registered another way to pickle that type.
        registered = _registered(kind)
        return (registered is None or registered is _reduce_complex) and check(obj)
    return id(obj) in _named


class _Pickler(pickle.Pickler):
    """A pickler whose hook is called for everything except plain built-in types, so that these cost nothing."""

    dispatch_table = PLAIN

    def __init__(self, file: Pickled, buffers: Buffers) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=None if buffers.in_band else buffers.take)
        self._in_band = buffers.in_band

    def reducer_override(self, obj: Any) -> Any:
        if _is_known(obj) or (_learn() and _is_known(obj)):
            return reduce_array(obj, in_band=self._in_band) if type(obj) is _numpy.array else NotImplemented
        raise NotPlainError


def _without_user_code(obj: Any, buffers: Buffers) -> Pickled:
    written = Pickled()
    _Pickler(written, buffers).dump(obj)
    if buffers.in_band:
        written.unwrap()
    return written


def dump_without_user_code(obj: Any, store: SegmentStore | None = None) -> Packed | None:
    """Pickle an object if that runs no users' code; None if it would. It always returns."""
    try:
        return dump_with(_without_user_code, obj, store)
    except Exception:
        return None


def dump_parts_without_user_code(obj: Any) -> tuple[bytes, list[memoryview]] | None:
    """Pickle like `dump_without_user_code`, into the pickle and the big buffers beside it, which are not copied."""
    buffers = Buffers()
    try:
        return _without_user_code(obj, buffers).whole(), buffers.contiguous()
    except Exception:
        return None


#: Built-in types that hold no other objects.
LEAVES = {id(kind) for kind in (type(None), bool, int, float, str, bytes)}


def pickle_without_user_code(values: Iterable[Any]) -> bool:
    """True if freeing these obviously runs no users' code: numbers, text, arrays. 0.2 us each."""
    return all(id(type(value)) in LEAVES or _is_leaf(value) for value in values)


def _is_leaf(value: Any) -> bool:
    kind = type(value)
    if kind is functools.partial or kind is Call or kind is FunctionType or kind is slice:
        return False
    check = _known.get(id(kind))
    if check is None and _learn():
        check = _known.get(id(kind))
    return check is not None and check(value)
