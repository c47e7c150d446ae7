"""What an item is, as bytes that are the same in every process: its identity, a digest of its canonical form.

The form depends on types and values only: not on objects' addresses, the seed of hashes, or the order of sets and
dictionaries. ``1``, ``1.0``, ``True`` and ``"1"`` differ. Built-in types, paths, dates, numbers and arrays are written
as they are; other objects as their class and what pickling takes out of them.
"""

from __future__ import annotations

import copyreg
import datetime as dt
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from functools import cache
from hashlib import blake2b
from pathlib import PosixPath, PurePath, PurePosixPath
from struct import Struct
from types import BuiltinFunctionType, EllipsisType, FunctionType
from typing import Any
from uuid import UUID

from mpqueue.errors import shown

#: Bytes of a digest.
SIZE = 16
#: Bytes from which on the content of an array stands in the form as a digest.
LARGE = 4096
#: The long double of x86: bits of its fraction, and bytes of it; it takes 12 or 16.
_BITS_OF_X87, _BYTES_OF_X87 = 63, 10
#: How deep a value may be nested.
DEEPEST = 200

_float = Struct("<d").pack
_complex = Struct("<dd").pack


class NoIdentityError(Exception):
    """A value has no stable form; its text says why."""


def digests(values: Sequence[Any]) -> bytes:
    """The digests of these values, one after the other. Raises `NoIdentityError`.

    Runs code of the values' classes where they are none of the plain ones. A string takes about 0.6 us.
    """
    return b"".join([blake2b(form, digest_size=SIZE).digest() for form in _forms(values)])


def _forms(values: Sequence[Any]) -> Iterable[bytes]:
    """The canonical forms. Where all are strings, or whole numbers, without a call for each."""
    kinds = set(map(type, values))
    if kinds == {str}:
        with suppress(UnicodeEncodeError):
            return [f"s{value}".encode() for value in values]
    elif kinds == {int}:
        return [b"i%x" % value for value in values]
    return map(encode, values)


def digest(value: Any) -> bytes:
    """The digest of one value. Raises `NoIdentityError`."""
    return blake2b(encode(value), digest_size=SIZE).digest()


def encode(value: Any) -> bytes:
    """The canonical form. Raises `NoIdentityError` for a value that has none."""
    plain = _PLAIN.get(type(value))
    if plain is not None:
        return plain(value)
    return _encode_in_full(value)


def encode_plain(value: Any) -> bytes | None:
    """The canonical form if that runs no code of users' classes, else None."""
    try:
        return _Writer(plain_only=True).write(value)
    except (NoIdentityError, RecursionError):
        return None


def _encode_in_full(value: Any) -> bytes:
    """The form of a container or an object. Objects are written twice, since code of theirs may say other things."""
    try:
        first = _Writer()
        form = first.write(value)
        stable = not first.ran_code or _Writer().write(value) == form
    except NoIdentityError:
        raise
    except RecursionError:
        raise NoIdentityError("it is nested too deep") from None
    except Exception as error:
        raise NoIdentityError(f"{type(error).__name__}: {error}") from error
    if not stable:
        raise NoIdentityError("it is pickled differently each time")
    return form


def _text(tag: bytes) -> Callable[[Any], bytes]:
    return lambda value: tag + str(value).encode("utf-8", "surrogatepass")


#: Types whose form is one expression.
_PLAIN: dict[type, Callable[[Any], bytes]] = {
    str: lambda value: b"s" + value.encode("utf-8", "surrogatepass"),
    int: lambda value: b"i%x" % value,
    PosixPath: _text(b"P"),
    PurePosixPath: _text(b"Q"),
    bytes: lambda value: b"b" + value,
    float: lambda value: b"f" + _float(value),
    bool: lambda value: b"T" if value else b"F",
    type(None): lambda _: b"N",
    complex: lambda value: b"c" + _complex(value.real, value.imag),
    bytearray: lambda value: b"B" + bytes(value),
    EllipsisType: lambda _: b"E",
    UUID: lambda value: b"U" + value.bytes,
    Decimal: _text(b"D"),
    dt.date: lambda value: b"d" + value.isoformat().encode(),
    dt.timedelta: lambda value: b"y%d,%d,%d" % (value.days, value.seconds, value.microseconds),
    range: lambda value: b"r%x,%x,%x" % (value.start, value.stop, value.step),
}


class _Writer:
    """Writes one value. What is in it is written with its length, so that no two values have the same form."""

    def __init__(self, *, plain_only: bool = False) -> None:
        self._plain_only = plain_only
        self.ran_code = False  #: code of a value's class may have run
        self._open: set[int] = set()  #: the containers that are being written
        self._known: dict[int, tuple[Any, bytes]] = {}  #: digests of objects by address, which are kept meanwhile

    def write(self, value: Any) -> bytes:
        """The value's form."""
        kind = type(value)
        plain = _PLAIN.get(kind)
        if plain is not None:
            return plain(value)
        if id(value) in self._open:
            raise NoIdentityError("it refers to itself")
        if len(self._open) > DEEPEST:
            raise NoIdentityError("it is nested too deep")
        self._open.add(id(value))
        try:
            container = _CONTAINERS.get(kind)
            return self._object(value) if container is None else container(self, value)
        finally:
            self._open.discard(id(value))

    def _sequence(self, tag: bytes, values: Iterable[Any]) -> bytes:
        return tag + b"".join([b"%x:%b" % (len(form), form) for form in map(self.write, values)])

    def _unordered(self, tag: bytes, values: Iterable[Any]) -> bytes:
        return tag + b"".join([b"%x:%b" % (len(form), form) for form in sorted(map(self.write, values))])

    def _mapping(self, value: dict[Any, Any]) -> bytes:
        pairs = sorted((self.write(key), self.write(held)) for key, held in value.items())
        forms = [form for pair in pairs for form in pair]
        return b"{" + b"".join([b"%x:%b" % (len(form), form) for form in forms])

    def _moment(self, value: Any) -> bytes:
        naive = value.replace(tzinfo=None).isoformat()
        tag = b"m" if isinstance(value, dt.datetime) else b"h"
        return self._sequence(tag, (naive, value.fold, value.tzinfo))

    def _object(self, value: Any) -> bytes:
        if isinstance(value, type):
            return self._by_name(value, value.__qualname__)
        if isinstance(value, (FunctionType, BuiltinFunctionType)):
            return self._by_name(value, value.__qualname__)
        if isinstance(value, Enum):
            return self._sequence(b"e", (type(value), getattr(value, "name", None) or value.value))
        if isinstance(value, PurePath):
            return self._sequence(b"p", (type(value), str(value)))
        if type(value).__module__.partition(".")[0] == "numpy":
            form = self._of_numpy(value)
            if form is not None:
                return form
        if _is_tensor(value):
            return self._tensor(value)
        known = self._known.get(id(value))
        if known is None:
            if self._plain_only:
                raise NoIdentityError("it is an object")
            self.ran_code = True
            form = self._reduced(value)
            # A digest of its own: an object that is met often is written once.
            known = self._known[id(value)] = (value, b"O" + blake2b(form, digest_size=2 * SIZE).digest())
        return known[1]

    def _of_numpy(self, value: Any) -> bytes | None:
        """The form of an array, a number or a type of numpy; None for anything else."""
        import numpy as np  # which made the value

        if type(value) in (np.ndarray, np.memmap):
            return self._array(value)
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return self._sequence(b"n", (value.dtype.str, self._descr(value.dtype), _cleared(value).tobytes()))
        if isinstance(value, np.dtype) and not value.hasobject:
            return self._sequence(b"t", (value.str, self._descr(value)))
        return None

    def _descr(self, dtype: Any) -> Any:
        return None if dtype.names is None else repr(dtype.descr)

    def _array(self, value: Any) -> bytes:
        if value.dtype.hasobject:
            if value.dtype.names is not None:
                raise NoIdentityError("it has an array with records of objects")
            return self._sequence(b"j", (value.shape, value.reshape(-1).tolist()))
        shape, value = value.shape, _cleared(value)
        if value.nbytes > LARGE:  # without a copy of it
            flat = value.reshape(-1) if value.flags.c_contiguous else value.flatten()
            data = blake2b(flat.view("u1"), digest_size=2 * SIZE).digest()
        else:
            data = value.tobytes()
        return self._sequence(b"a", (value.dtype.str, self._descr(value.dtype), shape, data))

    def _tensor(self, value: Any) -> bytes:
        """A tensor as its numbers: torch pickles it with the address of its memory."""
        numbers = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data = blake2b(numbers.view(sys.modules["torch"].uint8).numpy(), digest_size=2 * SIZE).digest()
        return self._sequence(b"x", (str(value.dtype), tuple(value.shape), value.requires_grad, data))

    def _by_name(self, value: Any, name: str) -> bytes:
        """A class or function as where it is found. Raises `NoIdentityError` where it is not found there."""
        module = getattr(value, "__module__", None) or getattr(getattr(value, "__self__", None), "__name__", None)
        found: Any = sys.modules.get(module or "builtins")
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not value:
            raise NoIdentityError(f"it refers to {module}.{name}, which is not found under that name")
        return self._sequence(b"g", (module, name))

    def _reduced(self, value: Any) -> bytes:
        """An object as what pickling takes out of it: how it is made, and its state."""
        reducer = copyreg.dispatch_table.get(type(value))
        parts = value.__reduce_ex__(4) if reducer is None else reducer(value)
        if isinstance(parts, str):
            return self._by_name(value, parts)
        made_by, arguments, *rest = parts
        state, items, pairs = (*rest, None, None, None)[:3]
        forms = [self.write(type(value)), self.write(made_by), self.write(tuple(arguments)), self.write(state)]
        if items is not None:
            forms.append(self.write(list(items)))
        if pairs is not None:
            forms.append(self._unordered(b"<", [tuple(pair) for pair in pairs]))
        return b"".join([b"%x:%b" % (len(form), form) for form in forms])


def _cleared(value: Any) -> Any:
    """An array or a number with the same numbers; where these leave bytes unused, which may be any, those are 0."""
    if value.dtype.names is None and value.dtype.char not in "gG":
        return value
    unused = _unused(value.dtype)
    if not unused.any():
        return value
    cleared = value.flatten()
    cleared.view("u1").reshape(cleared.size, value.dtype.itemsize)[:, unused] = 0
    return cleared.reshape(value.shape)


@cache
def _unused(dtype: Any) -> Any:
    """By the bytes of one element, whether they are a gap between fields, or fill up a number of 10 bytes."""
    import numpy as np

    unused = np.zeros(dtype.itemsize, bool)
    if dtype.names is not None:
        unused[:] = True
        for name in dtype.names:
            field, first = dtype.fields[name][:2]
            unused[first : first + field.itemsize] &= _unused(field)
    elif dtype.subdtype is not None:
        unused[:] = np.tile(_unused(dtype.base), dtype.itemsize // dtype.base.itemsize)
    elif dtype.char in "gG" and np.finfo(np.longdouble).nmant == _BITS_OF_X87:
        of_one = np.arange(np.dtype("g").itemsize) >= _BYTES_OF_X87
        parts = 1 if dtype.char == "g" else 2
        unused[:] = np.tile(of_one if dtype.newbyteorder("=") == dtype else of_one[::-1], parts)
    return unused


def _is_tensor(value: Any) -> bool:
    """Whether it is a tensor of torch that is nothing but numbers in memory. Imports nothing."""
    torch = sys.modules.get("torch")
    if torch is None or type(value) is not getattr(torch, "Tensor", None):
        return False
    plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    return plain and not vars(value) and "numpy" in sys.modules


#: Types whose values hold others.
_CONTAINERS: dict[type, Callable[[_Writer, Any], bytes]] = {
    tuple: lambda self, value: self._sequence(b"(", value),
    list: lambda self, value: self._sequence(b"[", value),
    dict: lambda self, value: self._mapping(value),
    set: lambda self, value: self._unordered(b"}", value),
    frozenset: lambda self, value: self._unordered(b")", value),
    slice: lambda self, value: self._sequence(b":", (value.start, value.stop, value.step)),
    dt.datetime: lambda self, value: self._moment(value),
    dt.time: lambda self, value: self._moment(value),
    dt.timezone: lambda self, value: self._sequence(b"z", (value.utcoffset(None), value.tzname(None))),
}


def name_unstable(values: Sequence[Any], indices: Sequence[int]) -> str:
    """Which of these items has no identity, for people."""
    for index, value in zip(indices, values, strict=True):
        try:
            encode(value)
        except NoIdentityError as error:
            return f"items[{index}]: {shown(value)} has no identity that stays the same ({error})"
    return f"items[{indices[0]}]: expected an identity that stays the same, got another one each time"
