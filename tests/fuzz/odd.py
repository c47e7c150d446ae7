"""Odd things to pass: values, ids, lists, payloads and handlers that nobody should pass, and somebody will.

What a strategy draws is an `Odd`: it makes the thing anew each time, and can be shown where the thing itself can't be;
``VALUES[12]`` is the thirteenth of that table. All classes can be imported, so that workers load them by name.
"""

from __future__ import annotations

import asyncio
import decimal
import enum
import fractions
import functools
import inspect
import math
import operator
import threading
from collections import UserDict, UserList, deque
from collections.abc import Callable, Collection, Iterator
from typing import Any, NoReturn

import numpy as np
from hypothesis import strategies as st

Maker = Callable[[], Any]


class UserError(Exception):
    """What the user's own code raises here; it may come through as itself."""


class UserExit(BaseException):
    """The same, of the kind that `except Exception` lets through."""


def raises(*_: Any, **__: Any) -> NoReturn:
    raise UserError("the user's own")


def raises_base(*_: Any, **__: Any) -> NoReturn:
    raise UserExit("the user's own")


class Odd:
    """How an odd thing is made, and how it is called."""

    def __init__(self, text: str, make: Maker) -> None:
        self.make = make
        self._text = text

    def __repr__(self) -> str:
        return self._text


def table(name: str, makers: tuple[Maker, ...]) -> st.SearchStrategy[Odd]:
    """One of a table."""
    return st.sampled_from([Odd(f"{name}[{at}]", make) for at, make in enumerate(makers)])


def parameters(call: Callable[..., Any], but: Collection[str] = ()) -> list[str]:
    """The names of what can be given to it, so that none that is new is forgotten here."""
    return [name for name in inspect.signature(call).parameters if name not in but]


def plain(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Odd]:
    """A value of hypothesis's own."""
    return strategy.map(lambda value: Odd(repr(value), lambda: value))


def within(text: str, wrap: Callable[[Any], Any], strategy: st.SearchStrategy[Odd]) -> st.SearchStrategy[Odd]:
    """Something odd in something else; ``text`` has a place for it."""
    return strategy.map(lambda odd: Odd(text.format(odd), lambda: wrap(odd.make())))


# --- values -----------------------------------------------------------------------------------------------------------


class Reprless:
    """Can't be shown."""

    __repr__ = raises


class BaseReprless:
    """Can't be shown, and says so with an error that is no `Exception`."""

    __repr__ = raises_base


class LongRepr:
    """Is shown at length."""

    def __repr__(self) -> str:
        return "long " * 100_000


class Unequal:
    """Can't be compared."""

    __eq__ = raises
    __hash__ = object.__hash__


class SameHash:
    """Can't be compared, and has to be: all of them have one hash."""

    __eq__ = raises

    def __hash__(self) -> int:
        return 1


class Unhashable:
    """Its hash raises something of its own."""

    __hash__ = raises


class Boolless:
    """Is neither true nor false."""

    __bool__ = raises


class Anything:
    """Has every attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return 1


class Liar:
    """Claims to be a number."""

    @property
    def __class__(self) -> Any:
        return int

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise UserError


class Index:
    """Can be an index."""

    def __index__(self) -> int:
        return 2


class Text(str):
    """Text of a class of its own."""

    __slots__ = ()


class Color(enum.IntEnum):
    """A number with a name."""

    RED = 1


class WildFloat(float):
    """A number that can't be compared."""

    __lt__ = __gt__ = __le__ = __ge__ = __eq__ = raises
    __hash__ = float.__hash__


VALUES: tuple[Maker, ...] = (
    lambda: None,
    lambda: True,
    lambda: False,
    lambda: 0,
    lambda: 1,
    lambda: -1,
    lambda: 2,
    lambda: 10**400,
    lambda: -(10**400),
    lambda: 10**5000,
    lambda: -(10**5000),
    lambda: 2**31,
    lambda: 2**63,
    lambda: 0.0,
    lambda: -0.0,
    lambda: 0.5,
    lambda: 1.0,
    lambda: -1.0,
    lambda: 1e-320,
    lambda: 1e308,
    lambda: math.nan,
    lambda: math.inf,
    lambda: -math.inf,
    lambda: 1j,
    lambda: decimal.Decimal("NaN"),
    lambda: fractions.Fraction(1, 2),
    lambda: np.float64(0.5),
    lambda: np.float64("nan"),
    lambda: np.int64(2),
    lambda: np.array([1, 2]),
    lambda: np.bool_(True),
    lambda: "",
    lambda: "1",
    lambda: "\0",
    lambda: "\ud800",
    lambda: "name\udcff",
    lambda: "\x1b]0;title\x07\x9b2J",
    lambda: "gpj.\u202ename",
    lambda: "one\rtwo\n",
    lambda: "=1+1",
    lambda: "a" * 100_000,
    lambda: b"1",
    lambda: Text("text"),
    lambda: Color.RED,
    lambda: (),
    list,
    lambda: [1],
    lambda: [10**5000, "\udcff"],
    dict,
    lambda: {1: 2},
    lambda: {10**5000: "\ud800", "\udcff\x1b": math.nan},
    lambda: {3},
    lambda: ValueError,
    lambda: ValueError("x"),
    lambda: (ValueError, KeyError),
    lambda: (ValueError, 1),
    lambda: int,
    lambda: NotImplemented,
    lambda: ...,
    lambda: WildFloat(1.0),
    Reprless,
    BaseReprless,
    LongRepr,
    Unequal,
    Unhashable,
    Boolless,
    Anything,
    Liar,
    Index,
    object,
    threading.Lock,
)
values = st.one_of(
    table("VALUES", VALUES),
    plain(st.one_of(st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4), st.booleans())),
)


# --- lists ------------------------------------------------------------------------------------------------------------


class LyingLength(list[Any]):
    """A list that says it has another length."""

    def __init__(self, items: list[Any], length: int) -> None:
        super().__init__(items)
        self.length = length

    def __len__(self) -> int:
        return self.length


class RaisingLength(list[Any]):
    """A list that has no length."""

    __len__ = raises


class LyingHint:
    """An iterable whose hint is wrong."""

    def __init__(self, hint: Any) -> None:
        self.hint = hint

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])

    def __length_hint__(self) -> Any:
        return self.hint


class NoIterator:
    """Says it can be iterated, and gives no iterator."""

    def __iter__(self) -> Any:
        return 5


class OldSequence:
    """Iterated by index, as before iterators; raises midway."""

    def __getitem__(self, index: int) -> int:
        if index > 2:
            raise UserError("the sequence ends here")
        return index


class RaisingIter:
    """Its iterator can't be had."""

    __iter__ = raises


class MissesIter:
    """Says no by a TypeError of its own."""

    def __iter__(self) -> Any:
        raise TypeError("the user's own TypeError")


def raise_midway() -> Iterator[int]:
    yield 1
    raise UserError("the generator ends here")


def raise_base_midway() -> Iterator[int]:
    yield 1
    raise UserExit("the generator ends here")


ITERABLES: tuple[Maker, ...] = (
    lambda: LyingLength([1, 2], 0),
    lambda: LyingLength([1, 2], 10**6),
    lambda: LyingLength([], 3),
    lambda: RaisingLength([1, 2]),
    lambda: LyingHint(10**15),
    lambda: LyingHint(-1),
    lambda: LyingHint("two"),
    lambda: LyingHint(NotImplemented),
    NoIterator,
    OldSequence,
    RaisingIter,
    MissesIter,
    raise_midway,
    raise_base_midway,
    lambda: {1: 2, 3: 4},
    lambda: {1, 2},
    lambda: "ab",
    lambda: b"ab",
    lambda: np.arange(3),
    lambda: np.float64(1),
    lambda: np.array(5),
    lambda: deque([1, 2]),
    lambda: UserList([1, 2]),
    lambda: range(3),
    lambda: iter([1, 2]),
    lambda: map(int, ["1", "x"]),
    lambda: zip([1], [2], strict=True),
    lambda: [[1, 2], [3]],
    lambda: [(), (1,)],
    list,
    lambda: None,
    lambda: 5,
    lambda: int,
    Reprless,
    BaseReprless,
    Anything,
)
iterables = table("ITERABLES", ITERABLES)


# --- items and their ids ----------------------------------------------------------------------------------------------


class With:
    """An item with that id."""

    def __init__(self, id: Any) -> None:
        self.id = id


class RaisingId:
    """An item whose id raises."""

    @property
    def id(self) -> Any:
        raise UserError("no id today")


class FickleId:
    """An item whose id is another one each time."""

    def __init__(self) -> None:
        self.asked = 0

    @property
    def id(self) -> int:
        self.asked += 1
        return self.asked


class LyingMapping(UserDict[Any, Any]):
    """A mapping that says it has an id, and has none."""

    def __contains__(self, key: object) -> bool:
        return True


class RaisingMapping(UserDict[Any, Any]):
    """A mapping that raises."""

    __contains__ = raises
    __getitem__ = raises


IDS: tuple[Maker, ...] = (SameHash, lambda: [1], lambda: ([],), lambda: frozenset({1}))
ids = st.one_of(values, table("IDS", IDS))

ITEMS: tuple[Maker, ...] = (
    RaisingId,
    FickleId,
    LyingMapping,
    RaisingMapping,
    lambda: {"name": 1},
    lambda: UserDict(id=1),
    SameHash,
)
items = st.one_of(
    within("{{'id': {}}}", lambda id_: {"id": id_}, ids),
    within("With({})", With, ids),
    values,
    table("ITEMS", ITEMS),
)


# --- payloads ---------------------------------------------------------------------------------------------------------


class Reduces:
    """Does that when it is pickled."""

    def __init__(self, reduce: Callable[[], Any]) -> None:
        self.reduce = reduce

    def __reduce__(self) -> Any:
        return self.reduce()


class Getstate:
    """Has no state to be pickled."""

    __getstate__ = raises


class Setstate:
    """Takes no state where it is unpickled."""

    def __init__(self) -> None:
        self.state = 1

    __setstate__ = raises


class Buffer:
    """A buffer that gives none."""

    def __buffer__(self, flags: int) -> NoReturn:
        raise UserError

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise UserError


def deep(depth: int = 100_000) -> list[Any]:
    """Lists in lists, deeper than anybody goes."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def itself() -> list[Any]:
    """A list that holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


def recurse(*_: Any) -> Any:
    return recurse()


PAYLOADS: tuple[Maker, ...] = (
    lambda: Reduces(raises),
    lambda: Reduces(raises_base),
    lambda: Reduces(recurse),
    lambda: Reduces(lambda: 5),
    lambda: Reduces(lambda: ("not a callable", ())),
    lambda: Reduces(lambda: (int, 5)),
    lambda: Reduces(lambda: (raises, ())),
    lambda: Reduces(lambda: (raises_base, ())),
    lambda: Reduces(lambda: "no.such.name"),
    Getstate,
    Setstate,
    Buffer,
    itself,
    lambda: lambda: 1,
    lambda: memoryview(b"12"),
    lambda: (number for number in range(3)),
    lambda: open,
    lambda: NotImplemented,
    Reprless,
    BaseReprless,
    LongRepr,
    Unequal,
    SameHash,
    Unhashable,
    Boolless,
    Anything,
    Liar,
    threading.Lock,
    lambda: threading,
    lambda: np.array([lambda: 1]),
    lambda: type("Local", (), {}),
    lambda: type("Local", (object,), {}),
    lambda: UserError("x"),
    lambda: UserError("\udcff\x1b[2J"),
    lambda: UserError(10**5000),
    lambda: deep(400),
)
payloads = table("PAYLOADS", PAYLOADS)


# --- handlers ---------------------------------------------------------------------------------------------------------


class Caller:
    """A callable object."""

    def __call__(self, item: Any) -> Any:
        return 1


class LyingCaller(Caller):
    """A callable that has every attribute, dunder ones too."""

    def __getattr__(self, name: str) -> Any:
        return LyingCaller()


class RaisingCaller(Caller):
    """A callable whose attributes raise."""

    def __getattr__(self, name: str) -> Any:
        raise UserError(name)


class ReprlessCaller(Caller):
    """A callable that can't be shown, nor pickled."""

    __repr__ = raises
    __reduce__ = raises


class BoollessCaller(Caller):
    """A callable that is neither true nor false, nor equal to anything."""

    __bool__ = raises
    __eq__ = raises
    __hash__ = raises


class NoArguments:
    """Called without arguments."""

    def __call__(self) -> int:
        return 1


class Keywords:
    """Called with keywords."""

    def __call__(self, *, item: Any) -> int:
        return 1


class Awaitable:
    """Awaited, and does not go well."""

    def __await__(self) -> Any:
        yield 5


class Nothing:
    """Can't be called after all."""

    __call__ = None


async def coroutine(item: Any) -> int:
    await asyncio.sleep(0)
    return 1


async def asynchronous_generator(item: Any) -> Any:
    yield 1


def generator(item: Any) -> Iterator[int]:
    yield 1


def wrapped_in_itself(item: Any) -> int:
    return 1


wrapped_in_itself.__wrapped__ = wrapped_in_itself  # type: ignore[attr-defined]


def holds_lock() -> Callable[[Any], Any]:
    lock = threading.Lock()

    def handler(item: Any) -> Any:
        with lock:
            return item

    return handler


def holds_reprless() -> Callable[[Any], Any]:
    held = Reprless()
    return lambda item: (held, item)


class Meta(type):
    """A class whose classes return what they like."""

    def __call__(cls, *args: Any) -> Any:
        return 1


class MadeByMeta(metaclass=Meta):
    """Called, and not made."""


HANDLERS: tuple[Maker, ...] = (
    lambda: len,
    lambda: print,
    lambda: str,
    lambda: int,
    lambda: list,
    lambda: dict,
    lambda: type,
    lambda: object,
    lambda: Exception,
    lambda: UserError,
    lambda: str.upper,
    lambda: "text".join,
    lambda: [].append,
    lambda: math.sqrt,
    lambda: operator.itemgetter(0),
    lambda: operator.methodcaller("upper"),
    lambda: functools.partial(int, base=10),
    lambda: functools.partial(int, 1, 2, 3),
    lambda: functools.partial(functools.partial(len)),
    lambda: functools.lru_cache(len),
    lambda: functools.singledispatch(wrapped_in_itself),
    lambda: staticmethod(len),
    lambda: classmethod(raises),
    lambda: property(len),
    lambda: np.sqrt,
    lambda: np.vectorize(abs),
    lambda: coroutine,
    lambda: asynchronous_generator,
    lambda: generator,
    lambda: wrapped_in_itself,
    lambda: lambda: 1,
    lambda: lambda *, item: 1,
    lambda: lambda *args: 1,
    lambda: lambda item: Awaitable(),
    lambda: lambda item: lambda: 1,
    lambda: lambda item: threading.Lock(),
    lambda: raises,
    lambda: raises_base,
    lambda: eval,
    holds_lock,
    holds_reprless,
    Caller,
    LyingCaller,
    RaisingCaller,
    ReprlessCaller,
    BoollessCaller,
    NoArguments,
    Keywords,
    Nothing,
    lambda: MadeByMeta,
    Anything,
    Reprless,
    BaseReprless,
    lambda: None,
    lambda: 5,
    lambda: "len",
)
handlers = table("HANDLERS", HANDLERS)

EVENTS: tuple[Maker, ...] = (lambda: "job:started", lambda: "item:retry", lambda: "job:no-such", lambda: "mine")
