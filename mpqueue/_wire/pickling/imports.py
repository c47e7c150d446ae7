"""The program's changes to its imports, so that its workers import the same.

Importable objects are sent by name. A worker needs the program's ``sys.path`` for that; and if the program has reloaded
a module after an edit, in a notebook say, its workers are replaced by new ones. Only users' modules, which are few, are
looked at, not the standard library and installed packages.
"""

from __future__ import annotations

import contextlib
import encodings
import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any

from mpqueue._plain import plain

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
