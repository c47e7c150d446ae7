"""The program's imports in a worker: its changes to them, and ``__main__`` for the functions of a script.

Journals name `_namespace` of this module.

Importable objects are sent by name. A worker needs the program's ``sys.path`` for that; and if the program has reloaded
a module after an edit, in a notebook say, its workers are replaced by new ones. Only users' modules, which are few, are
looked at, not the standard library and installed packages.

Functions of a script are sent by value, each pickle with the global variables that its functions read, so functions
from different pickles have separate variables. Programs with an initializer expect that it sets globals for later
functions. So what an initializer reads or sets of them is its worker's own: functions that come later get it in place
of the program's values. The same is true of attributes that it sets on the script's functions.

A job's handler and its setup share one namespace too (`together`): a setup may set globals that the handler reads.

The workers of `Pool` and `Executor` have imported the main module, if it can be imported: objects that they find there
are sent by name (`found_by_name`), and an initializer's namespace is that module's.
"""

from __future__ import annotations

import contextlib
import encodings
import functools
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NewType, ParamSpec, TypeVar

from mpqueue._plain import plain
from mpqueue._wire.pickling import beside
from mpqueue._wire.pickling.classes import in_scope, of_initializers

if TYPE_CHECKING:
    from mpqueue._wire.pickling.script import Script


_NONE = object()
_CODE = (FunctionType, ModuleType, type, type(functools.cache(len)))

_space: dict[str, Any] | None = None  #: the namespace of this worker's initializers
_kept: set[str] = set()  #: the names in it that are the worker's own
_imported: Script | None = None  #: the main module, in a worker that has imported it
_attributes: dict[str, dict[str, Any]] = {}  #: by the names of functions in it: attributes that initializers have set


#: Names of a script's module; the second one if `multiprocessing` has started this process by spawn.
NAMES = ("__main__", "__mp_main__")
#: The part of a pickle that shows either name.
MARK = b"_main__"


class MainNames(dict[str, Any]):
    """A stand-in for the namespace of ``__main__`` in a pickle."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _namespace, (dict(self),)


class _Thread(threading.local):
    names: dict[str, Any] | None = None  #: for objects that this thread loads `together`
    made: list[dict[str, Any]] | None = None  #: the namespaces of functions that it loads `with_own`


_thread = _Thread()


def set_imported(script: Script) -> None:
    """Note that this process has imported the program's main module, so its names are the program's too."""
    global _imported  # noqa: PLW0603 - one for the process
    _imported = script


#: Types that are looked up by name; all others are no part of a module, or are sent by value anyway.
_NAMED = (FunctionType, type, type(functools.cache(len)), TypeVar, ParamSpec, NewType)


def finds_names() -> bool:
    """True if the receiver of this thread's pickles has imported the main module."""
    return beside.script.get(_imported) is not None


def found_by_name(obj: Any) -> str | None:
    """The name by which the other side finds the object in the main module; None if it does not, or has no name."""
    script = beside.script.get(_imported)
    if script is None or not isinstance(obj, _NAMED) or getattr(obj, "__module__", None) not in NAMES:
        return None
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if type(name) is not str or not script.has(name):
        return None
    found: Any = sys.modules["__main__"]
    for part in name.split("."):
        found = getattr(found, part, None)
    return name if found is obj else None


@contextmanager
def together(names: dict[str, Any] | None = None) -> Iterator[None]:
    """Give one namespace to all functions of ``__main__`` that are unpickled in the block: this one, or a new one."""
    before, _thread.names = _thread.names, {} if names is None else names
    try:
        yield
    finally:
        _thread.names = before


def names_of(handler: Any, setup: Any) -> dict[str, Any] | None:
    """Return the namespace that these functions, unpickled `together`, have in common; None if they have none."""
    found = [names for function in (handler, setup) if (names := _globals_of(function)) is not None]
    return found[0] if found and found[-1] is found[0] else None


def _globals_of(function: Any) -> dict[str, Any] | None:
    while type(function) in (functools.partial, MethodType):
        function = function.func if type(function) is functools.partial else function.__func__
    return function.__globals__ if type(function) is FunctionType and function.__module__ in NAMES else None


def _namespace(names: dict[str, Any]) -> dict[str, Any]:
    found = names if _thread.names is None else _thread.names
    if found is not names:
        found.update(names)
    if _thread.made is not None:
        _thread.made.append(found)
    return found


def namespaces() -> Iterator[dict[str, Any]]:
    """The dictionaries that are the globals of functions of ``__main__`` in this process."""
    main = sys.modules.get("__main__")
    if main is not None:
        yield vars(main)
    if (names := beside.namespace.get()) is not None:
        yield names


def run_initializer(load: Callable[[], Callable[[], object]]) -> None:
    """Load an initializer and call it: what it reads and sets is this worker's own from then on, for all functions.

    A queue's ``preload`` function is one too; the initializer sees the globals that it has set.
    """
    global _space  # noqa: PLW0603 - a process is one worker
    if _space is None:
        _space = {}
        if _imported is not None:  # a function that reads the module's name would bring the program's
            _space = vars(sys.modules["__main__"])
            _kept.add("__name__")
    with in_scope(of_initializers):
        with together(_space):
            initializer = load()
        before, marks = dict(_space), _marks(_space)
        try:
            initializer()
        finally:
            _kept.update(
                name
                for name, value in _space.items()
                if not name.startswith("__") and (before.get(name) is not value or not isinstance(value, _CODE))
            )
            for name, now in _marks(_space).items():
                then = marks.get(name, {})
                new = {mark: value for mark, value in now.items() if then.get(mark, _NONE) is not value}
                _attributes.setdefault(name, {}).update(new)


def _marks(names: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the attributes of the functions in a namespace, by their names."""
    return {name: dict(vars(value)) for name, value in names.items() if isinstance(value, FunctionType)}


def has_own() -> bool:
    """True in a worker that has run an initializer."""
    return _space is not None


@contextmanager
def with_own() -> Iterator[None]:
    """Give the functions of ``__main__`` that are unpickled in the block what is this worker's own. If `has_own`."""
    assert _space is not None
    own = {name: _space[name] for name in _kept if name in _space}
    made: list[dict[str, Any]] = []
    before, _thread.made = _thread.made, made
    try:
        yield
    finally:
        _thread.made = before
        for names in made:
            names.update(own)
            for name, attributes in _attributes.items():
                if isinstance(function := names.get(name), FunctionType):
                    vars(function).update(attributes)


#: Folders with a separator at their end. On Windows C modules have another one, and an embedded Python has all others
#: in a zip; `encodings` is never built into the interpreter, unlike `os`.
STANDARD_LIBRARY = tuple(
    os.path.join(folder, "")
    for folder in (
        os.path.dirname(os.__file__),
        os.path.dirname(os.path.dirname(encodings.__file__)),
        os.path.join(sys.base_prefix, "DLLs"),
    )
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_OWN = __name__.partition(".")[0]
#: Tools that change modules in place after an edit, which look unchanged: with these, the files are looked at.
_RELOADERS = ("IPython.extensions.autoreload", "jurigged")

_Stamp = tuple[int, int, int]


class ImportWatch:
    """The program's ``sys.path``, and whether it has reloaded modules."""

    def __init__(self) -> None:
        self._path: tuple[str, ...] = ()
        self._own_path: list[str] = []
        #: Users' modules: their specs, since a reload makes a new one; and their files, since there is a tool that
        #: changes them in place.
        self._known: dict[str, tuple[Any, _Stamp | None]] = {}
        self._count = 0  #: the number of all modules at the last look for new ones

    def look(self) -> bool:
        """True if modules were reloaded, imported again, or edited under a reloading tool since the last call.

        Costs 0.1 us per user's module; 2 us with ``%autoreload``. More if there are new ones.
        """
        modules, in_place = sys.modules, _are_edited_in_place()
        changed = []
        for name, known in self._known.items():
            module = modules.get(name)
            spec = getattr(module, "__spec__", None)
            if spec is None:
                continue
            if spec is not known[0]:
                changed.append(name)
            elif in_place and _stamp_of(module) not in (None, known[1]):
                changed.append(name)
                forget_compiled(module)
        for name in changed:
            self._take_in(name, modules.get(name))
        if len(modules) != self._count:
            self._count = len(modules)
            # Other threads import meanwhile, and a list is not made in one step.
            for name, module in modules.copy().items():
                if name not in self._known:
                    self._take_in(name, module)
        return bool(changed)

    def path_now(self) -> tuple[str, ...]:
        """Return ``sys.path``, with the current folder spelled out."""
        if sys.path != self._own_path:
            self._own_path = list(sys.path)
            self._path = tuple(plain(entry) or os.getcwd() for entry in self._own_path)
        return self._path

    def _take_in(self, name: str, module: Any) -> None:
        if is_users(name, module):
            self._known[name] = module.__spec__, _stamp_of(module)
        else:
            self._known.pop(name, None)


def _are_edited_in_place() -> bool:
    return any(name in sys.modules for name in _RELOADERS)


def _stamp_of(module: Any) -> _Stamp | None:
    try:
        found = os.stat(vars(module)["__file__"])
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def is_users(name: str, module: Any) -> bool:
    """True for a module that is neither the standard library's, nor installed, nor mpqueue's own."""
    if name.startswith("__") or name.partition(".")[0] == _OWN:
        return False
    try:
        file = vars(module).get("__file__")
    except TypeError:  # an arbitrary object that code has put among the modules
        return False
    if not isinstance(file, str) or vars(module).get("__spec__") is None:
        return False
    return not file.startswith(STANDARD_LIBRARY) and not any(map(file.__contains__, _INSTALLED))


def take_path(path: tuple[str, ...]) -> None:
    """Import from the program's places; called in a worker."""
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    importlib.invalidate_caches()


def forget_compiled(module: Any) -> None:
    """Remove a module's compiled code, which would still be valid after an edit in the same second to the same size."""
    with contextlib.suppress(OSError, NotImplementedError, ValueError):
        os.unlink(importlib.util.cache_from_source(str(vars(module).get("__file__"))))


# -- Modules whose name is the path of their file: for a file whose own name is another module's. ----------------------
#
# ``json.py`` in a folder of the user's, or a second ``step.py``, can't be imported by that name. Under the name of
# `module_name_of` it can, in the program, in each worker, and by a journal's reader: objects pickled by name are found
# in that file, or not at all.

_BEGINNING = "file@"


def module_name_of(path: str) -> str:
    """Return the name under which that file, an absolute path, can be imported. It has no dot, colon or space."""
    from urllib.parse import quote  # 2 ms, and few programs need it

    return _BEGINNING + quote(os.fsencode(path)).replace(".", "%2E")


class NamedFiles:
    """The finder of these modules only."""

    @staticmethod
    def find_spec(name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Find the module for the import system, which also passes its package and the module to replace."""
        if not name.startswith(_BEGINNING):
            return None
        from urllib.parse import unquote_to_bytes

        file = os.fsdecode(unquote_to_bytes(name.removeprefix(_BEGINNING)))
        return importlib.util.spec_from_file_location(name, file) if os.path.isfile(file) else None


sys.meta_path.append(NamedFiles)
