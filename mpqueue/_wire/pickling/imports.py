"""Imports: what the parent has done to its own since the last news to a worker, so that the worker can do the same.

What can be imported is sent by name. For a worker that has been there for a while to run what the parent would run, it
needs the parent's ``sys.path``, and must reload the modules that the parent has reloaded, after an edit in a notebook
say. Modules of the standard library and of installed packages are not looked at; those of the user are few.
"""

from __future__ import annotations

import encodings
import importlib
import os
import sys
from typing import Any, NamedTuple

from mpqueue._plain import plain

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


class ImportNews(NamedTuple):
    """``path`` is the parent's ``sys.path`` where that is new; ``reloaded`` are module names, in order."""

    path: tuple[str, ...] | None
    reloaded: tuple[str, ...]


class ImportWatch:
    """The parent's half. ``reloaded`` grows by a name each time that a module is found reloaded, or imported anew."""

    def __init__(self) -> None:
        self.path: tuple[str, ...] = ()
        self.reloaded: list[str] = []
        self._own_path: list[str] = []
        self._specs: dict[str, Any] = {}  #: of the user's modules; a reload makes a new one
        self._count = 0  #: of all modules, when new ones were last looked for

    def look(self) -> None:
        """See what has changed. Costs 0.1 us for each of the user's modules, more when there are new ones."""
        if sys.path != self._own_path:
            self._own_path = list(sys.path)
            self.path = tuple(plain(entry) or os.getcwd() for entry in self._own_path)
        modules = sys.modules
        for name, known in self._specs.items():
            spec = getattr(modules.get(name), "__spec__", None)
            if spec is not known and spec is not None:
                self._specs[name] = spec
                self.reloaded.append(name)
        if len(modules) != self._count:
            self._count = len(modules)
            for name, module in list(modules.items()):
                if name not in self._specs and is_users(name, module):
                    self._specs[name] = module.__spec__


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
