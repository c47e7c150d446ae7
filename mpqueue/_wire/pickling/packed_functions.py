"""Functions that are sent with each call: by name where the other side can import them, else by value, pickled once.

Pickling a function of a script or a closure by value takes 100 us and more, and unpickling it as long, so neither is
done anew for each call. It is done anew where anything that the function reads may have changed: its pickle is kept
only for functions whose every variable, through the functions that it calls, is a constant, a module, or something that
is found by name; and it is used again only while each of these is still the same object. A list, an array or an
instance can change unseen, so a function that reads one is pickled with each chunk of calls, as its arguments are.
(What its annotations name is not looked at: it says nothing about what the function does.)

A worker keeps a function for as long as its pickle is the same: it goes on with the global variables, the classes and
the cache that it has there, with what calls before have put into them, as a function of a module does. These are its
own: another function, and the same one with other values, has others.
"""

from __future__ import annotations

import dis
import functools
import itertools
import operator
import sys
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from mpqueue._os.process.process_signals import came_of_signal
from mpqueue._wire.pickling import main_names
from mpqueue._wire.pickling.classes import Scope, in_scope, scope_here
from mpqueue._wire.pickling.payload import Packed, dump_code, load, moment_here

if TYPE_CHECKING:
    from mpqueue._wire.pickling.script import Script

K = TypeVar("K")
V = TypeVar("V")

#: How many functions a process keeps, on either side; the one that was used longest ago goes first.
KEPT = 64
#: Bytes of a pickled function above which it is not kept.
MOST_BYTES = 100_000

#: What `functools.cache` makes of a function.
CACHED: type = functools._lru_cache_wrapper  # noqa: SLF001
#: By identity: a class may have a metaclass that compares them.
_CONSTANTS = {id(kind) for kind in (int, float, complex, str, bytes, bool, type(None), type(Ellipsis), range)}


class PackedFunction:
    """A function pickled by value. Unpickled, it is the function itself, the same one for the same bytes and number.

    These are compressed, so that ``__main__`` in them is not taken as a sign that the rest is by value too.
    """

    __slots__ = ("data", "number")

    def __init__(self, data: bytes, number: int = 0) -> None:
        self.data = data
        self.number = number  #: 0 where calls leave nothing behind: all that have the same bytes are one

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (self.data, self.number)


class ScriptFunction:
    """A function of the script that reads what may change: pickled anew each time, and loaded where that has changed.

    Only functions that the script defines at its top: each call of what makes a closure makes another one, and nothing
    else of the program knows its variables.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.__name__, self.__qualname__ = function.__name__, function.__qualname__
        self.__module__ = function.__module__
        self._sent: tuple[bytes, int] = (b"", 0)
        self.goes_anew: bool | None = None  #: with each pickle; None: that is not known yet

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.function)

    def __reduce__(self) -> tuple[Any, ...]:
        moment = moment_here()
        if moment is None:
            return self._reduce()[0]
        if id(self) not in moment.functions:
            moment.functions[id(self)] = self._reduce()
        reduced: tuple[Any, ...] = moment.functions[id(self)][0]
        return reduced

    def _reduce(self) -> tuple[tuple[Any, ...], Sequence[str]]:
        """What it is pickled as, and the ids of the classes that are in that."""
        if not self.goes_anew:
            try:
                classes: list[str] = []
                packed, _ = dump_code(self.function, brought=classes)
            except Exception as error:  # whatever it is, it is raised where the function itself is pickled
                if came_of_signal(error):
                    raise
                return (_itself, (self.function,)), ()
            self.goes_anew = not can_be_kept(packed)
            if not self.goes_anew:
                data, sent = zlib.compress(packed.data, 1), self._sent
                if data != sent[0]:  # also where it is what it has been before: what a worker left of that is old
                    sent = self._sent = data, next(_numbers)
                return (_unpack, sent), classes
        return (_itself, (self.function,)), ()


def can_be_kept(packed: Packed) -> bool:
    return packed.segment is None and packed.size <= MOST_BYTES


_numbers = itertools.count(1)


def _itself(function: Any) -> Any:
    return function


class FunctionPacker:
    """The parent's half: remembers the pickles of functions. Any thread may use it.

    ``share_globals``: in the workers all functions of the script have the same globals, which each that comes changes
    for all, see `main_names`. So each pickle that is new here is unpickled there, though its bytes may be known.
    ``script``: the main module that the workers have imported, whose functions are named.
    """

    def __init__(self, *, share_globals: bool = False, script: Script | None = None) -> None:
        self._share_globals = share_globals
        self._script = script
        self._known: OrderedDict[int, tuple[Any, tuple[Any, ...], PackedFunction]] = OrderedDict()
        self._scripts: OrderedDict[int, ScriptFunction] = OrderedDict()
        self._lock = threading.Lock()

    def pack(self, function: Any) -> Any:
        """Something to send in the function's place: itself, where it is pickled by name or must be pickled anew."""
        if isinstance(function, BuiltinFunctionType | type) or not isinstance(
            function, FunctionType | functools.partial | CACHED
        ):
            return function
        if isinstance(function, FunctionType | CACHED) and is_importable(function):
            return function
        with main_names.GoingTo(self._script):
            parts = constant_parts(function) if main_names.found_by_name(function) is None else ()
            if parts is None:
                return self.of_script(function)
            with self._lock:
                known = self._known.get(id(function))
                if known is not None and known[0] is function and are_same(known[1], parts):
                    self._known.move_to_end(id(function))
                    return known[2]
            return self._pack_anew(function, parts)

    def of_script(self, function: Any) -> Any:
        """A `ScriptFunction` in the place of a function that is one, also in a partial; anything else as it is."""
        if type(function) is functools.partial:
            inner = self.of_script(function.func)
            if inner is function.func:
                return function
            again = functools.partial(inner, *function.args, **function.keywords)
            vars(again).update(vars(function))
            return again
        if self._share_globals or type(function) not in (FunctionType, CACHED) or not _is_of_script(function):
            return function
        if getattr(
            getattr(function, "__wrapped__", function) if type(function) is CACHED else function, "__closure__", None
        ):
            return function
        with self._lock:
            known = self._scripts.get(id(function))
            if known is None:
                known = ScriptFunction(function)
            _keep(self._scripts, id(function), known)
        return known

    def pack_all(self, functions: Sequence[Any]) -> list[Any]:
        """`pack` for functions that are sent together: each is looked at once, however often it is there."""
        packed: dict[int, Any] = {}
        for function in functions:
            if id(function) not in packed:
                packed[id(function)] = self.pack(function)
        return [packed[id(function)] for function in functions]

    def _pack_anew(self, function: Any, parts: tuple[Any, ...]) -> Any:
        try:
            packed, _ = dump_code(function)
        except Exception as error:  # whatever it is, it is raised for the call that brings it
            if came_of_signal(error):
                raise
            return function
        if not can_be_kept(packed):
            return function
        leaves = self._share_globals or any(map(_leaves_behind, parts))
        made = PackedFunction(zlib.compress(packed.data, 1), next(_numbers) if leaves else 0)
        with self._lock:
            _keep(self._known, id(function), (function, parts, made))
        return made


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)


def are_same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    return len(before) == len(now) and all(map(operator.is_, before, now))


def is_importable(named: Any) -> bool:
    """True where a worker finds the very same object by its module and name."""
    return getattr(named, "__module__", None) not in main_names.NAMES and is_found(named)


def _is_of_script(named: Any) -> bool:
    return getattr(named, "__module__", None) in main_names.NAMES and is_found(named)


def is_found(named: Any) -> bool:
    """True where its module has this very object under its name."""
    module_name, name = getattr(named, "__module__", None), getattr(named, "__qualname__", None)
    if not module_name or not name:
        return False
    found: Any = sys.modules.get(module_name)
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        return False
    return found is named


def constant_parts(function: Any) -> tuple[Any, ...] | None:
    """All that pickling the function by value would take along, where none of it can change unseen; else None.

    These are the objects themselves, to be held: as long as they are, no other object has their identity.
    """
    parts: list[Any] = []
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        value = waiting.pop()
        parts.append(value)
        if id(type(value)) in _CONSTANTS:
            continue
        if issubclass(type(value), ModuleType):
            if value.__name__ in main_names.NAMES or sys.modules.get(value.__name__) is not value:
                return None
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        inner = _inside(value)
        if inner is None:
            return None
        waiting.extend(inner)
    return tuple(parts)


def _inside(value: Any) -> list[Any] | None:
    """What a value that can't change is made of; None where it may change."""
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return list(value)
    if kind is CodeType:
        return []
    if issubclass(kind, type | BuiltinFunctionType) and is_importable(value):
        return []
    if kind is FunctionType:
        return [] if is_importable(value) else _variables(value)
    if kind is CACHED:
        return [] if is_importable(value) else _of_cached(value)
    if kind is functools.partial:
        return [value.func, value.args, *_named(value.keywords), *_named(vars(value))]
    return None


def _of_cached(function: Any) -> list[Any] | None:
    parameters = getattr(function, "cache_parameters", None)
    return None if parameters is None else [*_named(parameters()), *_named(vars(function) | {"cache_parameters": None})]


def _leaves_behind(part: Any) -> bool:
    """Whether a call may leave something in a global variable, in a cache or in an attribute of a function."""
    return _writes(part) if isinstance(part, CodeType) else type(part) is CACHED


@functools.lru_cache(maxsize=1024)
def _writes(code: CodeType) -> bool:
    return any(instruction.opname in _WRITES for one in _codes(code) for instruction in dis.get_instructions(one))


_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"})


@functools.lru_cache(maxsize=1024)
def writes_its_closure(code: CodeType) -> bool:
    """Whether it, or a function in it, gives a variable of its closure another value (``nonlocal``)."""
    own = set(code.co_freevars)
    return any(
        instruction.opname in ("STORE_DEREF", "DELETE_DEREF") and instruction.argval in own
        for one in _codes(code)
        for instruction in dis.get_instructions(one)
    )


def _variables(function: FunctionType) -> list[Any] | None:
    """What a function reads and carries: its code, defaults, attributes, closure and global variables."""
    if function.__closure__ and writes_its_closure(function.__code__):
        return None
    found: list[Any] = [function.__code__, function.__defaults__]
    found += _named(function.__kwdefaults__ or {})
    found += _named(vars(function))
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            return None
    variables = function.__globals__
    return found + _named({name: variables[name] for name in globals_of(function.__code__) if name in variables})


def _named(values: dict[str, Any]) -> list[Any]:
    """The names are parts too, and so is how many there are: the same value may come to have another name."""
    return [len(values), *values, *values.values()]


@functools.lru_cache(maxsize=1024)
def globals_of(code: CodeType) -> tuple[str, ...]:
    """The names of the global variables that a code object, and those inside it, read or write."""
    names = {
        instruction.argval
        for one in _codes(code)
        for instruction in dis.get_instructions(one)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")
    }
    return tuple(sorted(names))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


# -- the worker's half -------------------------------------------------------------------------------------------------

_loaded: OrderedDict[tuple[bytes, int], tuple[Callable[..., Any], Scope | None]] = OrderedDict()


def _unpack(data: bytes, number: int = 0) -> Callable[..., Any]:
    """The function, unpickled when its bytes come for the first time. On the thread that unpickles the calls.

    What comes with it, such as its arguments, has its classes.
    """
    key, here = (data, number), scope_here()
    kept = _loaded.get(key)
    if kept is None:
        own = here if here is None or here.is_common else Scope()
        with in_scope(own):
            kept = load(Packed(zlib.decompress(data))), own
    _keep(_loaded, key, kept)
    function, own = kept
    if here is not None and own is not None:
        here.adopt(own.classes)
    return function
