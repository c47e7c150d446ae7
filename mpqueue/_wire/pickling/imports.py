"""Imports: what the parent has done to its own since the last news to a worker, so that the worker can do the same.

What can be imported is sent by name. For a worker that has been there for a while to run what the parent would run, it
needs the parent's ``sys.path``, and must reload the modules that the parent has reloaded, or patched in place, after an
edit in a notebook say. Modules of the standard library and of installed packages are not looked at; those of the user
are few.
"""

from __future__ import annotations

import contextlib
import encodings
import importlib
import importlib.util
import os
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._plain import plain

if TYPE_CHECKING:
    from mpqueue._wire.pickling.edits import Contents, KnownSource

#: Folders with a separator at their end. On Windows that of C modules is another one, and an embedded Python has all
#: others in a zip; `encodings` is never built into the interpreter, as `os` is.
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
#: What changes modules in place. In a program without these nothing is looked at closely, nor remembered for that.
_PATCHERS = ("IPython", "jurigged")


class ImportNews(NamedTuple):
    """``path`` is the parent's ``sys.path`` where that is new; ``reloaded`` are module names, in order."""

    path: tuple[str, ...] | None
    reloaded: tuple[str, ...]


class ImportWatch:
    """The parent's half. ``reloaded`` grows by a name each time that a module is found reloaded, or imported anew.

    So it does for a module that was patched in place after an edit, and for those that have functions or classes from
    it: in the parent these have the new ones, in a worker they get them by a reload.
    """

    def __init__(self) -> None:
        self.path: tuple[str, ...] = ()
        self.reloaded: list[str] = []
        self._own_path: list[str] = []
        self._specs: dict[str, Any] = {}  #: of the user's modules; a reload makes a new one
        #: The same modules as they were at the last change, where they may be patched.
        self._known: dict[str, tuple[Contents, KnownSource]] = {}
        self._count = 0  #: of all modules, when new ones were last looked for

    def look(self, *, closely: bool = False) -> None:
        """See what has changed; what was patched in place only if ``closely``.

        Costs 0.1 us for each of the user's modules; closely some 3 us, if the program has what patches them. More when
        there are new ones.
        """
        closely = closely and _may_be_patched()
        self._look_at_path()
        modules = sys.modules
        changed: dict[str, Any] = {}
        patched: set[str] = set()
        for name, known in self._specs.items():
            module = modules.get(name)
            spec = getattr(module, "__spec__", None)
            if spec is None:
                continue
            if spec is not known:
                changed[name] = module
                if name in self._known and self._known[name][0].was_patched():
                    patched.add(name)
            elif closely and self._has_taken_over(name, module):
                changed[name] = module
                patched.add(name)
        for name, module in changed.items():
            self._take_in(name, module)
        if len(modules) != self._count:
            self._count = len(modules)
            for name, module in list(modules.items()):
                if name not in self._specs:
                    self._take_in(name, module)
        self.reloaded += self._with_dependents([*changed], patched) if patched else changed

    def _look_at_path(self) -> None:
        if sys.path != self._own_path:
            self._own_path = list(sys.path)
            self.path = tuple(plain(entry) or os.getcwd() for entry in self._own_path)

    def _take_in(self, name: str, module: Any) -> None:
        """What it is now is what later looks compare it with."""
        if is_users(name, module):
            self._specs[name] = module.__spec__
            if _may_be_patched():
                self._remember(name, module)
        else:
            self._specs.pop(name, None)
            self._known.pop(name, None)

    def _remember(self, name: str, module: ModuleType, source: KnownSource | None = None) -> None:
        from mpqueue._wire.pickling.edits import Contents, KnownSource  # only a program that may patch its modules

        self._known[name] = Contents(module), source or KnownSource(vars(module)["__file__"])

    def _has_taken_over(self, name: str, module: Any) -> bool:
        """Whether an edit of this module was taken over in place since the last change."""
        if name not in self._known:
            self._remember(name, module)
        contents, source = self._known[name]
        if not contents.has_changed() or (edited := source.edited_names()) is None:
            return False
        if not edited & contents.changed_names():
            self._remember(name, module, source)
            return False
        forget_compiled(module)
        return True

    def _is_as_in_file(self, name: str) -> bool:
        return name not in self._known or self._known[name][1].is_current

    def _with_dependents(self, changed: list[str], patched: set[str]) -> list[str]:
        """Those modules, and after them those that have something from the patched ones, unless edited since."""
        modules = sys.modules.copy()
        uses = {name: used_by(modules[name]) for name in self._specs if is_users(name, modules.get(name))}
        stale = set(patched)
        while more := {name for name in uses if name not in stale and uses[name] & stale and self._is_as_in_file(name)}:
            stale |= more
        ordered: list[str] = []
        visited: set[str] = set()

        def visit(name: str) -> None:
            if name not in visited:
                visited.add(name)
                for used in sorted(uses.get(name, set()) & stale):
                    visit(used)
                ordered.append(name)

        for name in [*changed, *(name for name in uses if name in stale)]:
            visit(name)
        return ordered


def _may_be_patched() -> bool:
    return any(name in sys.modules for name in _PATCHERS)


def used_by(module: ModuleType) -> set[str]:
    """The modules of the functions and classes that it holds, of its classes' bases, and of its objects' classes."""
    found: set[str] = set()
    for value in list(vars(module).values()):
        kind = type(value)
        if kind is FunctionType:
            names = [value.__module__]
        else:
            names = [vars(each).get("__module__") for each in (value if issubclass(kind, type) else kind).__mro__]
        found.update(name for name in names if isinstance(name, str))
    return found


def is_users(name: str, module: Any) -> bool:
    """True for a module that is neither the standard library's, nor installed, nor mpqueue's own."""
    if name.startswith("__") or name.partition(".")[0] == _OWN:
        return False
    try:
        file = vars(module).get("__file__")
    except TypeError:  # any object that code has put among the modules
        return False
    if not isinstance(file, str) or vars(module).get("__spec__") is None:
        return False
    return not file.startswith(STANDARD_LIBRARY) and not any(folder in file for folder in _INSTALLED)


def catch_up(news: ImportNews) -> None:
    """The worker's half: do as the parent did. Never raises."""
    if news.path is not None:
        sys.path[:] = [*news.path, *(entry for entry in sys.path if entry not in news.path)]
    importlib.invalidate_caches()
    for name in news.reloaded:
        module = sys.modules.get(name)
        if module is None:
            continue
        try:
            importlib.reload(module)
        except BaseException:  # noqa: BLE001 - code that needs it imports it anew, and gets the error
            sys.modules.pop(name, None)


def forget_compiled(module: ModuleType) -> None:
    """Compiled code counts as that of a file of the same size and second: an edit may be quicker than that."""
    with contextlib.suppress(OSError, NotImplementedError, ValueError):
        os.unlink(importlib.util.cache_from_source(str(vars(module).get("__file__"))))
