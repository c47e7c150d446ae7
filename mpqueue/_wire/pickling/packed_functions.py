"""Functions that are sent with calls: by name if the other side can import them, else by value, once per call.

Pickling a function of a script or a closure by value takes 100 us and more, and unpickling it as long. So it is pickled
when a call is made, or once for many calls that are made together, in its state at that time; and not again if nothing
can have changed it: all that it reads is constant, and the same objects as before. A worker keeps it by its bytes: it
keeps its global variables, classes and cache there, with changes by earlier calls, like a function of a module. They
are not shared: another function, or the same one with other values, has its own. A closure, and the arguments of a
`functools.partial`, are sent with each call, like arguments.
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
from typing import TYPE_CHECKING, Any

from mpqueue._os.process_signals import came_of_signal
from mpqueue._wire.pickling import beside, main_names
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.classes import BringsClasses, Scope, in_scope, scope_here
from mpqueue._wire.pickling.payload import Packed, dump_code, load

if TYPE_CHECKING:
    from mpqueue._wire.pickling.script import Script


#: The most functions that a process keeps, on either side; the least recently used goes first.
MAX_KEPT_FUNCTIONS = 64
#: The most bytes of a pickled function that is kept.
MAX_KEPT_BYTES = 100_000

#: The type that `functools.cache` makes of a function.
CACHED: type = functools._lru_cache_wrapper  # noqa: SLF001
#: By identity: a class may have a metaclass that compares them.
_CONSTANTS = {id(kind) for kind in (int, float, complex, str, bytes, bool, type(None), type(Ellipsis), range)}


class PackedFunction(BringsClasses):
    """A function pickled by value. Unpickling returns the function itself, the same one for the same bytes and number.

    The bytes are compressed, so that ``__main__`` in them does not make the rest go by value too. ``number`` changes
    each time that the program's function changes, even back to an earlier state: a worker's copy of that is outdated.
    """

    def __init__(self, function: Callable[..., Any], data: bytes, number: int, classes: Sequence[str]) -> None:
        self.function = function
        self.__name__, self.__qualname__ = function.__name__, function.__qualname__
        self.__module__ = function.__module__
        self.data = data
        self.number = number
        self.classes = classes
        self.parts: tuple[Any, ...] | None = None  #: all that it was made of, if none of that can change unnoticed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; a `functools.partial` takes only callables."""
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, (self.data, self.number)


_numbers = itertools.count(1)


class FunctionPacker:
    """The parent's packer of functions, which remembers what it has packed. Any thread may use it.

    ``script``: the main module that the workers have imported, whose functions are sent by name.
    """

    def __init__(self, *, script: Script | None = None) -> None:
        self._script = script
        self._known: OrderedDict[int, PackedFunction] = OrderedDict()
        self._lock = threading.Lock()

    def pack(self, function: Any) -> Any:
        """Return an object to send in its place; the function itself if it is named, a closure, or too big to keep."""
        if type(function) is functools.partial:
            return self._pack_partial(function)
        if type(function) not in (FunctionType, CACHED) or is_importable(function):
            return function
        own: Any = vars(function).get("__wrapped__") if type(function) is CACHED else function
        if getattr(own, "__closure__", None):
            return function
        return within(lambda: self._pack_function(function), (beside.script, self._script))

    def _pack_function(self, function: Any) -> Any:
        if main_names.found_by_name(function) is not None:
            return function
        parts = constant_parts(function)
        known = self._known.get(id(function))
        if parts is not None and known is not None and known.parts is not None and are_same(known.parts, parts):
            return known
        classes: list[str] = []
        try:
            packed, _ = dump_code(function, brought=classes)
        except Exception as error:  # every error is raised for the call that brings it
            if came_of_signal(error):
                raise
            return function
        if not can_be_kept(packed):
            return function
        data = zlib.compress(packed.data, 1)
        return self._keep(PackedFunction(function, data, next(_numbers), classes), parts)

    def _keep(self, packed: PackedFunction, parts: tuple[Any, ...] | None) -> PackedFunction:
        """Keep it, or return the kept one if nothing of it has changed."""
        key = id(packed.function)
        with self._lock:
            known = self._known.get(key)
            if known is None or known.function is not packed.function or known.data != packed.data:
                known = packed
            known.parts = parts
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > MAX_KEPT_FUNCTIONS:
                self._known.popitem(last=False)
        return known

    def _pack_partial(self, function: functools.partial[Any]) -> functools.partial[Any]:
        inner = self.pack(function.func)
        if inner is function.func:
            return function
        again = functools.partial(inner, *function.args, **function.keywords)
        vars(again).update(vars(function))
        return again

    def pack_all(self, functions: Sequence[Any]) -> list[Any]:
        """`pack` for functions that are sent together: each is looked at only once."""
        packed: dict[int, Any] = {}
        for function in functions:
            if id(function) not in packed:
                packed[id(function)] = self.pack(function)
        return [packed[id(function)] for function in functions]


def can_be_kept(packed: Packed) -> bool:
    return packed.segment is None and packed.size <= MAX_KEPT_BYTES


def are_same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    return len(before) == len(now) and all(map(operator.is_, before, now))


def is_importable(named: Any) -> bool:
    """True if a worker finds the very same object by its module and name."""
    return getattr(named, "__module__", None) not in main_names.NAMES and is_found(named)


def is_found(named: Any) -> bool:
    """True if its module has this very object under its name."""
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
    """Return all that pickling the function by value would include, if none of it can change unnoticed; else None.

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
    """Return the parts of a value that can't change; None if it may change."""
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return list(value)
    if kind is CodeType:
        return []
    if (kind is CACHED or issubclass(kind, type | BuiltinFunctionType)) and is_importable(value):
        return []
    if kind is FunctionType:
        return [] if is_importable(value) else _inputs_of(value)
    if kind is functools.partial:
        return [value.func, value.args, *_named(value.keywords), *_named(vars(value))]
    return None


def _inputs_of(function: FunctionType) -> list[Any] | None:
    """Return a function's inputs: its code, defaults, attributes, closure and global variables."""
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
    """Return the values with their names: a value may get another name, so names are parts too."""
    return [len(values), *values, *values.values()]


@functools.lru_cache(maxsize=1024)
def globals_of(code: CodeType) -> tuple[str, ...]:
    """Return the global variables that a code object, and those inside it, read or write, by name."""
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


def unpack(data: bytes, number: int) -> Callable[..., Any]:
    """Return the function, unpickled when its bytes come for the first time. On the thread that unpickles the calls.

    Objects that come with it, such as its arguments, have its classes.
    """
    function, own = _load(data, number)
    if (here := scope_here()) is not None and own is not None:
        here.adopt(own.classes)
    return function


@functools.lru_cache(maxsize=MAX_KEPT_FUNCTIONS)
def _load(data: bytes, _: int) -> tuple[Callable[..., Any], Scope | None]:
    here = scope_here()
    own = None if here is None else Scope()
    with in_scope(own):
        return load(Packed(zlib.decompress(data))), own
