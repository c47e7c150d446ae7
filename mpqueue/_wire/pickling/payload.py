"""Pickling and unpickling: with `classes` the only file that uses cloudpickle.

It uses plain pickle if possible, since it is several times faster; cloudpickle if plain pickle fails (lambdas,
closures), or if its bytes name ``__main__``: plain pickle writes an instance of a script's class here, but a worker
could not find the class.

Big buffers (of numpy arrays and other objects that yield them) and big pickles go through shared segments, see
`mpqueue._wire.memory.segments`; the small rest goes through the pipe.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import cloudpickle

from mpqueue._os.process_signals import came_of_signal
from mpqueue._wire.memory.segments import (
    BIG,
    NOTHING_CARRIED,
    Carried,
    CommonSegment,
    Part,
    SegmentRef,
    SegmentStore,
    layout,
    log,
    view,
)
from mpqueue._wire.pickling import beside, main_names
from mpqueue._wire.pickling.beside import Buffers, Pickled, within
from mpqueue._wire.pickling.classes import (
    BROUGHT,
    REDUCERS,
    BringsClasses,
    id_of,
    id_of_reduced,
    load_class,
    load_classes,
    reduce_slotted,
)
from mpqueue._wire.pickling.reducers import PROTOCOL, dump_by, table

#: Pickles an object; the second argument takes its big buffers.
Into = Callable[[Any, Buffers], Pickled]
#: Puts buffers into a segment: returns its name, and each one's offset.
Lend = Callable[[Sequence[Part]], tuple[SegmentRef, list[int]]]


class Packed(NamedTuple):
    """A pickled object. ``spans`` are (offset, size) of its buffers in the segment; ``body`` of the pickle itself."""

    data: bytes
    segment: SegmentRef | None = None
    spans: tuple[tuple[int, int], ...] = ()
    body: tuple[int, int] | None = None
    by_value: bool = False  #: it may contain classes and functions instead of their names

    @property
    def size(self) -> int:
        """Bytes of the pickle and its buffers in total."""
        if self.segment is None:
            return len(self.data)
        beside = sum(size for _, size in self.spans) + (0 if self.body is None else self.body[1])
        return len(self.data) + beside

    @property
    def extent(self) -> tuple[int, int]:
        """The offsets in its segment at which it begins and ends; the segment may also hold others."""
        spans = self.spans if self.body is None else (*self.spans, self.body)
        return min(at for at, _ in spans), max(at + size for at, size in spans)


def dump(obj: Any, store: SegmentStore | None = None) -> Packed:
    """Pickle an object. Every obstacle is raised: TypeError, PicklingError, errors of its own code."""
    return dump_with(_plain_or_cloud, obj, store)


def dump_each(values: Sequence[Any], store: SegmentStore | None = None) -> list[Packed]:
    """Pickle each of these by itself; their big parts are in one segment. Raises the errors of `dump`."""
    if store is None:
        return [dump(value) for value in values]
    parts, end = list[Part](), 0

    def lend_later(buffers: Sequence[Part]) -> tuple[SegmentRef, list[int]]:
        nonlocal end
        offsets, size = layout(buffers)
        begin, end = end, end + size
        parts.extend(buffers)
        return _LATER, [begin + offset for offset in offsets]

    packed = [_dump(_plain_or_cloud, value, lend_later) for value in values]
    if not parts:
        return packed
    try:
        ref, _ = store.lend(parts)
    except OSError as error:
        _tell_of_pipes(error)
        return [_in_one(_plain_or_cloud, value) for value in values]
    return [one if one.segment is None else one._replace(segment=ref) for one in packed]


#: Stands for a segment that is not filled yet.
_LATER = SegmentRef("", 0, 0, 0)


def dump_with(into: Into, obj: Any, store: SegmentStore | None) -> Packed:
    """Pickle like `dump`, but by ``into``, which gets the list for big buffers."""
    return _dump(into, obj, None if store is None else store.lend)


class _OwnSegment:
    """Lends a segment of its own, which lives as long as it is referenced."""

    segment: CommonSegment | None = None  #: None: none was needed

    def lend(self, buffers: Sequence[Part]) -> tuple[SegmentRef, list[int]]:
        """Put the buffers into it; returns its name, and each one's offset. Raises OSError."""
        self.segment = CommonSegment(buffers)
        return self.segment.ref, self.segment.offsets


def dump_code(
    obj: Any, *, whole: bool = False, brought: list[str] | None = None
) -> tuple[Packed, CommonSegment | None]:
    """Pickle a function, by value if the other side can't import it.

    Its big parts are in a segment of their own, which lives as long as it is referenced; with ``whole`` there is none.
    ``brought`` gets the ids of the classes in it.
    """
    own = _OwnSegment()

    def into(obj: Any, buffers: Buffers) -> Pickled:
        data = _named_or_cloud(obj, buffers)
        if brought is not None:
            brought.extend(buffers.classes)
        return data

    packed = _dump(into, obj, None if whole else own.lend)
    return packed, own.segment


def pin_classes(items: Iterable[Any], classes: dict[str, bytes]) -> None:
    """Pickle the current classes of these items, if they are sent by value, for `context.moment`.

    Errors are raised later, for the items.
    """
    with contextlib.suppress(Exception):
        each = (kind for kind, _ in groupby(map(type, items)) if kind.__module__ != "builtins")
        kinds = {id(kind): kind for kind in each}  # by identity: a class may have no hash
        if kinds:
            within(functools.partial(_pin_each, kinds.values()), (beside.moment, classes))


def _pin_each(kinds: Iterable[type]) -> None:
    for kind in kinds:
        with contextlib.suppress(Exception):
            dump(kind)


def dump_by_reference(obj: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle by plain pickle, which names classes and functions; big buffers are beside it, not copied."""
    buffers = Buffers()
    return _plain(obj, buffers).whole(), buffers.contiguous()


def dump_by_value(obj: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle like `dump_by_reference`, but with ``__main__``'s objects, or a function's, included."""
    buffers = Buffers()
    return within(lambda: _cloud(obj, buffers), (beside.script, None)).whole(), buffers.contiguous()


def weigh_code(obj: Any) -> int:
    """Return how many bytes `dump_code` would make of it. Raises its errors; copies no big buffer."""
    buffers = Buffers()
    data = _cloud(obj, buffers)
    return data.nbytes + sum(buffer.nbytes for buffer in buffers.parts())


def load(packed: Packed, on_free: Callable[[int], object] | None = None, carried: Carried = NOTHING_CARRIED) -> Any:
    """Unpickle an object. Raises errors of its own code; `OSError` if its segment is gone."""
    return load_parts(*_unpacked(packed, on_free, carried))


def load_several(
    several: Sequence[bytes | Packed],
    on_free: Callable[[int], object] | None = None,
    carried: Carried = NOTHING_CARRIED,
) -> list[Any]:
    """Load values that other workers have pickled one by one; plain bytes are a pickle without buffers."""
    return [load_parts(*((one, ()) if isinstance(one, bytes) else _unpacked(one, on_free, carried))) for one in several]


def load_parts(data: bytes | memoryview, buffers: Sequence[memoryview | bytearray]) -> Any:
    """Load an object from a pickle and its buffers. Raises errors of its own code."""
    if not main_names.has_own():
        return load_classes(data, buffers)
    with main_names.with_own():
        return load_classes(data, buffers)


def view_parts(packed: Packed) -> tuple[bytes | memoryview, list[memoryview]]:
    """Return the pickle and its buffers as views of its segment, which is mapped while they live."""
    return _unpacked(packed, None, NOTHING_CARRIED)


def copy_parts(packed: Packed, carried: Carried = NOTHING_CARRIED) -> tuple[bytes, list[bytearray]]:
    """Return copies of the pickle and its buffers from its segment."""
    data, buffers = _unpacked(packed, None, carried)
    return bytes(data), [bytearray(buffer) for buffer in buffers]


def lend_parts(data: bytes, buffers: Sequence[bytearray | memoryview]) -> tuple[Packed, CommonSegment | None]:
    """Put a pickle and its buffers into a segment of this process, which lives as long as it is referenced.

    None: there are no segments, and all of it is in one pickle.
    """
    own = _OwnSegment()
    try:
        packed = _beside(Pickled([data]), [memoryview(buffer) for buffer in buffers], own.lend)
    except OSError as error:
        _tell_of_pipes(error)
        return Packed(pickle.dumps(_InOne(data, [*map(bytearray, buffers)]), PROTOCOL)), None
    return packed, own.segment


def put_apart(store: SegmentStore, data: bytes | memoryview, beside: Sequence[memoryview] = ()) -> Packed | None:
    """Put bytes and their buffers into a segment of their own; None if there is none."""
    try:
        ref, (at, *places) = store.lend([memoryview(data), *beside])
    except OSError as error:
        _tell_of_pipes(error)
        return None
    spans = tuple((place, part.nbytes) for place, part in zip(places, beside, strict=True))
    return Packed(b"", ref, spans, body=(at, len(data)))


def without_segment(packed: Packed, carried: Carried = NOTHING_CARRIED) -> bytes:
    """Return the packed object as one pickle without buffers. Unpickles nothing; costs two copies."""
    return pickle.dumps(_InOne(*copy_parts(packed, carried)), PROTOCOL)


class _InOne:
    def __init__(self, data: bytes, buffers: list[bytearray]) -> None:
        self._parts = data, buffers

    def __reduce__(self) -> tuple[Any, ...]:
        return load_parts, self._parts


def _unpacked(
    packed: Packed, on_free: Callable[[int], object] | None, carried: Carried
) -> tuple[bytes | memoryview, list[memoryview]]:
    """Return the pickle and its buffers: mapped, or carried here; copied if that memory is read-only."""
    if packed.segment is None:
        return packed.data, []
    begin, end = packed.extent
    if (there := carried.get(packed.segment.serial)) is None:
        memory = view(packed.segment, on_free, begin, end)
    else:
        memory = memoryview(bytearray(there[begin:end])) if there.readonly else there[begin:end]
        if on_free is not None:
            on_free(packed.segment.serial)
    data = packed.data if packed.body is None else _cut(memory, begin, *packed.body)
    return data, [_cut(memory, begin, *span) for span in packed.spans]


def _cut(memory: memoryview, begin: int, at: int, size: int) -> memoryview:
    return memory[at - begin : at - begin + size]


def load_home(
    packed: Packed, on_free: Callable[[int], object] | None = None, carried: Carried = NOTHING_CARRIED
) -> Any:
    """Like `load`, for objects from a worker."""
    data, buffers = _unpacked(packed, on_free, carried)
    return load_parts(data, buffers) if packed.by_value else pickle.loads(data, buffers=buffers)


def _dump(into: Into, obj: Any, lend: Lend | None) -> Packed:
    if lend is None:
        return _whole(into, obj)
    buffers = Buffers()
    data = into(obj, buffers)
    try:
        packed = _beside(data, buffers.parts(), lend)
    except OSError as error:
        _tell_of_pipes(error)
        return _in_one(into, obj)
    return packed._replace(by_value=True) if buffers.by_value else packed


def _tell_of_pipes(error: OSError) -> None:
    _warn_once(f"big data goes through pipes, which is slower: {error}")


def _whole(into: Into, obj: Any) -> Packed:
    return within(functools.partial(_in_one, into, obj), (beside.whole, True))


def _in_one(into: Into, obj: Any) -> Packed:
    buffers = Buffers(in_band=True)
    data = into(obj, buffers)
    return Packed(data.whole(), by_value=buffers.by_value)


def _plain_or_cloud(obj: Any, buffers: Buffers) -> Pickled:
    try:
        data = _plain(obj, buffers)
    except Exception as error:
        if came_of_signal(error):
            raise
        data = None
    if data is not None and not data.names(main_names.MARK):
        return data
    buffers.clear()
    return _cloud(obj, buffers, classes_apart=True)


def _plain(obj: Any, buffers: Buffers) -> Pickled:
    written = Pickled()
    pickler = pickle.Pickler(written, PROTOCOL, buffer_callback=None if buffers.in_band else buffers.take)
    pickler.dispatch_table = table()
    dump_by(pickler, obj, buffers)
    if buffers.in_band:
        written.unwrap()
    return written


def all_go_by_name() -> bool:
    """True if only the script's objects are sent by value; a program may register other modules for that."""
    registered: set[str] = cloudpickle.list_registry_pickle_by_value()
    return registered.issubset(main_names.NAMES)


def _named_or_cloud(obj: Any, buffers: Buffers) -> Pickled:
    """Pickle a function; if the other side can import it, by name, at a tenth of cloudpickle's cost."""
    importable = type(obj) is FunctionType and obj.__module__ not in main_names.NAMES and obj.__module__ in sys.modules
    if importable and all_go_by_name():
        with contextlib.suppress(pickle.PicklingError, AttributeError):  # its name leads to another object
            return Pickled([pickle.dumps(obj, PROTOCOL)])
    return _cloud(obj, buffers)


def _cloud(obj: Any, buffers: Buffers, *, classes_apart: bool = False) -> Pickled:
    spawned = sys.modules.get("__mp_main__")
    if spawned is not None:  # cloudpickle knows only the other name of a script
        cloudpickle.register_pickle_by_value(spawned)
    written = Pickled()
    buffers.by_value = True
    dump_by(_CloudPickler(written, buffers, classes_apart=classes_apart), obj, buffers)
    if buffers.in_band:
        written.unwrap()
    return written


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    make, arguments = _plain_reduce_code(code)
    # Only text is compared: comparing bytes, which a code object has too, is an error under ``python -bb``.
    return make, tuple([code.co_filename if type(each) is str and each == _NO_FILE else each for each in arguments])


#: Newer cloudpickles write this instead of a function's file name, so that tracebacks would show no source.
_NO_FILE = "<dynamic-code>"
_cloud_reduce: Callable[[Any, Any], Any] = cloudpickle.CloudPickler.reducer_override
_plain_reduce_code: Callable[[CodeType], tuple[Any, ...]] = cloudpickle.CloudPickler.dispatch_table[CodeType]
_REDUCERS = {CodeType: _reduce_code, **REDUCERS}


class _CloudPickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Pickles functions by value, with their file names; those of ``__main__`` share a namespace.

    ``classes_apart``: a class is a separate pickle inside this one, which is unpickled only if the class is not there
    yet. Not after a function sent by value: it shares variables with the methods of the classes that it names.
    """

    def __init__(self, file: Pickled, buffers: Buffers, *, classes_apart: bool = False) -> None:
        self.dispatch_table = ChainMap(_REDUCERS, table(), cloudpickle.CloudPickler.dispatch_table)
        super().__init__(file, PROTOCOL, buffer_callback=None if buffers.in_band else buffers.take)
        for namespace in main_names.namespaces():
            self.globals_ref[id(namespace)] = main_names.MainNames()
        self._finds_names = main_names.finds_names()
        self._classes_apart = classes_apart
        self._reduced: dict[int, Any] = {}  #: reduced forms of classes, as far as known
        self._inside = buffers.classes
        #: By the ids of separate classes, their pickles.
        known = beside.moment.get()
        self._apart: dict[str, bytes] = {} if known is None else known
        self._adopted: set[str] = set()  #: the ids of classes that functions in this pickle bring

    def reducer_override(self, obj: Any) -> Any:
        if self._finds_names and (name := main_names.found_by_name(obj)) is not None:
            return name
        if issubclass(type(obj), type):
            return self._reduce_class(obj)
        reduced = _cloud_reduce(self, obj)  # called for each object: `super()` would take 5% of the pickling's time
        if reduced is not NotImplemented:
            self._classes_apart = False
        elif issubclass(type(obj), BringsClasses):
            self._adopted.update(obj.classes)
        return reduced

    def _reduce_class(self, obj: type) -> Any:
        if self._classes_apart and (tracker_id := id_of(obj)) is not None:
            if tracker_id in self._adopted:
                return load_class, (tracker_id, BROUGHT)
            if tracker_id in self._apart:
                return load_class, (tracker_id, self._apart[tracker_id])
        if (reduced := self._reduced.pop(id(obj), None)) is None and (reduced := reduce_slotted(obj)) is None:
            reduced = _cloud_reduce(self, obj)
        if (tracker_id := id_of_reduced(reduced)) is None:
            return reduced
        if not self._classes_apart:
            self._inside.append(tracker_id)
            return reduced
        self._pickle_apart(obj, reduced)
        return load_class, (tracker_id, self._apart[tracker_id])

    def _pickle_apart(self, kind: type, reduced: Any) -> None:
        """Pickle the class by itself, once for all classes that it brings."""
        written, buffers = Pickled(), Buffers(in_band=True)
        pickler = _CloudPickler(written, buffers)
        pickler._reduced[id(kind)] = reduced
        dump_by(pickler, kind, buffers)
        written.unwrap()
        data = written.whole()
        for tracker_id in buffers.classes:
            self._apart.setdefault(tracker_id, data)


def _beside(data: Pickled, buffers: Sequence[Part], lend: Lend) -> Packed:
    """Return the pickle, with its big parts in a segment."""
    big_body = data.nbytes >= BIG
    if not big_body and not buffers:
        return Packed(data.whole())
    parts = [*buffers, data.part()] if big_body else list(buffers)
    ref, offsets = lend(parts)
    spans = tuple((offset, part.nbytes) for offset, part in zip(offsets, parts, strict=True))
    if big_body:
        return Packed(b"", ref, spans[:-1], spans[-1])
    return Packed(data.whole(), ref, spans)


@functools.cache
def _warn_once(text: str) -> None:
    with contextlib.suppress(Exception):  # a user's filter or handler may raise
        log.warning("%s", text)


class NotPlainError(Exception):
    """Pickling would run code that this pickler does not run."""


class _PlainPickler(pickle.Pickler):
    """A pickler for plain built-in types only, which runs no users' code and always returns.

    The hook is called for all other types, so plain data costs nothing.
    """

    def reducer_override(self, obj: Any) -> Any:  # noqa: ARG002
        raise NotPlainError


def dump_plain(obj: Any, store: SegmentStore | None = None) -> Packed | None:
    """Pickle an object if it consists of plain data, which can always be unpickled; None if it does not."""
    written = Pickled()
    try:
        _PlainPickler(written, PROTOCOL).dump(obj)
    except Exception:
        return None
    return dump_with(lambda *_: written, obj, store)
