"""Pickling that runs no user's code: built-in types, a few of the standard library's, and numpy's arrays and numbers.

For the coordinator's thread, where no code of the user's may run. A type is known by its identity: a class has a
metaclass, and that may have a hash of its own.
"""

from __future__ import annotations

import array
import builtins
import copyreg
import datetime as dt
import decimal
import functools
import io
import pathlib
import pickle
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.pickling import main_names, packed_functions, rebuilding
from mpqueue._wire.pickling.beside import Buffers, Pickled
from mpqueue._wire.pickling.payload import NotPlainError, Packed, dump_with
from mpqueue._wire.pickling.reducers import PLAIN, PROTOCOL, reduce_array
from mpqueue._worker.handlers.called import Call

#: What is asked of an object whose type is known: whether it holds nothing but what is its type's own.
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


#: Pickled by value. Their contents are looked at in their turn.
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
    decimal.Decimal,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    uuid.UUID,
    functools.partial,
    io.BytesIO,
    array.array,
    packed_functions.PackedFunction,
    Call,
)
#: The one registration that is Python's own.
_reduce_complex: Any = vars(copyreg)["pickle_complex"]
_registered = copyreg.dispatch_table.get
_known: dict[int, Check] = {id(kind): _always for kind in _TYPES}
_known |= {id(types.FunctionType): _is_imported, id(types.BuiltinFunctionType): _always}
#: Pickled by name: those types, and what puts them together again.
_MAKERS = (
    builtins.getattr,
    rebuilding.bytes_io,
    rebuilding.number_array,
    packed_functions.unpack,
)
_named = {id(named) for named in (*_TYPES, *_MAKERS)}
#: Numpy's dtypes of which there is one each, which most arrays have.
_own_dtypes: set[int] = set()


class _Numpy:
    """Numpy's part of both tables, added once it has been imported."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_known = False
        self.array: Any = None  #: its type
        self._kept: list[Any] = []  #: what is known by its identity must not be another's

    def learn(self) -> bool:
        """True where there is something new in the tables."""
        np = sys.modules.get("numpy")
        if np is None or self.is_known:
            return False
        with self._lock:
            try:
                self._learn(np)
            except AttributeError:  # it is just being imported
                return False
            self.is_known = True
        return True

    def _learn(self, np: Any) -> None:
        dtypes = [np.dtype(code) for code in np.typecodes["All"]]
        scalars = {dtype.type for dtype in dtypes if dtype.kind not in "OV"}
        samples = [np.zeros(2), np.zeros((4, 4))[::2, ::2], np.float64(1.0), dtypes[0]]
        makers = [sample.__reduce_ex__(PROTOCOL)[0] for sample in samples]
        self.array = np.ndarray
        self._kept = [np.ndarray, np.dtype, *scalars, *makers, *dtypes]
        _own_dtypes.update(id(dtype) for dtype in dtypes if _is_own_dtype(dtype))
        _named.update(map(id, [np.ndarray, np.dtype, *scalars, *makers]))
        _known.update((id(type(dtype)), _is_own_dtype) for dtype in dtypes)
        _known.update((id(scalar), _always) for scalar in scalars)
        _known[id(np.ndarray)] = _is_own_array


_numpy = _Numpy()


def is_plain_array(obj: Any) -> bool:
    """True for a numpy array that holds no other objects."""
    if not _numpy.is_known:
        _numpy.learn()
    return _numpy.is_known and type(obj) is _numpy.array and _is_own_array(obj)


def _is_known(obj: Any) -> bool:
    kind = type(obj)
    check = _known.get(id(kind))
    if check is not None:
        # A program may have registered another way to pickle that type.
        registered = _registered(kind)
        return (registered is None or registered is _reduce_complex) and check(obj)
    return id(obj) in _named


class _Pickler(pickle.Pickler):
    """A pickler whose hook is called for everything but plain built-in types, so that these cost nothing."""

    dispatch_table = PLAIN

    def __init__(self, file: Pickled, buffers: Buffers) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=None if buffers.in_band else buffers.take)
        self._in_band = buffers.in_band

    def reducer_override(self, obj: Any) -> Any:
        if _is_known(obj) or (not _numpy.is_known and _numpy.learn() and _is_known(obj)):
            return reduce_array(obj, in_band=self._in_band) if type(obj) is _numpy.array else NotImplemented
        raise NotPlainError


def _harmlessly(obj: Any, buffers: Buffers) -> Pickled:
    written = Pickled()
    _Pickler(written, buffers).dump(obj)
    if buffers.in_band:
        written.unwrap()
    return written


def dump_harmless(obj: Any, store: SegmentStore | None = None) -> Packed | None:
    """Pickle an object if that runs no user's code; None if it would. It always returns."""
    try:
        return dump_with(_harmlessly, obj, store)
    except Exception:
        return None


def dump_harmless_parts(obj: Any) -> tuple[bytes, list[memoryview]] | None:
    """Pickle an object as `dump_harmless` does, into the pickle and the big buffers beside it, which are not copied."""
    buffers = Buffers()
    try:
        return _harmlessly(obj, buffers).whole(), buffers.contiguous()
    except Exception:
        return None


#: Built-in types that hold no other objects.
LEAVES = {id(kind) for kind in (type(None), bool, int, float, str, bytes)}


def are_harmless(values: Iterable[Any]) -> bool:
    """True if it is plain at a glance that freeing these runs no user's code: numbers, text, arrays. 0.2 us each."""
    return all(id(type(value)) in LEAVES or _is_leaf(value) for value in values)


def _is_leaf(value: Any) -> bool:
    kind = type(value)
    if kind is functools.partial or kind is Call or kind in (types.FunctionType, slice):
        return False
    check = _known.get(id(kind))
    if check is None and _numpy.learn():
        check = _known.get(id(kind))
    return check is not None and check(value)
