"""Digests of the parts of a handler, which show whether results were made by today's code.

All that is sent by value belongs to it: its code, defaults and closure, bound objects, and the functions, classes and
data of its script that it names, directly or through others. Each is a part with a name, so that changes can be named.
The source of modules in the program's own folders is a part. Line numbers and comments do not count. Installed packages
are no parts: their versions are only reported.

Another version of Python compiles to other code: results of two versions can't be compared.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import inspect
import os
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, NamedTuple

from mpqueue._parent.journal.identity import NoIdentityError, Steps, Writer, encode_plain
from mpqueue._wire.memory.shared import Shared
from mpqueue._wire.pickling import main_names
from mpqueue._wire.pickling.main_names import is_users
from mpqueue._wire.pickling.packed_functions import globals_of, is_importable
from mpqueue._wire.pickling.packed_handler import name_of
from mpqueue._wire.pickling.sources import digests_of, not_loaded

#: The Python that compiled it, and the version of these parts' form.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}/3"
#: The most changed parts that are named.
MOST_NAMED = 3

#: Attributes of classes that do not affect what these do, or that Python makes from others.
_NO_PARTS = frozenset(
    ("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__annotations__", "__annotate__",
     "__annotate_func__", "__annotations_cache__", "__firstlineno__", "__static_attributes__", "_abc_impl",
     "__dataclass_fields__", "__dataclass_params__")
)  # fmt: skip


_METHODS = (FunctionType, classmethod, staticmethod, property)
_CODE = (FunctionType, type, ModuleType, functools._lru_cache_wrapper)


class Code(NamedTuple):
    """The parts of a handler and its setup: digests by the parts' names."""

    python: str
    parts: Mapping[str, str]
    packages: Mapping[str, str]  #: versions of the installed packages that it names

    @property
    def number(self) -> int:
        """The number that stands for it in a journal, beside each result. Not 0."""
        return zlib.crc32(repr((self.python, sorted(self.parts.items()))).encode(errors="replace")) or 1


class CodeNow(NamedTuple):
    """Today's code, with the places of its parts, for people."""

    code: Code
    places: Mapping[str, str]

    def describe(self, before: Iterable[Code]) -> str:
        """Describe which parts have changed since ``then``, for people."""
        changed: dict[str, None] = {}
        packages: dict[str, None] = {}
        for each in before:
            names = [name for name, digest in each.parts.items() if self.code.parts.get(name, digest) != digest]
            others = (
                name for name in (*self.code.parts, *each.parts) if (name in self.code.parts) != (name in each.parts)
            )
            changed.update(dict.fromkeys(names or others))
            for name, version in each.packages.items():
                if (now := self.code.packages.get(name, version)) != version:
                    packages[f"{name} is {now} and was {version}"] = None
        named = [self.places.get(name, f"`{name}`") for name in changed]
        if len(named) == 1:
            text = f"{named[0]} has changed"
        else:
            if len(named) > MOST_NAMED + 1:
                named = [*named[:MOST_NAMED], f"{len(named) - MOST_NAMED} others"]
            text = f"{', '.join(named[:-1])} and {named[-1]} have changed"
        return f"{text} ({', '.join(packages)})" if packages else text


def code_of(functions: Iterable[tuple[str, Callable[..., Any] | None]]) -> CodeNow:
    """Return the code of functions, each with its name for people. May run code of the classes of their data.

    Costs a digest of the data, and a few milliseconds per 1,000 lines of the modules, once until these are edited.
    """
    return _CodeWriter().look(functions)


class _CodeWriter(Writer):
    """A writer of a function's parts; functions, classes and modules in them are written as references."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: dict[str, str] = {}
        self._where: dict[str, str] = {}
        self._packages: dict[str, str] = {}
        self._named: dict[int, tuple[Any, str]] = {}  #: objects sent by value, with their names, by address
        self._names: set[str] = set()
        self._modules: set[str] = set()
        #: Parts still to be written: the name, and a value, or an object that yields its steps.
        self._waiting: deque[tuple[str, Any]] = deque()

    def look(self, functions: Iterable[tuple[str, Callable[..., Any] | None]]) -> CodeNow:
        """Return the code of these functions, each with its name."""
        for name, function in functions:
            self._waiting.append((name, function))
            if function is not None:
                called = f"`{name_of(function).removeprefix('__main__.')}`"
                is_bare = isinstance(function, FunctionType)
                self._where[name] = f"{name} (now {called})" if is_bare else f"what is bound to {called}"
            else:
                self._where[name] = name
        while self._waiting:
            name, value = self._waiting.popleft()
            try:
                form = self.write(value)
            except NoIdentityError:
                form = _opaque(value)
            self._parts[name] = hashlib.blake2b(form, digest_size=8).hexdigest()
        for name, digest in digests_of(self._modules).items():
            self._parts[f"module {name}"] = digest
            file = os.path.basename(str(getattr(sys.modules.get(name), "__file__", name)))
            self._where[f"module {name}"] = f"`{file}`"
        return CodeNow(Code(PYTHON, self._parts, self._packages), self._where)

    # -- references ------------------------------------------------------------------------------------------

    def form_at_once(self, value: Any, depth: int) -> bytes | None:
        """Write a module as a reference; anything else as `Writer` does."""
        form = super().form_at_once(value, depth)
        if form is None and isinstance(value, ModuleType):
            self._reach(value.__name__)
            return b"M%b" % value.__name__.encode(errors="surrogatepass")
        return form

    def by_name(self, value: Any, name: str) -> bytes:
        """Write a reference to an object that has a name; an object sent by value is a part of its own."""
        if is_importable(value):
            module = str(value.__module__)
            if self._reach(module) and isinstance(value, FunctionType):
                self._wait(value, f"{module}.{name}", _Part(self._own_function, value))
        elif isinstance(value, FunctionType):
            return self._wait(value, _name_of(value, name), _Part(self._function, value))
        elif isinstance(value, type):
            return self._wait(value, _name_of(value, name), _Part(self._class, value))
        elif hasattr(value, "__wrapped__"):  # as the objects of `functools.cache`
            return self._wait(value, _name_of(value, name), (type(value).__name__, value.__wrapped__))
        return b"g%b" % f"{getattr(value, '__module__', '')} {name}".encode(errors="surrogatepass")

    def _wait(self, value: Any, name: str, content: Any) -> bytes:
        """Queue a part to be written later; return the reference to it."""
        if id(value) not in self._named:
            unique, count = name, 1
            while unique in self._names:
                count += 1
                unique = f"{name} #{count}"
            self._names.add(unique)
            self._named[id(value)] = value, unique
            self._waiting.append((unique, content))
            self._where[unique] = f"`{name}`{_place_of(value)}"
        return b"v%b" % self._named[id(value)][1].encode(errors="surrogatepass")

    def _reach(self, name: str) -> bool:
        """Add a module that is named; return True if it is the program's own."""
        module = sys.modules.get(name)
        is_own = not_loaded(name) is not None if module is None else is_users(name, module)
        if is_own:
            self._modules.add(name)
        else:
            package = name.partition(".")[0]
            version = getattr(sys.modules.get(package), "__version__", None)
            if isinstance(version, str) and package not in sys.stdlib_module_names:
                self._packages[package] = version
        return is_own

    # -- parts -----------------------------------------------------------------------------------------------

    def steps_of(self, value: Any) -> Steps:
        """Write a value of a handler; if it can't be pickled, only its type counts."""
        if isinstance(value, _Part):
            return value.write(value.value)
        if isinstance(value, CodeType):
            return self.sequence(b"C", _code_fields(value))
        if isinstance(value, Shared):
            return self.sequence(b"S", (value.value,))
        if isinstance(value, classmethod | staticmethod):
            return self.sequence(b"W", (type(value).__name__, value.__func__))
        if isinstance(value, property):
            return self.sequence(b"W", (value.fget, value.fset, value.fdel))
        return self._any_steps(value)

    def _any_steps(self, value: Any) -> Steps:
        try:
            return (yield from super().steps_of(value))
        except Exception:  # noqa: BLE001 - whatever a class of users' raises
            return _opaque(value)

    def _note_imports(self, code: CodeType) -> None:
        """Add the modules that the code imports when it runs."""
        for name in _imports_of(code):
            self._reach(name)

    def _function(self, function: FunctionType) -> Steps:
        """Write a function that is sent by value: its code, and its variables and attributes."""
        code, space = function.__code__, function.__globals__
        self._note_imports(code)
        named: list[Any] = []
        for name in globals_of(code):
            if name not in space:
                continue
            named.append(name)
            value = space[name]
            if isinstance(value, _CODE) or is_importable(value):
                named.append(value)
                continue
            data = _without_main(f"{space.get('__name__', '')}.{name}")
            if data not in self._names:  # a part of its own
                self._names.add(data)
                self._waiting.append((data, value))
        cells = [*_contents(function)]
        attributes = dict(vars(function))
        return self.sequence(b"V", (code, function.__defaults__, function.__kwdefaults__, cells, attributes, named))

    def _own_function(self, value: FunctionType) -> Steps:
        """Write a function of one of the program's own modules: its code, and plain data that it names."""
        function = inspect.unwrap(value)
        code = getattr(function, "__code__", None)
        if not isinstance(code, CodeType):
            return self.sequence(b"Y", ())
        self._note_imports(code)
        space = function.__globals__
        plain = [(name, encode_plain(space[name])) for name in globals_of(code) if name in space]
        return self.sequence(b"Y", (code, plain))

    def _class(self, kind: type) -> Steps:
        """Write a class that is sent by value: its metaclass, bases and attributes."""
        attributes = {name: value for name, value in vars(kind).items() if name not in _NO_PARTS}
        if issubclass(kind, enum.Enum):
            attributes = {name: value for name, value in attributes.items() if isinstance(value, _METHODS)}
            attributes |= {f"{member.name} =": member.value for member in kind}
        slots = (MemberDescriptorType, GetSetDescriptorType)
        held = {name: None if isinstance(value, slots) else value for name, value in attributes.items()}
        return self.sequence(b"K", (type(kind), kind.__bases__, held))


class _Part:
    """A value that has its own way of being written."""

    def __init__(self, write: Callable[[Any], Steps], value: Any) -> None:
        self.write = write
        self.value = value


def _code_fields(code: CodeType) -> Sequence[Any]:
    """Return the fields that define what the code does, without line numbers."""
    constants = code.co_consts
    if "__firstlineno__" in code.co_names:
        constants = tuple(each for each in constants if each != code.co_firstlineno)
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_code, code.co_exceptiontable, constants, *names, *counts


def _contents(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield (cell.cell_contents,)
        except ValueError:  # it is empty
            yield ()


def _opaque(value: Any) -> bytes:
    return b"?%b" % type(value).__qualname__.encode(errors="surrogatepass")


def _name_of(value: Any, name: str) -> str:
    return _without_main(f"{getattr(value, '__module__', '')}.{name}".replace("<locals>.", ""))


def _without_main(name: str) -> str:
    module, _, rest = name.partition(".")
    return rest if module in main_names.NAMES else name


def _place_of(value: Any) -> str:
    code = getattr(value, "__code__", getattr(inspect.unwrap(value), "__code__", None))
    return f" ({os.path.basename(code.co_filename)}:{code.co_firstlineno})" if isinstance(code, CodeType) else ""


@functools.lru_cache(maxsize=1024)
def _imports_of(code: CodeType) -> tuple[str, ...]:
    """Return the modules that the code, and functions in it, import by their full names."""
    names = [each.argval for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME" and each.argval]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _imports_of(constant)
    return tuple(dict.fromkeys(names))
