"""An item's identity: a digest of its canonical form, which is the same in every process.

The form depends on types and values only: not on objects' addresses, the seed of hashes, or the order of sets and
dictionaries. ``1``, ``1.0``, ``True`` and ``"1"`` differ. Built-in types, paths, dates, numbers and arrays are written
directly; other objects as their class and their pickled state.
"""

from __future__ import annotations

import copyreg
import datetime as dt
import sys
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import chain, pairwise
from operator import itemgetter
from pathlib import PosixPath, PurePath, PurePosixPath
from struct import Struct
from types import BuiltinFunctionType, EllipsisType, FunctionType, ModuleType
from typing import Any
from uuid import UUID

from mpqueue.errors import shown

#: Bytes of a digest.
SIZE = 16
#: The state of an item that has an id, but no stable form: it equals no other state.
UNKNOWN = bytes(SIZE)
#: Bytes from which on the form has a digest of an array's content.
LARGE = 4096
#: The long double of x86: bits of its fraction, and its bytes; it takes 12 or 16.
_BITS_OF_X87, _BYTES_OF_X87 = 63, 10
#: The most nesting of forms; a deeper one is replaced by its digest.
DEEPEST = 200
#: The most nesting of containers of plain data that are written by calls.
SHALLOW = 20

_float = Struct("<d").pack
_complex = Struct("<dd").pack


class NoIdentityError(Exception):
    """A value has no stable form; the text has the reason."""


def digests(values: Sequence[Any]) -> bytes:
    """Return the digests of these values, joined. Raises `NoIdentityError`.

    Runs code of the values' classes if they are not plain. A string takes about 0.6 us.
    """
    return b"".join([blake2b(form, digest_size=SIZE).digest() for form in _forms(values)])


def _forms(values: Sequence[Any]) -> Iterable[bytes]:
    """Return the canonical forms; without a call for each if all are strings, or all whole numbers."""
    kinds = set(map(type, values))
    if kinds == {str}:
        with suppress(UnicodeEncodeError):
            return [f"s{value}".encode() for value in values]
    elif kinds == {int}:
        return [b"i%x" % value for value in values]
    return map(encode, values)


def digest(value: Any) -> bytes:
    """Return the digest of one value. Raises `NoIdentityError`."""
    return blake2b(encode(value), digest_size=SIZE).digest()


def encode(value: Any) -> bytes:
    """Return the canonical form. Raises `NoIdentityError` for a value that has none."""
    plain = _PLAIN.get(type(value))
    if plain is not None:
        return plain(value)
    return _encode_in_full(value)


def encode_plain(value: Any) -> bytes | None:
    """Return the canonical form if that runs no code of users' classes, else None."""
    try:
        return Writer(plain_only=True).write(value)
    except NoIdentityError:
        return None


def _encode_in_full(value: Any) -> bytes:
    """Return the form of a container or an object. Objects are written twice, since their code may vary."""
    first = Writer()
    form = first.write(value)
    if first.ran_code and Writer().write(value) != form:
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


#: The steps of writing a value: each asks for the form of a value inside it; the last returns its own.
Steps = Generator[Any, bytes, bytes]


_NOWHERE = sys.maxsize


class _Frame:
    """A value that is being written."""

    __slots__ = ("depth", "knots", "lowest", "needed", "place", "steps", "value")

    def __init__(self, value: Any, steps: Steps, place: int, depth: int, knots: int) -> None:
        self.value = value
        self.steps = steps
        self.place = place  #: its place in the line, see `Writer`
        self.lowest = place  #: the place of the first value that it, or a part of it, refers back to
        self.depth = depth
        self.knots = knots  #: how many had been written when it was begun
        self.needed = _NOWHERE  #: the first of those that it needs


class Writer:
    """Writes one value. Its parts are written with their lengths, so that no two values have the same form.

    Equal parts have equal forms, whether they are one object or several. But objects that refer back to themselves, a
    knot, have no end without references: values are in a line from their beginning until all that they refer back to is
    written, and one that is met again meanwhile is written as its distance in that line. One that is met later is
    written as its place in its knot. Values in a set have no order: there each is written as if no knot had been met
    before, and can't refer back to values outside of the set.
    """

    def __init__(self, *, plain_only: bool = False) -> None:
        self._plain_only = plain_only
        self.ran_code = False  #: code of a value's class may have run
        self._known: dict[int, tuple[Any, bytes]] = {}  #: forms of objects by address; the objects are kept meanwhile

    def _begin_anew(self) -> None:
        self._line: list[Any] = []
        self._places: dict[int, int] = {}  #: places in the line, by address
        #: Written knots, and the names of their values, by address: forms that others have elsewhere. With the number
        #: of the first knot that each needs.
        self._here: dict[int, tuple[Any, bytes, int]] = {}
        self._knots = 0
        # For the part that was written last:
        self._lowest = _NOWHERE  #: the place of the first value outside of it that it refers back to
        self._needed = _NOWHERE  #: the number of the first knot that it needs

    def write(self, value: Any) -> bytes:
        """Return the value's form, at any depth. Raises `NoIdentityError`, which names the part that has none."""
        self._begin_anew()
        frames: list[_Frame] = []
        part, depth = value, 0
        try:
            while True:
                form = self.form_at_once(part, depth)
                if form is None:
                    frames.append(self._begin(part, depth))
                while True:
                    if not frames:
                        assert form is not None
                        return form
                    frame = frames[-1]
                    frame.lowest = min(frame.lowest, self._lowest)
                    frame.needed = min(frame.needed, self._needed)
                    try:
                        part = frame.steps.send(form)  # type: ignore[arg-type]  # None begins it
                    except StopIteration as end:
                        form = self._end(frames.pop(), end.value)
                    else:
                        depth = frame.depth + 1
                        break
        except Exception as error:
            raise _named([*(frame.value for frame in frames), part], error) from error

    def form_at_once(self, value: Any, depth: int) -> bytes | None:
        """Return the form of a value that needs no steps; else None."""
        self._lowest = self._needed = _NOWHERE
        kind = type(value)
        plain = _PLAIN.get(kind)
        if plain is not None:
            return plain(value)
        address = id(value)
        if address in self._places:
            self._lowest = self._places[address]
            return b"#%x" % (len(self._line) - self._lowest)
        if address in self._here:
            _, form, self._needed = self._here[address]
            return form
        if kind in _CONTAINERS:
            return None if depth or kind not in _LISTED else _plain(value, kind, ())  # by calls, which are faster
        if address in self._known:
            return self._known[address][1]
        if isinstance(value, type) or (isinstance(value, _FUNCTIONS) and not _is_bound(value)):
            return self.by_name(value, value.__qualname__)
        return None

    def _begin(self, value: Any, depth: int) -> _Frame:
        place = self._places[id(value)] = len(self._line)
        self._line.append(value)
        container = _CONTAINERS.get(type(value))
        if container is None:
            return _Frame(value, self.steps_of(value), place, -1, self._knots)
        return _Frame(value, container(self, value), place, depth if depth <= DEEPEST else -1, self._knots)

    def _end(self, frame: _Frame, form: bytes) -> bytes:
        """Return the form of a written value: if it is deep, a digest."""
        self._lowest, self._needed = frame.lowest, frame.needed
        is_object = form[:1] == b"O"
        if is_object:
            form = b"O" + _long_digest(form[1:])
        elif frame.depth < 0 and type(frame.value) in _CONTAINERS:
            form = b"=" + _long_digest(form)
        if frame.lowest < frame.place:
            return form
        self._lowest = _NOWHERE
        values = self._line[frame.place :]
        del self._line[frame.place :]
        for value in values:
            del self._places[id(value)]
        needed = frame.needed if frame.needed < frame.knots else _NOWHERE
        if len(values) > 1:
            named, self._knots = min(needed, self._knots), self._knots + 1
            knot = b"@" + _long_digest(form)
            for at, value in enumerate(values):
                self._here[id(value)] = value, b"%b%x" % (knot, at), named
        if len(values) > 1 or needed < _NOWHERE:
            self._here[id(frame.value)] = frame.value, form, needed
        elif is_object:  # an object that is met often is written once
            self._known[id(frame.value)] = frame.value, form
        return form

    def _each(self, values: Iterable[Any]) -> Generator[Any, bytes, list[bytes]]:
        forms = []
        for value in values:
            plain = _PLAIN.get(type(value))
            forms.append((yield value) if plain is None else plain(value))
        return forms

    def sequence(self, tag: bytes, values: Iterable[Any]) -> Steps:
        """Return the form of these values, in their order."""
        return tag + _joined((yield from self._each(values)))

    def _unordered(self, tag: bytes, values: Iterable[Any]) -> Steps:
        forms, here = [], self._here
        for value in values:
            self._here = {}
            forms.append((yield value))
            self._here = here
            if self._lowest < _NOWHERE:
                raise NoIdentityError("it is a set of what leads back to it")
        return tag + _joined(sorted(forms))

    def _mapping(self, value: dict[Any, Any]) -> Steps:
        keys = yield from self._each(value)
        pairs = sorted(zip(keys, value.values(), strict=True), key=_first)
        forms = yield from self._each([held for _, held in pairs])
        ordered = sorted((key, form) for (key, _), form in zip(pairs, forms, strict=True))
        return b"{" + _joined([form for pair in ordered for form in pair])

    def _moment(self, value: Any) -> Steps:
        naive = value.replace(tzinfo=None).isoformat()
        tag = b"m" if isinstance(value, dt.datetime) else b"h"
        return self.sequence(tag, (naive, value.fold, value.tzinfo))

    def steps_of(self, value: Any) -> Steps:
        """Return the steps that write an object that is neither a plain value nor a standard container."""
        if isinstance(value, Enum):
            return self.sequence(b"e", (type(value), getattr(value, "name", None) or value.value))
        if isinstance(value, PurePath):
            return self.sequence(b"p", (type(value), str(value)))
        if type(value).__module__.partition(".")[0] == "numpy":
            steps = self._of_numpy(value)
            if steps is not None:
                return steps
        if _is_tensor(value):
            return self._tensor(value)
        return self._reduced(value)

    def _of_numpy(self, value: Any) -> Steps | None:
        """Return the steps for an array, a number or a type of numpy; None for any other value."""
        import numpy as np  # numpy made the value

        if type(value) in (np.ndarray, np.memmap):
            return self._array(value)
        if type(value) is np.ma.MaskedArray:
            return self._masked(value)
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return self.sequence(b"n", (value.dtype.str, self._descr(value.dtype), _cleared(value).tobytes()))
        if isinstance(value, np.dtype) and not value.hasobject:
            return self.sequence(b"t", (value.str, self._descr(value)))
        return None

    def _descr(self, dtype: Any) -> Any:
        return None if dtype.names is None else repr(dtype.descr)

    def _array(self, value: Any) -> Steps:
        if value.dtype.hasobject:
            descr = () if value.dtype.names is None else (repr(value.dtype.descr),)
            return self.sequence(b"j", (value.shape, value.reshape(-1).tolist(), *descr))
        shape, value = value.shape, _cleared(value)
        if value.nbytes > LARGE:  # without a copy of it
            flat = value.reshape(-1) if value.flags.c_contiguous else value.flatten()
            data = _long_digest(flat.view("u1"))
        else:
            data = value.tobytes()
        return self.sequence(b"a", (value.dtype.str, self._descr(value.dtype), shape, data))

    def _masked(self, value: Any) -> Steps:
        """Return a masked array in its pickled form: with a fill value, also below the mask."""
        import numpy as np

        fill = value.fill_value
        return self.sequence(b"k", (np.asarray(value.filled(fill)), np.ma.getmaskarray(value), fill))

    def _tensor(self, value: Any) -> Steps:
        """Return a tensor as its numbers: torch pickles it with the address of its memory."""
        numbers = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data = _long_digest(numbers.view(sys.modules["torch"].uint8).numpy())
        return self.sequence(b"x", (str(value.dtype), tuple(value.shape), value.requires_grad, data))

    def by_name(self, value: Any, name: str) -> bytes:
        """Return a class or function as its place. Raises `NoIdentityError` if it is not found there."""
        module = _module_of(value)
        found: Any = sys.modules.get(module or "builtins")
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not value:
            raise NoIdentityError(f"it refers to {module}.{name}, which is not found under that name")
        return _name(module, name)

    def _reduced(self, value: Any) -> Steps:
        """Return an object's pickled parts: its construction and its state."""
        if self._plain_only:
            raise NoIdentityError("it is an object")
        self.ran_code = True
        reducer = copyreg.dispatch_table.get(type(value))
        parts = value.__reduce_ex__(4) if reducer is None else reducer(value)
        if isinstance(parts, str):
            return b"O" + self.by_name(value, parts)
        made_by, arguments, *rest = parts
        state, items, pairs = (*rest, None, None, None)[:3]
        if isinstance(value, set | frozenset) and len(arguments) == 1 and type(arguments[0]) is list:
            arguments = (set(arguments[0]),)  # their order changes from process to process
        # Pickling does not name the type itself, and may replace it, as for time zones of pytz.
        kind = type(value)
        forms = [_name(_module_of(kind), kind.__qualname__)]
        forms += yield from self._each([made_by, tuple(arguments), state])
        if items is not None:
            forms.append((yield list(items)))
        if pairs is not None:
            is_unordered = isinstance(value, dict) and not isinstance(value, OrderedDict)
            each = yield from self._each([tuple(pair) for pair in pairs])
            forms.append(b"<" + _joined(sorted(each)) if is_unordered else b">" + _joined(each))
        return b"O" + _joined(forms)


def _joined(forms: Iterable[bytes]) -> bytes:
    return b"".join([b"%x:%b" % (len(form), form) for form in forms])


@lru_cache(maxsize=1024)
def _name(module: str | None, name: str) -> bytes:
    return b"g" + _joined((_PLAIN[type(module)](module), _PLAIN[str](name)))


def _plain(value: Any, kind: type, within: tuple[int, ...]) -> bytes | None:
    """Return the form of a container of plain values and such containers, ``within`` others; else None."""
    if len(within) == SHALLOW or id(value) in within:
        return None
    within = (*within, id(value))
    if kind is dict:
        keys, values = _plain_forms(value, within), _plain_forms(value.values(), within)
        if keys is None or values is None:
            return None
        return b"{" + _joined(chain.from_iterable(sorted(zip(keys, values, strict=True))))
    forms = _plain_forms(value, within)
    return None if forms is None else (b"(" if kind is tuple else b"[") + _joined(forms)


def _plain_forms(values: Iterable[Any], within: tuple[int, ...]) -> list[bytes] | None:
    forms = []
    for value in values:
        kind = type(value)
        write = _PLAIN.get(kind)
        form = write(value) if write is not None else None
        if form is None and (kind not in _LISTED or (form := _plain(value, kind, within)) is None):
            return None
        forms.append(form)
    return forms


_LISTED = frozenset({tuple, list, dict})
_first = itemgetter(0)
_FUNCTIONS = (FunctionType, BuiltinFunctionType)


def _long_digest(form: bytes | memoryview) -> bytes:
    return blake2b(form, digest_size=2 * SIZE).digest()


def _is_bound(function: Any) -> bool:
    """Tell whether a function is a method of an object or a class, and not a function of a module."""
    owner = getattr(function, "__self__", None)
    return owner is not None and not isinstance(owner, ModuleType)


def _module_of(value: Any) -> str | None:
    return getattr(value, "__module__", None) or getattr(getattr(value, "__self__", None), "__name__", None)


def _named(values: Sequence[Any], error: Exception) -> NoIdentityError:
    """Return the error of the last of these values, each inside the one before, with the path to it."""
    way, of_object = "", False
    for outer, inner in pairwise(values):
        if type(outer) in (list, tuple):
            at = next((at for at, each in enumerate(outer) if each is inner), None)
            way += "" if at is None or of_object else f"[{at}]"
        elif type(outer) is dict:
            key = next((key for key, each in outer.items() if each is inner), None)
            way += f".{key}" if of_object else f"[{shown(key)}]"
            of_object = False
        else:
            of_object = True
    text = str(error) if isinstance(error, NoIdentityError) else f"{type(error).__name__}: {error}"
    return NoIdentityError(f"its {way.removeprefix('.')}: {text}" if way else text)


def _cleared(value: Any) -> Any:
    """Return an array or a number with the same numbers, and with 0 in unused bytes, which may have any value."""
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
    """Tell, by the bytes of one element, whether they are a gap between fields, or fill up a number of 10 bytes."""
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
    """Tell whether a value is a tensor of torch with only numbers in memory. Imports nothing."""
    torch = sys.modules.get("torch")
    if torch is None or type(value) is not getattr(torch, "Tensor", None):
        return False
    plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    return plain and not vars(value) and "numpy" in sys.modules


#: Types whose values hold others.
_CONTAINERS: dict[type, Callable[[Writer, Any], Steps]] = {
    tuple: lambda self, value: self.sequence(b"(", value),
    list: lambda self, value: self.sequence(b"[", value),
    dict: lambda self, value: self._mapping(value),
    set: lambda self, value: self._unordered(b"}", value),
    frozenset: lambda self, value: self._unordered(b")", value),
    slice: lambda self, value: self.sequence(b":", (value.start, value.stop, value.step)),
    dt.datetime: lambda self, value: self._moment(value),
    dt.time: lambda self, value: self._moment(value),
    dt.timezone: lambda self, value: self.sequence(b"z", (value.utcoffset(None), value.tzname(None))),
}


def name_unstable(values: Sequence[Any], indices: Sequence[int]) -> str:
    """Name the first of these items that has no identity, with the reason, for people."""
    for index, value in zip(indices, values, strict=True):
        why = why_unstable(value)
        if why:
            return f"items[{index}]: {why}"
    return f"items[{indices[0]}]: expected an identity that stays the same, got another one each time"


def why_unstable(value: Any) -> str:
    """Return why a value has no identity, for people; empty if it has one."""
    try:
        encode(value)
    except NoIdentityError as error:
        return f"{shown(value)} has no identity that stays the same ({error})"
    return ""


# -- items of a journal ------------------------------------------------------------------------------------------------

#: Returns the state of an item.
Key = Callable[[Any], bytes | str]


#: Consecutive items: their identities joined, and their states.
What = tuple[bytes, bytes]


def identify(
    items: Sequence[Any], ids: Sequence[Hashable] | None, indices: Sequence[int], key: Key | None = None
) -> What:
    """Return the identities and the states of items, which have these ids and indices.

    Raises TypeError for an item or an id without identity, and errors of ``key``.
    """
    named = items if ids is None else ids
    try:
        identities = digests(named)
    except NoIdentityError:
        how = 'give each item an "id" or an .id, or leave out journal=' if ids is None else "use ids that have one"
        what = name_unstable(named, indices)
        raise TypeError(f"{what}, by which the journal would know it again; {how}") from None
    if key is not None:
        names = indices if ids is None else ids
        # No `map`, which a StopIteration of the key would end.
        return identities, b"".join([_digest_of_key(key, *each) for each in zip(items, names, strict=True)])
    return identities, identities if ids is None else _states_of(items)


def _digest_of_key(key: Key, payload: Any, item_id: Hashable) -> bytes:
    """Return the state of an item by the user's ``key``. Raises TypeError for an invalid key, and errors of ``key``."""
    try:
        found = key(payload)
    except OSError as error:
        raise type(error)(*error.args[:1], f"the key of item {shown(item_id)}: {error}") from error
    if not isinstance(found, bytes | str):
        raise TypeError(
            f"key: expected a function that returns bytes or a str, got {shown(found)} for item {shown(item_id)}"
        )
    return digest(found)


def _states_of(payloads: Sequence[Any]) -> bytes:
    """Return the states of items with ids: digests, or `UNKNOWN` for one without a stable form."""
    try:
        return digests(payloads)
    except NoIdentityError:
        return b"".join(map(state_of, payloads))


def state_of(payload: Any) -> bytes:
    """Return the state of an item with an id: its digest, or `UNKNOWN` if it has no stable form."""
    try:
        return digest(payload)
    except NoIdentityError:
        return UNKNOWN
